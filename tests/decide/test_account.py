"""A class has one account, and it says what the world is: on air only if a receiver takes it."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern import formatting
from lectern.cli import explain
from lectern.db.account import CHECKED, NOT_READY
from lectern.db.airings import FAULTS_TOLD
from lectern.decide import account as decide
from lectern.decide import timeline
from lectern.decide.account import Account, Standing, account, gathered, standing, with_status
from lectern.decide.airing import STORY
from lectern.decide.cache import Admit
from lectern.errors import CODES
from lectern.i18n import Text
from lectern.model.facts import Airing, AsRun, Needed
from lectern.model.views import Booked, Check, ClassView, EventView, OpenAlarm, Sending, StreamerStatus
from lectern.states import AiringState, Backend, BookingState, RenditionState
from lectern.wire.fields import BACKUP
from lectern.wire.messages import Change
from tests.decide.test_outlook import in_chinese, transcoding
from tests.text.test_catalogues import NOTES, extracted

NOW = 1_764_010_000.0
START, END = NOW - 120, NOW + 600


def booked(state: BookingState = BookingState.READY, **fields: object) -> Booked:
    one = Booked("c-1", state, "6666_720P", START, END, None, None, "streamer1", answered=True)
    its = {"institution_id": "inst-1", "push_url": "rtmp://push/…", "video_url": "http://o/6666.flv", **fields}
    return replace(one, **its)  # type: ignore[arg-type]


def cited(state: AiringState = AiringState.ON_AIR, **fields: object) -> Airing:
    return replace(Airing("c-1", "6666_720P", state, "", START, END, 6666, None), **fields)  # type: ignore[arg-type]


SILENT = Text("{streamer} has been silent for {silent_s:span}", streamer="streamer1", silent_s=9)
ON_AIR = Sending(on_air=True, since=START, position_s=123)
REFUSED = Sending(on_air=False, failures=17, why="Connection refused")


def word(**fields: object) -> StreamerStatus:
    return StreamerStatus(**{"at": NOW, "sendings": {}, "checks": {}, "alarms": (), **fields})  # type: ignore[arg-type]


def told(found: ClassView, now: float = NOW) -> str:
    known = account(found, now)
    return "\n".join([*(f"{what}: {text}" for what, text in known.header), *known.following])


def test_a_class_whose_pushes_are_refused_is_not_said_to_be_pushed() -> None:
    known = cited(AiringState.READY, push_url="rtmp://push.example:19350/…")
    alarm = OpenAlarm(321, "streamer1", 3, NOW, "c-1: is not on air", ("c-1",))
    found = ClassView("c-1", cited=known, streamer="streamer1", sending=REFUSED, alarms=(alarm,))
    said = told(found)
    assert standing(found, NOW) is Standing.NOT_ON_AIR
    assert "not on air: 17 attempts to connect failed, the last because: Connection refused" in said
    assert "nc -vz push.example 19350." in said
    assert "on air for" not in said
    assert said.count("RUNBOOK.md: 321: ") == 1, "the alarm has the same one"


@pytest.mark.parametrize("sending", [ON_AIR, REFUSED])
def test_a_second_airing_is_ended_by_what_can_be_typed_and_the_first_goes_on(sending: Sending) -> None:
    """No cancel can name it, and one of its class would end both."""
    id_ = f"c-1{BACKUP}"
    found = ClassView(id_, booked(), cited=cited(), streamer="streamer1", sending=sending)
    said = " ".join(account(found, NOW).following)
    assert "To end it: lectern change c-1 --push-url-backup ''" in said
    late = ClassView(id_, booked(BookingState.PLACED, class_id=id_))
    assert "lectern cancel" not in said + " ".join(account(late, NOW).following)
    assert Change(class_id="c-1", push_url_backup="").given == {"push_url_backup": ""}


def test_of_a_silent_streamer_nobody_says_that_its_class_is_on_air() -> None:
    """Its rows say *on air* still: its process was killed."""
    own = ClassView("c-1", cited=cited(), streamer="streamer1", sending=ON_AIR)
    for half in (own, ClassView("c-1", booked())):
        found = with_status(half, {"streamer1": word(sendings={"c-1": ON_AIR}, silent_s=34.0)})
        assert standing(found, NOW) is Standing.SILENT
        assert "streamer1 has been silent for 34 s: nobody here knows whether the class is on air" in told(found)
        assert "RUNBOOK.md: 322: a streamer is lost" in told(found)


def test_without_redis_the_teacher_knows_nothing_of_a_streamer_and_says_so() -> None:
    deaf = with_status(ClassView("c-1", booked()), None)
    assert "Redis cannot be asked: nobody here knows" in told(deaf)
    assert "RUNBOOK.md: redis: no heartbeat" in account(deaf, NOW + 60).following
    own = ClassView("c-1", cited=cited(), streamer="streamer1", sending=ON_AIR)
    assert standing(with_status(own, None), NOW) is Standing.ON_AIR  # its own rows say it


@pytest.mark.parametrize(("behind_s", "is_said"), [(2.34, True), (0.4, False)])
def test_a_class_on_air_says_since_when_where_and_how_late(behind_s: float, is_said: bool) -> None:
    sendings = {"c-1": replace(ON_AIR, behind_s=behind_s)}
    said = told(with_status(ClassView("c-1", booked()), {"streamer1": word(sendings=sendings)}), NOW + 60)
    assert [one for one in ("on air on streamer1 since", "at 2:03 of the recording") if one not in said] == []
    assert (f"; {behind_s:.1f} s behind" in said) == is_said
    assert "should be on air" not in said


def test_the_header_has_the_booking_and_each_open_alarm_of_its_streamer() -> None:
    said = told(ClassView("c-1", booked(BookingState.WAITING, streamer=None)))
    for shown in ("time: 20", "institution: inst-1", "recording: http://o/6666.flv", "push URL: rtmp://push/…"):
        assert shown in said
    assert "streamer:" not in said
    assert "its time is over" in told(ClassView("c-1", booked()), END)
    alarm = OpenAlarm(321, "streamer1", 3, NOW, "c-1: is not on air", ("c-1",))
    other = OpenAlarm(318, "streamer1", 1, NOW, "c-2: no", ("c-2",))
    said = told(with_status(ClassView("c-1", booked()), {"streamer1": word(alarms=(alarm, other))}))
    assert "open alarm: 321 ×3 on streamer1" in said
    assert "318" not in said


def test_programs_read_of_a_class_what_is_known_of_it() -> None:
    known, unknown = (decide.fields(one, account(one, NOW)) for one in (ClassView("c-1", booked()), ClassView("c-9")))
    assert (known["institution"], known["state"], known["streamer"]) == ("inst-1", BookingState.READY, "streamer1")
    assert unknown["standing"] is Standing.UNKNOWN
    assert known.keys() - unknown.keys() == {"state", "start_time", "end_time", "code", "message", "institution"}


def test_the_last_check_is_part_of_the_account() -> None:
    check = Check(NOW - 60, "its push URL cannot be reached: refused")
    found = with_status(ClassView("c-1", booked()), {"streamer1": word(checks={"c-1": check})})
    said = told(found, START - 240)
    assert "readiness: not ready, checked at" in said
    assert "It is not ready for its start: its push URL cannot be reached: refused" in said
    assert "RUNBOOK.md: 324: a class is not ready for its start" in said
    assert "readiness: ready, checked at" in told(replace(found, check=Check(NOW, "")), START - 240)


def test_the_last_error_is_that_of_its_push_or_its_end() -> None:
    ready, broken = (booked(state, code=318, message="no") for state in (BookingState.READY, BookingState.BROKEN))
    cases = ((ready, None), (broken, None), (ready, REFUSED), (broken, REFUSED), (broken, ON_AIR))
    found = [dict(account(ClassView("c-1", its, sending=sending), NOW).header) for its, sending in cases]
    said = [None, "318: no", "Connection refused", "Connection refused", "318: no"]
    assert [one.get("last error") for one in found] == said


def test_of_a_class_that_waits_it_is_said_when_its_recording_will_be_there() -> None:
    """Its streamer says it, or, for a rendition that is yet to be made, whoever is quickest to download it."""
    known, at = {"streamer1": word(booked_now_s=(10, 10), ready_by={"c-1": NOW + 5})}, NOW + 99
    waits = ClassView("c-1", booked(BookingState.WAITING, streamer=None))
    for view, made_at, ready_by in (
        (waits, {"6666_720P": at}, at + 10),
        (waits, {}, None),
        (ClassView("c-1", booked()), {"6666_720P": at}, NOW + 5),
    ):
        found = with_status(view, known, made_at)
        assert found.ready_by == ready_by
        assert bool(dict(account(found, NOW).header).get("ready by")) is (ready_by is not None)
    assert standing(with_status(ClassView("c-1", booked()), known), START - 1) is Standing.COMING


def test_on_one_host_the_class_is_as_its_teacher_has_it_unless_its_streamer_has_it() -> None:
    """What happened on both is in time order, for programs too."""
    alarm, event = OpenAlarm(321, "streamer1", 3, NOW, "no", ("c-1",)), EventView(NOW, "waits", "c-1", None, "s", "")
    both: dict[str, Any] = {"alarms": (alarm,), "events": (event,)}
    early = replace(event, at=NOW - 9)
    own = {**both, "events": (early, event)}
    here = ClassView("c-1", cited=cited(), streamer="streamer1", ready_by=5.0, kept_since=7.0, **own)
    for streamer, is_here in (("streamer1", True), ("streamer2", False)):
        found = gathered(ClassView("c-1", booked(streamer=streamer), **both), here)
        assert (found.cited, found.ready_by) == ((here.cited, 5.0) if is_here else (None, None))
        assert (found.events, found.alarms) == ((early, event, event), (alarm,))
        assert found.kept_since == (None if is_here else 7.0)
    assert gathered(ClassView("c-1", kept_since=0.0), replace(here, cited=None)).kept_since == 0.0
    assert gathered(None, here) == here == gathered(here, None)


def test_a_class_with_gaps_says_which_and_sends_to_their_heading() -> None:
    """At its teacher and on its streamer, in the same words."""
    why = {"code": 329, "message": "25 s of 1 h were not sent: 19:00:00-19:00:25 the push was refused: no"}
    for found in (
        ClassView("c-1", booked(BookingState.AIRED_WITH_GAPS, **why)),
        ClassView("c-1", cited=cited(AiringState.AIRED_WITH_GAPS, **why), streamer="streamer1"),
    ):
        known = account(found, END + 60)
        assert known.standing is Standing.AIRED_WITH_GAPS
        assert known.following == (f"Cause: {why['message']}", "RUNBOOK.md: 329: a class was aired with gaps")


def test_rows_are_believed_of_the_streamer_that_has_the_class() -> None:
    """What it sends counts, although the teacher calls the class broken: somebody retried it."""
    teacher = ClassView("c-1", booked(streamer="streamer2"))
    streamer = ClassView("c-1", cited=cited(), streamer="streamer1", sending=ON_AIR)
    found = with_status(gathered(teacher, streamer), {"streamer2": word()})
    assert standing(found, NOW) is Standing.NOT_ON_AIR
    assert found.host == "streamer2"
    broken = ClassView("c-1", booked(BookingState.BROKEN, code=321))
    assert standing(with_status(broken, {"streamer1": word(sendings={"c-1": ON_AIR})}), NOW) is Standing.ON_AIR


NAMES = {"recording", "push URL", "streamer", "rendition", "institution", "last error"}
"""Lines of the header that are names, or a program's own words."""


