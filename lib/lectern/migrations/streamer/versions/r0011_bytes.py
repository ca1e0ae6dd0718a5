"""Of what was sent of a class, the bytes are kept, too."""

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table

from lectern.migrations.steps import complete

revision = "streamer_0011"
down_revision = "streamer_0010"

metadata = MetaData()
Table(
    "as_run_list",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sent_bytes", BigInteger().with_variant(Integer, "sqlite")),
)


def upgrade() -> None:
    """Make what is missing."""
    for table in metadata.tables.values():
        complete(table)
