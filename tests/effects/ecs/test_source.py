"""What a job does with a bad recording, and what it makes is looked at before it counts."""

import asyncio
import itertools
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import av
import pytest

from lectern import subprocesses
from lectern.decide import transcoding as decide
from lectern.ecs import detached, ssh
from lectern.ecs import probe as ecs_probe
from lectern.ecs import transcode as ecs_transcode
from lectern.ecs.transcode import Job, JobReport
from lectern.errors import (
    BAD_RECORDING,
    DOWNLOAD_FAILED,
    FORBIDDEN_ORIGIN,
    HALF_A_RECORDING,
    NO_ECS_ROOM,
    TRANSCODE_FAILED,
    UPLOAD_FAILED,
    CallAPerson,
    ErrorCode,
    FallBack,
    LecternError,
    Refuse,
    TryAgain,
)
from lectern.media import ffmpeg
from lectern.states import Resolution
from lectern.storage.origin import RemoteFile
from tests.effects.conftest import Origin, make_recording, shape
from tests.effects.ecs.conftest import SOURCE, UP, stand_in, transcode, under
from tests.waiting import async_wait_until

pytestmark = pytest.mark.live


async def test_a_busy_origin_or_store_is_tried_again_and_one_that_stays_busy_is_at_fault(
    connection: ssh.SshConnection, job: Job, origin: Origin
) -> None:
    """The encoding is not."""
    origin.statuses |= {SOURCE: [503, 503, 503, 503, 0], UP: [503, 500, 0]}
    assert len(await transcode(connection, job)) == 1
    assert origin.took("PUT", UP) == 3
    origin.statuses[UP] = [503]
    with pytest.raises(TryAgain, match="503") as raised:
        await transcode(connection, job)
    assert raised.value.code is UPLOAD_FAILED
    assert origin.took("PUT", UP) == 3 + ecs_transcode.UPLOADS
    origin.statuses[SOURCE] = [503]
    with pytest.raises(TryAgain, match="503") as raised:
        await transcode(connection, job)
    assert raised.value.code is DOWNLOAD_FAILED


def half_a_recording(path: Path, what: str) -> bytes:
    """A recording of *what* there is in it."""
    if what != "sound and a cover":
        return make_recording(path, video=what == "a picture alone", audio=what == "sound alone").read_bytes()
    argv = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", "sine=duration=4"]
    argv += ["-f", "lavfi", "-i", "color=size=64x64:rate=1:duration=1"]
    argv += ["-c:v", "mjpeg", "-disposition:v", "attached_pic", "-c:a", "aac"]
    subprocess.run([*argv, "-f", "mp4", str(path)], check=True, timeout=60)
    return path.read_bytes()


class Replaced(dict[str, dict[str, str]]):
    """The headers of an origin whose source is another one whenever it is asked: *by* this one, or cut by a byte."""

    def __init__(self, origin: Origin, by: bytes = b"") -> None:
        self._origin, self._by = origin, by

    def get(self, key: object, default: object = None) -> dict[str, str]:
        self._origin.files[SOURCE] = self._by or self._origin.files[SOURCE][:-1]
        return {}


PLAYLIST = b"#EXTM3U\n#EXTINF:4,\nfile:/etc/passwd\n#EXT-X-ENDLIST\n"
SOUND_ALONE, PICTURE_ALONE = r"has sound \(aac\), but no pic", r"has a picture \(h264, 640x360\), but no sound"
SPOILT: dict[str, tuple[type[LecternError], ErrorCode, str]] = {
    "a page": (Refuse, BAD_RECORDING, "not playable"),
    "a list of files of the host": (Refuse, BAD_RECORDING, "not playable"),
    "cut short": (Refuse, BAD_RECORDING, r"only \d\.\d s can be read, but the source says 4\.0 s"),
    "sound alone": (Refuse, HALF_A_RECORDING, SOUND_ALONE),
    "sound and a cover": (Refuse, HALF_A_RECORDING, SOUND_ALONE),
    "a picture alone": (Refuse, HALF_A_RECORDING, PICTURE_ALONE),
    "shorter than promised": (TryAgain, DOWNLOAD_FAILED, r"100\d{5} bytes were promised"),
    "larger than the disk": (FallBack, NO_ECS_ROOM, "has no room"),
    "another each time": (TryAgain, DOWNLOAD_FAILED, "has changed while it was read"),
    "forbidden": (Refuse, FORBIDDEN_ORIGIN, "ALLOWED_ORIGINS"),
    "uploaded, and seen by nobody": (TryAgain, UPLOAD_FAILED, "was uploaded, but"),
}


