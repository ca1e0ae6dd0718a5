"""What a streamer does with the classes that it is told to prepare, and with those whose recording it loses."""

from dataclasses import replace
from typing import Any

import pytest

from lectern import errors
from lectern.decide import cache, readiness
from lectern.decide.bandwidth import Download
from lectern.decide.cache import Admission, Admit, WantedRendition
from lectern.decide.forecast import Ask, Forecast
from lectern.decide.gaps import LOST_S
from lectern.errors import LecternError, Refuse, TryAgain
from lectern.i18n import Text
from lectern.model.facts import Airing, Cached, Idle, Needed
from lectern.model.streamer_plan import StreamerChanges
from lectern.settings import StreamerSettings
from lectern.states import AiringState, FileState
from lectern.wire.messages import Prepare, Report
from lectern.wire.outgoing import Alarm
from tests.strategies import NOW

LATE = errors.NOT_READY_FOR_START.number
START, END, PUSH = NOW + 600, NOW + 1200, "rtmp://push.example/live/x"
SETTINGS = StreamerSettings.load(_env_file=None, streamer_name="s1", download_rate="1m", host_rate="2m")


@pytest.fixture
def changes() -> StreamerChanges:
    return StreamerChanges(SETTINGS, NOW)


def told(**fields: Any) -> Prepare:
    its = {"class_id": "c-1", "record_id": 6666, "video_url": "http://origin.example/6666.flv", "push_url": PUSH}
    return Prepare.model_validate({**its, "start_time": START, "end_time": END, **fields})


def here(state: AiringState, **fields: Any) -> Airing:
    return replace(Airing("c-1", "6666", state, PUSH, START, END, 6666, None, placement=2), **fields)


def reports(changes: StreamerChanges) -> list[tuple[str, int, str, int]]:
    said = [one.message for one in changes.sends if isinstance(one.message, Report)]
    return [(one.cmd, one.code, one.message, one.placement) for one in said]


def alarms(changes: StreamerChanges) -> list[int]:
    said = [one.message for one in changes.sends if isinstance(one.message, Alarm)]
    assert all("begins in 10 min" in one.message for one in said if one.code == LATE)
    return [one.code for one in said]


CANCELLED, FULL = errors.CANCELLED.number, here(AiringState.REFUSED, code=316, message="full")
NEW: dict[str, tuple[int, Airing | None, int, bool, list[tuple[str, int, str, int]]]] = {
    "new": (1, None, 0, True, []),
    "released before it came": (1, None, 1, False, []),
    "placed here again since": (2, None, 1, True, []),
    "delivered twice": (2, here(AiringState.READY), 0, False, [("prepared", 0, "prepared", 2)]),
    "placed here once more while it is here": (3, here(AiringState.ON_AIR), 0, False, [("prepared", 0, "prepared", 3)]),
    "an older message": (1, here(AiringState.READY), 0, False, [("prepared", 0, "prepared", 2)]),
    "nothing is known yet": (2, here(AiringState.WAITING), 0, False, []),
    "refused before": (2, FULL, 0, False, [("prepared", 316, "full", 2)]),
    "moved away, and not back": (2, here(AiringState.CANCELLED), 0, False, []),
    "moved away and back": (3, here(AiringState.CANCELLED), 0, True, []),
    "cancelled by the platform": (3, here(AiringState.CANCELLED, code=CANCELLED), 0, False, []),
    "cancelled in the UI": (3, here(AiringState.CANCELLED, code=CANCELLED, message="in the UI"), 0, True, []),
}


@pytest.mark.parametrize("case", NEW)
def test_a_class_is_taken_once_for_each_time_that_it_is_placed_here(changes: StreamerChanges, case: str) -> None:
    """What was said of it is said again, of its last placement."""
    placement, known, released, is_new, said = NEW[case]
    known_here, up_to = {} if known is None else {"c-1": known}, {"c-1": released} if released else {}
    asked = told(placement=placement)
    assert cache.new_classes(changes, [asked], known_here, up_to, {}) == ([asked] if is_new else [])
    assert reports(changes) == said


@pytest.mark.parametrize(
    "changed",
    [{"start_time": START + 60}, {"end_time": END + 60}, {"push_url": f"{PUSH}2"}, {"record_id": 7777}],
    ids=lambda fields: next(iter(fields)),
)
@pytest.mark.parametrize("state", [AiringState.WAITING, AiringState.READY, AiringState.ON_AIR, AiringState.BROKEN])
def test_a_class_that_is_back_before_it_was_released_is_taken_as_it_was_changed_elsewhere(
    changes: StreamerChanges, state: AiringState, changed: dict[str, Any]
) -> None:
    """Its release may be handled after that, as one of an older placement; the recording of before is cited no more."""
    asked = told(placement=3, **changed)
    assert cache.new_classes(changes, [asked, asked], {"c-1": here(state)}, {}, {}) == [asked]
    assert [one.state for one in changes.moved] == [AiringState.CANCELLED]
    assert (dict(changes.cited), reports(changes)) == ({"6666": -1}, [])


