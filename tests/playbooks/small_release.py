"""A release of one tiny program, which is staged in a second; its installation can be made to wait at a gate."""

import hashlib
import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from playbooks import release
from playbooks.release import Source, Target

SCRIPT = Path(__file__).parents[2] / "playbooks/roles/release/files/on_host.py"
_GATE = """\
# Read by whatever Python of the release begins: it waits as long as there is a gate beside the releases, 30 s at most.
import pathlib, sys, time
release = pathlib.Path(sys.prefix).parent
(release / "installing").touch()
for _ in range(600):
    if not (release.parent / "gate").exists():
        break
    time.sleep(0.05)
"""


def manifest_digest(file: Path) -> str:
    """The SHA-256 of the manifest in the release *file*: by it, a host knows the release."""
    return hashlib.sha256(_manifest(file)).hexdigest()


def _manifest(file: Path) -> bytes:
    with tarfile.open(file) as tar:
        first = tar.next()  # by its name it would be looked for in all of them
        assert first is not None
        assert first.name == release.MANIFEST
        content = tar.extractfile(first)
        assert content is not None  # it is a plain file
        return content.read()


@dataclass(frozen=True)
class Small:
    file: Path
    version: str

    @classmethod
    def of(cls, file: Path) -> Self:
        """That of a *file*, be it small or not."""
        return cls(file, json.loads(_manifest(file))["version"])

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(_manifest(self.file))
        return found

    def asked(self, root: Path, **more: Any) -> dict[str, Any]:
        told = {name: self.manifest[name] for name in ("version", "python", "platform", "glibc")}
        into = root / "releases" / self.version
        return (
            {"root": str(root), "into": str(into), "digest": manifest_digest(self.file), "needs_bytes": 1}
            | {"keep": 5}
            | told
            | more
        )


def small(folder: Path, version: str = "1.0.0", says: str = "small") -> Small:
    """Build one; its `lectern` prints *says*."""
    tree = folder / f"{version}-{says}"
    info = tree / f"lectern-{version}.dist-info"
    info.mkdir(parents=True)
    (tree / "lectern.py").write_text(f"def main():\n    print({says!r})\n")
    (tree / "gate.py").write_text(_GATE)
    (tree / "gate.pth").write_text("import gate\n")  # no sitecustomize: Debian's Python has one of its own
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lectern\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nlectern = lectern:main\n")
    target = Target.parse(None, None)
    source = Source(version, commit=None, dirty=False, built_at=1_700_000_000)
    file = folder / f"lectern-{version}-{target.name}.tar.gz"
    release.pack(file, tree, release.manifest(tree, source, target), source.built_at)
    return Small(file, version)


def on_host(verb: str, asked: Mapping[str, Any]) -> "subprocess.Popen[str]":
    """Start what the role starts on a host."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-", verb, json.dumps(asked)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(SCRIPT.read_text())
    process.stdin.close()
    process.stdin = None
    return process


def answer(verb: str, asked: Mapping[str, Any], timeout_s: float = 60) -> dict[str, Any]:
    """What it answers; one that refuses fails the test."""
    with on_host(verb, asked) as process:
        out, err = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found
