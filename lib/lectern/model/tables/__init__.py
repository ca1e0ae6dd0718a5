"""The tables of both databases: the classes of their rows, and the tables that SQLModel makes of them."""
