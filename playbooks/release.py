"""Builds dist/lectern-VERSION-cp313-linux-x86_64.tar.gz; what `make release` calls."""

import argparse
import asyncio
import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import sys
import tarfile
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lectern import subprocesses
from lectern.errors import CallAPerson, LecternError, Misuse, TryAgain
from lectern.rollout.files import sha256

ROOT = Path(__file__).resolve().parents[1]
GLIBC = (2, 28)
"""The oldest C library that a host may have: that of Debian 10. What is newer takes the same wheels."""
MANIFEST, PACKAGES = "manifest.json", "packages"
_OLDEST_PYTHON = (3, 11)
_MACHINES = ("x86_64", "aarch64")
_GIT_TIMEOUT_S, _BUILD_TIMEOUT_S, _INSTALL_TIMEOUT_S = 30, 120, 3600
_UV = str(Path(sys.prefix, "bin", "uv"))
_ENV = {"UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never"}
"""uv must use our interpreter, and neither look for another one nor fetch one."""
_OURS = re.compile(r"^(bin/|[^/]+\.dist-info/uv_cache\.json|[^/]+\.dist-info/direct_url\.json)[^\n]*\n", re.MULTILINE)
"""Lines of a RECORD for what is of this machine: programs with the path of its Python, and where a wheel lay."""
_LEVEL = 1
"""The compression level of gzip: most of what is packed is small text, and more would take minutes."""
_BYTECODE = 1.1
"""Bytes of bytecode for each byte of Python, as seen; a little more than that."""


@dataclass(frozen=True)
class Target:
    """The Python, such as (3, 13), and the machine, such as x86_64, of the hosts, which run Linux."""

    python: tuple[int, int]
    machine: str

    @classmethod
    def parse(cls, python: str | None, platform_name: str | None) -> "Target":
        """Read ``3.13`` and ``linux-x86_64``; None stands for this process's own. Raises Misuse."""
        version = python or f"{sys.version_info.major}.{sys.version_info.minor}"
        major, _, minor = version.partition(".")
        if not re.fullmatch(r"3\.\d{1,2}", version) or (int(major), int(minor)) < _OLDEST_PYTHON:
            raise Misuse(f"PYTHON_VERSION={version}: must be the hosts' Python, 3.11 or newer, such as 3.13")
        name = platform_name or f"linux-{platform.machine()}"
        system, _, machine = name.partition("-")
        if system != "linux" or machine not in _MACHINES:
            known = " or ".join(f"linux-{one}" for one in _MACHINES)
            raise Misuse(f"PLATFORM={name}: must be that of the hosts, {known}")
        return cls((int(major), int(minor)), machine)

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


def _git(root: Path, *words: str) -> str:
    """The output of git; empty if git is not installed, or refuses to read this folder."""
    try:
        done = asyncio.run(subprocesses.run(("git", "-C", str(root), *words), timeout_s=_GIT_TIMEOUT_S))
    except Misuse:
        return ""
    return done.output.strip() if done.returncode == 0 else ""


def _own_wheel(root: Path, scratch: Path, source: Source) -> Path:
    """Build this project's wheel: the flows, the library and its catalogues. Raises CallAPerson."""
    argv = [sys.executable, "-m", "babel.messages.frontend", "compile", "--domain", "lectern"]
    argv += ["--directory", str(root / "lib/lectern/locale")]
    compiled = asyncio.run(subprocesses.run(argv, timeout_s=_BUILD_TIMEOUT_S))
    if compiled.returncode != 0:
        raise CallAPerson(f"the catalogues were not compiled: {compiled.last_words or compiled.output}")
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(scratch)]
    env = {"SOURCE_DATE_EPOCH": str(source.built_at)}
    done = asyncio.run(subprocesses.run(argv, timeout_s=_BUILD_TIMEOUT_S, cwd=root, env=env))
    built = sorted(scratch.glob(f"lectern-{source.version}-*.whl"))
    if done.returncode != 0 or len(built) != 1:
        raise CallAPerson(f"the wheel of lectern {source.version} was not built: {done.last_words or done.output}")
    return built[0]


def _locked(root: Path) -> str:
    """The packages that lectern needs at run time, with their checksums, as a requirements file. Raises CallAPerson."""
    argv = ["export", "--frozen", "--quiet", "--no-header", "--no-annotate", "--format", "requirements.txt"]
    argv += ["--no-dev", "--extra", "postgresql", "--extra", "prefect-servers", "--no-emit-project"]
    lines: list[str] = []
    done = asyncio.run(subprocesses.run([_UV, *argv], timeout_s=60, on_line=lines.append, cwd=root, env=_ENV))
    if done.returncode != 0:
        raise CallAPerson(f"uv.lock could not be read: {done.last_words}. Type `uv lock`, and look at what it says.")
    return "".join(f"{line}\n" for line in lines)


