"""Takes over what the old program left, once for each host; deleted with 3.0."""
