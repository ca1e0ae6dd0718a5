"""Packs the release: its manifest first, then all files by name, the same bytes each time."""

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from playbooks.release.source import Source
from playbooks.release.target import GLIBC, Target

MANIFEST = "manifest.json"
_LEVEL = 1
"""The compression level of gzip; wheels are compressed already."""

_BYTECODE = 1.1
"""Bytes of bytecode for each byte of Python, as seen; a little more than that."""


@dataclass(frozen=True)
class Entry:
    """A file of the release: its name there, and its content."""

    name: str
    content: bytes

    @property
    def mode(self) -> int:
        """0755 for programs, 0644 for everything else."""
        return 0o755 if self.name.startswith("bin/") else 0o644


def manifest(entries: list[Entry], source: Source, target: Target) -> bytes:
    """The manifest for the host: what this is, which hosts it fits, its sizes, and each file's checksum."""
    told = {
        "name": "lectern",
        "version": source.version,
        "commit": source.commit,
        "dirty": source.dirty,
        "built_at": source.built_at,
        "python": target.python_tag,
        "platform": target.platform,
        "glibc": f"{GLIBC[0]}.{GLIBC[1]}",
        "unpacked_bytes": sum(len(entry.content) for entry in entries),
        "installed_bytes": sum(_installed_bytes(entry) for entry in entries),
        "files": _listed(entries),
    }
    return f"{json.dumps(told, indent=1)}\n".encode()


def pack(entries: list[Entry], told: bytes, built_at: int) -> bytes:
    """The bytes of the tarball, with fixed owners, times and order: the same files give the same bytes."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, compresslevel=_LEVEL, mtime=0) as out,
        tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for entry in (Entry(MANIFEST, told), *sorted(entries, key=lambda one: one.name)):
            member = tarfile.TarInfo(entry.name)
            member.size, member.mode, member.mtime = len(entry.content), entry.mode, built_at
            member.uname = member.gname = "root"
            tar.addfile(member, io.BytesIO(entry.content))
    return packed.getvalue()


def write(file: Path, content: bytes) -> Path:
    """Put the tarball into its place at once, and its checksum beside it; returns the checksum's file."""
    checksum = file.with_name(f"{file.name}.sha256")
    for path, data in ((file, content), (checksum, f"{hashlib.sha256(content).hexdigest()}  {file.name}\n".encode())):
        # Two builds at once have a part file each; the last one to finish replaces the other by the same bytes.
        with tempfile.TemporaryDirectory(prefix=".part-", dir=path.parent) as folder:
            part = Path(folder) / path.name
            part.write_bytes(data)
            part.replace(path)
    return checksum


def _listed(entries: list[Entry]) -> Mapping[str, Mapping[str, str | int]]:
    return {
        entry.name: {"sha256": hashlib.sha256(entry.content).hexdigest(), "size": len(entry.content)}
        for entry in sorted(entries, key=lambda one: one.name)
    }


def _installed_bytes(entry: Entry) -> int:
    if not entry.name.endswith(".whl"):
        return 0
    with zipfile.ZipFile(io.BytesIO(entry.content)) as wheel:
        return sum(
            info.file_size + (int(info.file_size * _BYTECODE) if info.filename.endswith(".py") else 0)
            for info in wheel.infolist()
        )
