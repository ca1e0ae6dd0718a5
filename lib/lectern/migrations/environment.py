"""What both Alembic environments do: run the revisions in the transaction that the caller has begun."""

from alembic import context
from sqlalchemy import Connection


def run() -> None:
    """Run the wanted revisions on the configuration's connection; the caller commits."""
    connection = context.config.attributes["connection"]
    assert isinstance(connection, Connection)
    context.configure(connection=connection, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
