"""A random day against the real processes, while they are killed, stopped, cut off and started again."""
