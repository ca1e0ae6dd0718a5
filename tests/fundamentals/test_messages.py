"""What travels on the wire is read once, strictly where it matters, and passed on whole."""

import json
import re
from typing import Any, get_args
from unittest.mock import Mock

import pytest
from pydantic_core import from_json

import lectern.wire.parser
from flows.resident.prefect import deployments
from lectern.decide.placement import secondary_of
from lectern.errors import MALFORMED, Malformed
from lectern.model.facts import InboxMessage, Order
from lectern.rendition_ids import stem
from lectern.run_records import label_of
from lectern.settings import StreamerSettings, TeacherSettings
from lectern.states import Backend, Resolution
from lectern.wire import outgoing
from lectern.wire.messages import TAKE_BACK, Booking, Cancel, Change, Message, Prepare, TranscodingResult
from lectern.wire.outgoing import Alarm, OrderResult, prepare
from lectern.wire.parser import COMMANDS, MAX_BODY_BYTES, Body, command_of, is_own_result, parse
from tests import strategies
from tests.strategies import BOOKING, RESULT

EVERY = tuple(COMMANDS.values())


def booking(**fields: object) -> Booking:
    return parse(json.dumps(BOOKING | fields), (Booking,))


def malformed(fields: dict[str, Any] | bytes, *kinds: type[Booking | Cancel | TranscodingResult]) -> Malformed:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    with pytest.raises(Malformed) as caught:
        parse(body, kinds or (Booking,))
    return caught.value


def result(**fields: object) -> TranscodingResult:
    return parse(
        json.dumps({name: one for name, one in (RESULT | fields).items() if one is not ...}), (TranscodingResult,)
    )


def test_the_documented_booking_is_read_as_it_is_written() -> None:
    """One of the old kind has none of the new fields."""
    read, new = booking(), {"record_id", "video_url_list", "video_resolution"}
    assert (read.class_id, read.institution_id, read.record_id) == ("c-1001", "i-7", 6666)
    assert (read.video_resolution, read.stem) == (Resolution.P720, "6666_720P")
    assert read.urls == {one: f"http://origin.example/{one.lower()}.flv" for one in (Resolution.P240, Resolution.P480)}
    old = parse(json.dumps({name: BOOKING[name] for name in BOOKING if name not in new}), (Booking,))
    assert (old.record_id, old.video_resolution, old.urls, old.key, old.stem) == (None, None, {}, None, "6666")
    assert booking(video_resolution=None, video_url="http://o.example/x.flv").stem == "6666", "it may name its record"
    assert (stem(6666, Resolution.P720), stem(6666, None)) == ("6666_720P", "6666")


UNFIT: list[tuple[dict[str, Any], str]] = [
    (BOOKING | {"record_id": None}, "message: record_id is needed if a video_resolution is given"),
    (BOOKING | {"end_time": BOOKING["start_time"]}, "message: end_time must be after start_time"),
    (BOOKING | {"video_url": None, "video_resolution": None}, "message: video_url is needed if no video_resolution"),
    *(
        (BOOKING | {"video_url_list": {"480P": url}}, "message: video_url_list.480P ")
        for url in ("ftp://o.example/x", "http:///x", "http://o.example/a b", "http://[")
    ),
    (RESULT | {"transcode_video_url": None}, "message: transcode_video_url is needed if the result is a success"),
    *((RESULT | {"result": "failed", "type": one}, "message: type must be oss or ecs") for one in ("cloud", None, 7)),
    *(
        (RESULT | {"result": one}, "result: must be success or failed")
        for one in ("done", "", "SUCCESS?", "no success")
    ),
    *((RESULT | {"record_id": one}, "record_id: ") for one in ("06666", "6666.0", "-1", "", " 6666", "６６６６")),
    *((RESULT | {"record_id": one}, "record_id: ") for one in (str(2**63), True, 6666.5)),
]


@pytest.mark.parametrize(("fields", "said"), UNFIT)
def test_what_does_not_fit_together_is_malformed(fields: dict[str, Any], said: str) -> None:
    """So is any other word for a result, which is no failure; the record of a result is a number or its digits."""
    message = malformed(fields, TranscodingResult if fields["cmd"] == "transcoding" else Booking).message
    assert message.startswith(said)
    assert not any(url in message for url in fields.get("video_url_list", {}).values()), "it may hold a secret"


FAILED: dict[str, Any] = {"result": "failed", "transcode_video_url": ...}
SPELLED: list[tuple[dict[str, Any], bool, Backend | None]] = [
    *(({"result": one}, True, Backend.OSS) for one in ("sucess", "success", "SUCCESS", "Sucess", " success ")),
    *((FAILED | {"result": one}, False, Backend.OSS) for one in ("fail", "failed", "failure", "FAILED", "Fail")),
    ({"type": "Ecs"}, True, Backend.ECS),
    *(({"type": one}, True, None) for one in ("cloud", 7, ...)),
    ({"result": "failed", "type": "OSS"}, False, Backend.OSS),
    ({"record_id": "6666"}, True, Backend.OSS),
]


