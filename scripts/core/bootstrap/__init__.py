"""What `ship bootstrap` makes: said as data, compared with what is there, and written."""
