"""What an alarm says, it says in Chinese to those who read Chinese, to its last word; programs keep their own words."""

import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import pytest

from lectern import formatting, notify
from lectern.decide import airing, readiness
from lectern.decide.gaps import not_aired, sent
from lectern.errors import CODES, LecternError, Malformed, alarm_in
from lectern.i18n import Text, translated
from lectern.model.facts import AsRun
from lectern.model.views import EventView
from lectern.playout import demuxer, flv, keyframe_index, net
from lectern.playout.flv import NotAirable
from lectern.playout.keyframe_index import Look
from lectern.playout.rtmp import NotRtmp, amf0, target
from lectern.playout.timetable import BadRequest, lesson
from lectern.wire import parser
from lectern.wire.messages import Booking, Cancel, Change, Report, TranscodingResult

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # of apprise
SAID = "WHAT THE PROGRAM SAID"
sentence = partial(translated, language="zh")
NAMES = re.compile(
    r"[a-z]+://[^\s：；）]*|/[^\s：；，）]+|\bc-\d+|\b(?:streamer|teacher)\d?\b|\b\d+_\d+P[^\s：；]*"
    r"|\b\w+_\w+|\w+(?:\.zh)?\.md|\b[A-Z][A-Z0-9]+\b"
)
"""URLs, paths, ids, settings, fields of messages and abbreviations: the same in every language."""

TERMS = {"Redis", "Prefect", "ETag", "run", "list", "stream", "object", "worker", "deployment", "chunk", "apprise"}
"""What README.zh.md and RUNBOOK.zh.md call so, too."""

KEPT = ["None", "aac", "vp9", "h264", "push_urls[0]", "host", "http", "rtmp", "ecs", "oss", "abc", "soon", "order"]
KEPT += ["public", "https", "rtmps", "host:port", "100k", "audio", "connect", "content-length"]
"""What programs, files and senders call so; each counts only where the English has it, too."""

FIELDS = {"cmd", "result", "success", "failed", "fail", "code", "type", "networks", "file", "start", "end"}
FIELDS |= {"cancel", "change", "transcoding", "prepared", "amended", "ended", "class_id"}
"""Words of messages and of the playout's requests, which their sender looks for."""


def left(text: str) -> list[str]:
    """The words of an alarm that are still English in its Chinese, but for names and for the words of programs."""
    said = sentence(text)
    for one in (SAID, *KEPT):
        said = said.replace(one, "") if one in text else said
    kept = TERMS | {word for word in FIELDS if word in text}
    return [word for word in re.findall("[A-Za-z]{2,}", NAMES.sub("", said)) if word not in kept]


NESTED = [
    "6666_720P: ecs transcoding of 6666_720P: failed; 3 classes refused; 2 changes refused",
    "c-1: the playout does not take it: push_urls[0]: the push URL has no host, or a port that is none",
    f"c-1: it is not on air: {SAID}; it is tried again until its end",
    "c-1: nothing is sent, there is no slate: the recording is broken: it cannot be read from byte 7 on",
    "c-1 begins in 5 min and is not ready with 6666_720P: its file is gone; nothing pins its rendition",
    "c-1: its recording 6666_720P is faulty: black from 0:10 to 0:31",
    "c-1: no room for 6666_720P (1.2 GB): booked classes need 12 of 12 renditions (MAX_VIDEO_NUM)",
    "resolved: occurred once, at 19:00:02; first message: streamer1: not heard of for 60 s",
    "aired whole; 1 session; its end has come",
    "not aired",
    "not aired; the slate was sent for 9 s",
    "it ended 2 h 5 min ago",
    f"the message is not JSON: {SAID}",
]


def test_a_sentence_that_came_without_its_id_is_found_by_its_english() -> None:
    """From the playout, an old row or another release; names, numbers and the words of programs stay as they are."""
    numbers = [({*re.findall(r"\d+", one)}, {*re.findall(r"\d+", sentence(one)), "0"}) for one in NESTED]
    assert [one for one, (before, after) in zip(NESTED, numbers, strict=True) if left(one) or before - after] == []


@pytest.mark.parametrize("name", ["recorder", "dead air", "bandwidth", "timetable of the playout"])
def test_a_part_of_a_host_has_a_name_in_chinese(name: str) -> None:
    """The name is quoted, so that it can be told from what is said of it."""
    text = Text("{host}: {part} does not work: {why}", host="teacher", part=Text(name), why=SAID)
    assert re.fullmatch(f"teacher：“[^“”]+”不工作：{SAID}", sentence(text))
    assert left(text) == []


