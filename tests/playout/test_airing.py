"""A class is aired by itself: at its second, to the packet, by the clock."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from lectern.playout import timetable
from lectern.playout.as_run import AiredClass
from lectern.playout.control_socket import write_timetable
from lectern.playout.kernel import Now
from lectern.playout.publisher import WorkerContext
from lectern.playout.schedule import ClassPlayer
from lectern.playout.timetable import ScheduledClass
from tests.playout import flvs
from tests.playout.receiver import AHEAD_S, Arrived, Receiver, Session, late_s, sounds
from tests.playout.stage import loopback
from tests.waiting import wait_until

pytestmark = pytest.mark.live


def test_a_class_is_aired_whole_at_its_second_in_one_session(tmp_path: Path) -> None:
    tags = flvs.lesson(3)
    with loopback(tmp_path, tags) as (playout, receiver, path):
        start = time.time() + 3
        playout.air("c1", path, receiver.url("c1"), start=start)
        wait_until(lambda: playout.told("ended", "c1"), description="the end")
        (session,) = receiver.of("c1")
        wait_until(lambda: session.ended, description="the session's end")
        assert session.ended == "eof"
        assert session.packets() == tags
        assert session.commands[-2:] == ["FCUnpublish", "deleteStream"]
        first_byte_at = playout.status("c1")["first_byte_at"]
        assert first_byte_at >= start
        (ended,) = playout.told("ended", "c1")
        assert ended["sessions"] == 1
        assert ended["sent_s"] > start + 3 - first_byte_at - 0.5
        assert [one["event"] for one in playout.events] == ["connected", "on_air", "ended"]


def test_a_class_that_is_asked_for_late_begins_at_the_clocks_position(tmp_path: Path) -> None:
    with loopback(tmp_path) as (playout, receiver, path):
        start = time.time() - 20.3
        playout.air("c1", path, receiver.url("c1"), start=start)
        session = receiver.session("c1", has=lambda one: len(one.packets()) > 80)
        assert 20 < flvs.number(sounds(session)[0].body) * 0.04 < late_s(session, start) + AHEAD_S
        packets = session.packets()
        assert {packets[0][2], packets[1][2]} == {flvs.AVC_HEADER, flvs.AAC_HEADER}
        assert packets[0][1] == 0
        pictures = [one for one in packets if one[0] == 9][1:]
        assert flvs.number(pictures[0][2]) % 25 == 0, "pictures begin with the next keyframe"
        numbers = [flvs.number(one[2]) for one in pictures]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_session_that_is_cut_is_made_anew_at_the_clocks_position(tmp_path: Path) -> None:
    with loopback(tmp_path) as (playout, receiver, path):
        start = time.time() + 0.5
        playout.air("c1", path, receiver.url("c1"), start=start)
        for number in range(1, 5):
            session = receiver.session("c1", number, has=sounds)
            wait_until(lambda n: len(playout.told("on_air", "c1")) >= n, number, description="it is on air")
            session.cut()
        receiver.session("c1", 5, has=sounds)
        errors_s = []
        for before, after in pairwise(receiver.of("c1")):
            position_s = flvs.number(sounds(after)[0].body) * 0.04
            assert position_s > flvs.number(sounds(before)[-1].body) * 0.04
            assert position_s < late_s(after, start) + AHEAD_S
            errors_s.append(late_s(after, start) - position_s)
        assert min(errors_s) < 0.3, "it is the clock's, where nothing else on the machine was in the way"
        assert len(playout.told("broke_off", "c1")) == 4
        assert all(one["was_on_air"] for one in playout.told("broke_off"))
        assert len(playout.status("c1")["as_run"]) == 5


async def test_a_class_on_air_goes_on_though_the_clock_is_set_to_before_its_start(tmp_path: Path) -> None:
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(60))
    set_back_s = 0.0
    with Receiver() as receiver, ThreadPoolExecutor(2) as pool:
        context = WorkerContext(pool, lambda _: None, lambda _key, _session: None, lambda _: None, is_held=True)
        lesson = ScheduledClass("c1", str(path), (receiver.url("c1"),), time.time() - 5, time.time() + 60)
        airing = ClassPlayer(AiredClass(lesson), context)

        async def until(count: int) -> None:
            end = time.monotonic() + 20
            while not receiver.of("c1") or len(receiver.of("c1")[0].packets()) < count:
                assert time.monotonic() < end, f"nothing is sent; the class is {airing.state}"
                now = Now.read()
                back = Now(now.mono, now.wall - set_back_s)
                assert not airing.is_early(back)
                airing.tick(back)
                await asyncio.sleep(0.02)

        await until(60)
        set_back_s = 3600.0
        await until(len(receiver.of("c1")[0].packets()) + 60)
        airing.end("enough", Now.read())


def test_a_server_that_says_start_and_closes_is_not_stormed(tmp_path: Path) -> None:
    with loopback(tmp_path) as (playout, receiver, path):
        receiver.close_after_start = True
        playout.air("c1", path, receiver.url("c1"), starts_in_s=0.2)
        wait_until(lambda: receiver.sessions, description="a first session")
        began = time.monotonic()
        time.sleep(4)  # so many tries as there may be in this time
        wait_until(lambda: len(receiver.sessions) >= 3, description="more tries")
        assert len(receiver.sessions) <= 2 * (time.monotonic() - began)
        assert playout.told("on_air") == []
        assert playout.status("c1")["state"] == "trying"
        receiver.close_after_start = False
        wait_until(lambda: playout.told("on_air"), description="on air at last")


def test_of_two_urls_each_has_its_own_luck_and_a_refusal_is_told_and_tried_again(tmp_path: Path) -> None:
    with loopback(tmp_path) as (playout, receiver, path), Receiver() as other:
        other.refuse_publish = "stream is taken"
        playout.put_on_air("c1", path, receiver.url("c1"), other.url("c1"))
        wait_until(lambda: len(playout.told("broke_off")) >= 2, description="refusals")
        assert playout.told("broke_off")[0]["why"] == "the server refuses: NetStream.Publish.BadName: stream is taken"
        status = playout.status("c1")
        assert (status["state"], [push["state"] for push in status["pushes"]]) == ("on_air", ["on_air", "trying"])
        other.refuse_publish = None
        wait_until(lambda: len(playout.told("on_air")) == 2, description="the other one is on air at last")


def test_a_receiver_that_takes_nothing_is_given_up_after_five_seconds(tmp_path: Path) -> None:
    with loopback(tmp_path, flvs.lesson(60, size=4000)) as (playout, receiver, path):
        receiver.small_buffer(8192)
        playout.air("c1", path, receiver.url("c1"), starts_in_s=0.2)
        receiver.session("c1")
        receiver.frozen.set()
        frozen_at = time.monotonic()
        wait_until(lambda: playout.told("broke_off"), description="the end")
        assert time.monotonic() - frozen_at > 4.5
        assert playout.told("broke_off")[0]["why"] == "the server took nothing for 5 s"
        receiver.frozen.clear()
        receiver.session("c1", 2, has=sounds)


def test_a_slow_receiver_is_skipped_to_the_clocks_position_in_the_same_session(tmp_path: Path) -> None:
    with loopback(tmp_path, flvs.lesson(60, size=8000)) as (playout, receiver, path):
        receiver.small_buffer(8192)
        start = time.time() + 3
        playout.air("c1", path, receiver.url("c1"), start=start)
        receiver.session("c1")
        receiver.bytes_a_second = 20_000
        wait_until(lambda: playout.told("behind"), description="behind")
        receiver.bytes_a_second = None
        (session,) = receiver.of("c1")

        def lag_s() -> float:
            sound = sounds(session)[-1]
            return sound.at + time.time() - time.monotonic() - start - flvs.number(sound.body) * 0.04

        wait_until(lambda: lag_s() < 1, description="it catches up")
        assert lag_s() > -AHEAD_S
        numbers = [flvs.number(one.body) for one in sounds(session)]
        assert numbers == sorted(set(numbers))
        assert [one.timestamp for one in sounds(session)] == [number * 40 for number in numbers]


def test_a_receiver_that_floods_is_cut_and_the_class_beside_it_does_not_notice(tmp_path: Path) -> None:
    """It owns one push URL, and must not own the loop that sends all classes."""
    with loopback(tmp_path) as (playout, good, path), Receiver() as bad:
        bad.flood = b"\x03" + bytes(11) + b"\xc3" * 1_000_000
        playout.put_on_air("good", path, good.url("good"))
        worker = playout.worker()
        playout.air("bad", path, bad.url("bad"), starts_in_s=0.2)
        wait_until(lambda: len(playout.told("broke_off", "bad")) >= 3, description="three failures of that class")
        assert all("the server sends too much" in one["why"] for one in playout.told("broke_off", "bad"))
        count = len(good.of("good")[0].packets())
        wait_until(lambda: len(good.of("good")[0].packets()) > count + 50, description="more of the class beside it")
        assert (playout.worker(), len(good.of("good"))) == (worker, 1)


def test_a_server_that_asks_for_a_login_gets_it_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each step is a new connection; all of them are one try, and one session."""
    with loopback(tmp_path) as (playout, adobe, path), Receiver() as llnw:
        adobe.login, adobe.closes_after_refusal = ("adobe", "teacher", "hunter2"), True
        llnw.login = "llnw", "teacher", "hunter2"
        for name, server in (("a", adobe), ("l", llnw)):
            url = server.url(name).replace("//", "//teacher:hunter2@")
            assert playout.ask("try", url=url)["refused"] is None
            playout.air(name, path, url, starts_in_s=0.5)
        wrong = llnw.url("w").replace("//", "//teacher:hunter3@")
        refusal = "the server does not take the user and password of the push URL"
        assert playout.ask("try", url=wrong)["refused"] == refusal
        playout.air("w", path, wrong, starts_in_s=0.5)
        wait_until(lambda: {one["class_id"] for one in playout.told("on_air")} == {"a", "l"}, description="on air")
        wait_until(lambda: len(playout.told("broke_off", "w")) >= 2, description="two tries")
        assert {one["why"] for one in playout.told("broke_off", "w")} == {refusal}
        assert [one["session"] for one in playout.told("broke_off", "w")][:2] == [1, 2]
        assert playout.told("broke_off", "l") == []
        assert [one["session"] for one in playout.told("on_air", "l")] == [1]
        connects = [one.connect for one in (*adobe.sessions, *llnw.sessions)]
        assert connects[0]["tcUrl"] == f"rtmp://127.0.0.1:{adobe.port}/live"
        shown = f"{connects} {playout.ask('status')} {playout.events} {capfd.readouterr()}"
        assert "hunter" not in shown
        assert "teacher" not in shown.replace("user=teacher", "user="), "but where the server asked for it"


