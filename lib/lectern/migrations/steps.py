"""The steps of the revisions: each checks, changes only what is missing, and reports what it did."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from alembic import op
from sqlalchemy import Column, Connection, Table, func, inspect, select, text

from lectern.errors import CallAPerson, Misuse
from lectern.i18n import Text, msgid


@dataclass(frozen=True)
class Shape:
    """A table as it was found. SQLite's names know no case, so all are looked up in lower case."""

    columns: Mapping[str, str]
    """The column names as the table writes them, by their lower-case names."""
    keys: frozenset[frozenset[str]]
    """Sets of columns that the database keeps unique, so that an upsert can name them."""
    indexes: frozenset[tuple[str, ...]]
    needed: frozenset[str]
    """The lower-case names of the columns that every new row must give a value."""

    def lacks(self, names: Iterable[str]) -> list[str]:
        """Those of *names* that are no column here, in their order."""
        return [name for name in names if _folded(name) not in self.columns]


def _folded(name: str) -> str:
    # As in SQLite, for which É and é are two names.
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


def shape(connection: Connection, table: str) -> Shape | None:
    """The shape of *table*; None if there is no such table."""
    if connection.dialect.name == "sqlite":
        return _shape_in_sqlite(connection, table)
    inspector = inspect(connection)
    if not inspector.has_table(table):
        return None
    unique = [c["column_names"] for c in inspector.get_unique_constraints(table)]
    unique.append(inspector.get_pk_constraint(table)["constrained_columns"])
    indexes = [tuple(name or "" for name in i["column_names"]) for i in inspector.get_indexes(table)]
    unique += [list(i["column_names"]) for i in inspector.get_indexes(table) if i["unique"]]  # type: ignore[arg-type]
    columns = inspector.get_columns(table)
    return Shape(
        {_folded(column["name"]): column["name"] for column in columns},
        frozenset(frozenset(names) for names in unique if names),
        frozenset(indexes) | frozenset(tuple(names) for names in unique),
        frozenset(_folded(one["name"]) for one in columns if not one["nullable"] and one["default"] is None),
    )


def _shape_in_sqlite(connection: Connection, table: str) -> Shape | None:
    # SQLAlchemy's reflection would parse the CREATE statements, and warn about what old ones contain.
    needed = '"notnull" AND dflt_value IS NULL AND hidden = 0'
    query = text(f"SELECT name, pk, {needed} FROM pragma_table_xinfo(:table) ORDER BY cid")  # noqa: S608 (a constant)
    columns = connection.execute(query, {"table": table}).all()
    if not columns:
        return None
    rows = connection.execute(
        text(
            'SELECT l.name, l."unique" AND NOT l.partial, i.name'
            " FROM pragma_index_list(:table) AS l, pragma_index_info(l.name) AS i ORDER BY l.seq, i.seqno"
        ),
        {"table": table},
    )
    members: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for index, unique, name in rows:
        members[index, bool(unique)].append(_folded(name or ""))  # an expression has no name
    keys = {frozenset(names) for (_, unique), names in members.items() if unique}
    primary = frozenset(_folded(name) for name, position, _ in columns if position)
    return Shape(
        {_folded(name): name for name, *_ in columns},
        frozenset(keys | ({primary} if primary else set())),
        frozenset(tuple(names) for names in members.values()),
        frozenset(_folded(name) for name, _, is_needed in columns if is_needed),
    )


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
            "{table}: the old program's table has no column {missing}; it has {columns}. Nothing was changed. See that "
            "the database URL names the right file; if it does, add what is missing: {sql}",
            table=table,
            missing=", ".join(missing),
            columns=", ".join(found.columns.values()),
            sql=" ".join(f"alter table {table} add column {name} VARCHAR(250);" for name in missing),
        )
    return True


def complete(table: Table) -> None:
    """Create *table*, or add the columns, the key and the indexes that it lacks; raises Misuse, CallAPerson."""
    found = shape(op.get_bind(), table.name)
    if found is None:
        table.create(op.get_bind())
        say(Text("{table}: new table", table=table.name))
        return
    for column in table.columns:
        if found.lacks([column.name]):
            _add(table, column)
    _ensure_key(table, found)
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        names = [column.name for column in index.columns]
        if tuple(names) not in found.indexes:
            index.create(op.get_bind())
            pattern = msgid("{table}: new index {index} on {columns}")
            say(Text(pattern, table=table.name, index=str(index.name), columns=", ".join(names)))


def _add(table: Table, column: Column[object]) -> None:
    if column.primary_key or (not column.nullable and column.server_default is None):
        raise Misuse(
            "{table}: it is there, but has no column {column}, and no value for its old rows can be known. "
            "Nothing was changed. Rename the table, and run this again: it is then made anew.",
            table=table.name,
            column=column.name,
        )
    op.add_column(
        table.name,
        Column(column.name, column.type, nullable=column.nullable, server_default=column.server_default),
    )
    say(Text("{table}: new column {column}", table=table.name, column=column.name))


def _ensure_key(table: Table, found: Shape) -> None:
    names = [column.name for column in table.primary_key.columns]
    if not names or frozenset(names) in found.keys:
        return
    key = list(table.primary_key.columns)
    doubles = select(*key).where(*(part.is_not(None) for part in key)).group_by(*key).having(func.count() > 1)
    doubled = op.get_bind().execute(doubles.limit(1)).first()
    if doubled is not None:
        raise CallAPerson(
            "{table}: {key} must be unique, but {doubled} is there more than once. Nothing was changed. "
            "Decide which row is right, take the others out, and run this again.",
            table=table.name,
            key=", ".join(names),
            doubled=", ".join(map(repr, doubled)),
        )
    op.create_index(f"ux_{table.name}_{'_'.join(names)}", table.name, names, unique=True)
    say(Text("{table}: new unique index on {columns}", table=table.name, columns=", ".join(names)))
