"""Real transcodings on a real host (this one, by SSH): what is made there."""

import itertools
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import av
import pytest

from lectern import subprocesses
from lectern.ecs import detached, ssh
from lectern.ecs import probe as ecs_probe
from lectern.ecs import transcode as ecs
from lectern.ecs.probe import Programs
from lectern.ecs.transcode import Job, JobReport
from lectern.errors import CallAPerson, LecternError, Misuse, Refuse, TryAgain
from lectern.media import ffmpeg, probe
from lectern.states import Resolution
from tests.effects.conftest import Origin, make_recording
from tests.effects.ecs.at_work import SOURCE, UP, stand_in, transcode

pytestmark = pytest.mark.live


async def test_renditions_are_made_checked_and_uploaded(
    connection: ssh.SshConnection, job: Job, origin: Origin, tmp_path: Path
) -> None:
    """Two at once, in one run."""
    report = JobReport()
    made = await transcode(connection, replace(job, wanted=(Resolution.P720, Resolution.P240)), report)
    assert [(one.url, one.width, one.height) for one in made] == [
        (f"{origin.url}/up/6666/6666_720P.flv", 1280, 720),
        (f"{origin.url}/up/6666/6666_240P.flv", 320, 180),
    ]
    assert (report.step, report.percent) == ("upload", 100)
    assert report.duration_s == pytest.approx(4, abs=0.1)
    assert origin.took("GET", SOURCE) == 1
    for one in made:
        path = tmp_path / "made.flv"
        path.write_bytes(origin.files[one.url.removeprefix(origin.url)])
        found = await probe.probe(path)
        assert (found.width, found.height, found.audio_codec) == (one.width, one.height, "aac")
        assert found.size_bytes == one.size_bytes
        assert one.duration_s == pytest.approx(4, abs=0.1)


async def test_a_picture_that_was_recorded_lying_on_its_side_is_turned_and_keeps_its_shape(
    connection: ssh.SshConnection, job: Job, origin: Origin, recording: Path, tmp_path: Path
) -> None:
    """A phone that is held upright notes the turn beside the picture; the class would be squeezed into a wide one."""
    turned = tmp_path / "turned.mp4"
    argv = [ffmpeg.executable(), "-v", "error", "-display_rotation", "90", "-i", str(recording), "-c", "copy"]
    assert (await subprocesses.run([*argv, str(turned)], timeout_s=60)).returncode == 0
    origin.files[SOURCE] = turned.read_bytes()
    (made,) = await transcode(connection, job)
    assert (made.width, made.height) == (136, 240)


@pytest.mark.parametrize("every_s", [1.0, 2.0])
async def test_what_it_makes_can_be_pushed(
    connection: ssh.SshConnection, job: Job, origin: Origin, tmp_path: Path, every_s: float
) -> None:
    """A keyframe comes in time, and sound and picture lie beside each other: a push need not read ahead for either."""
    origin.files[SOURCE] = make_recording(tmp_path / "long.flv", seconds=9).read_bytes()
    await transcode(connection, replace(job, keyframe_s=every_s))
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
    gaps = [after - before for before, after in itertools.pairwise(keys)]
    assert max(gaps) <= every_s + 0.05
    assert len(keys) >= 9 / every_s - 1


async def test_the_work_folder_can_be_in_the_home_folder(connection: ssh.SshConnection, job: Job) -> None:
    job = replace(job, work_root=f"~/.lectern-test-{connection.host.port}")
    await ecs.transcode(connection, job, JobReport())
    await detached.leave(connection, job.work_root, job.name)
    home = (await connection.run(["sh", "-c", 'echo "$HOME"'], timeout_s=10)).output.strip()
    left = Path(home) / job.work_root.removeprefix("~/")
    assert list(left.iterdir()) == []
    left.rmdir()


async def test_a_source_that_moved_is_followed(connection: ssh.SshConnection, job: Job, origin: Origin) -> None:
    origin.redirects["/old.flv"] = f"{origin.url}{SOURCE}"
    assert len(await transcode(connection, replace(job, source_url=f"{origin.url}/old.flv"))) == 1


@pytest.mark.parametrize("seconds", [1, 2, 11])
async def test_a_source_of_any_length_is_fine(
    connection: ssh.SshConnection, job: Job, origin: Origin, tmp_path: Path, seconds: int
) -> None:
    origin.files[SOURCE] = make_recording(tmp_path / "short.flv", seconds=seconds).read_bytes()
    (made,) = await transcode(connection, job)
    assert made.duration_s == pytest.approx(seconds, abs=0.2)


async def test_what_is_no_job_is_misuse(job: Job) -> None:
    for wrong in ({"wanted": ()}, {"record_id": -1}, {"wanted": (Resolution.P240, Resolution.P240)}):
        with pytest.raises(Misuse):
            replace(job, **wrong)


def test_the_time_that_is_left_is_told_by_how_far_it_came() -> None:
    """At the pace since the first word of the encoder; a percent that goes back is not believed."""
    times = iter([1000.0, 1010.0, 1010.0])
    report = JobReport(clock=lambda: next(times))
    told = [report.left_s]
    for percent in (50, 75, 60):
        report.encoded(percent)
        told.append(report.left_s)
    assert told == [None, None, 10.0, 10.0]
    assert report.percent == 75


@pytest.mark.parametrize(
    ("beside", "size"),
    [
        ({}, (640, 360)),
        ({"tags": {"rotate": "90"}}, (360, 640)),
        ({"side_data_list": [{}, {"rotation": -90}]}, (360, 640)),
        ({"tags": {}, "side_data_list": [{"rotation": 180}]}, (640, 360)),
    ],
    ids=["upright", "told by an older ffmpeg", "told by a newer one", "upside down"],
)
def test_a_picture_has_the_size_in_which_it_is_shown(beside: dict[str, object], size: tuple[int, int]) -> None:
    picture = {"codec_type": "video", "codec_name": "h264", "width": 640, "height": 360, **beside}
    picture["disposition"] = {"attached_pic": 0}
    found = ecs_probe._media_of_json(json.dumps({"format": {"duration": "4.0"}, "streams": [picture]}))
    assert found is not None
    assert (found.width, found.height) == size


@pytest.mark.parametrize("text", ["", "{}", '{"streams": []}', '{"streams": [{"codec_type": "video"}]}'])
def test_what_ffprobe_does_not_know_is_no_recording(text: str) -> None:
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
    for one in await transcode(connection, replace(job, lufs=-16.0, wanted=both), report):
        path = tmp_path / "made.flv"
        path.write_bytes(origin.files[one.url.removeprefix(origin.url)])
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
        await transcode(connection, replace(job, lufs=-16.0, programs=Programs(ffmpeg=program)))


def test_without_it_the_sound_is_copied_as_documented(job: Job) -> None:
    argv = ffmpeg.encode_argv("ffmpeg", "/in", [ffmpeg.Output("/out", Resolution.P240, 320, 180)])
    encoded = "-vcodec libx264 -preset veryfast -pix_fmt yuv420p -s 320x180 -force_key_frames expr:gte(t,n_forced*2)"
    assert " ".join(argv).partition(" file:/in ")[2] == f"-acodec copy {encoded} -f flv file:/out"
    assert job.name == replace(job, lufs=None).name != replace(job, lufs=-16.0).name, "no half of another one"
