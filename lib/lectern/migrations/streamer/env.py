"""Run by Alembic, and only from effects/schema.py: it has no settings of its own."""

from lectern.migrations.environment import run

run()