@pytest.mark.parametrize(("fields", "success", "by"), SPELLED, ids=str)
def test_a_result_is_read_in_each_spelling(fields: dict[str, Any], success: bool, by: Backend | None) -> None:
    """Of a success the type does not matter."""
    read = result(**fields)
    assert (read.success, read.type, read.record_id, read.video_resolution) == (success, by, 6666, Resolution.P720)


@pytest.mark.parametrize("spelling", ["240P", "240p", "240", 240])
def test_the_smallest_resolution_is_read_with_and_without_its_letter(spelling: object) -> None:
    assert booking(video_resolution=spelling).video_resolution is Resolution.P240
    assert booking(video_url_list={str(spelling): "http://o.example/x"}).urls == {Resolution.P240: "http://o.example/x"}


@pytest.mark.parametrize("other", [{"4K": "anything"}, {"720P": None}, {"720P": ""}, {"480": None}, {"480": ""}])
def test_an_entry_of_the_url_list_that_is_unknown_or_has_no_url_is_passed_over(other: dict[str, str | None]) -> None:
    """Also if it is another spelling of one that has a URL."""
    assert booking(video_url_list={"480P": "http://o.example/x", **other}).urls == {
        Resolution.P480: "http://o.example/x"
    }
    assert booking(video_url_list=None).urls == {}


@pytest.mark.parametrize("place", ["class_id", "institution_id", "x_note", "x_\0"])
def test_a_text_that_holds_a_nul_is_malformed_and_answered_where_the_class_can_be_read(place: str) -> None:
    error = malformed(BOOKING | {place: "a\0b"})
    with pytest.raises(Malformed):
        parse(json.dumps(BOOKING | {place: "a\0b"}), (Booking,))
    assert error.message == "a text of the message holds a NUL character"
    assert error.class_id == (None if place == "class_id" else "c-1001")
    assert booking(x_note="\\u0000").model_extra == {"x_note": "\\u0000"}  # six characters, none of them NUL


@pytest.mark.parametrize("field", ["class_id", "start_time", "end_time", "push_url"])
def test_a_booking_without_a_needed_field_is_malformed_and_the_field_is_named(field: str) -> None:
    error = malformed({name: value for name, value in BOOKING.items() if name != field})
    assert error.message == f"{field}: Field required"


ILL_TYPED: dict[str, list[object]] = {
    "class_id": ["", "..", "a/b", "a b", "c-1\n", "课", "x" * 251, 7, None],
    "institution_id": ["../i"],
    "record_id": ["6666", 6666.5, True, -1, 2**63],
    "start_time": ["soon", 0, True, 1764010800000],
    "end_time": [False],
    "push_url": ["http://push.example/live", "rtmp:///live", "rtmp://push.example/a b"],
    "video_url": ["file:///etc/passwd", "http://[", "http://o.example/" + "x" * 2_000],
    "video_url_list": [["http://o.example"], {"480P": 7}],
    "video_resolution": ["9000P", True],
}


@pytest.mark.parametrize(("field", "value"), [(field, one) for field, values in ILL_TYPED.items() for one in values])
def test_an_ill_typed_field_is_malformed_and_named_but_its_value_is_not(field: str, value: object) -> None:
    """Beside another one, too: every fault is told at once. It is answered where its class_id can be read."""
    for other in ({}, {"push_url": 7} if field != "push_url" else {"record_id": "six"}):
        error = malformed(BOOKING | other | {field: value})
        assert all(re.search(rf"(^|; ){one}\b", error.message) for one in (field, *other))
        assert "Value error" not in error.message
        assert (error.class_id, error.code) == (None if field == "class_id" else "c-1001", MALFORMED)
        if isinstance(value, str) and len(value) > 3:
            assert value not in error.message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the message is empty"),
        *((one, "the message is not JSON: ") for one in (b"{", b"\xff\xfe", b"[" * 5_000)),
        (b'{"cmd": "cancel", "class_id": NaN}', "the message is not JSON: "),
        (b'{"cmd": "cancel", "class_id": "c", "x": "\\ud800"}', "the message is not JSON: "),
        (b"[]", "the message is a JSON list, not an object"),
        (b"null", "the message is a JSON NoneType, not an object"),
        (b"{}", "cmd is None, not order"),
        (b'{"cmd": ["order"]}', "cmd is ['order'], not order"),
        (b'{"cmd": "cancel", "class_id": "c"}', "cmd is 'cancel', not order"),
        (b'{"cmd": "%s"}' % (b"x" * 10_000), "cmd is 'xxx"),
        (b" " * (MAX_BODY_BYTES + 1), f"the message is longer than {MAX_BODY_BYTES} bytes"),
    ],
)
def test_what_is_no_message_is_refused_in_a_sentence(body: bytes, said: str) -> None:
    message = malformed(body).message
    assert (message[: len(said)], len(message) < 200) == (said, True)


