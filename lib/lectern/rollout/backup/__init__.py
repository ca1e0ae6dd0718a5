"""Backups of a host or a database: made, proved, archived, copied away, restored."""
