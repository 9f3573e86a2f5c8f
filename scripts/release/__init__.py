"""The decisions: traffic, state, changes, manifest. Pure: no I/O, no clock."""
