"""Opens the databases of both roles."""