@pytest.mark.parametrize("what", SPOILT)
async def test_a_source_or_a_target_that_is_not_as_it_should_be_is_told_as_such(
    connection: ssh.SshConnection, job: Job, origin: Origin, tmp_path: Path, what: str
) -> None:
    """What is forbidden is not asked for, and what is too large not begun; nothing is made in vain.

    No host has what half a recording is missing, so it is not tried again.
    """
    error, code, said = SPOILT[what]
    bodies = {"a page": b"<html>no</html>" * 1000, "a list of files of the host": PLAYLIST}
    bodies["cut short"] = origin.files[SOURCE][:400_000]
    sizes = {"shorter than promised": 10_000_000, "larger than the disk": 10**15}
    if code is HALF_A_RECORDING:
        bodies[what] = half_a_recording(tmp_path / "half", what)
    origin.files[SOURCE] = bodies.get(what, origin.files[SOURCE])
    origin.headers = Replaced(origin) if what == "another each time" else origin.headers
    if what in sizes:
        origin.headers[SOURCE] = {"content-length": str(sizes[what])}
    elsewhere = under(job, public_url=f"{origin.url}/elsewhere")
    job = {"forbidden": under(job, allowed_origins=""), "uploaded, and seen by nobody": elsewhere}.get(what, job)
    report = JobReport()
    with pytest.raises(error, match=said) as raised:
        await transcode(connection, job, report)
    assert raised.value.code is code
    assert (origin.took("GET", SOURCE) > 0) is (what not in {"forbidden", "larger than the disk"})
    assert (origin.took("PUT", UP) > 0) is (what == "uploaded, and seen by nobody")
    if code is HALF_A_RECORDING:
        assert (report.step, decide.again(raised.value, 1)) == ("look", False)


async def test_a_name_with_quotes_and_spaces_is_only_a_name(
    connection: ssh.SshConnection, job: Job, origin: Origin
) -> None:
    """Written as a person would; as a URL wants it, it is in all of these."""
    path = '/it\'s a "lesson"/$(touch x); -O /1.flv'
    for name in {quote(path, safe="/%"), path, path.replace(" ", "%20").replace('"', "%22")}:
        origin.files[name] = origin.files[SOURCE]  # each program has its own opinion on what must be escaped
    report = JobReport()
    await transcode(connection, replace(job, source_url=f"{origin.url}{path}"), report)
    assert report.duration_s == pytest.approx(4, abs=0.1)