def test_a_class_that_is_changed_on_air_goes_on_in_its_session_until_its_new_end(tmp_path: Path) -> None:
    other = flvs.write(tmp_path / "b.flv", flvs.lesson(60, first_number=100_000))
    with loopback(tmp_path) as (playout, receiver, path):
        playout.put_on_air("c1", path, receiver.url("c1"))
        session, start = receiver.session("c1"), playout.timetable["c1"]["start"]
        playout.air("c1", other, receiver.url("c1"), start=start)
        wait_until(lambda: flvs.number(pictures(session)[-1].body) >= 100_000, description="the other recording")
        length_s = time.time() + 3 - start
        playout.air("c1", other, receiver.url("c1"), start=start, length_s=length_s)
        wait_until(lambda: playout.told("ended"), description="the end")
        (ended,) = playout.told("ended")
        assert ended["why"] == "its end has come"
        assert ended["at"] >= start + length_s
        last = pictures(session)[-1]
        assert last.timestamp == (flvs.number(last.body) - 100_000) * 40
        assert length_s - 1 < last.timestamp / 1000 <= length_s
        assert len(receiver.sessions) == 1


def test_a_cancelled_class_ends_politely_and_what_was_sent_stays_known(tmp_path: Path) -> None:
    """Who follows the playout may die before it hears its end, and asks another worker; booked anew, it airs."""
    with loopback(tmp_path) as (playout, receiver, path):
        playout.put_on_air("c1", path, receiver.url("c1"))
        playout.cancel("c1")
        wait_until(lambda: receiver.of("c1")[0].ended, description="the end")
        assert receiver.of("c1")[0].ended == "eof"
        (told,) = playout.told("ended")
        aired = playout.folder / "aired.jsonl"
        assert (told["why"], told["file"]) == ("it was cancelled", str(path))
        for _ in range(2):
            (known,) = playout.again("status")["classes"]
            assert (known["state"], known["why"], known["as_run"]) == ("ended", told["why"], told["as_run"])
            wait_until(lambda: aired.exists() and told["why"] in aired.read_text(), description="it is saved")
            playout.kill_worker()
        playout.air("c1", path, receiver.url("c1"), starts_in_s=0.2)
        wait_until(lambda: playout.status("c1")["state"] == "on_air", description="it is on air again")


