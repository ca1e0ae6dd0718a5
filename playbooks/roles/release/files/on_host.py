"""Checks a host, stages a release on it, and prunes old ones; the role sends it, the host's own Python runs it.

    python3 -I - look|stage|prune '{"root": "/opt/lectern", ...}' < on_host.py

It uses the standard library only and, until it knows that the Python fits, only what Python 3.8 has. Prints one JSON
object; an error is one sentence on stderr, with exit code 1.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMPLETE = ".complete"
_MANIFEST = "manifest.json"
_LOCK_WAIT_S, _INSTALL_S, _SLACK_BYTES = 300, 600, 64 << 20
_VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
_PYTHON = f"cp{_VERSION.replace('.', '')}"
_PLATFORM = f"{platform.system().lower()}-{platform.machine()}"


class Trouble(Exception):
    """An error: the text says what went wrong, and what to type."""


def look(asked: dict[str, Any]) -> dict[str, Any]:
    """Say whether the release is staged already, in words why it cannot be, and what to prune; changes nothing."""
    release = Path(asked["root"], "releases", asked["version"])
    staged = _digest(release) == asked["digest"]
    refusals = [] if staged else [*_unfit(asked), *_not_placed(asked, release)]
    return {"staged": staged, "refusals": refusals, "superfluous": [one.name for one in _superfluous(asked)]}


def stage(asked: dict[str, Any]) -> dict[str, Any]:
    """Unpack the tarball, and make a virtual environment of it; complete only when all is done.

    A second call waits for the first, and then has nothing to do; so a first call whose controller was lost can finish.
    """
    tarball, into = Path(asked["tarball"]), Path(asked["into"])
    os.umask(0o022)  # the program runs as another user than we do
    os.nice(5)  # classes are on air, so take little CPU
    with _alone(into.parent) as lock:
        staged = _digest(into) == asked["digest"]
        if not staged:
            _remove(into)
            try:
                _unpack(tarball, into, asked["digest"])
                _install(into, lock)
            except BaseException:  # whatever ends it, also a signal: half a release is none
                _remove(into)
                raise
            part = into / f"{_COMPLETE}.part"
            part.write_text(f"{asked['digest']}\n")
            os.sync()  # after a power loss, a complete release must not have empty files
            part.rename(into / _COMPLETE)
        tarball.unlink(missing_ok=True)
    return {"staged": not staged}


def prune(asked: dict[str, Any]) -> dict[str, Any]:
    """Remove old releases, but not the newest *keep*, the wanted one, those in use, and the one before the current.

    In use are the releases that a link in the root points to, above all `current`; the one before it is the release
    staged before it. *check* only says what would be removed. Folders that are no releases of ours are left alone.
    """
    releases = Path(asked["root"], "releases")
    with contextlib.nullcontext() if asked["check"] or not releases.is_dir() else _alone(releases):
        goes = _superfluous(asked)
        for release in goes if not asked["check"] else ():
            _remove(release)
    return {"pruned": sorted(release.name for release in goes)}


def _unfit(asked: dict[str, Any]) -> Iterator[str]:
    found = f"{sys.executable} is Python {platform.python_version()}, and"
    if sys.version_info < (3, 11):  # noqa: UP036  # the host's, not the one for which this is checked
        yield f"{found} lectern needs 3.11 or newer. Install one, and name it by release_python."
    elif asked["python"] != _PYTHON:
        yield f"{found} the release is for {asked['python']}. Type: make release PYTHON_VERSION={_VERSION}"
    if asked["platform"] != _PLATFORM:
        yield f"it is {_PLATFORM}, and the release is for {asked['platform']}. Type: make release PLATFORM={_PLATFORM}"
    library, found = platform.libc_ver()
    if library != "glibc" or _numbers(found) < _numbers(asked["glibc"]):
        yield f"the C library is {library or 'unknown'} {found}, and the release needs glibc {asked['glibc']} or newer."
    for module in ("ctypes", "sqlite3", "ssl", "venv"):
        if importlib.util.find_spec(module) is None:
            yield f"{sys.executable} has no module {module}. Type: apt-get install python3 python3-venv"


def _in_use(root: Path) -> set[Path]:
    """The releases that a link in the root points to, above all `current`, which points to one through an instance."""
    return {(one / "venv").resolve().parent for one in root.iterdir() if one.is_symlink()} if root.is_dir() else set()


def _not_placed(asked: dict[str, Any], release: Path) -> Iterator[str]:
    if release.resolve() in _in_use(release.parent.parent):
        why = "two releases bear the same version. Raise the version in pyproject.toml, and type: make release"
        yield f"{release} is in use, and is not what this release file holds: {why}"
    where = next(one for one in Path(asked["root"], "releases").parents if one.exists())
    free, needs = shutil.disk_usage(where).free, asked["needs_bytes"] + _SLACK_BYTES
    if free < needs:
        yield f"{where} has {free >> 20} MB free, and the release needs {needs >> 20} MB. Make room there."


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".") if number.isdecimal()]


def _digest(release: Path) -> str | None:
    """The digest of the manifest of a completely staged release; None if it was not staged completely."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return (release / _COMPLETE).read_text().strip()
    return None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Hold the folder's lock; raises Trouble if another process keeps it for too long."""
    with (folder / ".lock").open("a") as lock:
        for _ in range(_LOCK_WAIT_S * 10):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
        else:
            who = f"Type `fuser -v {folder}/.lock` to see who; then run this again."
            raise Trouble(f"{folder}: somebody else has been staging there for {_LOCK_WAIT_S} s. {who}")
        yield lock.fileno()


