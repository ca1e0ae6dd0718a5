"""Prints all that is on a host and must not change, as JSON; stdlib only, it runs on the host.

On stdin: ``{"trees": [folders], "databases": [files], "leave_out": regex of paths}``.
"""

import hashlib
import json
import os
import re
import sqlite3
import stat
import sys
from collections.abc import Iterator
from typing import Any

DIARY = "class_id LIKE 'w-%'"
"""Rows that the old program goes on writing while it is looked at."""


def entry(path: str) -> list[Any]:
    """What kind of thing it is, its mode, owner and group, and what is in it."""
    found = os.lstat(path)
    kept = [stat.filemode(found.st_mode), found.st_uid, found.st_gid]
    if stat.S_ISLNK(found.st_mode):
        return [*kept, os.readlink(path)]
    if stat.S_ISREG(found.st_mode):
        with open(path, "rb") as file:
            return [*kept, hashlib.sha256(file.read()).hexdigest()]
    return kept


def walked(tree: str, leave_out: "re.Pattern[str]") -> Iterator[str]:
    """*tree* itself, and everything under it; what is left out is not gone into."""
    if not os.path.lexists(tree) or leave_out.search(tree):
        return
    yield tree
    if os.path.isdir(tree) and not os.path.islink(tree):
        for name in sorted(os.listdir(tree)):
            yield from walked(os.path.join(tree, name), leave_out)


def dumped(path: str) -> dict[str, Any]:
    """Every row with the types of its values, the statements that made the tables, and the journal mode."""
    if not os.path.exists(path):
        return {}
    connection = sqlite3.connect(path, timeout=20)
    connection.execute("PRAGMA query_only = ON")
    connection.text_factory = bytes
    try:
        made = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        found: dict[str, Any] = {
            "": [connection.execute("PRAGMA journal_mode").fetchone()[0].decode(), [repr(one) for one in made]]
        }
        for (name,) in tables:
            table = name.decode()
            where = f" WHERE NOT {DIARY}" if table == "task_list" else ""
            rows = connection.execute(f'SELECT * FROM "{table}"{where}').fetchall()
            found[table] = sorted(repr(row) for row in rows)
        return found
    finally:
        connection.close()


def main() -> None:
    """One object, sorted."""
    wanted = json.load(sys.stdin)
    leave_out = re.compile(wanted["leave_out"])
    found = {path: entry(path) for tree in wanted["trees"] for path in walked(tree, leave_out)}
    databases = {path: dumped(path) for path in wanted["databases"]}
    json.dump({"files": found, "databases": databases}, sys.stdout, sort_keys=True)


if __name__ == "__main__":
    main()
