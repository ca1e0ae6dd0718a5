"""What a booking that is delivered again says differently than the first one."""

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError

from lectern import words
from lectern.messages import Booking
from lectern.stems import source
from lectern.wire import read_resolution

_TIMES = frozenset({"start_time", "end_time"})
_SHOWN = frozenset({"record_id", "video_resolution", "institution_id"})
"""Fields whose values are shown; a URL may hold a secret, and an unknown field may be long."""


def is_same(kept: str, booking: Booking) -> bool:
    """Whether *booking* says the same as the payload that was *kept*, however each of them is written.

    A recording's URL that is signed anew is another one: the old signature may have expired.
    """
    return kept == booking.payload or not _different(kept, booking, str)


def differences(kept: Sequence[str], booking: Booking) -> list[str]:
    """The fields that differ from the last of the payloads *kept*; none if *booking* says the same as one of them.

    The order of keys, the spelling of numbers and URLs, the signature of a recording's URL, and null entries make no
    difference.
    """
    found: list[str] = []
    for payload in kept:
        if payload == booking.payload or not (found := _different(payload, booking, source)):
            return []
    return found


def _different(payload: str, booking: Booking, identity: Callable[[str], str]) -> list[str]:
    """The fields that differ; *identity* is what two URLs of one recording have in common."""
    try:
        before = _said(Booking.model_validate_json(payload), identity)
    except ValidationError:  # an older version accepted what this one does not
        return ["what an older release accepted"]
    now = _said(booking, identity)
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [_in_words(name, before.get(name), now.get(name)) for name in names]


def _said(booking: Booking, identity: Callable[[str], str]) -> dict[str, Any]:
    fields = booking.model_dump(exclude={"video_url_list", "video_url"})
    listed = {key: where for key, where in booking.video_url_list.items() if where}
    others = {key: where for key, where in listed.items() if read_resolution(key) not in booking.urls}
    return {
        **{name: value for name, value in fields.items() if value is not None},
        **({} if booking.video_url is None else {"video_url": identity(booking.video_url)}),
        "video_url_list": {key: identity(where) for key, where in (*booking.urls.items(), *others.items())},
    }


def _in_words(name: str, before: Any, now: Any) -> str:  # noqa: ANN401 (any value of a field)
    if name in _TIMES:
        return f"{name} {words.moment(before)} -> {words.when(now, before)}"
    return f"{name} {before} -> {now}" if name in _SHOWN else name