def _remove(release: Path) -> None:
    """Remove a release; if this is killed in the middle, the release is no longer marked complete."""
    (release / _COMPLETE).unlink(missing_ok=True)
    if release.exists():
        shutil.rmtree(release)


def _unpack(tarball: Path, into: Path, digest: str) -> None:
    """Unpack the tarball, which is whole if its copy arrived whole; raises Trouble if it is not the release's."""
    into.mkdir()
    argv = ["tar", "--extract", "--gzip", "--no-same-owner", f"--file={tarball}", f"--directory={into}"]
    tar = subprocess.run(argv, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    if tar.returncode != 0:
        raise Trouble(f"{tarball}: it is damaged: {' '.join(tar.stderr.split())}. Run this again.")
    if hashlib.sha256((into / _MANIFEST).read_bytes()).hexdigest() != digest:
        raise Trouble(f"{tarball}: its manifest is not the one of the release file. Run this again.")


def _install(release: Path, lock: int) -> None:
    """Make a virtual environment whose packages are those of the release, with their programs and bytecode."""
    import venv  # noqa: PLC0415  # look must say so where it is missing

    environment = release / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    [packages] = environment.glob("lib/python3*/site-packages")
    packages.rmdir()
    (release / "packages").rename(packages)
    for one in importlib.metadata.distributions(path=[str(packages)]):
        for point in one.entry_points:
            if point.group == "console_scripts":
                program, begins = environment / "bin" / point.name, point.attr.partition(".")[0]
                text = f"from {point.module} import {begins}\nsys.exit({point.attr}())\n"
                program.write_text(f"#!{program.parent}/python\nimport sys\n{text}")
                program.chmod(0o755)
    # It inherits the lock: if this process is killed, the lock is held until it has ended. Files that are no Python of
    # this version, such as templates, are none of our business.
    python = str(environment / "bin" / "python")
    argv = [python, "-m", "compileall", "-qq", "-j", "0", str(packages)]
    subprocess.run(argv, pass_fds=[lock], capture_output=True, timeout=_INSTALL_S, check=False)


def _superfluous(asked: dict[str, Any]) -> list[Path]:
    releases, wanted, keep = Path(asked["root"], "releases").resolve(), asked["version"], int(asked["keep"])
    if not releases.is_dir():
        return []
    ours = [release for release in releases.iterdir() if (release / _MANIFEST).is_file()]
    staged_at = {one: (one / _COMPLETE).stat().st_mtime_ns for one in ours if _digest(one) is not None}
    newest_first = sorted(staged_at, key=lambda one: staged_at[one], reverse=True)
    newest_others = [one for one in newest_first if one.name != wanted][: max(keep - 1, 0)]
    stays = {releases / wanted, *_in_use(releases.parent), *newest_others}
    current = (releases.parent / "current" / "venv").resolve().parent
    if current in newest_first:
        stays.update(newest_first[newest_first.index(current) :][:2])
    return [release for release in ours if release not in stays]


def main(verb: str, asked: dict[str, Any]) -> int:
    """Do what *verb* asks for, and print the answer; returns the exit code."""
    try:
        answer = {"look": look, "stage": stage, "prune": prune}[verb](asked)
    except (Trouble, OSError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2])))
