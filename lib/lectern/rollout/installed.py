"""Reads from a host's own backups what is rolled out on it, so that rollback and verify need no inventory."""

from contextlib import suppress
from pathlib import Path

from lectern.errors import CallAPerson, LecternError, Misuse
from lectern.i18n import Text, msgid
from lectern.rollout.backup import host
from lectern.rollout.journal import RolloutJournal
from lectern.rollout.settings import env_file
from lectern.rollout.spec import Installed, Spec


def last(asked: Installed) -> Spec | str:
    """The last rollout, which stands or is half done; or a sentence that says why there is nothing to roll back.

    Raises Misuse if the version that is asked for stands, but another one upon it.
    """
    history = RolloutJournal.of(asked).history()
    if history.last is None:
        return Text("No release of lectern stands on this host as {role}; nothing was changed.", role=asked.role)
    spec = stored(asked.backups_dir / history.last)
    if asked.version in {"", spec.version}:
        options = {"restore_database": asked.restore_database, "even_on_air": asked.even_on_air}
        return spec.model_copy(update=options)
    if any(id_.startswith(f"{asked.role}-{asked.version}-") for id_ in history.standing):
        raise Misuse(
            "lectern {version} stands upon {asked} on this host, and goes first. Nothing was changed. Type: "
            "ansible-playbook playbooks/rollback.yml -e release={version}.",
            version=spec.version,
            asked=asked.version,
        )
    text = msgid("lectern {asked} does not stand on this host; what does is {version}. Nothing was changed.")
    return Text(text, asked=asked.version, version=spec.version)


def looked_at(asked: Installed) -> Spec:
    """The rollout that stands on this host, else the one rolled back last.

    Raises Misuse if there never was any, or if another version stands than is asked for.
    """
    journal = RolloutJournal.of(asked)
    history = journal.history()
    if history.last is not None:
        spec = stored(asked.backups_dir / history.last)
        if asked.version not in {"", spec.version}:
            raise Misuse(
                "lectern {version} is at work on this host, and {asked} was named.",
                version=spec.version,
                asked=asked.version,
            )
        return spec
    back = [note for note in journal.notes() if note.step == "rolledback"]
    if not back:
        raise Misuse(
            "Nothing was rolled out here as {role}. Type: ansible-playbook playbooks/rollout.yml.", role=asked.role
        )
    return stored(asked.backups_dir / back[-1].detail["backup"])


def secrets(text: str) -> set[str]:
    """What is blotted out of the answer to the JSON *text*: the secrets of every rollout of this role on the host."""
    texts: set[str] = set()
    with suppress(LecternError):  # what cannot be read is the answer's business
        asked = Installed.parse(text)
        for file in asked.backups_dir.glob(f"{asked.role}-*/{host.WANTED}"):
            with suppress(LecternError, OSError):
                wanted = stored(file.parent)
                texts |= env_file.secrets({**wanted.env, "REDIS_URL": wanted.redis_url})
    return texts


def stored(folder: Path) -> Spec:
    """What the rollout with its backup in *folder* wanted; raises CallAPerson if that cannot be read."""
    file = folder / host.WANTED
    try:
        return Spec.stored(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CallAPerson(
            "{file}: it cannot be read ({strerror}). Find the backup {name}.",
            file=file,
            strerror=error.strerror,
            name=folder.name,
        ) from error
