"""Since when a change of a class waits for the playout's confirmation, so that it is reported after a restart, too."""

from sqlalchemy import Column, Float

from lectern.migrations.steps import ensure

revision = "streamer_0016"
down_revision = "streamer_0015"


def upgrade() -> None:
    """Make what is missing."""
    ensure("class_list", Column("unconfirmed_since", Float, index=True))