def install(requirements: str, target: Target, into: Path) -> None:
    """Install *requirements*, each by its checksum, into the folder *into*, whatever Python and platform are here.

    uv's cache keeps them for the next build. Raises Misuse for a package without a fitting wheel, TryAgain if the
    network fails, CallAPerson for a file that is not the locked one.
    """
    into.mkdir()
    wanted = into.with_name(f"{into.name}.txt")
    wanted.write_text(requirements, encoding="utf-8")
    major, minor = target.python  # the patch version is taken as 0
    argv = [_UV, "pip", "sync", "--require-hashes", "--no-build", "--target", str(into), "--python-version"]
    argv += [f"{major}.{minor}", "--python-platform", f"{target.machine}-manylinux_2_{GLIBC[1]}", str(wanted)]

    def synced(*more: str) -> subprocesses.Finished:
        return asyncio.run(subprocesses.run([*argv, *more], timeout_s=_INSTALL_TIMEOUT_S, env=_ENV))

    # First without the network: if all wheels are kept from an earlier build, none is needed.
    if synced("--offline").returncode != 0 and (done := synced()).returncode != 0:
        words = " ".join(done.errors.partition("error: ")[2].split())
        if "Hash mismatch" in done.errors:
            raise CallAPerson(f"{words}. Something changed the file on its way or after it was fetched: find out what.")
        if "no wheels with a matching" in done.errors:
            raise Misuse(f"{words} Build {target.name} for another Python, or lock a version that has a wheel for it.")
        raise TryAgain(f"{words}. See that this machine reaches the index of packages; then type the same again.")
    shutil.rmtree(into / "bin", ignore_errors=True)
    for left in (into / ".lock", *into.glob("*.dist-info/uv_cache.json"), *into.glob("*.dist-info/direct_url.json")):
        left.unlink(missing_ok=True)
    for record in into.glob("*.dist-info/RECORD"):
        record.write_text(_OURS.sub("", record.read_text(encoding="utf-8")), encoding="utf-8")


def manifest(tree: Path, source: Source, target: Target) -> bytes:
    """The manifest for the host: what this is, which hosts it fits, its sizes, and the checksum of all files."""
    files = _files(tree)
    sums = "".join(f"{sha256(one)}  {one.relative_to(tree)}\n" for one in files)
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


def pack(file: Path, tree: Path, told: bytes, built_at: int) -> Path:
    """Pack *tree* with its manifest *told* into *file*, and write its checksum beside it; returns the checksum's file.

    The manifest is first, then come all files by name; owners, times and modes are fixed: the same bytes each time. Two
    builds at once have a part file each; the last one to finish replaces the other by the same bytes.
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
        (Path(folder) / checksum.name).write_text(f"{sha256(part)}  {file.name}\n", encoding="ascii")
        part.replace(file)
        (Path(folder) / checksum.name).replace(checksum)
    return checksum


def _files(tree: Path) -> list[Path]:
    return sorted(one for one in tree.rglob("*") if one.is_file())


def _add(tar: tarfile.TarFile, name: str, content: bytes, at: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), 0o644, at
    member.uname = member.gname = "root"
    tar.addfile(member, io.BytesIO(content))


def built(target: Target, dist: Path, console: Console) -> Path:
    """Build the release for *target* into *dist*. Raises LecternError."""
    found = look(ROOT)
    if found.dirty:
        console.print(f"Not all of it is committed: the release is {found.version}, but not that of {found.commit}.")
    with tempfile.TemporaryDirectory(prefix="lectern-release-") as name:
        scratch = Path(name)
        console.print("Building the wheel of lectern")
        own = _own_wheel(ROOT, scratch, found)
        console.print(f"Installing what uv.lock wants for {target.name}")
        tree = scratch / "packages"
        install(f"{_locked(ROOT)}{own} --hash=sha256:{sha256(own)}\n", target, tree)
        console.print("Packing it")
        dist.mkdir(parents=True, exist_ok=True)
        file = dist / f"lectern-{found.version}-{target.name}.tar.gz"
        pack(file, tree, manifest(tree, found, target), found.built_at)
    return file


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code is 1 for trouble and 2 for misuse."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("--python-version", metavar="3.13", help="the hosts' Python; else the one that builds")
    parser.add_argument("--platform", metavar="linux-x86_64", help="the hosts' platform; else this machine's")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where to put it")
    given = parser.parse_args(argv)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    began = time.monotonic()
    try:
        file = built(Target.parse(given.python_version, given.platform), given.dist, console)
    except LecternError as error:
        console.print(error.message, markup=False)
        return 2 if isinstance(error, Misuse) else 1
    console.print(f"{file.stat().st_size / 1e6:.1f} MB in {time.monotonic() - began:.1f} s", markup=False)
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
