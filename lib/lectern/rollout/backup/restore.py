"""The last resort of a rollback: restores a SQLite database, too, and keeps what was written since as JSON."""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from lectern.errors import CallAPerson, Misuse
from lectern.rollout.backup import make, store
from lectern.rollout.backup.copies import sha256
from lectern.rollout.backup.make import Backup
from lectern.rollout.backup.sqlite import Row, SqliteFile
from lectern.rollout.host import durable
from lectern.rollout.wanted import Wanted


def restorable(wanted: Wanted) -> SqliteFile:
    """The database of *wanted*; raises Misuse for one on a server, where others may work in it."""
    found = store.of(wanted)
    if isinstance(found, SqliteFile):
        return found
    raise Misuse(
        f"{found.shown}: restore_database restores SQLite files only. Nothing was changed. Roll back without it; "
        f"then read RUNBOOK.md, How do I restore the database?"
    )


def restore(wanted: Wanted, copied: Backup) -> list[str]:
    """Keep what was written since the copy as JSON, then put the copy in the database's place; returns sentences."""
    folder, found = wanted.backup_dir, restorable(wanted)
    file = copied.database_in(folder / make.SILENT)
    said: list[str] = []
    if found.exists():
        if file is not None and found.is_copy(file):
            return [f"{found.shown}: it is the copy already."]
        target = durable.free(folder / "rows-since.json")
        number = _keep(found.rows_since(file), target)
        # The backup's folder is renamed at the end, and the last sentence of the answer has its new name.
        said.append(f"{target.name} in the backup: {number} rows written since the copy.")
    if file is None:
        found.clear()
        return [*said, f"{found.shown}: taken away, as there was none."]
    assert copied.database is not None  # its file has just been named
    if sha256(file) != copied.database.sha256:
        raise CallAPerson(f"{file}: it is not what was copied (its SHA-256 differs). The database was left as it is.")
    found.put_back(file, copied.database.rows, wanted.user)
    return [*said, f"{found.shown}: restored from {file}."]


def _keep(since: Iterator[tuple[str, Row]], target: Path) -> int:
    """Write each row below its table, as it comes; returns how many there are."""
    part, number = target.with_name(f".{target.name}.part"), 0
    durable.make_private(part)
    with part.open("w", encoding="utf-8") as file:
        file.write("{")
        for at, (table, some) in enumerate(groupby(since, lambda one: one[0])):
            file.write(f"{',' if at else ''}\n {json.dumps(table, ensure_ascii=False)}: [")
            for row, (_, values) in enumerate(some):
                file.write(f"{',' if row else ''}\n  {json.dumps(values, ensure_ascii=False, default=str)}")
                number += 1
            file.write("\n ]")
        file.write("\n}\n")
    durable.sync(part)
    part.replace(target)
    durable.sync_folder(target.parent)
    return number
