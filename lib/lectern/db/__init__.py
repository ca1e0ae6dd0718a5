"""The tables of a host: each module reads and writes the rows of one subject."""
