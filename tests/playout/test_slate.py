"""While a recording is missing or broken, the slate is sent in the same session; then the recording, at the clock."""

import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.playout import flvs
from tests.playout.receiver import Arrived, Receiver, Session
from tests.playout.stage import Playout
from tests.waiting import wait_until

pytestmark = pytest.mark.live

SLATE = 0x51A7E000
"""Numbers of the slate's pictures begin here."""


def slate(folder: Path) -> Path:
    head = flvs.AVC_HEADER + b"slate"
    tags = [
        (kind, at, head if body == flvs.AVC_HEADER else body) for kind, at, body in flvs.lesson(1, first_number=SLATE)
    ]
    return flvs.write(folder / "slate.flv", tags)


def pictures(session: Session) -> list[Arrived]:
    return [one for one in session.media if one.kind == 9 and one.body[1] == 1]


def of_slate(session: Session) -> list[Arrived]:
    return [one for one in pictures(session) if flvs.number(one.body) >= SLATE]


def of_recording(session: Session) -> list[Arrived]:
    return [one for one in pictures(session) if flvs.number(one.body) < SLATE]


def test_a_missing_recording_is_the_slate_at_its_second_and_the_recording_when_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.flv"
    with Receiver() as receiver, Playout(tmp_path / "p") as playout:
        start = time.time() + 1
        playout.air("c1", path, receiver.url("c1"), start=start, length_s=12, slate=str(slate(tmp_path)))
        wait_until(lambda: receiver.of("c1") and of_slate(receiver.of("c1")[0]), description="the slate")
        offset_s = time.time() - time.monotonic()
        assert of_slate(receiver.of("c1")[0])[0].at + offset_s >= start
        assert playout.told("slate")[0]["why"] == "the recording is missing"
        time.sleep(2.5)  # the slate is sent for so long
        flvs.write(tmp_path / "whole", flvs.lesson(30)).replace(path)
        wait_until(lambda: playout.told("back"), description="back")
        wait_until(lambda: playout.told("ended"), description="the end")
        (session,) = receiver.of("c1")
        wait_until(lambda: session.ended, description="the session's end")
        stamps = [one.timestamp for one in pictures(session)]
        assert stamps == sorted(stamps)
        assert max(after - before for before, after in pairwise(stamps)) < 500, "no picture is left out"
        for one in of_recording(session):
            assert one.timestamp == flvs.number(one.body) * 40
        headers = [one.body for one in session.media if one.kind == 9 and one.body[1] == 0]
        assert headers == [flvs.AVC_HEADER + b"slate", flvs.AVC_HEADER]
        (ended,) = playout.told("ended")
        assert ended["slate_s"] > 2
        assert ended["sessions"] == 1
        assert ended["sent_s"] + ended["slate_s"] > len(pictures(session)) * 0.04 - 0.5
        assert [row["source"] for row in ended["as_run"]] == ["slate", "recording"]


def test_a_recording_that_breaks_in_its_middle_is_followed_by_the_slate(tmp_path: Path) -> None:
    data = bytearray(flvs.data(flvs.lesson(20)))
    place = data.index(flvs.key(75, 3000))
    data[place - 11] = 99
    path = tmp_path / "a.flv"
    path.write_bytes(data)
    with Receiver() as receiver, Playout(tmp_path / "p") as playout:
        playout.air("c1", path, receiver.url("c1"), length_s=12, slate=str(slate(tmp_path)))
        wait_until(lambda: playout.told("slate"), description="the slate")
        assert "is broken: it cannot be read from byte" in playout.told("slate")[0]["why"]
        assert playout.status("c1")["slate"]
        assert playout.status("c1")["wants_file"]
        (session,) = receiver.of("c1")
        wait_until(lambda: of_slate(session), description="the slate's pictures")
        assert of_slate(session)[0].timestamp - of_recording(session)[-1].timestamp < 500
        time.sleep(2)  # several looks at the file
        assert playout.told("back") == [], "what is broken is not tried again"
        flvs.write(tmp_path / "whole", flvs.lesson(20)).replace(path)
        wait_until(lambda: playout.told("back"), description="back")
        last = of_recording(session)[-1]
        assert last.timestamp == flvs.number(last.body) * 40
        assert len(receiver.sessions) == 1


def test_a_recording_that_is_shorter_than_it_must_be_is_followed_by_the_slate(tmp_path: Path) -> None:
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(3))
    with Receiver() as receiver, Playout(tmp_path / "p") as playout:
        playout.air("c1", path, receiver.url("c1"), length_s=6, duration_s=10, slate=str(slate(tmp_path)))
        wait_until(lambda: playout.told("ended"), description="the end")
        assert playout.told("slate")[0]["why"] == "the recording ends after 3 s, which is too early"
        assert of_slate(receiver.of("c1")[0])
        assert 2 < playout.told("ended")[0]["slate_s"] < 4


