"""What explain, status and the page say of a class can be said in Chinese, each sentence of it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern import chinese_account
from lectern.chinese_account import sentence, status_line
from lectern.cli import explain, status
from lectern.cli.terms import translated
from lectern.decide import account, outlook, tale
from lectern.errors import CODES, NO_RECORDING
from lectern.playout import reel
from lectern.states import AiringState, Backend, BookingState, RenditionState
from lectern.told import Booked, Check, Cited, Found, Making, OpenAlarm, Past, Sending

NOW = 1_764_010_000.0
times = st.floats(NOW - 1e6, NOW + 1e6)
codes = st.none() | st.sampled_from(sorted(CODES))
messages = st.none() | st.just("ffmpeg said no")
makings = st.none() | st.builds(
    Making,
    st.sampled_from(RenditionState),
    st.sampled_from(Backend),
    st.integers(1, 9),
    st.none() | times,
    st.booleans(),
)
bookings = st.builds(
    Booked,
    st.just("c-1"),
    st.sampled_from(BookingState),
    st.just("6666"),
    times,
    times,
    codes,
    messages,
    st.just("streamer1"),
    st.booleans(),
    st.none() | times,
)
cited = st.builds(
    Cited, st.just("c-1"), st.sampled_from(AiringState), st.just("6666"), times, times, codes, messages, st.booleans()
)
sendings = st.builds(
    Sending,
    st.booleans(),
    st.none() | times,
    st.none() | st.floats(0, 9999),
    st.integers(0, 9),
    st.integers(0, 9),
    st.none() | st.just("Connection refused"),
    st.none() | times,
    st.booleans(),
)
found = st.builds(
    Found,
    st.just("c-1"),
    st.none() | bookings,
    makings,
    st.none() | cited,
    st.just("streamer1"),
    st.none() | sendings,
    st.sampled_from(
        [None, "Redis does not answer", "streamer1 has said nothing yet", "streamer1 has been silent for 45 s"]
    ),
    st.none() | st.builds(Check, times, st.sampled_from(["", "its file is gone"])),
    st.sampled_from(["", "black from 0:08 to 1:00; silent from 4:00 to 5:10; 7 more places"]),
    st.just((OpenAlarm(321, "streamer1", 3, NOW, "c-1: it is not on air", ("c-1",)),)),
)
KEPT = ("recording", "push URL", "streamer", "rendition", "institution", "last error")
"""Lines of the header that are names, or a program's own words."""


@given(found)
def test_each_sentence_of_an_account_is_said_in_chinese(one: Found) -> None:
    told = account.account(one, NOW)
    for text in (*(text for label, text in told.header if label not in KEPT), *told.following):
        assert re.search("[\u4e00-\u9fff]", sentence(text)), text


@pytest.mark.parametrize("since", [NOW - 20, NOW - 500])
def test_so_are_those_of_a_class_that_only_messages_know(since: float) -> None:
    for text in outlook.of_unbooked(since, malformed=False, now=NOW)[:1]:
        assert re.search("[\u4e00-\u9fff]", sentence(text)), text


def test_explain_names_the_lines_of_its_header_in_chinese() -> None:
    sent = Sending(False, failures=2, why="Connection refused")
    one = Booked("c-1", BookingState.READY, "6666_720P", NOW - 60, NOW + 600, None, None, "streamer1", True, None)
    told = account.account(Found("c-1", one, None, None, "streamer1", sent, None, None, "", ()), NOW)
    said = "\n".join(explain.lines("c-1", told, told.following, "zh"))
    assert "状态" in said
    assert "未上课：连接失败 2 次，最近一次的原因：Connection refused" in said
    assert "--> 现在应该在上课" in said


STORY = [
    *(("waits", ""), ("placed", "on streamer1"), ("answered with success", "streamer1: prepared")),
    *(("moved", "from streamer1 to streamer2: streamer1 is lost"), ("changed", "by change 1")),
    *(
        ("connected", "session 1 is ready to publish"),
        ("on air", "at 1.5 s, session 1"),
        ("slate", "the recording is missing"),
    ),
    *(("push refused", "no such stream (so far 10 times)"), ("push broke off", "the server closed the connection")),
    *(
        ("recording again", "the recording is there; before, it is missing; it goes on at 5.0 s"),
        ("nothing to send", "why"),
    ),
    *(
        ("fell behind", "3.0 s late; it goes on at the clock's position"),
        ("aired", "streamer1: aired whole; 1 session"),
    ),
    *(("alarm", "c-1: its slate is sent: the recording is missing"), ("downloaded", "12.3 MB, 600.0 s")),
    *(("refused", "316: disk full"), ("broken", "321: not aired"), ("checked: not ready", "its file is gone")),
    ("not sent", "until 19:00:12, 12 s: the push was refused: no such stream"),
]


