"""Lets pip fetch the locked wheels, and refuses every file whose checksum is not in the lock."""

import asyncio
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lectern.effects import process
from lectern.errors import CallAPerson, LecternError, Misuse, TryAgain
from playbooks.release.lock import Locked
from playbooks.release.target import GLIBC, Target

_TIMEOUT_S = 3600


def fetched(packages: Sequence[Locked], target: Target, cache: Path, scratch: Path) -> list[Path]:
    """The wheel of each package that fits *target* best, in *scratch*; *cache* keeps them for the next build.

    Raises Misuse for a package without a fitting wheel, TryAgain if the network fails, CallAPerson for a file that is
    not the locked one.
    """
    scratch.mkdir(exist_ok=True)
    kept, into, log = cache / target.name, scratch / "wheels", scratch / "pip.log"
    kept.mkdir(parents=True, exist_ok=True)
    requirements = scratch / "wanted.txt"
    # pip would judge markers by its own Python; the packages that the target needs are chosen already.
    requirements.write_text("".join(f"{one.pinned} {' '.join(one.hashes)}\n" for one in packages))
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--log", str(log)]
    argv += ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(requirements), "-d", str(into)]
    argv += [*target.pip_options(), "--find-links", str(kept)]
    # First without the index: if all wheels are kept from an earlier build, no network is needed.
    if not (_ran([*argv, "--no-index"], log) or _ran(argv, log)):
        raise _trouble(log.read_text(encoding="utf-8"), target)
    files = sorted(into.iterdir())
    for file in files:
        _keep(file, kept)
    return files


def _ran(argv: Sequence[str], log: Path) -> bool:
    log.unlink(missing_ok=True)
    return asyncio.run(process.run(argv, timeout_s=_TIMEOUT_S)).returncode == 0


def _keep(file: Path, kept: Path) -> None:
    """Put a copy into its place at once: another build may read it at this moment."""
    if not (kept / file.name).exists():
        with tempfile.TemporaryDirectory(prefix=".part-", dir=kept) as folder:
            Path(shutil.copy(file, folder)).replace(kept / file.name)


def _trouble(log: str, target: Target) -> LecternError:
    """The error for what pip's *log* says went wrong."""
    if other := re.search(r"(\S+) from (\S+) .*\n.*Expected sha256", log):
        got = re.search(r"Got +([0-9a-f]{64})", log)
        return CallAPerson(
            f"{other[1]}: {other[2]} has sha256 {got[1] if got else 'unknown'}, which uv.lock does not list. Something "
            f"changed the file on its way or after it was fetched. Find out what; if it is kept here, remove it; then "
            f"type the same again."
        )
    lacking = re.search(r"No matching distribution found for (\S+)", log)
    said = re.search(r"(?:Retrying|Could not fetch|HTTP error|ReadTimeoutError).*", log)
    if said or not lacking:
        last = log.strip().splitlines()[-1:] or ["pip said nothing"]
        return TryAgain(
            f"{lacking[1] if lacking else 'the wheels'}: could not be fetched ({said[0] if said else last[0]}). See "
            f"that this machine reaches the index of packages; then type the same again, what came is kept."
        )
    return Misuse(
        f"{lacking[1]}: uv.lock has no wheel for {target.name} with glibc {GLIBC[0]}.{GLIBC[1]}. "
        f"Build for another Python (make release PYTHON_VERSION=...), or lock a version that has one."
    )
