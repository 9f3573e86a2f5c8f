"""What decides: traffic, state and changes. Pure: no I/O, no clock."""