def test_without_a_slate_nothing_is_sent_until_the_recording_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.flv"
    with Receiver() as receiver, Playout(tmp_path / "p") as playout:
        start = time.time() + 0.3
        playout.air("c1", path, receiver.url("c1"), start=start)
        wait_until(lambda: playout.told("slate"), description="the reason")
        time.sleep(2)  # nothing is sent
        assert receiver.of("c1") == []
        assert playout.status("c1")["why"] == "the recording is missing"
        flvs.write(tmp_path / "whole", flvs.lesson(30)).replace(path)
        wait_until(lambda: receiver.of("c1") and of_recording(receiver.of("c1")[0]), description="pictures")
        first = of_recording(receiver.of("c1")[0])[0]
        arrived_s = first.at + time.time() - time.monotonic() - start
        assert 2 < flvs.number(first.body) * 0.04 < arrived_s + 0.3, "it begins where the clock is"


def test_a_server_is_not_blamed_while_there_is_neither_recording_nor_slate(tmp_path: Path) -> None:
    """The connection that was made before the start is let go; it was not the server that did not answer."""
    path = tmp_path / "a.flv"
    with Receiver() as receiver, Playout(tmp_path / "p") as playout:
        playout.air("c1", path, receiver.url("c1"), starts_in_s=3.2, length_s=60)
        wait_until(lambda: receiver.sessions and receiver.sessions[0].ended, description="the end of the connection")
        assert receiver.sessions[0].ended == "eof"
        assert playout.told("broke_off") == []
        status = playout.status("c1")
        assert (status["state"], status["why"]) == ("trying", "the recording is missing")
        flvs.write(tmp_path / "whole", flvs.lesson(60)).replace(path)
        wait_until(lambda: receiver.of("c1") and of_recording(receiver.of("c1")[0]), description="pictures")


def test_the_slate_goes_on_when_its_worker_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "a.flv"
    with Receiver() as receiver, Playout(tmp_path / "p") as playout:
        playout.air("c1", path, receiver.url("c1"), slate=str(slate(tmp_path)))
        wait_until(lambda: receiver.of("c1") and len(of_slate(receiver.of("c1")[0])) > 40, description="the slate")
        os.kill(playout.worker(), signal.SIGKILL)
        (session,) = receiver.of("c1")
        count = len(of_slate(session))
        wait_until(lambda: len(of_slate(session)) > count + 60, description="more")
        flvs.write(tmp_path / "whole", flvs.lesson(60)).replace(path)
        wait_until(lambda: of_recording(session), description="the recording")
        stamps = [one.timestamp for one in pictures(session)]
        assert stamps == sorted(stamps)
        assert len(receiver.sessions) == 1


def test_a_recording_that_is_back_goes_on_when_its_worker_is_killed(tmp_path: Path) -> None:
    """And its row goes on too: what was sent before the kill is not missing from the as-run."""
    path = tmp_path / "a.flv"
    with Receiver() as receiver, Playout(tmp_path / "p") as playout:
        playout.air("c1", path, receiver.url("c1"), length_s=12, slate=str(slate(tmp_path)))
        wait_until(lambda: receiver.of("c1") and len(of_slate(receiver.of("c1")[0])) > 40, description="the slate")
        flvs.write(tmp_path / "whole", flvs.lesson(60)).replace(path)
        (session,) = receiver.of("c1")
        wait_until(lambda: len(of_recording(session)) > 75, description="the recording, for more than two seconds")
        os.kill(playout.worker(), signal.SIGKILL)
        wait_until(lambda: playout.told("ended"), description="the end")
        (ended,) = playout.told("ended")
        assert [row["source"] for row in ended["as_run"]] == ["slate", "recording"]
        assert ended["sent_s"] > len(of_recording(session)) * 0.04 - 0.5
        assert len(receiver.sessions) == 1


def test_another_recording_is_gone_on_with_in_the_same_session(tmp_path: Path) -> None:
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(30))
    other = flvs.write(tmp_path / "b.flv", flvs.lesson(30, first_number=100_000))
    with Receiver() as receiver, Playout(tmp_path / "p") as playout:
        start = time.time() + 0.3
        playout.air("c1", path, receiver.url("c1"), start=start)
        wait_until(lambda: playout.told("on_air"), description="on air")
        playout.air("c1", other, receiver.url("c1"), start=start)
        (session,) = receiver.of("c1")
        wait_until(lambda: flvs.number(pictures(session)[-1].body) >= 100_000, description="the other one")
        last = pictures(session)[-1]
        assert last.timestamp == (flvs.number(last.body) - 100_000) * 40
        assert len(receiver.sessions) == 1
