"""The packages that uv.lock wants on a host, with their versions and the checksums of their files."""

import asyncio
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from lectern.effects import process
from lectern.errors import CallAPerson
from playbooks.release.target import Target

_EXPORT_TIMEOUT_S = 60


@dataclass(frozen=True)
class Locked:
    """A package of the lock: its name, ``name==1.0``, the marker of the hosts that need it, and its hash options."""

    name: str
    pinned: str
    marker: str | None
    hashes: tuple[str, ...]

    def line(self, *hashes: str) -> str:
        """The package's line of a requirements file, with its marker and these hash options."""
        marker = f" ; {self.marker}" if self.marker else ""
        return f"{self.pinned}{marker} {' '.join(hashes)}\n"


def dependencies(root: Path, target: Target) -> list[Locked]:
    """The packages that lectern needs at run time on *target*, in the order of their names. Raises CallAPerson."""
    return wanted(
        _exported(root, "--no-dev", "--extra", "postgresql", "--extra", "prefect-servers", "--no-emit-project"), target
    )


def installer(root: Path, target: Target) -> Locked:
    """The uv that installs the others on a host. Raises CallAPerson."""
    return next(one for one in wanted(_exported(root, "--only-group", "release"), target) if one.name == "uv")


def wanted(exported: str, target: Target) -> list[Locked]:
    """The packages of a requirements file that *target* needs."""
    found = []
    for entry in re.split(r"\n(?=\S)", exported.strip()):
        words, *hashes = entry.split(" \\\n    ")
        told = Requirement(words)
        if target.needs(told.marker):
            marker = str(told.marker) if told.marker else None
            found.append(Locked(told.name, f"{told.name}{told.specifier}", marker, tuple(hashes)))
    return found


def _exported(root: Path, *which: str) -> str:
    uv = str(Path(sys.prefix, "bin", "uv"))
    argv = (uv, "export", "--frozen", "--quiet", "--no-header", "--no-annotate", "--format", "requirements.txt", *which)
    lines: list[str] = []
    # uv must use our interpreter, and neither look for another one nor fetch one.
    env = {"UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never"}
    done = asyncio.run(process.run(argv, timeout_s=_EXPORT_TIMEOUT_S, on_line=lines.append, cwd=root, env=env))
    if done.returncode != 0:
        raise CallAPerson(f"uv.lock could not be read: {done.last_words}. Type `uv lock`, and look at what it says.")
    return "\n".join(lines)
