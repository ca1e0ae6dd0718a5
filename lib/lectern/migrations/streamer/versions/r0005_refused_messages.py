"""Messages that Redis refuses are tried again by themselves; an incident knows which classes it has named."""

from sqlalchemy import MetaData

from lectern.migrations.refusals import refusals
from lectern.migrations.steps import complete

revision = "streamer_0005"
down_revision = "streamer_0004"

metadata = MetaData()
refusals(metadata)


def upgrade() -> None:
    """Make what is missing."""
    for table in metadata.tables.values():
        complete(table)
