"""Prints all that is on a host and must not change, as JSON; stdlib only, it runs on the host.

Its argument is ``{"trees": [folders], "databases": [files], "leave_out": regex of paths}``.
"""

import hashlib
import json
import re
import sqlite3
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DIARY = "class_id LIKE 'w-%'"
"""Rows that the old program goes on writing while it is looked at."""


def entry(path: Path) -> list[Any]:
    """What kind of thing it is, its mode, owner and group, and what is in it."""
    found = path.lstat()
    kept = [stat.filemode(found.st_mode), found.st_uid, found.st_gid]
    if stat.S_ISLNK(found.st_mode):
        return [*kept, str(path.readlink())]
    if stat.S_ISREG(found.st_mode):
        return [*kept, hashlib.sha256(path.read_bytes()).hexdigest()]
    return kept


def walked(tree: Path, leave_out: "re.Pattern[str]") -> Iterator[Path]:
    """*tree* itself, and everything under it; what is left out is not gone into."""
    if not (tree.exists() or tree.is_symlink()) or leave_out.search(str(tree)):
        return
    yield tree
    if tree.is_dir() and not tree.is_symlink():
        for one in sorted(tree.iterdir()):
            yield from walked(one, leave_out)


def dumped(path: str) -> dict[str, Any]:
    """Every row with the types of its values, the statements that made the tables, and the journal mode."""
    if not Path(path).exists():
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
    wanted = json.loads(sys.argv[1])
    leave_out = re.compile(wanted["leave_out"])
    found = {str(path): entry(path) for tree in wanted["trees"] for path in walked(Path(tree), leave_out)}
    databases = {path: dumped(path) for path in wanted["databases"]}
    json.dump({"files": found, "databases": databases}, sys.stdout, sort_keys=True)


if __name__ == "__main__":
    main()
