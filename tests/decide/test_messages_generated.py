"""Whatever is put on the wire is a message, or malformed in a sentence."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lectern.commands import COMMANDS, command_of, parse
from lectern.errors import Malformed
from lectern.messages import (
    Booking,
    Grant,
    Message,
    TranscodingResult,
)
from tests import strategies
from tests.strategies import BOOKING

EVERY = tuple(COMMANDS.values())


@given(strategies.bookings())
def test_a_booking_survives_the_wire(sent: Booking) -> None:
    assert parse(sent.to_json(), EVERY) == sent
    assert parse(sent.to_json().encode(), (Booking,)).to_json() == sent.to_json()


@given(strategies.bookings(), strategies.unknown_fields)
def test_unknown_fields_survive_parsing(sent: Booking, unknown: dict[str, Any]) -> None:
    fields = json.loads(sent.to_json()) | unknown
    written = json.loads(parse(json.dumps(fields), (Booking,)).to_json())
    assert {name: written[name] for name in unknown} == unknown


@given(strategies.results())
def test_a_result_survives_the_wire(sent: TranscodingResult) -> None:
    assert parse(sent.to_json(), EVERY) == sent


@given(strategies.names, strategies.names, strategies.unknown_fields)
def test_a_grant_survives_the_wire(streamer: str, session: str, unknown: dict[str, Any]) -> None:
    sent = Grant.model_validate({"streamer": streamer, "session": session, **unknown})
    assert parse(sent.to_json(), EVERY) == sent


def read_or_refused(body: str | bytes) -> Message | str:
    try:
        return parse(body, EVERY)
    except Malformed as error:
        return error.message


@given(strategies.garbage)
def test_any_bytes_are_a_message_or_malformed_in_a_sentence_and_nothing_else(body: bytes) -> None:
    assert isinstance(command_of(body), str)
    match read_or_refused(body):
        case str(said):
            assert " " in said
            assert said.isprintable()
        case read:
            assert parse(read.to_json(), EVERY) == read


@given(
    st.sampled_from(sorted(BOOKING)),
    strategies.json_values | st.sampled_from(["http://", "rtmp://x", "240", "\u0000", "²40P", 1e308, 4e9]),
)
def test_a_booking_with_any_one_field_spoiled_is_read_or_malformed(field: str, value: object) -> None:
    match read_or_refused(json.dumps(BOOKING | {field: value})):
        case str(said):
            assert " " in said
            assert said.isprintable()
        case read:
            assert parse(read.to_json(), EVERY) == read