times = st.floats(NOW - 1e6, NOW + 1e6)
reasons: dict[str, Any] = {
    "code": st.none() | st.sampled_from(sorted(CODES)) | st.integers(0, 999),
    "message": st.none() | st.just("the origin says 404"),
}
unanswered = {"answered": st.booleans(), "decided_at": st.none() | times, "lost_since": st.none() | times}
makings = st.builds(
    transcoding,
    status=st.sampled_from(RenditionState),
    backend=st.sampled_from(Backend),
    attempt=st.integers(1, 9),
    deadline=st.none() | times,
    begun_at=st.none() | times,
)


@given(
    st.builds(
        ClassView,
        st.just("c-1"),
        st.none() | st.builds(booked, st.sampled_from(BookingState), **reasons, **unanswered),
        st.none() | makings,
        st.none() | st.builds(cited, st.sampled_from(AiringState), **reasons, lost=st.booleans()),
        st.just("streamer1"),
        st.sampled_from([None, ON_AIR, REFUSED]),
        st.sampled_from([None, Text("Redis cannot be asked"), SILENT]),
        st.sampled_from([None, Check(NOW, ""), Check(NOW, "its file is gone")]),
        st.sampled_from(["", Text("{more:,} more places", more=7)]),
        st.sampled_from([(), (OpenAlarm(321, "streamer1", 3, NOW, "c-1: it is not on air", ("c-1",)),)]),
    ),
    st.sampled_from([START - 1000, START - 500, NOW, END + 1000]),
)
def test_every_class_has_an_account_and_is_on_air_only_if_it_is_sent(drawn: ClassView, now: float) -> None:
    """Each of its sentences is one that the catalogue has; it is said once, though two halves of a host know it."""
    at_teacher = [
        replace(drawn, booked=replace(drawn.booked or booked(), state=one), cited=None) for one in BookingState
    ]
    at_streamer = [replace(drawn, cited=replace(drawn.cited or cited(), state=one), booked=None) for one in AiringState]
    for found in (drawn, *at_teacher, *at_streamer):
        known = account(found, now)
        assert len({*known.following}) == len(known.following)
        is_sent = found.sending is ON_AIR and found.unheard is None and now == NOW
        assert (known.standing is Standing.ON_AIR) <= is_sent
        if found.booked or found.cited:
            assert known.header
            assert known.following
        assert in_chinese([*known.following, *(text for label, text in known.header if label not in NAMES)])
        assert "It is on air" not in " ".join(known.following) or known.standing is Standing.ON_AIR


