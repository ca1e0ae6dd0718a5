"""The streamer database's Alembic environment."""
