"""What uv.lock wants on a host: one wheel a package, each with its checksum."""

import asyncio
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag
from packaging.utils import parse_wheel_filename

from lectern.effects import process
from lectern.errors import CallAPerson, Misuse
from playbooks.release.target import GLIBC, Target

_EXPORT_TIMEOUT_S = 60


@dataclass(frozen=True)
class Wheel:
    """A file that the lock names, and for which hosts it is."""

    package: str
    version: str
    marker: str | None
    filename: str
    url: str
    sha256: str
    size_bytes: int | None

    @property
    def requirement(self) -> str:
        """Its lines in requirements.txt."""
        marker = f" ; {self.marker}" if self.marker else ""
        return f"{self.package}=={self.version}{marker} \\\n    --hash=sha256:{self.sha256}\n"


def dependencies(root: Path, scratch: Path, target: Target) -> list[Wheel]:
    """The wheels of all that lectern needs at run time on *target*, by name. Raises Misuse, CallAPerson."""
    return wheels(_exported(root, scratch / "pylock.toml", "--no-dev", "--no-emit-project"), target)


def installer(root: Path, scratch: Path, target: Target) -> Wheel:
    """The wheel of uv, which installs the others on a host. Raises Misuse, CallAPerson."""
    exported = _exported(root, scratch / "pylock.release.toml", "--only-group", "release")
    return next(wheel for wheel in wheels([one for one in exported if one["name"] == "uv"], target))


def wheels(packages: Iterable[Mapping[str, Any]], target: Target) -> list[Wheel]:
    """Of each package that *target* needs, the wheel that fits it best; raises Misuse where there is none."""
    rank = {tag: place for place, tag in enumerate(target.tags())}
    found = {
        f"{package['name']} {package['version']}": _chosen(package, rank)
        for package in packages
        if target.needs(package.get("marker"))
    }
    lacking = sorted(name for name, wheel in found.items() if wheel is None)
    if lacking:
        raise Misuse(
            f"{', '.join(lacking)}: uv.lock has no wheel for {target.name} with glibc {GLIBC[0]}.{GLIBC[1]}. "
            f"Build for another Python (make release PYTHON_VERSION=...), or lock a version that has one."
        )
    return sorted((wheel for wheel in found.values() if wheel is not None), key=lambda wheel: wheel.package)


def _chosen(package: Mapping[str, Any], rank: Mapping[Tag, int]) -> Wheel | None:
    fitting: list[tuple[int, Wheel]] = []
    for one in package.get("wheels", ()):
        filename = unquote(Path(urlsplit(one["url"]).path).name)
        places = [rank[tag] for tag in parse_wheel_filename(filename)[3] if tag in rank]
        if places:
            wheel = Wheel(
                package["name"],
                package["version"],
                package.get("marker"),
                filename,
                one["url"],
                one["hashes"]["sha256"],
                one.get("size"),
            )
            fitting.append((min(places), wheel))
    return min(fitting, key=lambda pair: pair[0])[1] if fitting else None


def _exported(root: Path, into: Path, *which: str) -> Sequence[Mapping[str, Any]]:
    uv = str(Path(sys.prefix, "bin", "uv"))
    argv = (uv, "export", "--frozen", "--quiet", "--no-header", "--format", "pylock.toml", *which, "-o", str(into))
    # Its interpreter is ours: no other one is looked for, nor fetched.
    env = {"UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never"}
    done = asyncio.run(process.run(argv, timeout_s=_EXPORT_TIMEOUT_S, cwd=root, env=env))
    if done.returncode != 0:
        raise CallAPerson(f"uv.lock could not be read: {done.last_words}. Type `uv lock`, and look at what it says.")
    packages: Sequence[Mapping[str, Any]] = tomllib.loads(into.read_text(encoding="utf-8"))["packages"]
    return packages
