"""Packs the release: its manifest first, then all files by name, the same bytes each time."""

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
from pathlib import Path

from playbooks.release.source import GLIBC, Source, Target

MANIFEST, PACKAGES = "manifest.json", "packages"
_LEVEL = 1
"""The compression level of gzip: most of what is packed is small text, and more would take minutes."""
_BYTECODE = 1.1
"""Bytes of bytecode for each byte of Python, as seen; a little more than that."""


def manifest(tree: Path, source: Source, target: Target) -> bytes:
    """The manifest for the host: what this is, which hosts it fits, its sizes, and the checksum of all files."""
    files = _files(tree)
    sums = "".join(f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.relative_to(tree)}\n" for one in files)
    told = {
        "name": "lectern",
        "version": source.version,
        "commit": source.commit,
        "dirty": source.dirty,
        "built_at": source.built_at,
        "python": target.python_tag,
        "platform": target.platform,
        "glibc": f"{GLIBC[0]}.{GLIBC[1]}",
        "unpacked_bytes": sum(one.stat().st_size for one in files),
        "installed_bytes": int(_BYTECODE * sum(one.stat().st_size for one in files if one.suffix == ".py")),
        "sha256": hashlib.sha256(sums.encode()).hexdigest(),
    }
    return f"{json.dumps(told, indent=1)}\n".encode()


def write(file: Path, tree: Path, told: bytes, built_at: int) -> Path:
    """Pack *tree* with its manifest into *file*, and write its checksum beside it; returns the checksum's file.

    Owners, times, modes and order are fixed. Two builds at once have a part file each; the last one to finish replaces
    the other by the same bytes.
    """
    checksum = file.with_name(f"{file.name}.sha256")
    with tempfile.TemporaryDirectory(prefix=".part-", dir=file.parent) as folder:
        part = Path(folder) / file.name
        with (
            part.open("wb") as raw,
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=_LEVEL, mtime=0) as out,
            tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            _add(tar, MANIFEST, told, built_at)
            for one in _files(tree):
                _add(tar, f"{PACKAGES}/{one.relative_to(tree)}", one.read_bytes(), built_at)
        with part.open("rb") as packed:
            digest = hashlib.file_digest(packed, "sha256").hexdigest()
        (Path(folder) / checksum.name).write_text(f"{digest}  {file.name}\n", encoding="ascii")
        part.replace(file)
        (Path(folder) / checksum.name).replace(checksum)
    return checksum


def digest(file: Path) -> str:
    """The SHA-256 of the manifest in *file*: by it, a host knows the release."""
    with tarfile.open(file) as tar:
        content = tar.extractfile(MANIFEST)
        assert content is not None  # it is a plain file
        return hashlib.sha256(content.read()).hexdigest()


def _files(tree: Path) -> list[Path]:
    return sorted(one for one in tree.rglob("*") if one.is_file())


def _add(tar: tarfile.TarFile, name: str, content: bytes, at: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), 0o644, at
    member.uname = member.gname = "root"
    tar.addfile(member, io.BytesIO(content))
