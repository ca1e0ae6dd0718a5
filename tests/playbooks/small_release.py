"""A release of one tiny program, which is staged in a second; its installer can be made to wait at a gate."""

import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from playbooks.release import tarball
from playbooks.release.source import Source
from playbooks.release.target import Target

SCRIPT = Path(__file__).parents[2] / "playbooks/roles/release/files/on_host.py"
_UV = """\
#!/bin/sh
# The real one. Before and after it waits as long as there is a gate beside the releases, 30 s at most.
at() {{
    touch "$HOME/$1"
    n=0
    while [ -e "$HOME/../gate-$1" ] && [ $n -lt 600 ]; do sleep 0.05; n=$((n + 1)); done
}}
at installing
{uv} "$@" || exit
at installed
"""


@dataclass(frozen=True)
class Small:
    """A built release file."""

    file: Path
    version: str

    @property
    def manifest(self) -> dict[str, Any]:
        """As it is in the file."""
        with tarfile.open(self.file) as tar:
            content = tar.extractfile(tarball.MANIFEST)
            assert content is not None
            found: dict[str, Any] = json.load(content)
            return found

    def asked(self, root: Path, **more: Any) -> dict[str, Any]:
        """What the role asks the host for."""
        with tarfile.open(self.file) as tar:
            content = tar.extractfile(tarball.MANIFEST)
            assert content is not None
            digest = hashlib.sha256(content.read()).hexdigest()
        told = {name: self.manifest[name] for name in ("version", "python", "platform", "glibc")}
        into = root / "releases" / self.version
        return {"root": str(root), "into": str(into), "digest": digest, "needs_bytes": 1} | told | more

    def tampered(self, folder: Path, name: str) -> "Small":
        """The same, but with other content in the file *name*, of which the manifest does not know."""
        folder.mkdir()
        file = folder / self.file.name
        with tarfile.open(self.file) as old, tarfile.open(file, "w:gz") as new:
            for member in old:
                content = old.extractfile(member)
                assert content is not None
                data = content.read()
                if member.name == name:
                    data = bytes([data[0] ^ 1]) + data[1:]
                new.addfile(member, io.BytesIO(data))
        file.with_name(f"{file.name}.sha256").write_text(
            f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        )
        return replace(self, file=file)


def small(folder: Path, version: str = "1.0.0", says: str = "small") -> Small:
    """Build one; its `lectern` prints *says*."""
    wheel = _wheel(version, says)
    name = f"lectern-{version}-py3-none-any.whl"
    requirement = f"lectern=={version} --hash=sha256:{hashlib.sha256(wheel).hexdigest()}\n"
    entries = [
        tarball.Entry(f"wheels/{name}", wheel),
        tarball.Entry("bin/uv", _UV.format(uv=Path(sys.prefix, "bin", "uv")).encode()),
        tarball.Entry("requirements.txt", requirement.encode()),
    ]
    target = Target.parse(None, None)
    source = Source(version, commit=None, dirty=False, built_at=1_700_000_000)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"lectern-{version}-{target.name}.tar.gz"
    tarball.write(file, tarball.pack(entries, tarball.manifest(entries, source, target), source.built_at))
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


def answer(verb: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What it answers; one that refuses fails the test."""
    with on_host(verb, asked) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def _wheel(version: str, says: str) -> bytes:
    info = f"lectern-{version}.dist-info"
    files = {
        "lectern.py": f"def main():\n    print({says!r})\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: lectern\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nlectern = lectern:main\n",
    }
    record = "".join(f"{name},sha256={_record(text)},{len(text.encode())}\n" for name, text in files.items())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            wheel.writestr(zipfile.ZipInfo(name), text)
    return packed.getvalue()


def _record(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
