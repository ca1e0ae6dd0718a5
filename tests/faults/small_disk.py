"""A real disk of a test's own, small enough to be filled, which can be broken as the kernel breaks one."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SIZE_BYTES = 160 * 1024**2


class SmallDisk:
    """An ext4 in a file, mounted at *path*; after an error in it, it is read-only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"
        found = subprocess.run(["findmnt", "-no", "SOURCE", str(path)], capture_output=True, text=True, check=True)
        self._device = Path(found.stdout.strip()).name

    def fill(self, leave_bytes: int = 0) -> None:
        """Take all room, but for *leave_bytes*."""
        with self._filler.open("ab", buffering=0) as filler:
            room = os.statvfs(self.path)
            left = room.f_bavail * room.f_frsize - leave_bytes if leave_bytes else SIZE_BYTES
            for size in (2**20, 4096):
                try:
                    while left >= size:
                        left -= filler.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)

    def break_down(self) -> None:
        """The kernel finds a fault in the file system, and takes no more writes."""
        Path(f"/sys/fs/ext4/{self._device}/trigger_fs_error").write_text("1")


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """One in *folder*; skips the test where mounts are not ours to make."""
    image, path = folder / "disk.img", folder / "disk"
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES)
    for argv in (
        ["mkfs.ext4", "-q", "-F", "-m", "0", str(image)],
        ["mount", "-o", "loop,errors=remount-ro", str(image), str(path)],
    ):
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip(f"{argv[0]} is not there")
        if done.returncode != 0:
            pytest.skip(f"a disk of its own needs root and a loop device: {done.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", str(path)], check=True)