def test_the_lines_of_a_story_are_said_in_chinese_with_their_times_hosts_and_classes() -> None:
    events = [Past(NOW + at, what, "c-1", None, "streamer1", detail) for at, (what, detail) in enumerate(STORY)]
    said = explain.lines("c-1", account.Account(account.Standing.AIRED, (), (), tuple(tale.lines(events))), (), "zh")
    assert len(said) == len(STORY) + 1
    for line in said[1:]:
        assert re.fullmatch(r"\S+ \S+  streamer1  c-1: .*[\u4e00-\u9fff].*", line), line


def test_the_labels_of_explain_stand_in_columns_of_cells() -> None:
    """A Chinese character is two cells wide."""
    known = account.Account(account.Standing.AIRED, (("state", "aired"), ("push URL", "rtmp://p/…")), ())
    english, chinese = (explain.lines("c-1", known, (), language)[1:3] for language in ("en", "zh"))
    assert [line.index(text) for line, text in zip(english, ("aired", "rtmp"), strict=True)] == [14, 14]
    wide = [line[: line.index(text)] for line, text in zip(chinese, ("已下课", "rtmp"), strict=True)]
    assert [len(one) + sum("\u4e00" <= letter <= "\u9fff" for letter in one) for one in wide] == [14, 14]


def test_a_line_with_colours_is_said_in_chinese_and_keeps_its_colour() -> None:
    red, plain = "\x1b[31m", "\x1b[0m"
    assert translated(f"{red}streamer    none is alive{plain}", status_line).startswith(f"{red}推流端")
    said = translated(f"on air      2 classes{red}; 1 class should be on air and is not{plain}", status_line)
    assert said.endswith(f"2 节课；1 节课应上课而未上课{plain}")


def test_times_and_names_are_kept() -> None:
    said = sentence("on air on streamer1 since 19:00:02, at 4:03 of the recording; reconnected once")
    assert said == "正在 streamer1 上播出，自 19:00:02 起，播放到录像的 4:03；重连 1 次"
    assert sentence("RUNBOOK.md: 207: transcoding timed out") == "RUNBOOK.zh.md: 207: 视频转码服务超时未完成"
    assert sentence("begins in 3 h 5 min") == "3 小时 5 分钟后上课"
    assert sentence("Conversion failed!") == "Conversion failed!"


def test_the_lines_of_status_are_said_in_chinese() -> None:
    told = {
        "on_air": 2,
        "missing": [{"class_id": "c-9", "why": "not on air: nothing of it was sent yet by streamer1"}],
        "unknown": [
            {
                "class_id": "c-8",
                "why": "streamer2 has been silent for 40 s: nobody here knows whether the class is on air",
            }
        ],
        "next": {"class_id": "c-2", "in_s": 300.0, "streamer": "streamer1", "state": "ready"},
        "bookings": {"ready": 3, "refused": 1},
        "renditions": {"transcoding": 1},
        "under_way_number": 1,
        "under_way": [{"rendition": "1_240P", "backend": "oss", "attempt": 1, "slack_s": 80.0}],
        "oldest_waiting": {"class_id": "c-3", "s": 40.0},
        "incidents": [{"code": 208, "count": 2, "last_at": NOW, "message": "1_240P: no"}],
        "streamer_incidents": [],
        "inbox": 2,
        "oldest_unsent_s": 61.0,
        "streamers": {
            "streamer1": {"on_air": 2, "booked": 4, "used_bytes": 10, "max_bytes": 99, "used_num": 1, "max_num": 9}
        },
    }
    for line in status.lines(told):
        assert re.search("[\u4e00-\u9fff]", status_line(line)), line
    assert status_line("streamer    none is alive") == f"推流端{chr(0x3000) * 3}没有存活的"
    assert set(chinese_account.LABELS) >= {"next", "inbox", "outbox"}