def test_the_lines_of_a_story_are_said_in_chinese_with_their_times_hosts_and_classes() -> None:
    names = sorted({*map(str, extracted(NOTES)), *STORY, CHECKED, NOT_READY, FAULTS_TOLD, timeline.NOT_SENT})
    assert {f"prepare: {how}" for how in Admit if how is not Admit.FULL} < STORY, "as they are noted"
    events = [EventView(NOW + at, what, "c-1", None, "streamer1", "on s1") for at, what in enumerate(names)]
    said = explain.lines("c-1", Account(Standing.AIRED, (), (), tuple(timeline.lines(events))), "zh")
    assert len(said) == len(names)
    assert [line for line in said if not re.fullmatch(r"\S+ \S+  streamer1  c-1: .*[\u4e00-\u9fff].*", line)] == []


def test_the_labels_of_explain_stand_in_columns_of_cells() -> None:
    """A Chinese character is two cells wide."""
    known = Account(Standing.AIRED, (("state", Text("aired")), ("push URL", "rtmp://p/…")), ("It is on air.",))
    english, chinese = (explain.lines("c-1", known, language)[1:3] for language in ("en", "zh"))
    assert [line.index(text) for line, text in zip(english, ("aired", "rtmp"), strict=True)] == [14, 14]
    wide = [line[: line.index(text)] for line, text in zip(chinese, ("已下课", "rtmp"), strict=True)]
    assert [len(one) + sum("\u4e00" <= letter <= "\u9fff" for letter in one) for one in wide] == [14, 14]


