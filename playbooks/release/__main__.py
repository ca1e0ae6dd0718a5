"""Builds dist/lectern-VERSION-cp313-linux-x86_64.tar.gz; what `make release` calls."""

import argparse
import hashlib
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from lectern.errors import LecternError, Misuse
from playbooks.release import download, lock, source, tarball
from playbooks.release.lock import Wheel
from playbooks.release.target import Target

ROOT = Path(__file__).resolve().parents[2]


def built(target: Target, dist: Path, cache: Path, console: Console) -> Path:
    """Build the release for *target* into *dist*; the locked wheels are kept in *cache*. Raises LecternError."""
    found = source.look(ROOT)
    if found.dirty:
        console.print(f"Not all of it is committed: the release is {found.version}, but not that of {found.commit}.")
    with tempfile.TemporaryDirectory(prefix="lectern-release-") as name:
        scratch = Path(name)
        console.print(f"Reading uv.lock for {target.name}")
        wanted = lock.dependencies(ROOT, scratch, target)
        uv = lock.installer(ROOT, scratch, target)
        *files, uv_file = _fetched([*wanted, uv], cache, console)
        console.print("Building the wheel of lectern")
        own = source.own_wheel(ROOT, scratch, found)
        entries = [
            *(tarball.Entry(f"wheels/{file.name}", file.read_bytes()) for file in (*files, own)),
            tarball.Entry("bin/uv", source.uv_program(uv_file, scratch).read_bytes()),
            tarball.Entry("requirements.txt", _requirements([*wanted, _as_locked(own, found.version)])),
        ]
    console.print(f"Packing {len(entries)} files")
    dist.mkdir(parents=True, exist_ok=True)
    told = tarball.manifest(entries, found, target)
    file = dist / f"lectern-{found.version}-{target.name}.tar.gz"
    tarball.write(file, tarball.pack(entries, told, found.built_at))
    return file


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code is 1 for trouble and 2 for misuse."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("--python-version", metavar="3.13", help="the hosts' Python; else the one that builds")
    parser.add_argument("--platform", metavar="linux-x86_64", help="the hosts' platform; else this machine's")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where to put it")
    parser.add_argument("--cache", type=Path, default=ROOT / "dist" / ".wheels", help="where wheels are kept")
    given = parser.parse_args(argv)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    began = time.monotonic()
    try:
        file = built(Target.parse(given.python_version, given.platform), given.dist, given.cache, console)
    except LecternError as error:
        console.print(error.message, markup=False)
        return 2 if isinstance(error, Misuse) else 1
    console.print(f"{file.stat().st_size / 1e6:.1f} MB in {time.monotonic() - began:.1f} s", markup=False)
    print(file)
    return 0


def _fetched(wheels: list[Wheel], cache: Path, console: Console) -> list[Path]:
    columns = (TextColumn("Fetching wheels"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("wheels", total=sum(wheel.size_bytes or 0 for wheel in wheels))
        return download.fetched(wheels, cache, lambda size_bytes: progress.advance(task, size_bytes))


def _as_locked(own: Path, version: str) -> Wheel:
    content = own.read_bytes()
    return Wheel("lectern", version, None, own.name, "", hashlib.sha256(content).hexdigest(), len(content))


def _requirements(wheels: list[Wheel]) -> bytes:
    return "".join(wheel.requirement for wheel in sorted(wheels, key=lambda one: one.package)).encode()


if __name__ == "__main__":
    sys.exit(main())
