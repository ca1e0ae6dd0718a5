"""A booking that comes twice is the same, however it is written."""

import json
from typing import Any

import pytest

from lectern.decide.delivery import is_same
from lectern.messages import Booking
from tests.strategies import BOOKING


def kept(**fields: Any) -> str:
    return Booking.model_validate(BOOKING | fields).payload


@pytest.mark.parametrize(
    "fields",
    [
        {"video_url_list": dict(reversed(BOOKING["video_url_list"].items()))},
        {"video_url_list": BOOKING["video_url_list"] | {"1080P": None, "720P": ""}},
        {"start_time": float(BOOKING["start_time"]), "end_time": str(BOOKING["end_time"])},
        {"push_url": "RTMP://PUSH.example:1935/live/c-1001".replace(":1935", "")},
        {"video_resolution": "720"},
        {"x_nothing": None},
    ],
)
def test_another_way_to_write_it_is_the_same_booking(fields: dict[str, Any]) -> None:
    again = Booking.model_validate(dict(reversed((BOOKING | fields).items())))
    assert is_same(kept(), again)
    assert is_same(again.payload, Booking.model_validate(BOOKING))


@pytest.mark.parametrize(
    "fields",
    [
        {"end_time": BOOKING["end_time"] + 1},
        {"push_url": "rtmp://push.example/live/other"},
        {"video_url_list": {"480P": "http://origin.example/other.flv"}},
        {"video_url_list": BOOKING["video_url_list"] | {"4K": "http://origin.example/4k.flv"}},
        {"video_resolution": "480P"},
        {"record_id": 7},
        {"x_note": "new"},
    ],
)
def test_another_content_is_another_booking(fields: dict[str, Any]) -> None:
    assert not is_same(kept(), Booking.model_validate(BOOKING | fields))


def test_a_row_of_the_version_before_is_read_as_it_was_written() -> None:
    """It kept URLs as they came, and the text that came where it held nothing unknown."""
    before = json.dumps(BOOKING | {"push_url": "RTMP://Push.example/live/c-1001", "video_url": BOOKING["video_url"]})
    assert is_same(before, Booking.model_validate(BOOKING))
    faulty = json.dumps(BOOKING | {"push_url": "rtmp://push.example:99999/live/x"})
    assert not is_same(faulty, Booking.model_validate(BOOKING))
