"""What arrives is what `ffmpeg -c copy` would send, packet by packet: times, sizes, flags and data."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.playout import flvs, servers
from tests.playout.receiver import wait_until
from tests.playout.stage import Playout

PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25")
NOISE = ("-f", "lavfi", "-i", "nullsrc=size=1280x720:rate=25,geq=random(1)*255:128:128,loop=loop=-1:size=1:start=0")
TONE = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100")
AAC = ("-c:a", "aac", "-b:a", "64k")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25")
SECONDS = ("-t", "4")


def b_frames(path: Path) -> Path:
    return flvs.encode(path, *PICTURE, *TONE, *X264, "-preset", "veryfast", "-bf", "3", *AAC, *SECONDS)


def big_keyframes(path: Path) -> Path:
    return flvs.encode(path, *NOISE, *TONE, *X264, "-qp", "6", "-g", "50", *AAC, *SECONDS)


def sound_only(path: Path) -> Path:
    return flvs.encode(path, *TONE, *AAC, *SECONDS)


def hevc(path: Path) -> Path:
    quiet = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none")
    return flvs.encode(path, *PICTURE, *TONE, *quiet, "-g", "25", *AAC, *SECONDS)


def header_in_the_middle(path: Path) -> Path:
    """Two recordings one after another, each with its own headers."""
    first = flvs.read(b_frames(path.with_suffix(".1")))
    argv = (*PICTURE, *TONE, "-c:v", "libx264", "-profile:v", "baseline", "-g", "25", *AAC, "-ac", "2", "-t", "3")
    second = flvs.read(flvs.encode(path.with_suffix(".2"), *argv))
    later = max(at for _, at, _ in first) + 40
    return flvs.write(path, [*first, *((kind, at + later, body) for kind, at, body in second)])


CASES = [b_frames, big_keyframes, sound_only, hevc, header_in_the_middle]


@pytest.mark.parametrize("make", CASES, ids=[one.__name__ for one in CASES])
def test_ffmpeg_receives_what_ffmpeg_would_send(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    path = make(tmp_path / "a.flv")
    if make is big_keyframes:
        assert max(len(body) for _, _, body in flvs.read(path)) > 1024 * 1024
    with (
        servers.listening_ffmpeg(tmp_path / "theirs.flv") as their_url,
        servers.listening_ffmpeg(tmp_path / "ours.flv") as our_url,
        Playout(tmp_path / "p") as playout,
    ):
        theirs = servers.push(path, their_url)
        playout.air("c1", path, our_url, starts_in_s=1)
        assert theirs.wait(60) == 0
        wait_until(lambda: playout.told("ended"), description="the end", timeout_s=60)
    ours = servers.packets(tmp_path / "ours.flv")
    assert len(ours) > 70
    assert ours == servers.packets(tmp_path / "theirs.flv")
    assert playout.events[0]["event"] == "connected"


@pytest.mark.skipif(not servers.HAS_NGINX, reason="nginx with its RTMP module is not installed: libnginx-mod-rtmp")
@pytest.mark.parametrize("make", [b_frames, big_keyframes, sound_only], ids=["b_frames", "big_keyframes", "sound_only"])
def test_nginx_records_what_ffmpeg_would_send(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    path = make(tmp_path / "a.flv")
    with servers.nginx(tmp_path / "n") as url, Playout(tmp_path / "p") as playout:
        theirs = servers.push(path, f"{url}/theirs")
        playout.air("c1", path, f"{url}/ours?token=secret", starts_in_s=1)
        assert theirs.wait(60) == 0
        wait_until(lambda: playout.told("ended"), description="the end", timeout_s=60)
        time.sleep(0.5)
    records = tmp_path / "n/records"
    ours = servers.packets(records / "ours.flv")
    assert len(ours) > 70
    assert ours == servers.packets(records / "theirs.flv")
    assert playout.told("broke_off") == []


@pytest.mark.skipif(not servers.HAS_NGINX, reason="nginx with its RTMP module is not installed: libnginx-mod-rtmp")
def test_nginx_keeps_a_session_that_is_handed_over_and_refuses_in_its_way(tmp_path: Path) -> None:
    """Its pings are answered by whichever worker; for an unknown app it closes the connection."""
    path = flvs.encode(tmp_path / "a.flv", *PICTURE, *TONE, *X264, *AAC, "-t", "8")
    with servers.nginx(tmp_path / "n") as url, Playout(tmp_path / "p") as playout:
        playout.air("c1", path, f"{url}/ours", starts_in_s=1)
        playout.air("c2", path, f"{url.removesuffix('live')}other/ours", starts_in_s=1)
        wait_until(lambda: playout.told("on_air", "c1"), description="on air")
        os.kill(playout.worker(), signal.SIGKILL)
        wait_until(lambda: playout.again("status")["worker"]["taken_over"], description="another worker")
        assert playout.again("status")["worker"]["taken_over"]["kept"] == 1
        wait_until(lambda: playout.status("c1")["state"] == "ended", description="the end", timeout_s=60)
        assert playout.status("c1")["sessions"] == 1
        assert playout.status("c2")["why"]
        playout.ask("cancel", class_id="c2")
        time.sleep(0.5)
    argv = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "n/records/ours.flv"), "-f", "null", "-"]
    decoded = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert decoded.stderr == ""
    assert [one[7:] for one in servers.packets(tmp_path / "n/records/ours.flv")] == [
        one[7:] for one in servers.packets(path)
    ]
