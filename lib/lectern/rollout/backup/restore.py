"""The last resort of a rollback: restores the database, too, and keeps what was written since as JSON."""

from lectern.errors import CallAPerson
from lectern.rollout.backup import make, store
from lectern.rollout.backup.copies import sha256
from lectern.rollout.backup.make import Backup
from lectern.rollout.host import durable
from lectern.rollout.wanted import Wanted


def restore(wanted: Wanted, copied: Backup) -> list[str]:
    """Keep what was written since the copy as JSON, then put the copy in the database's place; returns sentences."""
    folder, found = wanted.backup_dir, store.of(wanted)
    file = copied.database_in(folder / make.SILENT)
    said: list[str] = []
    if found.exists():
        if file is not None and found.is_copy(file):
            return [f"{found.shown}: it is the copy already."]
        since = found.rows_since(file)
        target = durable.free(folder / "rows-since.json")
        durable.write_json(target, since)
        # The backup's folder is renamed at the end, and the last sentence of the answer has its new name.
        said.append(f"{target.name} in the backup: {sum(map(len, since.values()))} rows written since the copy.")
    if file is None:
        found.clear()
        return [*said, f"{found.shown}: taken away, as there was none."]
    assert copied.database is not None  # its file has just been named
    if sha256(file) != copied.database.sha256:
        raise CallAPerson(f"{file}: it is not what was copied (its SHA-256 differs). The database was left as it is.")
    found.put_back(file, copied.database.rows, wanted.user)
    return [*said, f"{found.shown}: restored from {file}."]
