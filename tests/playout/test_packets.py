"""What arrives is what `ffmpeg -c copy` would send, packet by packet: times, sizes, flags and data."""

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.playout import flvs, patient, servers
from tests.playout.stage import Playout
from tests.waiting import wait_until

pytestmark = pytest.mark.live

PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25")
NOISE = ("-f", "lavfi", "-i", "nullsrc=size=1280x720:rate=25,geq=random(1)*255:128:128,loop=loop=-1:size=1:start=0")
TONE = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100")
AAC = ("-c:a", "aac", "-b:a", "64k")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25")
SECONDS = ("-t", "4")
NEEDS_NGINX = pytest.mark.skipif(
    not servers.HAS_NGINX, reason="nginx with its RTMP module is not installed: libnginx-mod-rtmp"
)


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


def with_holes(path: Path) -> Path:
    """A recording of 5 h of which there are the beginning, 8 s of minute 40, and 8 s around 0xFFFFFF ms (4.66 h)."""
    argv = (*PICTURE, *TONE, *X264, "-bf", "2", *AAC, "-t", "20")
    tags = flvs.read(flvs.encode(path.with_suffix(".1"), *argv))
    later = [at + (0 if at < 4000 else MINUTE_40_MS - 4000 if at < 12_000 else LATE_MS - 12_000) for _, at, _ in tags]
    return flvs.write(path, [(kind, at, body) for (kind, _, body), at in zip(tags, later, strict=True)])


MINUTE_40_MS, LATE_MS = 2_400_000, 0xFFFFFF - 4000
WHOLE = (b_frames, big_keyframes, sound_only, hevc, header_in_the_middle)
PARTS = {"minute_40": MINUTE_40_MS, "after_4_66_h": LATE_MS}
"""Classes that are joined at as many milliseconds of the recording with holes."""
AHEAD_S = 6.0
"""Seconds until all begin: one whose connection comes a second after its start has lost that second."""

NAMES = (*(one.__name__ for one in WHOLE), *PARTS)
OF_NGINX = [name for name in NAMES if name not in {"hevc", "header_in_the_middle"}]
"""It knows no HEVC, and records the headers of the beginning only."""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("recordings")
    found = {make.__name__: make(folder / f"{make.__name__}.flv") for make in WHOLE}
    assert max(len(body) for _, _, body in flvs.read(found["big_keyframes"])) > 1024 * 1024
    return found | dict.fromkeys(PARTS, with_holes(folder / "holes.flv"))


def push_all(names: Sequence[str], recordings: dict[str, Path], folder: Path, urls: Callable[[str], str]) -> None:
    """Air all at once; of the one with holes a part."""
    with Playout(folder / "p", program=patient.PROGRAM, ABSOLUTE="1") as playout:
        for name in names:
            since = {"start": time.time() + AHEAD_S - PARTS[name] / 1000} if name in PARTS else {"starts_in_s": AHEAD_S}
            length_s = PARTS[name] / 1000 + 7 if name in PARTS else 60
            playout.air(name, recordings[name], urls(name), length_s=length_s, **since)
        wait_until(lambda: len(playout.told("ended")) == len(names), description="all ends", timeout_s=100)
        assert playout.told("broke_off") == []
        # A part is joined in the hole before it, if the connection is made in time.
        assert [one for one in playout.told("slate") if one["class_id"] not in PARTS] == []


def compare(name: str, recording: Path, received: Path) -> None:
    """Packet by packet with what ffmpeg would copy; between pictures and sound all distances are kept."""
    copied, offsets = received.with_suffix(".copied.flv"), set[int]()
    argv = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-copyts", "-i", str(recording), "-c", "copy", str(copied)]
    subprocess.run(argv, check=True, timeout=60)
    found, whole = servers.packets(received), servers.packets(copied)
    for kind in sorted({one.kind for one in whole}):
        sent, expected = ([one for one in some if one.kind == kind] for some in (found, whole))
        assert len(sent) > 70
        if name in PARTS:
            begins = [one.rest for one in expected].index(sent[0].rest)
            expected = expected[begins : begins + len(sent)]
            assert expected[0].pts >= PARTS[name]
            assert name != "after_4_66_h" or expected[0].pts < 0xFFFFFF < expected[-1].pts
        assert [one.rest for one in sent] == [one.rest for one in expected]
        offsets |= {
            ms for one, other in zip(sent, expected, strict=True) for ms in (one.pts - other.pts, one.dts - other.dts)
        }
    assert len(offsets) == 1


@pytest.fixture(scope="module")
def by_ffmpeg(recordings: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ffmpeg")
    with ExitStack() as stack:
        urls = {name: stack.enter_context(servers.listening_ffmpeg(folder / f"{name}.flv")) for name in NAMES}
        push_all(NAMES, recordings, folder, urls.__getitem__)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_ffmpeg_receives_what_ffmpeg_would_send(name: str, recordings: dict[str, Path], by_ffmpeg: Path) -> None:
    compare(name, recordings[name], by_ffmpeg / f"{name}.flv")
    if name == "after_4_66_h":
        assert servers.packets(by_ffmpeg / f"{name}.flv")[-1].pts > 0xFFFFFF, "the time itself is sent"


@pytest.fixture(scope="module")
def by_nginx(recordings: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nginx")
    with servers.nginx(folder / "n") as url:
        push_all(OF_NGINX, recordings, folder, lambda name: f"{url}/{name}?token=secret")
        wait_until(lambda: not servers.serves(url), description="the ends of all sessions")
    return folder / "n/records"


@NEEDS_NGINX
@pytest.mark.parametrize("name", OF_NGINX)
def test_nginx_records_what_ffmpeg_would_send(name: str, recordings: dict[str, Path], by_nginx: Path) -> None:
    compare(name, recordings[name], by_nginx / f"{name}.flv")


@NEEDS_NGINX
def test_nginx_keeps_a_session_that_is_handed_over_and_refuses_in_its_way(tmp_path: Path) -> None:
    """Its pings are answered by whichever worker; for an unknown app it closes the connection."""
    path = flvs.encode(tmp_path / "a.flv", *PICTURE, *TONE, *X264, *AAC, "-t", "8")
    with servers.nginx(tmp_path / "n") as url, Playout(tmp_path / "p") as playout:
        playout.air("c1", path, f"{url}/ours", starts_in_s=3)
        playout.air("c2", path, f"{url.removesuffix('live')}other/ours", starts_in_s=3)
        wait_until(lambda: playout.told("on_air", "c1"), description="on air")
        assert playout.kill_worker()["kept"] == 1
        wait_until(lambda: playout.status("c1")["state"] == "ended", description="the end")
        assert playout.status("c1")["sessions"] == 1
        assert playout.status("c2")["why"]
        playout.cancel("c2")
        wait_until(lambda: not servers.serves(url), description="the ends of all sessions")
    argv = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "n/records/ours.flv"), "-f", "null", "-"]
    decoded = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert decoded.stderr == ""
    assert servers.packets(tmp_path / "n/records/ours.flv") == servers.packets(path)
