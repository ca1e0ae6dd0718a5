"""What explain, status and the page say of a class can be said in Chinese, each sentence of it."""

import re
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern.cli import explain
from lectern.decide import account, timeline
from lectern.errors import CODES
from lectern.i18n import Text, translated
from lectern.model.views import Booked, Check, ClassView, EventView, OpenAlarm, Sending, StreamerView, TranscodeView
from lectern.states import AiringState, Backend, BookingState, RenditionState

sentence = partial(translated, language="zh")
NOW = 1_764_010_000.0
times = st.floats(NOW - 1e6, NOW + 1e6)
codes = st.none() | st.sampled_from(sorted(CODES))
messages = st.none() | st.just("ffmpeg said no")
makings = st.none() | st.builds(
    TranscodeView,
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
    StreamerView,
    st.just("c-1"),
    st.sampled_from(AiringState),
    st.just("6666"),
    times,
    times,
    codes,
    messages,
    st.booleans(),
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
    ClassView,
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
def test_each_sentence_of_an_account_is_said_in_chinese(one: ClassView) -> None:
    told = account.account(one, NOW)
    for text in (*(text for label, text in told.header if label not in KEPT), *told.following):
        assert re.search("[\u4e00-\u9fff]", sentence(text)), text


@pytest.mark.parametrize("since", [NOW - 20, NOW - 500])
def test_so_are_those_of_a_class_that_only_messages_know(since: float) -> None:
    for text in timeline.next_of_unbooked(since, malformed=False, now=NOW)[:1]:
        assert re.search("[\u4e00-\u9fff]", sentence(text)), text


def test_explain_names_the_lines_of_its_header_in_chinese() -> None:
    sent = Sending(False, failures=2, why="Connection refused")
    one = Booked("c-1", BookingState.READY, "6666_720P", NOW - 60, NOW + 600, None, None, "streamer1", True, None)
    told = account.account(ClassView("c-1", one, None, None, "streamer1", sent, None, None, "", ()), NOW)
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
    events = [EventView(NOW + at, what, "c-1", None, "streamer1", detail) for at, (what, detail) in enumerate(STORY)]
    said = explain.lines(
        "c-1", account.Account(account.Standing.AIRED, (), (), tuple(timeline.lines(events))), (), "zh"
    )
    assert len(said) == len(STORY) + 1
    for line in said[1:]:
        assert re.fullmatch(r"\S+ \S+  streamer1  c-1: .*[\u4e00-\u9fff].*", line), line


def test_the_labels_of_explain_stand_in_columns_of_cells() -> None:
    """A Chinese character is two cells wide."""
    known = account.Account(account.Standing.AIRED, (("state", Text("aired")), ("push URL", "rtmp://p/…")), ())
    english, chinese = (explain.lines("c-1", known, (), language)[1:3] for language in ("en", "zh"))
    assert [line.index(text) for line, text in zip(english, ("aired", "rtmp"), strict=True)] == [14, 14]
    wide = [line[: line.index(text)] for line, text in zip(chinese, ("已下课", "rtmp"), strict=True)]
    assert [len(one) + sum("\u4e00" <= letter <= "\u9fff" for letter in one) for one in wide] == [14, 14]
