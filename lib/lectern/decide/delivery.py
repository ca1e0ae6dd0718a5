"""Whether a booking that is delivered again says the same as the first one."""

from typing import Any

from pydantic import ValidationError

from lectern.messages import Booking
from lectern.wire import read_resolution


def is_same(kept: str, booking: Booking) -> bool:
    """Whether *booking* says the same as the payload that was *kept*, however each of them is written.

    The order of keys, the spelling of numbers and URLs, and null entries make no difference.
    """
    if kept == booking.payload:
        return True
    try:
        before = Booking.model_validate_json(kept)
    except ValidationError:  # an older version accepted what this one does not
        return False
    return _said(before) == _said(booking)


def _said(booking: Booking) -> dict[str, Any]:
    fields = booking.model_dump(exclude={"video_url_list"})
    listed = booking.video_url_list.items()
    others = {key: where for key, where in listed if where and read_resolution(key) not in booking.urls}
    return {
        **{name: value for name, value in fields.items() if value is not None},
        "urls": dict(booking.urls),
        "others": others,
    }