async def test_a_source_that_is_longer_than_it_promised_is_cut_off_there(
    connection: ssh.SshConnection, job: Job, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No origin fills the disk by sending on and on."""
    monkeypatch.setattr(ecs_transcode, "_UNKNOWN_BYTES", 100_000)

    async def no_promise(_job: Job) -> RemoteFile:
        return RemoteFile(job.source_url, None, None, None)

    monkeypatch.setattr(ecs_transcode, "promised", no_promise)
    with pytest.raises(Refuse, match="larger than the 100000 bytes") as raised:
        await transcode(connection, job)
    assert raised.value.code is DOWNLOAD_FAILED


@pytest.mark.parametrize("when", ["while it is read", "before it is read"])
async def test_a_source_that_is_replaced_is_read_again(
    connection: ssh.SshConnection, job: Job, origin: Origin, tmp_path: Path, when: str
) -> None:
    """What is made is made of the one file, whole, that was there in the end.

    It is looked at first, and may have no more bytes than it had then.
    """
    longer = make_recording(tmp_path / "new.flv", seconds=6).read_bytes()
    origin.slow_s = 0.3
    if when == "before it is read":
        origin.headers = Replaced(origin, longer)
    report = JobReport()
    task = asyncio.create_task(transcode(connection, job, report))
    await async_wait_until(lambda: origin.took("GET", SOURCE), description="it is read")
    origin.files[SOURCE] = longer
    origin.slow_s = 0.0
    await task
    assert report.duration_s == pytest.approx(6, abs=0.1)


AGAIN = 'ffmpeg "$@"; ffmpeg -v error -nostdin -y -i "$in" -c:a copy'
BAD = {
    "sound": (f'{AGAIN} -an -s 320x180 -c:v libx264 -f flv "$out"', r"has h264 and no sound, not h264 and aac"),
    "size": (f'{AGAIN} -c copy -f flv "$out"', r"is 640x360, not 320x180"),
    "length": (f'{AGAIN} -t 2 -s 320x180 -c:v libx264 -f flv "$out"', r"is 2\.\d s long, but the source says 4\.0 s"),
    "codec": (f'{AGAIN} -s 320x180 -c:v flv1 -f flv "$out"', r"has flv1 and aac"),
    "all": ('ffmpeg "$@"; : >"$out"', r"is not playable|has only 0 bytes"),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_output_is_a_failed_attempt_with_the_reason(
    connection: ssh.SshConnection, job: Job, origin: Origin, tmp_path: Path, what: str
) -> None:
    instead, said = BAD[what]
    folder = f"{job.settings.ecs_work_root}/{job.name}"
    script = f'in="{folder}/source" out="{folder}/6666_240P.flv"\ncase "$*" in *-force_key*) {instead}; exit;; esac'
    broken = stand_in(tmp_path / "ffmpeg", f'{script}\nexec ffmpeg "$@"')
    with pytest.raises((TryAgain, Refuse), match=said) as raised:
        await transcode(connection, under(job, ecs_ffmpeg=broken))
    assert raised.value.code is TRANSCODE_FAILED
    assert origin.took("PUT", UP) == 0


@pytest.mark.parametrize("what", ["a bad output", "an upload that is refused"])
async def test_what_befalls_one_rendition_spares_the_other(
    connection: ssh.SshConnection, job: Job, origin: Origin, tmp_path: Path, what: str
) -> None:
    """Both are of one run of ffmpeg."""
    both = replace(job, wanted=(Resolution.P240, Resolution.P480))
    if what == "a bad output":
        instead = f'ffmpeg "$@"; : >"{job.settings.ecs_work_root}/{both.name}/6666_240P.flv"'
        broken = stand_in(tmp_path / "ffmpeg", f'case "$*" in *-force_key*) {instead}; exit;; esac\nexec ffmpeg "$@"')
        both = under(both, ecs_ffmpeg=broken)
    else:
        origin.statuses[UP] = [403]
    outcome = await ecs_transcode.transcode(connection, both, JobReport())
    await detached.leave(connection, both.settings.ecs_work_root, both.name)
    assert list(outcome.made) == [Resolution.P480]
    assert outcome.error is not None
    assert outcome.error.code is (TRANSCODE_FAILED if what == "a bad output" else UPLOAD_FAILED)
    assert (origin.took("GET", SOURCE), origin.took("PUT", UP.replace("240P", "480P"))) == (1, 1)


# Real transcodings on a real host (this one, by SSH): what is made there.


async def test_renditions_are_made_checked_and_uploaded(
    connection: ssh.SshConnection, job: Job, origin: Origin, tmp_path: Path
) -> None:
    """Two at once, in one run."""
    report = JobReport()
    made = await transcode(connection, replace(job, wanted=(Resolution.P720, Resolution.P240)), report)
    sizes = {Resolution.P720: (1280, 720), Resolution.P240: (320, 180)}
    assert made == {one: f"{origin.url}/up/6666/6666_{one}.flv" for one in sizes}
    assert (report.step, report.percent) == ("upload", 100)
    assert report.duration_s == pytest.approx(4, abs=0.1)
    assert origin.took("GET", SOURCE) == 1
    for one, url in made.items():
        path = tmp_path / "made.flv"
        path.write_bytes(origin.files[url.removeprefix(origin.url)])
        assert shape(path) == (*sizes[one], ["aac"])


async def test_a_picture_that_was_recorded_lying_on_its_side_is_turned_and_keeps_its_shape(
    connection: ssh.SshConnection, job: Job, origin: Origin, recording: Path, tmp_path: Path
) -> None:
    """A phone that is held upright notes the turn beside the picture; the class would be squeezed into a wide one."""
    turned = tmp_path / "turned.mp4"
    argv = [ffmpeg.executable(), "-v", "error", "-display_rotation", "90", "-i", str(recording), "-c", "copy"]
    assert (await subprocesses.run([*argv, str(turned)], timeout_s=60)).returncode == 0
    origin.files[SOURCE] = turned.read_bytes()
    await transcode(connection, job)
    path = tmp_path / "made.flv"
    path.write_bytes(origin.files[UP])
    assert shape(path)[:2] == (136, 240)


async def test_what_it_makes_can_be_pushed(
    connection: ssh.SshConnection, job: Job, origin: Origin, tmp_path: Path
) -> None:
    """A keyframe comes in time, and sound and picture lie beside each other: a push need not read ahead for either."""
    origin.files[SOURCE] = make_recording(tmp_path / "long.flv", seconds=9).read_bytes()
    await transcode(connection, under(job, keyframe_interval_s=1.0))
    path = tmp_path / "made.flv"
    path.write_bytes(origin.files[UP])
    keys: list[float] = []
    at: dict[str, float] = {"video": 0.0, "audio": 0.0}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.dts is None:
                continue
            at[packet.stream.type] = float(packet.dts * packet.time_base)
            assert abs(at["video"] - at["audio"]) < 0.3
            if packet.stream.type == "video" and packet.is_keyframe:
                keys.append(float((packet.pts or 0) * packet.time_base))
    assert max(after - before for before, after in itertools.pairwise(keys)) <= 1.05
    assert len(keys) >= 8


async def test_the_work_folder_can_be_in_the_home_folder(connection: ssh.SshConnection, job: Job) -> None:
    job = under(job, ecs_work_root=f"~/.lectern-test-{connection.host.port}")
    await ecs_transcode.transcode(connection, job, JobReport())
    await detached.leave(connection, job.settings.ecs_work_root, job.name)
    home = (await connection.run(["sh", "-c", 'echo "$HOME"'], timeout_s=10)).output.strip()
    left = Path(home) / job.settings.ecs_work_root.removeprefix("~/")
    assert list(left.iterdir()) == []
    left.rmdir()


@pytest.mark.parametrize(("seconds", "options"), [(1, ()), (11, ()), (16, ("-vf", "trim=duration=3"))])
async def test_a_source_of_any_length_that_moved_is_followed(
    connection: ssh.SshConnection, job: Job, origin: Origin, tmp_path: Path, seconds: int, options: tuple[str, ...]
) -> None:
    """Also one whose picture ends before its sound, such as a recorded screen that stands still: no host is at fault.

    It was tried three times, its classes were refused, and each host that had made it was put aside.
    """
    origin.files[SOURCE] = make_recording(tmp_path / "short.flv", *options, seconds=seconds).read_bytes()
    origin.redirects["/old.flv"] = f"{origin.url}{SOURCE}"
    report = JobReport()
    await transcode(connection, replace(job, source_url=f"{origin.url}/old.flv"), report)
    assert report.duration_s == pytest.approx(seconds, abs=0.2)


def test_a_picture_has_the_size_in_which_it_is_shown_and_no_recording_has_none() -> None:
    """The turn is told by an older ffmpeg in one place, by a newer one in another; a half turn is none."""
    picture = {"codec_type": "video", "codec_name": "h264", "width": 640, "height": 360}
    beside: list[dict[str, object]] = [{}, {"tags": {}, "side_data_list": [{"rotation": 180}]}]
    beside += [{"tags": {"rotate": "90"}}, {"side_data_list": [{}, {"rotation": -90}]}]
    sizes = []
    for more in beside:
        stream = {**picture, "disposition": {"attached_pic": 0}, **more}
        found = ecs_probe._media_of_json(json.dumps({"format": {"duration": "4.0"}, "streams": [stream]}))
        assert found is not None
        sizes.append((found.width, found.height))
    assert sizes == [(640, 360)] * 2 + [(360, 640)] * 2
    for text in ("", "{}", '{"streams": []}', '{"streams": [{"codec_type": "video"}]}'):
        assert ecs_probe._media_of_json(text) is None


def heard(path: Path) -> float:
    """The loudness of a recording in LUFS, by ffmpeg's own meter (EBU R128)."""
    argv = [ffmpeg.executable(), "-hide_banner", "-nostats", "-i", str(path), "-af", "ebur128", "-f", "null", "-"]
    printed = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stderr
    return float(re.findall(r"\bI:\s+(\S+) LUFS", printed)[-1])


VOICE = "sin(2*PI*210*t)*(0.55+0.45*sin(2*PI*2.7*t))*lt(mod(t,4),3)"
SPEECH = f"aeval=exprs='{{volume}}*({VOICE}+{{click}}*lt(mod(t,5),0.0005))':c=same"


@pytest.mark.parametrize(
    ("volume", "click", "said"),
    [
        (0.01, 0, "now -1[56].. LUFS$"),
        (0.9, 0, "now -1[56].. LUFS$"),
        (0.02, 8, "now -1[567].* LUFS; its peaks were lowered"),
        (0, 0, "no sound"),
    ],
    ids=["quiet", "loud", "quiet with peaks", "silent"],
)
async def test_the_loudness_is_corrected_if_it_shall_be_and_said(
    connection: ssh.SshConnection, job: Job, origin: Origin, tmp_path: Path, volume: float, click: float, said: str
) -> None:
    """To 1 LU, in both of two renditions; a recording in which nothing is heard goes through."""
    speech = SPEECH.format(volume=volume, click=click)
    source = make_recording(tmp_path / "source.flv", "-af", speech, seconds=12)
    origin.files[SOURCE] = source.read_bytes()
    report, both = JobReport(), (Resolution.P240, Resolution.P480)
    made = await transcode(connection, under(replace(job, wanted=both), ecs_loudness_lufs=-16.0), report)
    for url in made.values():
        path = tmp_path / "made.flv"
        path.write_bytes(origin.files[url.removeprefix(origin.url)])
        assert heard(path) == pytest.approx(-16.0 if volume else heard(source), abs=1.0)
    assert re.search(said, report.loudness)


@pytest.mark.parametrize(
    ("does", "error", "said"),
    [
        ("echo 'the disk is odd' >&2; exit 1", Refuse, r"ended with 1: the disk is odd; the loudness was not measured"),
        ("exit 0", TryAgain, "the loudness was not measured, which ECS_LOUDNESS_LUFS asks for"),
        ("echo \"No such filter: 'loudnorm'\" >&2; exit 8", CallAPerson, "No such filter: 'loudnorm'"),
    ],
)
async def test_a_measurement_that_fails_says_so(
    connection: ssh.SshConnection, job: Job, tmp_path: Path, does: str, error: type[LecternError], said: str
) -> None:
    program = stand_in(tmp_path / "broken", f'case "$*" in *"-f null"*) {does};; esac\nexec ffmpeg "$@"')
    with pytest.raises(error, match=said):
        await transcode(connection, under(job, ecs_loudness_lufs=-16.0, ecs_ffmpeg=program))


def test_without_it_the_sound_is_copied_as_documented(job: Job) -> None:
    argv = ffmpeg.encode_argv("ffmpeg", "/in", [ffmpeg.Output("/out", Resolution.P240, 320, 180)])
    encoded = "-vcodec libx264 -preset veryfast -pix_fmt yuv420p -s 320x180 -force_key_frames expr:gte(t,n_forced*2)"
    assert " ".join(argv).partition(" file:/in ")[2] == f"-acodec copy {encoded} -f flv file:/out"
    assert job.name == under(job, ecs_loudness_lufs=None).name != under(job, ecs_loudness_lufs=-16.0).name, (
        "no half of another one"
    )
