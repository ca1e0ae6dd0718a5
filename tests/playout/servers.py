"""Other people's RTMP servers, on loopback: ffmpeg that listens, and nginx."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from zlib import crc32

import av

from tests.playout.receiver import HOST
from tests.waiting import wait_until
from town.ports import free_port

NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")
HAS_NGINX = shutil.which("nginx") is not None and NGINX_MODULE.exists()


def states(port: int) -> set[str]:
    """The states of the sockets at *port*, asked of the kernel: ffmpeg serves the first connection only."""
    wanted = f"{int.from_bytes(socket.inet_aton(HOST), 'little'):08X}:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[3] for row in rows if row[1] == wanted}


def listens(port: int) -> bool:
    """Whether somebody listens on *port*."""
    return "0A" in states(port)


def serves(url: str) -> bool:
    """Whether the server has a connection that it has not closed: a recording is written before that."""
    port = urlsplit(url).port
    assert port is not None
    return not states(port).isdisjoint({"01", "08"})  # established; closed by us only


@contextmanager
def listening_ffmpeg(to: Path) -> Iterator[str]:
    """An ffmpeg that writes down what is pushed to the URL; at the end it has written all."""
    port = free_port()
    url = f"rtmp://{HOST}:{port}/live/x"
    argv = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-copyts", "-listen", "1", "-i", url]
    argv += ["-c", "copy", "-f", "flv", str(to)]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(port), description="an ffmpeg that listens")
        yield url
        process.wait(60)
    finally:
        process.kill()
        process.wait()


@contextmanager
def nginx(folder: Path) -> Iterator[str]:
    """An nginx that records into *folder*; yields the URL without the stream's name."""
    port = free_port()
    records = folder / "records"
    records.mkdir(parents=True)
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(f"""
load_module {NGINX_MODULE};
{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
rtmp {{ server {{ listen {HOST}:{port}; max_message 16M; ping 1s; ping_timeout 3s; ack_window 100000;
  application live {{ live on; record all; record_path {records}; record_suffix .flv; }} }} }}
""")
    argv = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(port), description="nginx")
        yield f"rtmp://{HOST}:{port}/live"
    finally:
        process.terminate()
        process.wait(20)


class Packet(NamedTuple):
    """One sound or picture of a recording; its times are in milliseconds."""

    kind: str
    pts: int
    dts: int
    rest: tuple[int | None, int, bool, bool, int]
    """Duration, size, whether it is a keyframe, whether it is faulty, and the CRC of its data."""


def packets(path: Path) -> list[Packet]:
    """Every sound and picture of a recording, in its order; a server's own data is passed over."""
    found = []
    with av.open(path) as media:
        for one in media.demux(*media.streams.video, *media.streams.audio):
            rest = one.duration, one.size, one.is_keyframe, one.is_corrupt or one.is_discard, crc32(bytes(one))
            if one.size:  # the last one of each stream is empty
                assert one.pts is not None and one.dts is not None  # noqa: PT018 (each has both)
                found.append(Packet(one.stream.type, one.pts, one.dts, rest))
    return found
