"""The teacher keeps what was really sent of each class, as its streamers report it."""

from sqlalchemy import BigInteger, Column, Float, Integer, String

from lectern.migrations.steps import ensure

revision = "teacher_0013"
down_revision = "teacher_0012"


def upgrade() -> None:
    """Make what is missing."""
    ensure(
        "as_run_list",
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
        Column("class_id", String(250), nullable=False, index=True),
        Column("streamer", String(250), nullable=False),
        Column("url", Integer, nullable=False),
        Column("session", Integer, nullable=False),
        Column("source", String(20), nullable=False),
        Column("begins", Float, nullable=False, index=True),
        Column("ends", Float, nullable=False),
        Column("position_s", Float, nullable=False),
        Column("sent_s", Float, nullable=False),
        Column("sent_bytes", BigInteger().with_variant(Integer, "sqlite")),
    )