def test_what_was_sent_of_a_class_that_was_cancelled_while_no_worker_was_there_is_known(tmp_path: Path) -> None:
    with loopback(tmp_path) as (playout, receiver, path):
        playout.air("c1", path, receiver.url("c1"), starts_in_s=0.2)
        aired = playout.folder / "aired.jsonl"
        wait_until(lambda: aired.exists() and '"sent_s"' in aired.read_text(), description="what was sent is saved")
        playout.process.kill()
        playout.process.wait()
        write_timetable(playout.folder / timetable.NAME, [])
        playout.start()
        wait_until(lambda: playout.again("status")["classes"], description="it is known")
        known = playout.status("c1")
        assert (known["state"], known["why"], len(known["as_run"])) == ("ended", "it was cancelled", 1)


# While a recording is missing or broken, the slate is sent in the same session; then the recording, at the clock.


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
    with loopback(tmp_path) as (playout, receiver, whole):
        start = time.time() + 3
        playout.air("c1", path, receiver.url("c1"), start=start, length_s=12, slate=str(slate(tmp_path)))
        session = receiver.session("c1", has=of_slate)
        assert of_slate(session)[0].at + time.time() - time.monotonic() >= start
        assert playout.told("slate")[0]["why"] == "the recording is missing"
        time.sleep(2.5)  # the slate is sent for so long
        whole.replace(path)
        wait_until(lambda: playout.told("back"), description="back")
        wait_until(lambda: playout.told("ended"), description="the end")
        wait_until(lambda: session.ended, description="the session's end")
        stamps = [one.timestamp for one in pictures(session)]
        assert stamps == sorted(stamps)
        late_ms = 1000 * playout.ask("status")["worker"]["lateness_s"]
        gaps_ms = [after - before for before, after in pairwise(stamps)]
        assert max(gaps_ms) < 500 + late_ms, "no picture is left out"
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
    data = bytearray(flvs.data(flvs.lesson(60)))
    place = data.index(flvs.key(75, 3000))
    data[place - 11] = 99
    path = tmp_path / "a.flv"
    path.write_bytes(data)
    with loopback(tmp_path) as (playout, receiver, whole):
        playout.air("c1", path, receiver.url("c1"), starts_in_s=3, slate=str(slate(tmp_path)))
        wait_until(lambda: playout.told("slate"), description="the slate")
        assert "is broken: it cannot be read from byte" in playout.told("slate")[0]["why"]
        assert playout.status("c1")["slate"]
        assert playout.status("c1")["wants_file"]
        (session,) = receiver.of("c1")
        wait_until(lambda: of_slate(session), description="the slate's pictures")
        late_ms = 1000 * playout.ask("status")["worker"]["lateness_s"]
        assert of_slate(session)[0].timestamp - of_recording(session)[-1].timestamp < 500 + late_ms
        time.sleep(2)  # several looks at the file
        assert playout.told("back") == [], "what is broken is not tried again"
        whole.replace(path)
        wait_until(lambda: playout.told("back"), description="back")
        last = of_recording(session)[-1]
        assert last.timestamp == flvs.number(last.body) * 40
        assert len(receiver.sessions) == 1


