"""Alembic runs this file, only through effects/schema.py; it has no settings of its own."""

from lectern.migrations.steps import run

run()
