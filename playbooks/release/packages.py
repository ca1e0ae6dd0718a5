"""Installs what uv.lock wants on a host into a folder, for that host's Python and platform, whatever is here."""

import asyncio
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lectern import subprocesses
from lectern.errors import CallAPerson, LecternError, Misuse, TryAgain
from playbooks.release.source import Target

_TIMEOUT_S = 3600
_UV = str(Path(sys.prefix, "bin", "uv"))
_ENV = {"UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never"}
"""uv must use our interpreter, and neither look for another one nor fetch one."""
_OURS = re.compile(r"^(bin/|[^/]+\.dist-info/uv_cache\.json|[^/]+\.dist-info/direct_url\.json)[^\n]*\n", re.MULTILINE)
"""Lines of a RECORD for what is of this machine: programs with the path of its Python, and where a wheel lay."""


def locked(root: Path) -> str:
    """The packages that lectern needs at run time, with their checksums, as a requirements file. Raises CallAPerson."""
    argv = ["export", "--frozen", "--quiet", "--no-header", "--no-annotate", "--format", "requirements.txt"]
    argv += ["--no-dev", "--extra", "postgresql", "--extra", "prefect-servers", "--no-emit-project"]
    lines: list[str] = []
    done = asyncio.run(subprocesses.run([_UV, *argv], timeout_s=60, on_line=lines.append, cwd=root, env=_ENV))
    if done.returncode != 0:
        raise CallAPerson(f"uv.lock could not be read: {done.last_words}. Type `uv lock`, and look at what it says.")
    return "".join(f"{line}\n" for line in lines)


def install(requirements: str, target: Target, into: Path) -> None:
    """Install *requirements*, each by its checksum, into the folder *into*; uv's cache keeps them for the next build.

    Raises Misuse for a package without a fitting wheel, TryAgain if the network fails, CallAPerson for a file that is
    not the locked one.
    """
    into.mkdir()
    wanted = into.with_name(f"{into.name}.txt")
    wanted.write_text(requirements, encoding="utf-8")
    argv = [_UV, "pip", "sync", "--require-hashes", "--no-build", "--target", str(into), *target.uv_options()]
    # First without the network: if all wheels are kept from an earlier build, none is needed.
    if _ran([*argv, "--offline", str(wanted)]) and (said := _ran([*argv, str(wanted)])):
        raise _trouble(said, target)
    shutil.rmtree(into / "bin", ignore_errors=True)
    for left in (into / ".lock", *into.glob("*.dist-info/uv_cache.json"), *into.glob("*.dist-info/direct_url.json")):
        left.unlink(missing_ok=True)
    for record in into.glob("*.dist-info/RECORD"):
        record.write_text(_OURS.sub("", record.read_text(encoding="utf-8")), encoding="utf-8")


def _ran(argv: Sequence[str]) -> str:
    """What uv said of its failure; empty if it did not fail."""
    done = asyncio.run(subprocesses.run(argv, timeout_s=_TIMEOUT_S, env=_ENV))
    return "" if done.returncode == 0 else done.errors or "uv said nothing"


def _trouble(said: str, target: Target) -> LecternError:
    """The error for what *said* says went wrong."""
    words = " ".join(said.partition("error: ")[2].split())
    if "Hash mismatch" in said:
        return CallAPerson(f"{words}. Something changed the file on its way or after it was fetched: find out what.")
    if "no wheels with a matching" in said:
        return Misuse(f"{words} Build {target.name} for another Python, or lock a version that has a wheel for it.")
    return TryAgain(f"{words}. See that this machine reaches the index of packages; then type the same again.")