def test_a_recording_that_is_shorter_than_it_must_be_is_followed_by_the_slate(tmp_path: Path) -> None:
    with loopback(tmp_path, flvs.lesson(3)) as (playout, receiver, path):
        playout.air("c1", path, receiver.url("c1"), length_s=6, duration_s=10, slate=str(slate(tmp_path)))
        wait_until(lambda: playout.told("ended"), description="the end")
        assert playout.told("slate")[0]["why"] == "the recording ends after 3 s, which is too early"
        assert of_slate(receiver.of("c1")[0])
        assert 2 < playout.told("ended")[0]["slate_s"] < 4


def test_without_a_slate_nothing_is_sent_until_the_recording_is_there(tmp_path: Path) -> None:
    """The connection that was made before the start is let go, and no server is blamed that it does not answer."""
    path = tmp_path / "a.flv"
    with loopback(tmp_path) as (playout, receiver, whole):
        start = time.time() + 3.2
        playout.air("c1", path, receiver.url("c1"), start=start)
        wait_until(lambda: receiver.sessions and receiver.sessions[0].ended, description="the end of the connection")
        assert receiver.sessions[0].ended == "eof"
        time.sleep(2)  # nothing is sent
        assert (receiver.of("c1"), playout.told("broke_off")) == ([], [])
        status = playout.status("c1")
        assert (status["state"], status["why"]) == ("trying", "the recording is missing")
        whole.replace(path)
        first = of_recording(receiver.session("c1", has=of_recording))[0]
        arrived_s = first.at + time.time() - time.monotonic() - start
        assert 2 < flvs.number(first.body) * 0.04 < arrived_s + 0.3, "it begins where the clock is"


