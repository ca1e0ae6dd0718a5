"""Alembic runs this file, only through `lectern.db.schema`: the wanted revisions, on the configuration's connection."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