def test_of_a_batch_the_last_placement_of_a_class_counts_and_a_push_url_that_is_barred_refuses_it(
    changes: StreamerChanges,
) -> None:
    first, second, other = told(), told(placement=2), told(class_id="c-2", push_url="rtmp://push.example/live/y")
    for batch in ([first, second], [second, first]):
        assert cache.new_classes(changes, batch, {}, {}, {}) == [second]
    assert cache.new_classes(changes, [first, other], {}, {}, {PUSH: "barred"}) == [other]
    assert reports(changes) == [("prepared", errors.FORBIDDEN_PUSH_HOST.number, "barred", 1)]


RECORDINGS: dict[str, tuple[Download | LecternError | None, int | None, errors.ErrorCode | None]] = {
    "here": (None, 0, None),
    "its origin has it": (Download("6666", 77), 77, None),
    "no size": (None, None, errors.DOWNLOAD_FAILED),
    "its origin refuses": (TryAgain("no"), None, errors.DOWNLOAD_FAILED),
    "with a code": (Refuse("no", errors.FORBIDDEN_ORIGIN), None, errors.FORBIDDEN_ORIGIN),
}


@pytest.mark.parametrize("case", RECORDINGS)
def test_a_class_is_refused_whose_recording_nobody_has(changes: StreamerChanges, case: str) -> None:
    coming, size_bytes, code = RECORDINGS[case]
    over = told(class_id="c-0", start_time=NOW - 9, end_time=NOW)
    ours, theirs = {"6666"} if case == "here" else set(), {} if coming is None else {"6666": coming}
    found = cache.wanted_renditions(changes, [over, told()], ours, theirs)
    assert found == ([] if size_bytes is None else [WantedRendition("c-1", "6666", size_bytes)])
    assert [one[1] for one in reports(changes)] == [errors.ENDED.number, *([code.number] if code else [])]


@pytest.mark.parametrize(
    ("fields", "is_begun", "on_late", "latest"),
    [
        ({}, False, "refuse", START + LOST_S),
        ({}, True, "refuse", START + LOST_S),
        ({"end_time": START + 3}, False, "refuse", START + 3),
        ({"placement": 2}, False, "refuse", END),
        ({"start_time": NOW}, False, "refuse", END),
        ({"class_id": "c-1^1"}, True, "refuse", END),
        ({"class_id": "c-1^1"}, False, "refuse", START + LOST_S),
        ({}, False, "slate", END),
    ],
)
def test_a_recording_must_be_there_at_the_start_or_before_the_end(
    fields: dict[str, Any], is_begun: bool, on_late: str, latest: float
) -> None:
    changes = StreamerChanges(SETTINGS.model_copy(update={"on_late": on_late}), NOW)
    asked, its = told(**fields), {"6666": Download("6666", 77)}
    known = [WantedRendition(asked.class_id, "6666"), WantedRendition("c-9", "9")]
    new = {asked.class_id: asked, "c-9": told(class_id="c-9", record_id=9)}
    found = cache.asks(changes, new, known, {"9": TryAgain("no")} if is_begun else its, its if is_begun else {})
    download = Download("6666", 77, deadline=asked.start_time)
    push = Needed("6666", 77, asked.end_time, asked.start_time)
    assert found == [Ask(asked.class_id, download, latest, push, first=asked.placement > 1)]


TOO_LATE: dict[str, tuple[float | None, dict[str, str], float, dict[str, Any] | None]] = {
    "another would be late": (START + 9, {"c-1": "7"}, START, {"other": "7"}),
    "after the start": (START + 9, {}, START, {"late_s": 9}),
    "at the end": (END, {}, START, {"left_s": 1200}),
    "it must be there before the end": (START + 9, {}, END, {"left_s": 1200}),
    "in time": (None, {}, START, None),
}


@pytest.mark.parametrize("case", TOO_LATE)
def test_a_class_that_comes_too_late_is_told_by_how_much_and_what_limits_it(
    changes: StreamerChanges, case: str
) -> None:
    too_late, harmed, latest, said = TOO_LATE[case]
    ask = Ask("c-1", Download("6666", 3 << 20, came_bytes=1 << 20), latest, Needed("6666", 1, END))
    late = {} if too_late is None else {"c-1": too_late}
    cache.refuse_late(changes, {"c-1": told()}, [ask], Forecast({}, late, harmed))
    refused = [one.message.reason for one in changes.sends if isinstance(one.message, Report)]
    found = [{**why.args, **why.args["why"].args} for why in refused if isinstance(why, Text)]
    slowest = {"took_s": 2.0, "setting": "DOWNLOAD_RATE", "rate": "1m"}
    assert [one.items() >= {**said, **slowest}.items() for one in found if said] == [True] * (said is not None)
    assert len(refused) == (said is not None)


