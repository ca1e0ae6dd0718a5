"""The teacher's tables, around the old ``video_list``, whose unusable rows are set aside: none is deleted for good."""

from itertools import chain, count

from alembic import op

from lectern.i18n import Text
from lectern.migrations.steps import complete, need, say, shape
from lectern.model.tables.teacher import TeacherTable

revision = "teacher_0001"
down_revision = None


TABLE = "video_list"
REASON = "set_aside_reason"
FLAW = (
    "CASE WHEN record_id IS NULL OR resolution IS NULL THEN 'its key is NULL'"
    " WHEN typeof(record_id) <> 'integer' AND CAST(CAST(record_id AS INTEGER) AS TEXT) <> record_id"
    " THEN 'its record_id is no whole number'"
    " WHEN typeof(resolution) <> 'text' THEN 'its resolution is no text' ELSE '' END"
)
UNFIT = f"""
WITH judged AS (
    SELECT {{address}} AS address, record_id, resolution, status, {FLAW} AS flaw FROM video_list
), ranked AS (
    SELECT judged.*, row_number() OVER (
        PARTITION BY flaw, record_id, resolution
        ORDER BY CASE status WHEN 'success' THEN 0 WHEN 'transcoding' THEN 1 ELSE 2 END, address DESC
    ) AS place FROM judged
)
SELECT address, CASE flaw WHEN '' THEN 'another row of the rendition is kept' ELSE flaw END AS {REASON}
FROM ranked WHERE flaw <> '' OR place > 1
"""  # noqa: S608 (a constant)


def set_aside() -> None:
    """Move the rows of the teacher's ``video_list`` that a unique (record_id, resolution) has no room for.

    Of several rows of one rendition, the row with the best status stays (success, then transcoding, then any other),
    and the newest of equals.
    """
    bind = op.get_bind()
    found = shape(bind, TABLE)
    assert found is not None
    rowid = next(name for name in ("rowid", "_rowid_", "oid") if name not in found.columns)
    names = (f"{TABLE}_set_aside{number}" for number in chain([""], (f"_{number}" for number in count(2))))
    aside = next(name for name in names if shape(bind, name) is None)
    # S608: the statements are built of constants only.
    unfit = f"({UNFIT.format(address=rowid)}) AS unfit"
    counted = bind.exec_driver_sql(f"SELECT {REASON}, count(*) FROM {unfit} GROUP BY {REASON}").all()  # noqa: S608
    if not counted:
        return
    # Created from the table itself: a column of the same affinity keeps every value as it is.
    kept = f"SELECT {TABLE}.*, unfit.{REASON} FROM {TABLE} JOIN {unfit} ON {TABLE}.{rowid} = unfit.address"  # noqa: S608
    bind.exec_driver_sql(f"CREATE TABLE {aside} AS {kept}")
    bind.exec_driver_sql(f"DELETE FROM {TABLE} WHERE {rowid} IN (SELECT address FROM {unfit})")  # noqa: S608
    for reason, number in counted:
        say(
            Text.many(
                "{table}: {n:,} row goes to {aside}: {reason}",
                "{table}: {n:,} rows go to {aside}: {reason}",
                n=number,
                table=TABLE,
                aside=aside,
                reason=reason,
            )
        )


def upgrade() -> None:
    """Set unusable rows of the old table aside, then create what is missing."""
    # The old program's table was in SQLite; one on PostgreSQL is ours, and has had its key from the first.
    in_sqlite = op.get_bind().dialect.name == "sqlite"
    if in_sqlite and need("video_list", ("record_id", "resolution", "status")):
        set_aside()
    for table in TeacherTable.metadata.tables.values():
        complete(table)
    if not in_sqlite:  # only there can teachers share the rows
        op.create_index("ix_inbox_list_digest", "inbox_list", ["digest"], if_not_exists=True)
