"""A host's files before the window changes them: kept byte for byte, with mode and owner, to be restored."""

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lectern.rollout.host import durable
from lectern.rollout.wanted import Wanted


class Kept(BaseModel):
    """One file as it was; *stored* is the name of its copy, None if there was no such file."""

    model_config = ConfigDict(frozen=True)

    path: Path
    stored: str | None = None
    sha256: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0

    @property
    def owner(self) -> durable.Owner:
        """The file's owner and mode."""
        return durable.Owner(self.uid, self.gid, self.mode)


class Before(BaseModel):
    """The files that the window changes, and the former target of the link."""

    model_config = ConfigDict(frozen=True)

    link: str | None
    files: list[Kept]
    folder: Path

    def kept(self, path: Path) -> Kept:
        """The copy of *path*; for a path that was not kept, a copy that says that there was no such file."""
        return next((one for one in self.files if one.path == path), Kept(path=path))

    def data(self, path: Path) -> bytes | None:
        """The bytes that *path* held; None if there was no such file."""
        stored = self.kept(path).stored
        return None if stored is None else (self.folder / stored).read_bytes()

    def text(self, path: Path) -> str:
        """The text that *path* held; empty if there was no such file. A comment in it may be in any encoding."""
        return (self.data(path) or b"").decode(errors="surrogateescape")


def keep(wanted: Wanted, folder: Path) -> Before:
    """Copy into *folder* every file that the window of *wanted* can change."""
    paths = [wanted.env_path, wanted.config_path, wanted.conf, *wanted.old_confs]
    durable.make_folder(folder)
    files = [_keep(path, folder, number) for number, path in enumerate(p for p in paths if p is not None)]
    return Before(link=durable.link_target(wanted.current), files=files, folder=folder)


def _keep(path: Path, folder: Path, number: int) -> Kept:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Kept(path=path)
    owner = durable.Owner.of(path)
    stored = f"{number}-{path.name}"
    durable.write(folder / stored, data, durable.PRIVATE)
    return Kept(
        path=path,
        stored=stored,
        sha256=hashlib.sha256(data).hexdigest(),
        uid=owner.uid,
        gid=owner.gid,
        mode=owner.mode,
    )