def test_a_booking_that_could_not_be_told_to_its_streamer_is_refused_at_once() -> None:
    """What the streamer cannot read, nobody prepares: it was answered when its class was over, and not aired.

    What is kept may be longer than what came, because numbers are written out.
    """
    short = json.dumps(BOOKING).removesuffix("}")
    for more in (json.dumps("x" * 63_000), f"[{','.join(['1e15'] * 9_000)}]"):
        body = f'{short}, "more": {more}}}'.encode()
        assert len(body) < MAX_BODY_BYTES
        error = malformed(body)
        assert (error.class_id, error.message) == ("c-1001", "the message is longer than 61440 bytes")
    url = f"http://origin.example/{'y' * 1_900}.flv"
    told = prepare(booking(more="x" * 60_000).payload, url, 2**31 - 1).to_json()
    assert parse(told, (Prepare,)).video_url == url


@pytest.mark.parametrize("cmd", [{}, {"cmd": None}, {"cmd": "oder"}])
def test_a_message_without_its_cmd_is_told_all_its_other_faults_too(cmd: dict[str, Any]) -> None:
    """One correction is enough; the channel says what was meant."""
    fields = {"class_id": "c-1001", "end_time": "soon", "push_url": "rtmp://push.example/live/c", **cmd}
    error = malformed(fields, Booking, Cancel)
    assert error.class_id == "c-1001"
    assert error.message.startswith(f"cmd is {cmd.get('cmd')!r}, not cancel, order; ")
    assert all(f"{name}: " in error.message for name in ("start_time", "end_time"))
    assert "push_url" not in error.message
    with pytest.raises(Malformed) as caught:
        parse(json.dumps({"class_id": "c-1001", **cmd}), (Booking, Cancel), "cancel")
    assert caught.value.message == f"cmd is {cmd.get('cmd')!r}, not cancel, order"


def test_a_change_names_what_cannot_be_changed_and_is_refused_whole() -> None:
    body = {"cmd": "change", "class_id": "c-1", "end_time": 1764014400}
    with pytest.raises(Malformed, match="institution_id cannot be changed"):
        parse(json.dumps(body | {"institution_id": "i-8"}), (Change,))
    assert parse(json.dumps(body | {"institution_id": None, "x_trace": "7"}), (Change,)).given == {
        "end_time": 1764014400
    }


def test_unknown_fields_are_kept_even_where_they_are_null_and_our_absent_ones_left_out() -> None:
    sent = BOOKING | {"teacher_note": {"colour": None}, "tag": None}
    assert json.loads(parse(json.dumps(sent), (Booking,)).to_json()) == sent
    alarm = Alarm(code=501, message="m", at=1, runbook="501: x")
    assert set(json.loads(alarm.to_json())) == {"cmd", "code", "message", "at", "runbook"}


@pytest.mark.parametrize("name", ["cls", "_fields_set", "self", "stem", "payload", "model_extra"])
def test_an_unknown_field_may_have_any_name(name: str) -> None:
    """A platform that calls something of its own `cls` got no answer to any of its bookings."""
    known = {**BOOKING, "push_url_backup": "rtmp://push.example/live/second"}
    booking = parse(json.dumps({**known, name: "math-3"}), (Booking,))
    second, order = secondary_of(booking.payload), Order.of(booking)
    assert second is not None
    told = prepare(order.payload, "http://origin.example/6666_720P.flv", 1)
    for one in (booking, second, told):
        assert json.loads(one.to_json())[name] == "math-3"
    assert parse(told.to_json(), (Prepare,)).stem == "6666_720P"


CLASS = {"class_id": "c-1"}
SAID = {**CLASS, "streamer": "streamer1", "result": "success"}
NO_COUNT = {"negative": -1, "31 bits": 2**31, "63 bits": 2**63, "400 digits": 10**400, "bool": True, "text": "1"}