def of_faults() -> Iterator[str]:
    """What the playout cannot send."""
    faults = (demuxer.MISSING, demuxer.STALLED, demuxer.broken(77), demuxer._words(OSError(5, "-")))
    for fault in (*faults, "ends after 9 s, which is too early"):
        yield of("c-1", airing.without_recording(has_slate=False, has_begun=True))
        yield of("c-1", not_aired(sent(0, 9, ()), f"the recording {fault}"))
    for what in (*airing.STORY, "moved", "placed"):
        events = [EventView(5.0, what, "c-1", None, "s1", "the recording is missing")]
        parts = [AsRun(0, 1, "recording", 0, 5, 0, 5), AsRun(0, 2, "slate", 500, 600, 0, 100)]
        yield of("c-1", sent(0, 600, parts, events, "its recording is over").sentence())


def of(thing: str, what: str) -> Text:
    """*what*, of *thing*, as alarms have it."""
    return Text("{thing}: {what}", thing=thing, what=what)


def off_air(why: str) -> Text:
    return of("c-1", Text("it is not on air: {reason}; it is tried again until its end", reason=why))


def red(why: str) -> str:
    return readiness.sentence("c-1", "6_720P", 300, [why])


def raised(work: Callable[..., object], *given: object) -> str:
    """The words of the error that *work* raises."""
    with pytest.raises((LecternError, NotRtmp, NotAirable, BadRequest)) as caught:
        work(*given)
    return getattr(caught.value, "message", None) or str(caught.value.args[0])


def of_files() -> Iterator[str]:
    """Why a recording cannot be aired."""
    found = Look(99, 4000, broken_at=12, records=())
    for head in (b"", b"MP4", b"FLV\x01", b"FLV\x01\x05\0\0\0\x08\0\0\0\0"):
        yield of("c-1", of("/v/6.flv", f"cannot be aired: {raised(flv.check_head, head)}"))
    yield red(Text("its file is damaged: {damaged}", damaged=raised(keyframe_index.check, found)))
    yield of("c-1", of("/v/6.flv", f"cannot be aired: {flv.codec_fault(flv.PICTURE, bytes([31]))}"))


def of_pushes() -> Iterator[str]:
    """Why a push does not come about."""
    for url in ("http://h/a/s", "rtmp://h:0/a/s"):
        yield off_air(raised(target, url))
    for data in (b"\x0d", b"\x00", b"\x0a\0\0\0\x01" * 20):
        yield off_air(raised(amf0.decode, data))
    untrusted = ssl.SSLCertVerificationError(1, SAID)
    untrusted.verify_message = SAID
    for error in (socket.gaierror(-2, SAID), untrusted):
        yield off_air(net.words(error))
    good = {"class_id": "c-1", "file": "/v/1.flv", "push_urls": ["rtmp://h/a/s"], "start": 1.0, "end": 2.0}
    faults: list[dict[str, object]] = [{"push_urls": []}, {"push_urls": ["http://h/a"]}, {"class_id": ""}]
    faults += [{"file": "v"}, {"start": "x"}, {"end": 1.0}, {"networks": ["x"]}]
    for bad in faults:
        yield of("c-1", Text("the playout does not take it: {reason}", reason=raised(lesson, {**good, **bad})))


def test_what_the_playout_says_is_found_in_chinese_although_it_sends_no_ids() -> None:
    """The sentence comes from the function that says it, so that a word that changes there is missed here."""
    texts = [*of_faults(), *of_files(), *of_pushes()]
    assert [f"{text}: {sentence(text)}" for text in texts if left(text)] == []


