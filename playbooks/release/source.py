"""What is released, this project's version, commit and wheel, and for which hosts: their Python and platform."""

import asyncio
import os
import platform
import re
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from lectern import subprocesses
from lectern.errors import CallAPerson, Misuse

_GIT_TIMEOUT_S = 30
_BUILD_TIMEOUT_S = 120


@dataclass(frozen=True)
class Source:
    """The source of the release; *commit* is None outside of git, *built_at* is epoch seconds."""

    version: str
    commit: str | None
    dirty: bool
    built_at: int


def look(root: Path) -> Source:
    """Read the project in *root*; *built_at* is SOURCE_DATE_EPOCH, else the commit's time. Raises Misuse."""
    version: str = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    commit, dirty, committed_at = None, False, int(time.time())
    # A person may have git show whose signature each commit has: those lines come before ours.
    if (root / ".git").exists() and (head := _git(root, "log", "-1", "--no-show-signature", "--format=%H %ct")):
        commit, at = head.split()
        committed_at = int(at)
        dirty = bool(_git(root, "status", "--porcelain"))
    wanted = os.environ.get("SOURCE_DATE_EPOCH")
    if wanted and not wanted.isdecimal():
        raise Misuse(f"SOURCE_DATE_EPOCH={wanted}: must be whole seconds since 1970")
    return Source(version, commit, dirty, int(wanted) if wanted else committed_at)


def own_wheel(root: Path, scratch: Path, source: Source) -> Path:
    """Build this project's wheel: the flows, the library and its catalogues. Raises CallAPerson."""
    catalogues = (*("compile", "--domain", "lectern"), *("--directory", str(root / "lib/lectern/locale")))
    compiled = asyncio.run(
        subprocesses.run((sys.executable, "-m", "babel.messages.frontend", *catalogues), timeout_s=_BUILD_TIMEOUT_S)
    )
    if compiled.returncode != 0:
        raise CallAPerson(f"the catalogues were not compiled: {compiled.last_words or compiled.output}")
    argv = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(scratch))
    env = {"SOURCE_DATE_EPOCH": str(source.built_at)}
    done = asyncio.run(subprocesses.run(argv, timeout_s=_BUILD_TIMEOUT_S, cwd=root, env=env))
    built = sorted(scratch.glob(f"lectern-{source.version}-*.whl"))
    if done.returncode != 0 or len(built) != 1:
        raise CallAPerson(f"the wheel of lectern {source.version} was not built: {done.last_words or done.output}")
    return built[0]


def _git(root: Path, *words: str) -> str:
    """The output of git; empty if git is not installed, or refuses to read this folder."""
    try:
        done = asyncio.run(subprocesses.run(("git", "-C", str(root), *words), timeout_s=_GIT_TIMEOUT_S))
    except Misuse:
        return ""
    return done.output.strip() if done.returncode == 0 else ""


GLIBC = (2, 28)
"""The oldest C library that a host may have: that of Debian 10. What is newer takes the same wheels."""

_OLDEST_PYTHON = (3, 11)
_MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Target:
    """The Python, such as (3, 13), and the machine, such as x86_64, of the hosts, which run Linux."""

    python: tuple[int, int]
    machine: str

    @classmethod
    def parse(cls, python: str | None, platform_name: str | None) -> "Target":
        """Read ``3.13`` and ``linux-x86_64``; None stands for this process's own. Raises Misuse."""
        version = python or f"{sys.version_info.major}.{sys.version_info.minor}"
        if not re.fullmatch(r"3\.\d{1,2}", version) or _pair(version) < _OLDEST_PYTHON:
            raise Misuse(f"PYTHON_VERSION={version}: must be the hosts' Python, 3.11 or newer, such as 3.13")
        name = platform_name or f"linux-{platform.machine()}"
        system, _, machine = name.partition("-")
        if system != "linux" or machine not in _MACHINES:
            known = " or ".join(f"linux-{one}" for one in _MACHINES)
            raise Misuse(f"PLATFORM={name}: must be that of the hosts, {known}")
        return cls(_pair(version), machine)

    @property
    def python_tag(self) -> str:
        """The Python as the names of wheels write it: cp313."""
        return f"cp{self.python[0]}{self.python[1]}"

    @property
    def platform(self) -> str:
        """The platform as it is typed: linux-x86_64."""
        return f"linux-{self.machine}"

    @property
    def name(self) -> str:
        """The target as the release file's name writes it: cp313-linux-x86_64."""
        return f"{self.python_tag}-{self.platform}"

    def uv_options(self) -> list[str]:
        """The options that tell uv for which hosts it installs; of their Python, the patch version is taken as 0."""
        major, minor = self.python
        return ["--python-version", f"{major}.{minor}", "--python-platform", f"{self.machine}-manylinux_2_{GLIBC[1]}"]


def _pair(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)
