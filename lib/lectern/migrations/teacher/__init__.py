"""The teacher database's Alembic environment."""