@pytest.mark.parametrize("number", NO_COUNT.values(), ids=NO_COUNT)
@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"cmd": "release", **CLASS}, "placement"),
        ({"cmd": "prepared", **SAID}, "placement"),
        ({"cmd": "ended", **SAID}, "code"),
        ({**BOOKING, "cmd": "prepare"}, "placement"),
        (RESULT, "attempt"),
    ],
)
def test_what_counts_is_a_number_for_every_database(message: dict[str, Any], field: str, number: object) -> None:
    """Whoever may write to a host's stream can write any number there; none of them is for the database to refuse."""
    with pytest.raises(Malformed, match=field):
        parse(json.dumps({**message, field: number}), EVERY)
    assert getattr(parse(json.dumps({**message, field: 3}), EVERY), field) == 3


@pytest.mark.parametrize("code", NO_COUNT.values(), ids=NO_COUNT)
def test_a_code_that_is_none_is_passed_over_in_a_result(code: object) -> None:
    """The cloud's own codes are not ours."""
    assert result(**FAILED, code=code).code is None


@pytest.mark.parametrize("kind", COMMANDS.values())
def test_a_message_that_comes_in_says_where_and_which_flow_handles_it(kind: type[Message]) -> None:
    """A setting names its channel or stream, and the flow is there on the hosts that hear it."""
    assert kind.comes_by in TeacherSettings.model_fields.keys() & StreamerSettings.model_fields.keys()
    at_a_streamer = {*deployments.STREAMER, TAKE_BACK}
    assert kind.goes_to in (at_a_streamer if kind.comes_by == "streamer_stream" else deployments.TEACHER)


def test_every_kind_of_message_is_a_command_or_is_sent_by_us() -> None:
    """And no command is of two kinds."""
    kinds: list[type[Message]] = []
    bases: list[type[Message]] = [Message, *Message.__subclasses__()]
    for base in bases:
        ours = (one for one in base.__subclasses__() if one.__module__.startswith("lectern."))
        kinds += [one for one in ours if get_args(one.model_fields["cmd"].annotation)]
    assert {one for one in kinds if one.comes_by} == set(COMMANDS.values())
    assert {one.__module__ for one in kinds if not one.comes_by} == {"lectern.wire.outgoing"}
    commands = [name for kind in set(COMMANDS.values()) for name in get_args(kind.model_fields["cmd"].annotation)]
    assert sorted(commands) == sorted(COMMANDS)


def test_the_command_of_anything_is_a_word_or_nothing() -> None:
    assert command_of(json.dumps(BOOKING)) == "order"
    for nothing in (b"", b"[]", b"{}", b'{"cmd": 7}', b"\xff", b"[" * 5_000):
        assert command_of(nothing) == ""


def test_a_message_is_read_once_however_many_look_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The intake asks for its command, the recorder for its class, its flow for all of it."""
    read = Mock(wraps=from_json)
    monkeypatch.setattr(lectern.wire.parser, "from_json", read)
    body = Body(json.dumps(BOOKING))
    kept = InboxMessage(1, command_of(body), body, 0)
    assert (kept.command, label_of(kept.body).class_id) == ("order", BOOKING["class_id"])
    assert parse(kept.body, (Booking,)).class_id == BOOKING["class_id"]
    assert read.call_count == 1
    odd = InboxMessage(2, "order", "{", 0)
    assert label_of(odd.body).class_id is None
    with pytest.raises(Malformed):
        parse(odd.body, (Booking,))


def test_a_result_of_our_own_transcoding_is_told_from_those_of_others() -> None:
    """It is published for the platform, and read from the stream alone; a result of the OSS is read from both."""
    ours = TranscodingResult.model_validate(RESULT | {"type": "ecs", "attempt": 1}).to_json()
    assert is_own_result(ours)
    others: list[object] = [RESULT | {"type": "ecs"}, RESULT | {"type": "oss", "attempt": 1}, BOOKING, []]
    for other in others:
        assert not is_own_result(json.dumps(other))


def test_what_a_streamer_is_told_reads_as_if_it_had_been_checked_again() -> None:
    """Its values were checked as the booking came in; unknown fields are passed on, the list of URLs is not."""
    booked = strategies.booking("c-1", teacher_mood="good")
    told = outgoing.prepare(booked.payload, "http://origin.example/6666.flv", 2).to_json()
    fields = {**json.loads(booked.payload), "cmd": "prepare", "placement": 2}
    fields["video_url"] = "http://origin.example/6666.flv"
    del fields["video_url_list"]
    assert json.loads(told) == json.loads(Prepare.model_validate(fields).to_json())
    assert parse(told, (Prepare,)).placement == 2


@pytest.mark.parametrize(("code", "word"), [(0, "success"), (207, "fail")])
def test_an_answer_is_the_documented_one(code: int, word: str) -> None:
    said = outgoing.answer("c-1", code, "why").to_json()
    documented = {"cmd": "order_result", "class_id": "c-1", "result": word, "code": code, "message": "why"}
    assert json.loads(said) == documented
    assert OrderResult.model_validate_json(said).to_json() == said
