"""Decides whether this program can work on a database that a newer release has migrated.

Migrations only add, so an older program goes on working beside columns and tables that it does not know. A migration
that does not only add says so: it writes the revision that a program must know at least into `oldest_reader`.
"""

from collections.abc import Collection

from sqlalchemy import Connection, MetaData, inspect, text

from lectern.migrations.look import shape

MARK = "oldest_reader"
"""A table with one column and one row: the revision that a program must know to use this database."""


def obstacles(connection: Connection, known: Collection[str], tables: MetaData) -> list[str]:
    """Why a program that knows the revisions *known* cannot use this database, one reason each; none if it can."""
    found: list[str] = []
    if shape(connection, MARK) is not None:
        needed = connection.execute(text(f"SELECT revision FROM {MARK}")).scalars().all()  # noqa: S608 (a constant)
        found += [f"only a program that knows revision {one} can read it" for one in needed if one not in known]
    for table in tables.tables.values():
        needed = sorted(_needed(connection, table.name) - {column.name.lower() for column in table.columns})
        found += [f"{table.name}.{name} must have a value, and this program gives it none" for name in needed]
    return found


def _needed(connection: Connection, table: str) -> set[str]:
    """The columns of *table*, in lower case, that every new row must give a value."""
    if connection.dialect.name != "sqlite":
        if shape(connection, table) is None:
            return set()
        columns = inspect(connection).get_columns(table)
        return {one["name"].lower() for one in columns if not one["nullable"] and one["default"] is None}
    query = text('SELECT name FROM pragma_table_xinfo(:table) WHERE "notnull" AND dflt_value IS NULL AND hidden = 0')
    return {name.lower() for name in connection.execute(query, {"table": table}).scalars()}
