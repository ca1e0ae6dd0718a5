"""Puts the documented values into the old program's settings (``.env``, JSON), and removes them again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from lectern.errors import Misuse
from lectern.i18n import Text, labelled
from lectern.old_config import old_times
from lectern.rollout import env_file, files, json_config
from lectern.rollout.backup.host import FilesBefore
from lectern.rollout.result import TextDifference, punctuated
from lectern.rollout.spec import Spec
from lectern.settings import Settings, StreamerSettings, TeacherSettings, by_new_names


@dataclass(frozen=True)
class SettingsFile:
    """One settings file, the values that are wanted in it, and the module that reads and edits its kind."""

    path: Path
    wanted: Mapping[str, Any]
    user: str
    kind: ModuleType
    """`env_file` or `json_config`, which have the same functions."""

    def pending(self) -> list[TextDifference]:
        """What `apply` would change, masked. Raises Misuse if the file cannot be read."""
        text, new = self.kind.read(self.path), self.new()
        shown = [self.kind.shown(version, self.wanted) for version in (text, new)]
        return [] if new == text else [TextDifference(str(self.path), *shown)]

    def new(self) -> str:
        """The text with the wanted values; raises Misuse if the file cannot be edited."""
        text = self.kind.read(self.path)
        try:
            return str(self.kind.edited(text, self.wanted))
        except Misuse as error:
            raise Misuse("{thing}: {what}", thing=self.path, what=error) from error

    def apply(self) -> list[str]:
        """Edit the file, which keeps its owner and mode; a new file is readable by *user* only. Returns sentences."""
        text, new = self.kind.read(self.path), self.new()
        if new == text:
            return []
        names = ", ".join(self.kind.missing_from(text, self.wanted)) if text else ", ".join(self.wanted)
        files.write(self.path, new.encode(), None if self.path.exists() else files.Owner.user(self.user, 0o600))
        return [Text("{path}: set {names}.", path=self.path, names=names)]

    def faults(self) -> list[str]:
        """A sentence if the file has other values than are wanted."""
        missing = self.kind.missing_from(self.kind.read(self.path), self.wanted) if self.wanted else []
        if not missing:
            return []
        return [Text("{path}: {names} not as wanted.", path=self.path, names=", ".join(missing))]

    def take_back(self, before: FilesBefore) -> list[str]:
        """Restore the file as it was *before*, byte for byte; from a file edited since, remove only our values."""
        files.sweep(self.path)
        try:
            now, back, sentence = self._back(before)
        except Misuse as error:
            return [Text("{why} It was left as it is; the one from before is in the backup.", why=error.message)]
        if now == back:
            return []
        if back is None:
            files.remove(self.path)
        else:
            files.write(self.path, back, before.kept(self.path).owner if back == before.data(self.path) else None)
        return punctuated([labelled(self.path, sentence)])

    def is_back(self, before: FilesBefore) -> bool:
        """Whether the file is as it was *before*, or at least without our values."""
        try:
            now, back, _ = self._back(before)
        except Misuse:
            return True  # a person's own text: it was left as it is
        return now == back

    def _back(self, before: FilesBefore) -> tuple[bytes | None, bytes | None, str]:
        """What the file holds, what a rollback makes of it (None: no file), and the sentence about that."""
        now, data = self.path.read_bytes() if self.path.exists() else None, before.data(self.path)
        if now is None or now == data:
            return now, data, Text("somebody took it away since the window; put back")
        text = before.text(self.path)
        if now.decode(errors="surrogateescape") == self.kind.edited(text, self.wanted):
            return now, data, Text("put back") if data is not None else Text("taken out, as there was none")
        mine = self.kind.taken_back(self.kind.read(self.path), self.wanted, text)
        return now, mine.encode(), Text("somebody edited it since the window; only our values were taken back")


def env(wanted: Spec) -> SettingsFile | None:
    """The old streamer's ``.env``; None for a teacher, to whose file the rollout note adds nothing."""
    return SettingsFile(wanted.env_path, wanted.documented, wanted.user, env_file) if wanted.documented else None


def config(wanted: Spec) -> SettingsFile | None:
    """The teacher's old JSON config; None if the inventory names none."""
    if wanted.config_path is None or not wanted.config:
        return None
    return SettingsFile(wanted.config_path, wanted.config, wanted.user, json_config)


def all_of(wanted: Spec) -> list[SettingsFile]:
    """All settings files of the host, in the order in which they are edited."""
    return [file for file in (config(wanted), env(wanted)) if file is not None]


def in_use(wanted: Spec, own: Path) -> Settings:
    """The settings that the files of the host have now, of which *own* is the program's; raises Misuse."""
    return _loaded(wanted, env_file.read(wanted.env_path), env_file.loaded(env_file.read(own)), {})


def as_wanted(wanted: Spec) -> Settings:
    """The settings with which the new program would work; raises Misuse if it would refuse them."""
    file, old = env(wanted), config(wanted)
    text = env_file.read(wanted.env_path) if file is None else file.new()
    found = _loaded(wanted, text, wanted.own, old_times(old.path, old.new()) if old is not None else {})
    if isinstance(found, TeacherSettings) and found.ecs_hosts:
        from lectern.ecs.transcode import check_ecs  # noqa: PLC0415 (paramiko takes long to load)

        check_ecs(found)
    return found


def _loaded(wanted: Spec, beside: str, own: Mapping[str, str | None], times: Mapping[str, float]) -> Settings:
    """The settings of the program's *own* file, the text *beside* it, and the *times* of the old JSON config."""
    given: dict[str, Any] = {}
    for file in (env_file.loaded(beside), own):  # the later one wins
        given |= by_new_names({name.lower(): value for name, value in file.items() if value is not None})
    if "teacher_config" in given:
        given = {**times, **given, "teacher_config": str(wanted.code_dir / given["teacher_config"])}
    return (StreamerSettings if wanted.role == "streamer" else TeacherSettings).load(_env_file=None, **given)
