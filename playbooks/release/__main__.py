"""Builds dist/lectern-VERSION-cp313-linux-x86_64.tar.gz; what `make release` calls."""

import argparse
import hashlib
import sys
import tempfile
import time
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename
from rich.console import Console

from lectern.errors import LecternError, Misuse
from playbooks.release import download, lock, source, tarball
from playbooks.release.lock import Locked
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
        wanted, uv = lock.dependencies(ROOT, target), lock.installer(ROOT, target)
        console.print(f"Fetching {len(wanted) + 1} wheels")
        wheels = {_package(file): file for file in download.fetched([*wanted, uv], target, cache, scratch)}
        uv_file = wheels.pop(uv.name)
        console.print("Building the wheel of lectern")
        wheels["lectern"] = source.own_wheel(ROOT, scratch, found)
        own = Locked("lectern", f"lectern=={found.version}", None, ())
        entries = [
            *(tarball.Entry(f"wheels/{file.name}", file.read_bytes()) for file in wheels.values()),
            tarball.Entry("bin/uv", source.uv_program(uv_file, scratch).read_bytes()),
            tarball.Entry("requirements.txt", _requirements([*wanted, own], wheels)),
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


def _package(wheel: Path) -> str:
    return parse_wheel_filename(wheel.name)[0]


def _requirements(packages: list[Locked], wheels: dict[str, Path]) -> bytes:
    """The requirements that a host installs: each package with the checksum of its one wheel in the release."""
    lines = []
    for one in sorted(packages, key=lambda one: one.name):
        digest = hashlib.sha256(wheels[canonicalize_name(one.name)].read_bytes()).hexdigest()
        lines.append(one.line(f"--hash=sha256:{digest}"))
    return "".join(lines).encode()


if __name__ == "__main__":
    sys.exit(main())
