"""The last resort of a rollback: the database, too, becomes what it was; what was written since is kept beside it."""

from pathlib import Path

from lectern.errors import CallAPerson
from lectern.rollout.backup import database, make
from lectern.rollout.backup.make import Backup
from lectern.rollout.host import durable
from lectern.rollout.wanted import Wanted


def restore(wanted: Wanted, copied: Backup) -> list[str]:
    """Keep what was written since the copy as JSON, then put the copy in the database's place; returns sentences."""
    folder = wanted.backup_dir
    file = copied.database_in(folder / make.SILENT)
    said: list[str] = []
    if wanted.database.exists():
        if file is not None and database.sha256(file) == database.sha256(wanted.database):
            return [f"{wanted.database}: it is the copy already."]
        since = database.rows_since(wanted.database, file)
        target = next(path for path in _exports(folder) if not path.exists())
        durable.write_json(target, since)
        # The folder gets another name at the end, which the last sentence of the answer says.
        said.append(f"{target.name} in the backup: {sum(map(len, since.values()))} rows written since the copy.")
        owner = durable.Owner.of(wanted.database)
    else:
        owner = durable.Owner.user(wanted.user, 0o640)
    if file is None:
        for side in ("", *database.SIDES):
            durable.remove(wanted.database.with_name(wanted.database.name + side))
        return [*said, f"{wanted.database}: taken away, as there was none."]
    assert copied.database is not None  # its file was just named
    if database.proved(file) != copied.database:
        raise CallAPerson(f"{file}: it is not what was copied (its SHA-256 differs). The database was left as it is.")
    database.put_back(file, wanted.database, owner)
    return [*said, f"{wanted.database}: restored from {file}."]


def _exports(folder: Path) -> list[Path]:
    return [folder / f"rows-since{number}.json" for number in ("", *(f"-{n}" for n in range(2, 1000)))]
