"""What was made is looked at before it counts, and uploaded to where it can be seen."""

from dataclasses import replace
from pathlib import Path

import pytest

from lectern.effects.ecs import ssh
from lectern.effects.ecs import transcode as ecs
from lectern.effects.ecs.job import Job, Programs, Report
from lectern.effects.files.upload import Target
from lectern.errors import TRANSCODE_FAILED, UPLOAD_FAILED, CallAPerson, Refuse, TryAgain
from lectern.states import Resolution
from tests.effects.conftest import Origin
from tests.effects.ecs.at_work import SOURCE, UP, stand_in, transcode

pytestmark = pytest.mark.live

AGAIN = 'ffmpeg "$@"; ffmpeg -v error -nostdin -y -i "$in" -c:a copy'
BAD = {
    "sound": (f'{AGAIN} -an -s 320x180 -c:v libx264 -f flv "$out"', r"has h264 and no sound, not h264 and aac"),
    "size": (f'{AGAIN} -c copy -f flv "$out"', r"is 640x360, not 320x180"),
    "length": (f'{AGAIN} -t 2 -s 320x180 -c:v libx264 -f flv "$out"', r"is 2\.\d s long, but the source says 4\.0 s"),
    "codec": (f'{AGAIN} -s 320x180 -c:v flv1 -f flv "$out"', r"has flv1 and aac"),
    "end": (
        'ffmpeg "$@"; s=$(stat -c %s "$out"); dd if=/dev/zero of="$out" bs=1 seek=$((s/2)) count=$((s/3)) conv=notrunc',
        r"does not decode at its end",
    ),
    "all": ('ffmpeg "$@"; : >"$out"', r"is not playable|has only 0 bytes"),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_output_is_a_failed_attempt_with_the_reason(
    connection: ssh.Connection, job: Job, origin: Origin, tmp_path: Path, what: str
) -> None:
    instead, said = BAD[what]
    folder = f"{job.work_root}/{job.name}"
    script = f'in="{folder}/source" out="{folder}/6666_240P.flv"\ncase "$*" in *-force_key*) {instead}; exit;; esac'
    broken = stand_in(tmp_path / "ffmpeg", f'{script}\nexec ffmpeg "$@"')
    with pytest.raises((TryAgain, Refuse), match=said) as raised:
        await transcode(connection, replace(job, programs=Programs(ffmpeg=broken)))
    assert raised.value.code is TRANSCODE_FAILED
    assert origin.took("PUT", UP) == 0


async def test_an_upload_that_is_not_allowed_calls_a_person(
    connection: ssh.Connection, job: Job, origin: Origin
) -> None:
    origin.statuses[UP] = [403]
    with pytest.raises(CallAPerson, match="403") as raised:
        await transcode(connection, job)
    assert raised.value.code is UPLOAD_FAILED
    assert origin.took("PUT", UP) == 1


@pytest.mark.parametrize("what", ["a bad output", "an upload that is refused"])
async def test_what_befalls_one_rendition_spares_the_other(
    connection: ssh.Connection, job: Job, origin: Origin, tmp_path: Path, what: str
) -> None:
    """Both are of one run of ffmpeg."""
    both = replace(job, wanted=(Resolution.P240, Resolution.P480))
    if what == "a bad output":
        instead = f'ffmpeg "$@"; : >"{job.work_root}/{both.name}/6666_240P.flv"'
        broken = stand_in(tmp_path / "ffmpeg", f'case "$*" in *-force_key*) {instead}; exit;; esac\nexec ffmpeg "$@"')
        both = replace(both, programs=Programs(ffmpeg=broken))
    else:
        origin.statuses[UP] = [403]
    outcome = await ecs.transcode(connection, both, Report())
    await ecs.leave(connection, both.work_root, both.name)
    assert [one.resolution for one in outcome.made] == [Resolution.P480]
    assert list(outcome.missed) == [Resolution.P240]
    assert outcome.missed[Resolution.P240].code is (TRANSCODE_FAILED if what == "a bad output" else UPLOAD_FAILED)
    assert (origin.took("GET", SOURCE), origin.took("PUT", UP.replace("240P", "480P"))) == (1, 1)


async def test_an_upload_to_a_busy_server_is_tried_again(connection: ssh.Connection, job: Job, origin: Origin) -> None:
    """The encoding is not."""
    origin.statuses[UP] = [503, 500, 0]
    assert len(await transcode(connection, job)) == 1
    assert origin.took("PUT", UP) == 3


async def test_a_server_that_stays_busy_is_at_fault_itself(
    connection: ssh.Connection, job: Job, origin: Origin
) -> None:
    origin.statuses[UP] = [503]
    with pytest.raises(TryAgain, match="503") as raised:
        await transcode(connection, job)
    assert raised.value.code is UPLOAD_FAILED
    assert origin.took("PUT", UP) == ecs.UPLOADS


async def test_an_upload_that_nobody_can_see_is_not_made(connection: ssh.Connection, job: Job, origin: Origin) -> None:
    elsewhere = Target(f"{origin.url}/up", f"{origin.url}/elsewhere")
    with pytest.raises(TryAgain, match="was uploaded, but"):
        await transcode(connection, replace(job, target=elsewhere))
