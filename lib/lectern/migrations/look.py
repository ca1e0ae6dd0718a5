"""What a table looks like now: its columns, keys and indexes in the database."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, inspect, text


@dataclass(frozen=True)
class Shape:
    """A table as it was found. SQLite's names know no case, so all are looked up in lower case."""

    columns: Mapping[str, str]
    """The column names as the table writes them, by their lower-case names."""
    keys: frozenset[frozenset[str]]
    """Sets of columns that the database keeps unique, so that an upsert can name them."""
    indexes: frozenset[tuple[str, ...]]

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
    return Shape(
        {_folded(column["name"]): column["name"] for column in inspector.get_columns(table)},
        frozenset(frozenset(columns) for columns in unique if columns),
        frozenset(indexes) | frozenset(tuple(columns) for columns in unique),
    )


def _shape_in_sqlite(connection: Connection, table: str) -> Shape | None:
    # SQLAlchemy's reflection would parse the CREATE statements, and warn about what old ones contain.
    columns = connection.execute(
        text("SELECT name, pk FROM pragma_table_xinfo(:table) ORDER BY cid"), {"table": table}
    ).all()
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
    primary = frozenset(_folded(name) for name, position in columns if position)
    return Shape(
        {_folded(name): name for name, _ in columns},
        frozenset(keys | ({primary} if primary else set())),
        frozenset(tuple(names) for names in members.values()),
    )