DOWNLOADING = ClassView("c-1", cited=cited(AiringState.WAITING), streamer="streamer1")
NOT_ON_AIR: dict[str, tuple[ClassView, int]] = {
    "playout away": (ClassView("c-1", booked(), sending=decide.without_playout("nobody listens there")), 327),
    "not in playout": (ClassView("c-1", booked(), sending=decide.NOT_IN_PLAYOUT), 321),
    "refused": (ClassView("c-1", booked(), sending=REFUSED), 321),
    "placed": (ClassView("c-1", booked(BookingState.PLACED)), 324),
    "received": (ClassView("c-1", booked(BookingState.RECEIVED, streamer=None)), 324),
    "waits": (ClassView("c-1", booked(BookingState.WAITING, streamer=None)), 324),
    "downloading": (DOWNLOADING, 324),
    "not handed over": (replace(DOWNLOADING, sending=decide.NOT_IN_PLAYOUT), 324),
    "not sent": (ClassView("c-1", booked()), 321),
}


def test_the_heading_is_that_of_the_reason_why_a_class_is_not_on_air() -> None:
    said = {case: account(found, NOW).following for case, (found, _) in NOT_ON_AIR.items()}
    assert all(first.startswith("It should be on air now: ") for first, *_ in said.values())
    headings = {case: (found, int(said[case][1].split(": ")[1])) for case, (found, _) in NOT_ON_AIR.items()}
    assert headings == NOT_ON_AIR