BOOKING = {"cmd": "order", "class_id": "c-1", "start_time": 1.0, "end_time": 2.0, "push_url": "rtmp://h/a/s"}
RESULT = {"cmd": "transcoding", "record_id": 6, "video_resolution": "720P"}
HERE = {**BOOKING, "video_url": "http://h/6.flv"}
BODIES: list[Mapping[str, object] | list[object]] = [
    [],
    {},
    {"cmd": "order", "class_id": "c-1"},
    BOOKING,
    {**HERE, "institution_id": "a\0b"},
    {**HERE, "end_time": 0.5},
    {**HERE, "video_resolution": "720P"},
    {**BOOKING, "video_resolution": "8K", "video_url": "ftp://h/6.flv", "institution_id": "a b"},
    {**BOOKING, "video_url": 7, "start_time": "soon", "end_time": True, "record_id": 1.5, "video_url_list": 7},
    {**HERE, "record_id": -1, "start_time": 0, "end_time": 5e9},
    {**HERE, "record_id": 6, "video_resolution": "720P", "video_url_list": {"720P": "ftp://h/6.flv"}},
    {**BOOKING, "push_url": "rtmp://h", "video_url": f"http://h/{'6' * 3000}"},
    {**BOOKING, "push_url": "rtmp://h:99999/a/s", "video_url": "http://h 7/6.flv"},
    {**BOOKING, "push_url": f"rtmp://{'h' * 70}/a/s", "video_url": "http://1.2.3/6.flv"},
    {**HERE, "push_url": "rtmp://a\\b@h/a/s"},
    {**HERE, "push_url": f"rtmp://{'é' * 99}/a/s"},
    {**HERE, "push_url_backup": "rtmp://h/a/s"},
    {**HERE, "push_url_backup": "rtmp://h/a/t", "class_id": "c" * 250},
    {"cmd": "change", "class_id": "c-1"},
    {"cmd": "change", "class_id": "c-1", "end_time": 5, "institution_id": "i-8"},
    {**RESULT, "result": "maybe"},
    {**RESULT, "result": "success"},
    {**RESULT, "result": "failed"},
    {"cmd": "ended", "class_id": "c-1", "streamer": "streamer1", "result": "maybe", "code": -1, "as_run": 7},
]


def test_what_is_wrong_with_a_message_is_said_in_chinese() -> None:
    """Each fault of it; the names of its fields and commands stay, because the sender looks for them."""
    for raw in (*map(json.dumps, BODIES), "x" * 99_999):
        with pytest.raises(Malformed) as caught:
            parser.parse(raw, (Booking, Cancel, Change, TranscodingResult, Report))
        text = of("c-1", caught.value.message)
        assert left(text) == [], sentence(text)


def test_the_words_of_a_program_stay_as_they_are() -> None:
    """Also those that begin as ours do, and those that stand together; what is too deep, or too much, stays English."""
    for text in ("404 Not Found", "Conversion failed!", "a: b; c: d", "frame=12; it: slow", "x" * 900):
        assert alarm_in("zh", 208, f"6_720P: {text}") == f"{translated(CODES[208].meaning, 'zh')}：6_720P: {text}"
    for odd in ("316 ", "not aired: ", "a: ", "its file is gone; ", "its file is lost: "):
        assert sentence(odd * 3000)


def test_what_the_platform_should_do_names_the_same_fields_in_chinese() -> None:
    for number, code in CODES.items():
        fields = re.findall(r"[a-z]+_[a-z_]+|URL|ECS", code.platform_should)
        assert all(one in translated(code.platform_should, "zh") for one in fields), number


def alarm(code: int, **more: object) -> str:
    fields = {"code": code, "message": "c-1: it is not on air", "host": "streamer1", "class_id": "c-1", "at": 1.0}
    return json.dumps({**fields, "runbook": "a heading", **more})


def test_an_alarm_is_told_in_chinese_with_the_words_of_the_program() -> None:
    title, text, resolved = notify.written(alarm(321), "https://t.example/runbook", "zh")
    assert (title, resolved) == ("lectern 321 严重: streamer1", False)
    assert text.splitlines() == [
        "课没有完整播出：c-1: it is not on air",
        f"报警时间: {formatting.moment(1.0)}",
        "课程: c-1",
        "RUNBOOK.zh.md: 321: 课没有完整播出",
        "https://t.example/runbook#321",
    ]


def test_the_end_of_an_incident_and_a_code_of_another_release_are_told_too() -> None:
    assert notify.written(alarm(321, stage="resolved"), None, "zh")[0] == "lectern 321 已恢复: streamer1"
    title, text, _ = notify.written(alarm(999), None, "zh")
    assert title == "lectern 999 警告: streamer1"
    assert text.splitlines()[2:] == ["课程: c-1", "RUNBOOK.zh.md: a heading"]
