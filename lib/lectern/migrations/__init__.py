"""Alembic migrations of both databases: they only add, and look before every change."""
