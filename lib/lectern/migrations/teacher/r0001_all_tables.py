"""The teacher's tables, around the old ``video_list``, whose unusable rows are set aside: none is deleted for good."""

from alembic import op
from sqlalchemy import text

from lectern.i18n import Text
from lectern.migrations.steps import Shape, complete, need, say, shape
from lectern.model.tables.teacher import TeacherTable

revision = "teacher_0001"
down_revision = None


TABLE = "video_list"
ASIDE = "video_list_set_aside"
REASON = "set_aside_reason"
FLAW = (
    "CASE WHEN record_id IS NULL OR resolution IS NULL THEN 'its key is NULL'"
    " WHEN typeof(record_id) <> 'integer' AND CAST(CAST(record_id AS INTEGER) AS TEXT) <> record_id"
    " THEN 'its record_id is no whole number'"
    " WHEN typeof(resolution) <> 'text' THEN 'its resolution is no text' ELSE '' END"
)
# Values for people as bytes, because an old text need not be valid UTF-8.
RANKED = f"""
WITH judged AS (
    SELECT {{address}} AS address, record_id, resolution, status, {FLAW} AS flaw FROM video_list
), ranked AS (
    SELECT judged.*, row_number() OVER (
        PARTITION BY flaw, record_id, resolution
        ORDER BY CASE status WHEN 'success' THEN 0 WHEN 'transcoding' THEN 1 ELSE 2 END, address DESC
    ) AS place FROM judged
)
SELECT address, CAST(record_id AS BLOB), CAST(resolution AS BLOB), CAST(status AS BLOB),
    CASE flaw WHEN '' THEN 'another row of the rendition is kept' ELSE flaw END
FROM ranked WHERE flaw <> '' OR place > 1 ORDER BY address
"""  # noqa: S608 (a constant)


def set_aside() -> None:
    """Move the rows of the teacher's ``video_list`` that a unique (record_id, resolution) has no room for.

    Of several rows of one rendition, the row with the best status stays (success, then transcoding, then any other),
    and the newest of equals.
    """
    found = shape(op.get_bind(), TABLE)
    assert found is not None
    rowid = next(name for name in ("rowid", "_rowid_", "oid") if name not in found.columns)
    rows = op.get_bind().execute(text(RANKED.format(address=rowid))).all()
    if rows:
        _prepare(found)
    names = ", ".join(_quoted(name) for name in found.columns.values())
    # S608: the statements are built of constants and quoted names only.
    copy = f"INSERT INTO {ASIDE} ({names}, {REASON}) SELECT {names}, :reason FROM {TABLE} WHERE {rowid} = :address"  # noqa: S608
    for address, record_id, resolution, status, reason in rows:
        op.get_bind().execute(text(copy), {"address": address, "reason": reason})
        op.get_bind().execute(text(f"DELETE FROM {TABLE} WHERE {rowid} = :address"), {"address": address})  # noqa: S608
        say(
            Text(
                "{table}: row {address} (record_id {record_id}, resolution {resolution}, status {status}) goes to "
                "{aside}: {reason}",
                table=TABLE,
                address=address,
                record_id=_text(record_id),
                resolution=_text(resolution),
                status=_text(status),
                aside=ASIDE,
                reason=reason,
            )
        )


def _prepare(found: Shape) -> None:
    there = shape(op.get_bind(), ASIDE)
    if there is None:
        # Created from the table itself: a column of the same affinity keeps every value as it is.
        like = f"SELECT {TABLE}.*, CAST('' AS TEXT) AS {REASON} FROM {TABLE} WHERE 1 = 0"  # noqa: S608
        op.get_bind().execute(text(f"CREATE TABLE {ASIDE} AS {like}"))
        say(Text("{table}: new table", table=ASIDE))
        return
    for name in there.lacks([*found.columns.values(), REASON]):
        op.get_bind().execute(text(f"ALTER TABLE {ASIDE} ADD COLUMN {_quoted(name)}"))


def _quoted(name: str) -> str:
    # SQLAlchemy's text() would take a colon for the beginning of a parameter.
    return op.get_bind().dialect.identifier_preparer.quote_identifier(name).replace(":", r"\:")


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return "NULL" if value is None else repr(value if len(str(value)) <= 60 else f"{str(value)[:60]}...")


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
