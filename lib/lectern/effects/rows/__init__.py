"""Rows of both databases: read and written, never decided."""