def test_slate_and_recording_go_on_when_their_worker_is_killed(tmp_path: Path) -> None:
    """And the row of each goes on, too: what was sent before the kill is not missing from the as-run."""
    path = tmp_path / "a.flv"
    with loopback(tmp_path) as (playout, receiver, whole):
        playout.air("c1", path, receiver.url("c1"), slate=str(slate(tmp_path)))
        session = receiver.session("c1", has=lambda one: len(of_slate(one)) > 40)
        playout.kill_worker()
        count = len(of_slate(session))
        wait_until(lambda: len(of_slate(session)) > count + 60, description="more of the slate")
        whole.replace(path)
        wait_until(lambda: len(of_recording(session)) > 75, description="the recording, for more than two seconds")
        playout.kill_worker()
        count = len(of_recording(session))
        wait_until(lambda: len(of_recording(session)) > count + 50, description="more of the recording")
        playout.cancel("c1")
        wait_until(lambda: playout.told("ended"), description="the end")
        (ended,) = playout.told("ended")
        assert [row["source"] for row in ended["as_run"]] == ["slate", "recording"]
        assert ended["sent_s"] > len(of_recording(session)) * 0.04 - 0.5
        stamps = [one.timestamp for one in pictures(session)]
        assert stamps == sorted(stamps)
        assert len(receiver.sessions) == 1
