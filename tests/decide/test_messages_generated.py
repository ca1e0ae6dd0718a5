"""Whatever is put on the wire is a message, or malformed in a sentence."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern import errors, formatting
from lectern.decide import booking
from lectern.decide.booking import contradiction, is_same
from lectern.errors import Malformed
from lectern.model.facts import Order
from lectern.model.plan import Changes
from lectern.states import BookingState
from lectern.wire.messages import Booking, Grant, Message
from lectern.wire.outgoing import Alarm, OrderResult
from lectern.wire.parser import COMMANDS, command_of, parse
from tests import strategies
from tests.decide.test_reports import SETTINGS
from tests.decide.test_revisions import told
from tests.strategies import BOOKING, NOW

EVERY = tuple(COMMANDS.values())


grants = st.builds(
    lambda unknown, **fields: Grant.model_validate(fields | unknown),
    strategies.unknown_fields,
    streamer=strategies.names,
    session=strategies.names,
)


@given(strategies.bookings() | strategies.results() | grants)
def test_a_message_survives_the_wire_with_the_fields_that_we_do_not_know(sent: Message) -> None:
    assert parse(sent.to_json(), EVERY) == sent
    assert parse(sent.to_json().encode(), (type(sent),)).to_json() == sent.to_json()


def is_read_or_refused(body: str | bytes) -> None:
    """It is a message that reads the same again, or malformed in a sentence."""
    try:
        read = parse(body, EVERY)
    except Malformed as error:
        said = error.message
        assert " " in said
        assert said.isprintable()
    else:
        assert parse(read.to_json(), EVERY) == read


@given(strategies.garbage)
def test_any_bytes_are_a_message_or_malformed_in_a_sentence_and_nothing_else(body: bytes) -> None:
    assert isinstance(command_of(body), str)
    is_read_or_refused(body)


@given(
    st.sampled_from(sorted(BOOKING)),
    strategies.json_values | st.sampled_from(["http://", "rtmp://x", "240", "\u0000", "²40P", 1e308, 4e9]),
)
def test_a_booking_with_any_one_field_spoiled_is_read_or_malformed(field: str, value: object) -> None:
    is_read_or_refused(json.dumps(BOOKING | {field: value}))


def kept(**fields: Any) -> str:
    return Booking.model_validate(BOOKING | fields).payload


SAME: list[dict[str, Any]] = [
    {"video_url_list": dict(reversed(BOOKING["video_url_list"].items()))},
    {"video_url_list": BOOKING["video_url_list"] | {"1080P": None, "720P": ""}},
    {"start_time": float(BOOKING["start_time"]), "end_time": str(BOOKING["end_time"])},
    {"push_url": "RTMP://PUSH.example/live/c-1001"},
    {"video_resolution": "720"},
    {"x_nothing": None},
]
OTHER: list[dict[str, Any]] = [
    {"end_time": BOOKING["end_time"] + 1},
    {"push_url": "rtmp://push.example/live/other"},
    {"video_url_list": {"480P": "http://origin.example/other.flv"}},
    {"video_url_list": BOOKING["video_url_list"] | {"4K": "http://origin.example/4k.flv"}},
    {"video_resolution": "480P"},
    {"record_id": 7},
    {"x_note": "new"},
]


def test_another_way_to_write_it_is_the_same_booking_and_another_content_another_one() -> None:
    same = [(fields, Booking.model_validate(dict(reversed((BOOKING | fields).items())))) for fields in SAME]
    assert [fields for fields, again in same if not is_same(kept(), again)] == []
    assert [fields for fields, again in same if not is_same(again.payload, Booking.model_validate(BOOKING))] == []
    assert [fields for fields in OTHER if is_same(kept(), Booking.model_validate(BOOKING | fields))] == []


def test_what_differs_is_named_and_no_url_is_shown() -> None:
    """A URL may hold a secret; times are written as people read them."""
    url, end = "rtmp://push.example/live/c?secret=1", BOOKING["end_time"]
    again = Booking.model_validate(BOOKING | {"end_time": end + 600, "push_url": url, "record_id": 7, "x_note": "new"})
    start, _, differs = contradiction([kept()], again).partition(": ")
    assert start == "it is booked already with other content"
    found = differs.split(", ")
    assert [one.split()[0] for one in found] == ["end_time", "push_url", "record_id", "x_note"]
    assert f"record_id {BOOKING['record_id']} -> 7" in found
    assert f"end_time {formatting.moment(end)} -> {formatting.when(end + 600, end)}" in found
    assert "secret" not in str(found)


def test_a_recording_that_is_signed_anew_is_the_same_booking_and_another_change() -> None:
    """A change may be sent because the signature has expired."""
    signed = {size: f"{url}?Expires=1&Signature=new" for size, url in BOOKING["video_url_list"].items()}
    again = Booking.model_validate(BOOKING | {"video_url_list": signed})
    assert contradiction([kept()], again) == ""
    assert not is_same(kept(), again)


def test_what_says_the_same_as_the_changed_class_is_the_same_booking() -> None:
    """The platform may send what it booked first, or what holds since its change; anything else is another booking."""
    changed = {"end_time": BOOKING["end_time"] + 600}
    payloads = [kept(), kept(**changed)]
    assert [contradiction(payloads, Booking.model_validate(BOOKING | more)) for more in ({}, changed)] == ["", ""]
    said = contradiction(payloads, Booking.model_validate(BOOKING | {"end_time": BOOKING["end_time"] + 900}))
    assert f": end_time {formatting.moment(changed['end_time'])}" in said


@pytest.mark.parametrize("state", [BookingState.WAITING, BookingState.READY, BookingState.CANCELLED])
def test_another_booking_is_refused_now_and_the_first_one_gets_its_own_answers(state: BookingState) -> None:
    """It is no delivery of the first, so the first is not answered once more for it when it is ready."""
    first = Booking.model_validate(BOOKING)
    order = replace(Order.of(first), state=state, streamer="s1")
    changes = Changes(SETTINGS, NOW, orders={order.class_id: order})
    other = Booking.model_validate(BOOKING | {"end_time": BOOKING["end_time"] + 600})
    booking.decide_orders(changes, [other], [], booking.BookingFacts())
    assert changes.orders == {order.class_id: order}
    (said,) = told(changes, OrderResult)
    assert (said.result, said.code) == ("fail", errors.CONFLICT.number)
    assert all(word in said.message for word in ("end_time", "the first booking stands", str(state)))
    assert [one.code for one in told(changes, Alarm)] == [errors.CONFLICT.number]


def test_a_row_of_the_version_before_is_read_as_it_was_written() -> None:
    """It kept URLs as they came, and the text that came where it held nothing unknown."""
    before = json.dumps(BOOKING | {"push_url": "RTMP://Push.example/live/c-1001", "video_url": BOOKING["video_url"]})
    assert is_same(before, Booking.model_validate(BOOKING))
    faulty = json.dumps(BOOKING | {"push_url": "rtmp://push.example:99999/live/x"})
    assert not is_same(faulty, Booking.model_validate(BOOKING))