CITED: dict[str, tuple[Admit, dict[str, Any], float | None, str, list[int], list[int]]] = {
    "it is here": (Admit.READY, {}, None, "refuse", [0], []),
    "it comes in time": (Admit.RESERVE, {}, START + LOST_S, "slate", [], []),
    "nobody knows when": (Admit.JOIN, {}, None, "slate", [], []),
    "it comes late": (Admit.RESERVE, {}, START + 6, "refuse", [], [LATE]),
    "it comes late, and the slate is sent": (Admit.JOIN, {}, START + 6, "slate", [0], [LATE]),
    "it was promised before": (Admit.JOIN, {"placement": 2}, START + 6, "slate", [], [LATE]),
    "it should be on air": (Admit.JOIN, {"start_time": NOW}, START, "slate", [], []),
    "no room": (Admit.FULL, {}, None, "slate", [316], []),
}


@pytest.mark.parametrize("case", CITED)
def test_a_class_cites_its_rendition_is_answered_once_it_is_there_and_alarmed_if_it_comes_late(case: str) -> None:
    how, fields, at, on_late, codes, alarmed = CITED[case]
    changes = StreamerChanges(SETTINGS.model_copy(update={"on_late": on_late}), NOW)
    admission = Admission(WantedRendition("c-1", "6666", 77), how, (Idle("old", 5),), "no room")
    ready_at = {} if at is None else {"c-1": at}
    cache.cite_or_reserve(changes, {"c-1": told(**fields)}, [admission], {"6666": "http://x/6666"}, ready_at)
    assert ([one[1] for one in reports(changes)], alarms(changes)) == (codes, alarmed)
    state = {Admit.READY: AiringState.READY, Admit.FULL: AiringState.REFUSED}.get(how, AiringState.WAITING)
    assert ([its for _, its in changes.admitted], changes.evicted) == ([state], [Idle("old", 5)])
    assert changes.reserved == (["6666"] if how is Admit.RESERVE else [])
    assert (changes.table[-1]["detail"] == "6666") is (at is None and how is not Admit.FULL)
    assert changes.cited == ({} if how is Admit.FULL else {"6666": 1})


ROW = Cached("6666", FileState.READY, 1, None, None, 77, None)
READY, LOST = here(AiringState.READY), here(AiringState.WAITING, lost=True)
WAITS, ON_AIR, BROKEN = (here(one) for one in (AiringState.WAITING, AiringState.ON_AIR, AiringState.BROKEN))


LOSSES: dict[tuple[AiringState, str | None], tuple[list[AiringState], list[int], list[int]]] = {
    (READY.state, "http://x"): ([AiringState.WAITING], [], [LATE]),
    (READY.state, None): ([AiringState.WAITING, AiringState.REFUSED], [318], [LATE]),
    (ON_AIR.state, None): ([], [], [errors.NO_RECORDING.number]),
}
"""By the state of a class and where its recording is: the states that it comes to, its reports and its alarms."""


@pytest.mark.parametrize("url", ["http://x", None])
@pytest.mark.parametrize("one", [READY, ON_AIR, BROKEN, WAITS], ids=lambda one: str(one.state))
def test_a_lost_file_is_downloaded_again_for_who_needs_it(
    changes: StreamerChanges, one: Airing, url: str | None
) -> None:
    """A class on air goes on with the slate; one that waits is served by the download that it waits for."""
    states, codes, alarmed = LOSSES.get((one.state, url), ([], [], []))
    readiness.fetch_again(changes, ROW, url, [one], "it is gone")
    assert [its.state for its in changes.moved] == states
    assert ([its[1] for its in reports(changes)], alarms(changes)) == (codes, alarmed)
    is_fetched = url is not None and one is not WAITS
    assert (changes.lost, changes.reserved) == (["6666"], ["6666"] if is_fetched else [])
    assert changes.cited == ({"6666": 1} if is_fetched else {"6666": -1} if AiringState.REFUSED in states else {})


def test_who_waits_for_what_cannot_be_had_is_refused_with_an_alarm_if_it_was_promised(changes: StreamerChanges) -> None:
    readiness.refuse_waiting(changes, [WAITS, ON_AIR, LOST], errors.BAD_RECORDING, "bad")
    assert [its.state for its in changes.moved] == [AiringState.REFUSED] * 2
    assert reports(changes) == [("prepared", errors.BAD_RECORDING.number, "bad", 2)] * 2
    assert alarms(changes) == [errors.NO_RECORDING.number, LATE]


def test_how_late_a_class_is_that_is_not_ready_is_said() -> None:
    said = [readiness.sentence("c-1", "6666", left_s, ["no"]) for left_s in (-60, 0, 60)]
    late, *early = [{"late_s", "left_s"} & one.args.keys() for one in said if isinstance(one, Text)]
    assert (late, early) == ({"late_s"}, [{"left_s"}] * 2)