ALARMS = [
    "c-1: it is not on air: Connection refused; it is tried again until its end",
    "c-1: it falls behind the clock, and 2 s of it were skipped: its receiver takes less than it is sent",
    "c-1: its slate is sent: the recording is missing",
    "c-1: nothing is sent, there is no slate: the recording is broken: it cannot be read from byte 7 on",
    "c-1 begins in 5 min and is not ready with 6666_720P: its file is gone; nothing pins its rendition",
    "c-1 should have begun 80 s ago and is not ready with 6666_720P: streamer1 does not have it yet",
    "c-1: its recording 6666_720P is faulty: black from 0:10 to 0:31",
    "streamer1: not heard of for 60 s; 12 classes to be moved to others",
    "streamer1: not heard of for 60 s; 1 class stays with it, because its lease has no end",
    "streamer1: the worker of the playout ended; 3 classes should be on air",
    "6666_720P: no reason was given; 3 classes refused",
    "c-1: no room for 6666_720P (1.2 GB): booked classes need 12 of 12 renditions (MAX_VIDEO_NUM)",
    "c-1: no room for 6666_720P (9 GB): it is larger than the whole cache, 1.0 GB (MAX_VIDEO_SIZE)",
    "c-1: no room for 6666_720P (9 GB): it is larger than the 1.0 GB that the disk has room for",
    "ssh://ecs@h:22: failed 3 times in a row, it gets no job for 600 s: cannot be reached: timed out",
    "streamer1: the disk cannot be written: No space left on device",
    "teacher: channels does not work: NoPermissionError",
    "occurred 12 times since 19:00:02; new: c-1, c-2; first message: c-1: its slate is sent: it is missing",
    "still going on, occurred 12 times since 19:00:02; the newest: c-2: its slate is sent: it is missing",
    "resolved: occurred once, at 19:00:02; first message: streamer1: not heard of for 60 s",
]


@pytest.mark.parametrize("text", ALARMS)
def test_the_sentence_of_an_alarm_is_said_in_chinese(text: str) -> None:
    said = chinese_account.message(321, text).removeprefix("课没有完整播出：")
    assert re.search("[\u4e00-\u9fff]", said), said
    assert re.findall(r"\b(?:c-\d|streamer1|6666_720P)\b", said) == re.findall(
        r"\b(?:c-\d|streamer1|6666_720P)\b", text
    )


@pytest.mark.parametrize("at", ["19:40:00", "2026-11-26 19:40:00"])
def test_when_the_next_place_is_free_is_said_in_chinese(at: str) -> None:
    full = "no room for 6666_720P (1.2 GB): booked classes need 12 of 12 renditions (MAX_VIDEO_NUM)"
    said = chinese_account.message(316, f"c-1: {full}; the next place for it is free at {at}")
    assert said.startswith("磁盘空间已满：c-1：6666_720P（1.2 GB）放不下：")
    assert said.endswith(f"；{at} 起有空位放它")


def test_what_no_rule_knows_of_an_alarm_stays_as_it_is() -> None:
    assert chinese_account.message(504, "order: it is not JSON") == "消息无法解析：order: it is not JSON"


@pytest.mark.parametrize(
    "text",
    [
        "aired whole; 1 session; its end has come",
        "12 s of 1 h 5 s were not sent: 19:00:00-19:00:12 the push was refused: no such stream; 2 sessions",
        "2.5 s of 1 min were not sent: 19:00:00-19:00:01 no reason is known; 2 more gaps; 3 sessions; its end has come",
        "1 min of 1 h 5 s were not sent: 1 gap; 1 session; its end has come",
        "not aired",
        "not aired: its end has come",
        "not aired; the slate was sent for 9 s",
        "not aired; the slate was sent for 9 s: its end has come",
        "no result of the oss transcoding in time",
        "transcoding of 6666_720P timed out",
        "6666_720P is transcoded, but video_url_list lacks it",
        "it ended 2 h 5 min ago",
        "the message is not JSON: expected value at line 1 column 1",
    ],
)
def test_how_a_class_ended_and_why_it_was_refused_is_said_in_chinese(text: str) -> None:
    """Each part: the page lists these for every class of a day."""
    for part in sentence(text).split("；"):
        assert re.search("[\u4e00-\u9fff]", part), part


@pytest.mark.parametrize(
    "fault",
    [
        reel.MISSING,
        reel.STALLED,
        reel._BROKEN.format(77),
        reel._words(OSError(5, "-")),
        "ends after 9 s, which is too early",
    ],
)
@pytest.mark.parametrize("before", [*NO_RECORDING.says])
def test_why_a_class_is_on_air_without_its_recording_is_said_in_chinese(before: str, fault: str) -> None:
    """All that the playout says of a recording, in each alarm that tells of it."""
    said = sentence(f"c-1: {before.format(s=f'the recording {fault}')}")
    assert re.findall("[A-Za-z]+", said.removeprefix("c-1")) == []