def test_the_story_has_a_line_for_each_gap_with_both_ends_and_what_happened_meanwhile_once() -> None:
    """Its teacher has a copy of what its streamer noted; on one host both are there."""
    parts = [
        AsRun(0, 1, "recording", START, START + 300, 0, 300),
        AsRun(0, 2, "recording", START + 417, END, 417, END - START - 417),
    ]
    why = "reset by the server " + "x" * 200
    whole = EventView(START + 300, "push broke off", "c-1", "6666_720P", "streamer1", why)
    copy = replace(whole, stem=None, detail=whole.detail[:120])
    found = ClassView("c-1", booked(BookingState.AIRED_WITH_GAPS), as_run=parts, events=(copy, whole))
    broke_off, gap = (line.text() for line in account(found, END + 60).story)
    assert broke_off == f"c-1: push broke off: {whole.detail}"
    until = formatting.clock(START + 417)
    assert gap.startswith(f"c-1: not sent until {until}, 1 min 57 s: the push broke off: reset by the server")


MOVED = (EventView(START + 50, "moved", "c-1", None, "teacher", "from streamer1 to streamer2: streamer1 is lost"),)
FIRST = AsRun(0, 1, "recording", START, START + 50, 0, 50, streamer="streamer1")


def test_of_a_moved_class_on_air_is_missing_only_what_neither_of_its_streamers_sent() -> None:
    """The second says at the end what it sent; until then its heartbeats tell its gaps, and take the first for one.

    The story has them, too.
    """
    sent = {"url": 0, "source": "recording"}
    second = {**sent, "session": 1, "from": START + 60, "to": START + 70, "position_s": 60, "sent_s": 10}
    third = {**sent, "session": 2, "from": START + 90, "to": NOW, "position_s": 90, "sent_s": NOW - START - 90}
    status = {"state": "on_air", "start": START, "end": END, "slate": False, "first_byte_at": START + 60}
    refused = EventView(START + 71, "push refused", "c-1", None, "streamer2", "no such stream")
    sending = decide.of_playout({**status, "as_run": [second, third]}, NOW, [refused])
    view = ClassView("c-1", booked(streamer="streamer2"), as_run=[FIRST], events=MOVED)
    found = with_status(view, {"streamer2": word(sendings={"c-1": sending})})
    assert standing(found, NOW) is Standing.ON_AIR
    gaps = [(gap.begins - START, gap.ends - START, str(gap.why)) for gap in decide.known_gaps(found, NOW)]
    assert gaps == [(50, 60, "it was moved to another streamer"), (70, 90, "the push was refused")]
    said = f"c-1: not sent until {formatting.clock(START + 90)}, 20 s: the push was refused: no such stream"
    assert [line.text() for line in account(found, NOW).story if line.first.at == START + 70] == [said]
    assert "not sent: 10 s of 1 min were not sent: " in told(found, NOW)
    assert "as run: " in told(found, NOW)
    silent = with_status(view, {})
    assert "not sent: " not in told(silent, NOW), "nobody knows what the second sends"
    waits = with_status(view, {"streamer2": word(sendings={"c-1": REFUSED})})
    assert f"not sent: {formatting.length(NOW - START - 50)} of " in told(waits, NOW), "it sends nothing"


def test_on_one_host_the_rows_of_each_streamer_of_a_class_count() -> None:
    """Its teacher has those of the first only, until the second reports."""
    own = AsRun(0, 1, "recording", START + 50, END, 50, END - START - 50)
    teacher = ClassView("c-1", booked(BookingState.AIRED, streamer="streamer2"), as_run=[FIRST])
    streamer = ClassView("c-1", cited=cited(AiringState.AIRED_WITH_GAPS), streamer="streamer2", as_run=[own])
    for known in (teacher, replace(teacher, as_run=[*teacher.as_run, replace(own, streamer="streamer2")])):
        sent = decide.what_was_sent(gathered(known, streamer), END + 60)
        assert (sent.missing_s, sent.sessions) == (0, 2)


def test_a_rendition_is_pinned_until_the_last_class_that_needs_it_has_ended() -> None:
    several = [Needed("1", 10, NOW + 3 * 3600), Needed("1", 10, NOW + 60), Needed("2", 5, NOW + 60)]
    assert decide.cache_ahead(several, NOW)[:4] == [15, 10, 10, 0]


@given(st.lists(st.builds(Needed, st.sampled_from("abc"), st.just(7), st.floats(NOW - 9e4, NOW + 9e4))))
def test_what_classes_need_never_grows_by_itself(needed: list[Needed]) -> None:
    """And is never more than each rendition once."""
    found = decide.cache_ahead(needed, NOW)
    assert found == sorted(found, reverse=True)
    assert found[0] <= 7 * len({one.stem for one in needed})
    assert len(found) == decide.HOURS
