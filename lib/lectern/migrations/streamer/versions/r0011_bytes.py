"""The bytes that were sent of a class, as part of its as-run."""

from sqlalchemy import BigInteger, Column, Integer

from lectern.migrations.steps import ensure

revision = "streamer_0011"
down_revision = "streamer_0010"


def upgrade() -> None:
    """Make what is missing."""
    ensure("as_run_list", Column("sent_bytes", BigInteger().with_variant(Integer, "sqlite")))
