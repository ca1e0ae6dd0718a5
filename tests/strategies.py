"""What hypothesis may send us: bookings, results, caches, and bytes that are none of these."""

import json
from typing import Any

from hypothesis import strategies as st

from lectern.decide.cache import Bound, WantedRendition
from lectern.model.facts import Idle, Rendition, Usage
from lectern.settings import TeacherSettings
from lectern.states import Backend, FileState, RenditionState, Resolution
from lectern.wire.messages import Booking, TranscodingResult

NOW = 1_764_010_000.0
"""The clock of the decisions under test, in epoch seconds."""

HOLDING = frozenset({FileState.READY, FileState.DOWNLOADING})
"""States in which a rendition takes room in the cache."""

# The messages as the rollout note and the design write them out.
BOOKING: dict[str, Any] = {
    "cmd": "order",
    "class_id": "c-1001",
    "institution_id": "i-7",
    "video_url": "http://origin.example/6666.flv",
    "start_time": 1764010800,
    "end_time": 1764013500,
    "push_url": "rtmp://push.example/live/c-1001",
    "record_id": 6666,
    "video_url_list": {"480P": "http://origin.example/480p.flv", "240P": "http://origin.example/240p.flv"},
    "video_resolution": "720P",
}
RESULT: dict[str, Any] = {
    "cmd": "transcoding",
    "record_id": 6666,
    "video_resolution": "720P",
    "result": "sucess",
    "transcode_video_url": "http://origin.example/6666_720P.flv",
    "type": "oss",
}

names = st.from_regex(r"[A-Za-z0-9_.:-]{1,12}", fullmatch=True).filter(lambda text: text not in {".", ".."})
record_ids = st.integers(1, 4)
resolutions = st.sampled_from(Resolution)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
unknown_fields = st.dictionaries(st.from_regex(r"x_[a-z]{1,5}", fullmatch=True), json_values, max_size=3)


def booking(class_id: str = "c-1", **fields: Any) -> Booking:
    """A booking of 6666 at 720P that no listed URL satisfies, changed by *fields*; None takes one out."""
    whole = BOOKING | {"class_id": class_id, "push_url": f"rtmp://push.example/live/{class_id}", "video_url_list": {}}
    return Booking.model_validate({name: value for name, value in (whole | fields).items() if value is not None})


def result(*, success: bool = True, type: Backend = Backend.OSS, **fields: Any) -> TranscodingResult:
    """A transcoding result of 6666 at 720P, changed by *fields*."""
    failed = {} if success else {"result": "fail", "transcode_video_url": None}
    return TranscodingResult.model_validate({**RESULT, **failed, "type": type, **fields})


@st.composite
def bookings(draw: st.DrawFn) -> Booking:
    """Any valid booking, of few records and resolutions so that they meet."""
    resolution = draw(st.none() | resolutions)
    listed = draw(st.lists(resolutions, unique=True, max_size=4))
    class_id = draw(names)
    start = NOW + draw(st.integers(-7_200, 86_400))
    return booking(
        class_id,
        institution_id=draw(st.none() | names),
        video_url="http://origin.example/whole.flv" if resolution is None or draw(st.booleans()) else None,
        start_time=start,
        end_time=start + draw(st.integers(1, 5_400)),
        record_id=draw(record_ids),
        video_url_list={one.value: f"http://origin.example/{one}.flv" for one in listed},
        video_resolution=resolution,
        **draw(unknown_fields),
    )


@st.composite
def results(draw: st.DrawFn) -> TranscodingResult:
    """Any valid transcoding result, of the same few renditions."""
    success = draw(st.booleans())
    return result(
        success=success,
        type=draw(st.sampled_from(Backend)),
        record_id=draw(record_ids),
        video_resolution=draw(resolutions),
        result=draw(
            st.sampled_from(["sucess", "SUCCESS"]) if success else st.sampled_from(["fail", "failed", "Failure"])
        ),
        attempt=draw(st.none() | st.integers(0, 3)),
        code=draw(st.none() | st.sampled_from([207, 208, 319])),
        **draw(unknown_fields),
    )


renditions = st.dictionaries(
    st.tuples(record_ids, resolutions),
    st.builds(
        Rendition,
        state=st.sampled_from(RenditionState),
        attempt=st.integers(0, 9),
        attempts_today=st.integers(0, 9),
        attempts_since=st.floats(NOW - 3 * 86_400, NOW),
    ),
    max_size=8,
)
_SETTINGS = TeacherSettings.load(_env_file=None, transcode_sign_key="made-up")


def transcoders(*, oss: bool = True, ecs: bool = True, **fields: object) -> TeacherSettings:
    """The settings of a teacher that has an OSS transcoder, an ECS transcoder, both or none, changed by *fields*."""
    names = {"oss_transcode_url": "http://oss.example/transcode" if oss else None, "ecs_hosts": "ecs1" if ecs else ""}
    return _SETTINGS.model_copy(update={**names, **fields})


settings = st.builds(
    transcoders,
    oss=st.booleans(),
    ecs=st.booleans(),
    max_attempts_a_day=st.integers(1, 6),
    transcoding_time_out_s=st.floats(1, 1_000),
)


@st.composite
def caches(
    draw: st.DrawFn,
) -> tuple[list[WantedRendition], dict[str, FileState], Usage, Bound, list[Idle], dict[str, int]]:
    """A streamer's cache within its bound, and a batch that wants something of it; last, each file's size."""
    stems = [f"{number}_720P" for number in range(8)]
    sizes = {stem: draw(st.integers(1, 40)) for stem in stems}
    cached = draw(st.dictionaries(st.sampled_from(stems), st.sampled_from(FileState), max_size=8))
    held = [stem for stem, state in cached.items() if state in HOLDING]
    ready = [stem for stem in held if cached[stem] is FileState.READY]
    idle = [stem for stem in draw(st.permutations(ready)) if draw(st.booleans())]
    usage = Usage(sum(sizes[stem] for stem in held), len(held))
    bound = Bound(usage.size_bytes + draw(st.integers(0, 60)), max(1, len(held) + draw(st.integers(0, 3))))
    wanted = [
        WantedRendition(f"c-{number}", stem, 0 if stem in held else sizes[stem])
        for number, stem in enumerate(draw(st.lists(st.sampled_from(stems), max_size=8)))
    ]
    return wanted, cached, usage, bound, [Idle(stem, sizes[stem]) for stem in idle], sizes


garbage = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode()),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(
        st.sampled_from([*Booking.model_fields, *TranscodingResult.model_fields]),
        json_values
        | st.floats()
        | st.sampled_from(["order", "cancel", "transcoding", "720P", "http://[", "\ud800", "\0"]),
    ).map(lambda fields: json.dumps(fields).encode()),
)
"""Bytes of every kind: noise, JSON that is no object, objects whose fields are anything."""
