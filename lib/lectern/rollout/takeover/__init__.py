"""Taking over from the old program, once a host; deleted with 3.0."""
