"""The steps of the revisions: each checks, changes only what is missing, and reports what it did."""

from collections.abc import Sequence

from alembic import op
from sqlalchemy import Column, Table, func, select

from lectern.errors import CallAPerson, Misuse
from lectern.migrations.look import Shape, shape


def say(sentence: str) -> None:
    """Note one change for whoever runs the migration."""
    config = op.get_context().config
    assert config is not None
    config.attributes["said"].append(sentence)


def need(table: str, columns: Sequence[str]) -> bool:
    """Whether *table* exists; raises Misuse if it exists but lacks any of the old program's *columns*."""
    found = shape(op.get_bind(), table)
    if found is None:
        return False
    missing = found.lacks(columns)
    if missing:
        raise Misuse(
            f"{table}: the old program's table has no column {', '.join(missing)}; it has "
            f"{', '.join(found.columns.values())}. Nothing was changed. See that the database URL names the right "
            f"file; if it does, add what is missing: "
            + " ".join(f"alter table {table} add column {name} VARCHAR(250);" for name in missing)
        )
    return True


def complete(table: Table) -> None:
    """Create *table*, or add the columns, the key and the indexes that it lacks; raises Misuse, CallAPerson."""
    found = shape(op.get_bind(), table.name)
    if found is None:
        table.create(op.get_bind())
        say(f"{table.name}: new table")
        return
    for column in table.columns:
        if found.lacks([column.name]):
            _add(table, column)
    _ensure_key(table, found)
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        names = [column.name for column in index.columns]
        if tuple(names) not in found.indexes:
            index.create(op.get_bind())
            say(f"{table.name}: new index {index.name} on {', '.join(names)}")


def _add(table: Table, column: Column[object]) -> None:
    if column.primary_key or (not column.nullable and column.server_default is None):
        raise Misuse(
            f"{table.name}: it is there, but has no column {column.name}, and no value for its old rows can be known. "
            f"Nothing was changed. Rename the table, and run this again: it is then made anew."
        )
    op.add_column(
        table.name,
        Column(column.name, column.type, nullable=column.nullable, server_default=column.server_default),
    )
    say(f"{table.name}: new column {column.name}")


def _ensure_key(table: Table, found: Shape) -> None:
    names = [column.name for column in table.primary_key.columns]
    if not names or frozenset(names) in found.keys:
        return
    key = list(table.primary_key.columns)
    doubles = select(*key).where(*(part.is_not(None) for part in key)).group_by(*key).having(func.count() > 1)
    doubled = op.get_bind().execute(doubles.limit(1)).first()
    if doubled is not None:
        raise CallAPerson(
            f"{table.name}: {', '.join(names)} must be unique, but {', '.join(map(repr, doubled))} is there more than "
            f"once. Nothing was changed. Decide which row is right, take the others out, and run this again."
        )
    op.create_index(f"ux_{table.name}_{'_'.join(names)}", table.name, names, unique=True)
    say(f"{table.name}: new unique index on {', '.join(names)}")
