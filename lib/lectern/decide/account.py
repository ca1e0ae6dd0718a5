"""The account of a class, joined from what several hosts know: how it stands, what happened, and what comes next.

``lectern explain``, the page, and the counts of ``lectern status`` print only what this module finds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from math import inf
from operator import attrgetter
from typing import Any, TypeGuard

from lectern import formatting, urls
from lectern.decide import gaps, timeline
from lectern.decide.forecast import about, will_be_there
from lectern.decide.timeline import heading
from lectern.errors import AIRING_BROKEN, CODES, DEAD_AIR, NOT_READY_FOR_START, PLAYOUT_AWAY, STREAMER_LOST, ErrorCode
from lectern.i18n import BESIDE, Text, joined, labelled, msgid, spoken
from lectern.model.facts import Airing, Needed
from lectern.model.views import Booked, ClassView, EventView, Gap, OpenAlarm, Sending, StreamerStatus
from lectern.states import ON_STREAMER, AiringState, BookingState

NO_REDIS = Text("Redis cannot be asked")
"""The reason why no streamer was heard of."""


def gathered(teacher: ClassView | None, streamer: ClassView | None) -> ClassView:
    """What a host knows of a class as a teacher, as a streamer, or as both; at least one of the two is given."""
    if teacher is None or streamer is None:
        known = teacher or streamer
        assert known is not None  # the caller has looked into at least one of the databases
        return known
    events = tuple(sorted((*teacher.events, *streamer.events), key=attrgetter("at")))
    booked, cited = teacher.booked, streamer.cited
    own = [replace(part, streamer=streamer.streamer or "") for part in streamer.as_run]
    others = [part for part in teacher.as_run if not own or part.streamer != streamer.streamer]
    as_run = sorted((*others, *own), key=attrgetter("begins"))
    is_here = cited is not None and (booked is None or booked.streamer == streamer.streamer)
    if not is_here:
        since = teacher.kept_since if teacher.kept_since is not None else streamer.kept_since
        return replace(teacher, as_run=as_run, events=events, kept_since=since)
    alarms = tuple(dict.fromkeys((*teacher.alarms, *streamer.alarms)))
    theirs = ("cited", "streamer", "sending", "check", "dead_air", "ready_by")
    known = replace(teacher, **{name: getattr(streamer, name) for name in theirs})
    return replace(known, alarms=alarms, as_run=as_run, events=events)


def with_status(
    view: ClassView, statuses: Mapping[str, StreamerStatus] | None, made_at: Mapping[str, float] | None = None
) -> ClassView:
    """*view* with the last heartbeat of the class's streamer; the streamer's own rows, if they are here, come first.

    *statuses* are the last heartbeats by streamer; None if Redis cannot be asked. *made_at* is when the renditions will
    be made (epoch seconds) that classes wait for, by stem.
    """
    if is_to_be_made(view.booked) and statuses and (at := (made_at or {}).get(view.booked.stem)) is not None:
        return replace(view, ready_by=about(statuses.values(), view.booked.end_time - view.booked.start_time, at))
    name = view.streamer or (view.booked.streamer if view.booked else None)
    if name is None:
        return view
    if statuses is None:
        return view if view.cited is not None else replace(view, unheard=NO_REDIS)
    word = statuses.get(name)
    if word is None or word.silent_s is not None:
        silent = Text("{streamer} has said nothing yet", streamer=name)
        if word is not None:
            silent = Text("{streamer} has been silent for {silent_s:span}", streamer=name, silent_s=word.silent_s or 0)
        return replace(view, unheard=silent)
    if view.cited is not None:
        return view
    alarms = [alarm for alarm in word.alarms if view.class_id in alarm.classes]
    known = replace(view, sending=word.sendings.get(view.class_id), alarms=(*view.alarms, *alarms))
    known = replace(known, ready_by=word.ready_by.get(view.class_id))
    return replace(known, check=word.checks.get(view.class_id), dead_air=word.dead_air.get(view.class_id, ""))


def is_to_be_made(booked: Booked | None) -> TypeGuard[Booked]:
    """Whether the class waits for a rendition that is yet to be made."""
    return booked is not None and booked.state is BookingState.WAITING


class Standing(StrEnum):
    """How a class stands, in one word or two."""

    UNKNOWN = msgid("not booked")
    COMING = msgid("on its way")
    READY = msgid("ready")
    ON_AIR = msgid("on air")
    NOT_ON_AIR = msgid("not on air")
    SILENT = msgid("not known")
    AIRED = msgid("aired")
    AIRED_WITH_GAPS = msgid("aired with gaps")
    BROKEN = msgid("broken")
    REFUSED = msgid("refused")
    CANCELLED = msgid("cancelled")


BEHIND_S = 1.0
"""Seconds from which it is said that a class is sent late."""

GAPS = 50
"""Number of gaps that the story of a class has a line for, the longest ones."""


@dataclass(frozen=True)
class Account:
    """What the command line and the page show of a class."""

    standing: Standing
    header: tuple[tuple[str, str], ...]
    following: tuple[str, ...]
    story: tuple[timeline.TimelineLine, ...] = ()


def account(view: ClassView, now: float) -> Account:
    """The account of a class at *now* (epoch seconds)."""
    known = standing(view, now)
    header = tuple((label, text) for label, text in _header(view, known, now) if text)
    shown = [gap for gap in known_gaps(view, now) if gap.missing_s >= gaps.SHOWN_S]
    story = timeline.story(view, sorted(shown, key=lambda gap: -gap.missing_s)[:GAPS])
    return Account(known, header, tuple(_following(view, known, now)), tuple(story))


_EVENT = ("at", "host", "what", "class_id", "detail")


def fields(view: ClassView, known: Account) -> dict[str, Any]:
    """The account for programs: ``explain --json`` and ``GET /v1/classes/{class_id}``."""
    row: Any = view.booked or view.cited
    names = ("state", "start_time", "end_time", "code", "message") if row is not None else ()
    return {
        "thing": view.class_id,
        "standing": known.standing,
        **{name: getattr(row, name) for name in names},
        **({} if row is None else {"institution": row.institution_id}),
        "ready_by": view.ready_by,
        "streamer": view.booked.streamer if view.booked else view.streamer,
        "by": view.booked.by if view.booked else None,
        "header": [{"what": what, "is": text} for what, text in known.header],
        "events": [
            {**{name: getattr(event, name) for name in _EVENT}, "rendition": event.stem} for event in view.events
        ],
        "as_run": [asdict(part) for part in view.as_run],
        "next": list(known.following),
    }


OVER: frozenset[str] = frozenset(
    {Standing.AIRED, Standing.AIRED_WITH_GAPS, Standing.BROKEN, Standing.REFUSED, Standing.CANCELLED}
)
"""The standings of a class that is over; its state at its teacher and on its streamer is the same word."""

MISSED = frozenset({Standing.NOT_ON_AIR, Standing.BROKEN})
"""The standings of a class that should be on air and is not."""


def standing(view: ClassView, now: float) -> Standing:
    """The standing of the class at *now* (epoch seconds): *on air* only if its streamer reports so, and is heard."""
    booked, cited = view.booked, view.cited
    known = booked or cited
    if known is None:
        return Standing.UNKNOWN
    is_its_time = known.start_time <= now < known.end_time
    is_sent = view.sending is not None and view.sending.on_air
    if is_its_time and (is_sent or (cited is not None and cited.state is AiringState.ON_AIR)):
        return _in_its_time(view)  # a class that its teacher has as broken may be on air where it was lost
    for state in (booked.state if booked else None, cited.state if cited else None):
        if state in OVER:
            return Standing(state)
    if is_its_time:
        return _in_its_time(view)
    is_there = cited is not None and cited.state in {AiringState.READY, AiringState.ON_AIR}
    is_ready = booked.state is BookingState.READY if booked else is_there
    # With ON_LATE=slate a class is accepted before its recording is there.
    return Standing.READY if is_ready and view.ready_by is None else Standing.COMING


def stood(
    booked: Booked,
    words: Mapping[str, StreamerStatus] | None,
    now: float,
    made_at: Mapping[str, float] | None = None,
) -> tuple[ClassView, Standing]:
    """A class with the last heartbeat of its streamer, as `with_status` adds it, and its standing then."""
    view = with_status(ClassView(booked.class_id, booked), words, made_at)
    return view, standing(view, now)


def _in_its_time(view: ClassView) -> Standing:
    if view.sending is not None and view.sending.on_air and view.unheard is None:
        return Standing.ON_AIR
    has_streamer = view.cited is not None or (view.booked is not None and view.booked.streamer is not None)
    return Standing.SILENT if view.unheard is not None and has_streamer else Standing.NOT_ON_AIR


def state_sentence(view: ClassView, known: Standing, now: float) -> str:
    """The standing *known* as a sentence without its subject, with the reason if the class is not on air."""
    class_ = view.booked or view.cited
    begins = Text("its time is over")
    if class_ and now < class_.start_time:
        begins = Text("begins in {left_s:span}", left_s=class_.start_time - now)
    match known:
        case Standing.ON_AIR:
            return _on_air(view)
        case Standing.NOT_ON_AIR:
            return Text("not on air: {why}", why=why_not(view)[0])
        case Standing.SILENT:
            return Text("{unheard}: nobody here knows whether the class is on air", unheard=view.unheard)
        case Standing.READY:
            return Text("ready on {host}; {begins}", host=view.host, begins=begins)
        case Standing.COMING:
            return joined((Text(class_.state.value if class_ else known.value), begins))
        case _:
            return Text(known.value)


def _on_air(view: ClassView) -> str:
    sending = view.sending or Sending(on_air=True)
    text = Text("on air on {host}", host=view.host)
    if sending.slate:
        text = Text("the slate is on air on {host}", host=view.host)
    if sending.since is not None:
        text = Text("{on_air} since {since:clock}", on_air=text, since=sending.since)
    if sending.position_s is not None:
        text = Text("{on_air}, at {at:position} of the recording", on_air=text, at=sending.position_s)
    said = [text]
    if sending.behind_s >= BEHIND_S:
        said.append(Text("{behind_s:.1f} s behind", behind_s=sending.behind_s))
    if sending.cuts:
        said.append(Text.many("reconnected once", "reconnected {n:,} times", n=sending.cuts))
    return joined(said)


def why_not(view: ClassView) -> tuple[str, ErrorCode]:
    """Why a class is not on air, and the code whose heading in RUNBOOK.md is about that."""
    sending, booked, cited = view.sending, view.booked, view.cited
    if sending is not None and sending.failures:
        why = sending.why or Text("no reason was given")
        text = Text.many(
            "{n:,} attempt to connect failed, the last because: {why}",
            "{n:,} attempts to connect failed, the last because: {why}",
            n=sending.failures,
            why=why,
        )
        return text, AIRING_BROKEN
    if sending is not None and sending.is_playout_away and sending.why:
        return sending.why, PLAYOUT_AWAY
    if booked is not None and booked.state in {BookingState.RECEIVED, BookingState.WAITING}:
        return Text("it waits for {stem}", stem=booked.stem), NOT_READY_FOR_START
    if (cited is not None and cited.state is AiringState.WAITING) or (
        cited is None and booked is not None and booked.state is BookingState.PLACED
    ):
        return Text("{host} does not have its recording yet", host=view.host), NOT_READY_FOR_START
    if sending is not None and sending.why:
        return sending.why, AIRING_BROKEN
    return Text("nothing of it was sent yet by {host}", host=view.host), AIRING_BROKEN


def _header(view: ClassView, known: Standing, now: float) -> list[tuple[str, str]]:
    class_ = view.booked or view.cited
    if class_ is None:
        return []
    making = view.booked is not None and view.booked.streamer is None
    sent = what_was_sent(view, now)
    return [
        (msgid("state"), state_sentence(view, known, now)),
        (msgid("time"), period(class_.start_time, class_.end_time)),
        (msgid("institution"), class_.institution_id or ""),
        (msgid("booked by"), view.booked.by if view.booked else ""),
        (msgid("recording"), class_.video_url or ""),
        (msgid("push URL"), class_.push_url or ""),
        (msgid("streamer"), "" if making else view.host),
        (msgid("rendition"), class_.stem),
        (msgid("last error"), _last_error(view, class_)),
        (msgid("ready by"), _ready_by(view, now)),
        (msgid("readiness"), _readiness(view, known)),
        (msgid("recording faults"), view.dead_air),
        (msgid("as run"), gaps.as_run(sent, view.as_run)),
        (msgid("not sent"), sent.missing() if view.as_run else ""),
        *((msgid("open alarm"), _open(alarm)) for alarm in view.alarms),
    ]


def period(start: float, end: float) -> Text:
    """From *start* to *end* (epoch seconds), with the zone: ``2026-11-26 19:00:00 to 19:45:00 CST (45 min)``."""
    return Text(
        "{begins:moment} to {ends} {zone} ({whole_s:span})",
        begins=start,
        ends=formatting.when(end, start),
        zone=formatting.zone(start),
        whole_s=end - start,
    )


def what_was_sent(view: ClassView, now: float) -> gaps.SentAccount:
    """What was sent of the class until *now* (epoch seconds), and what was not, and why.

    Of a class that was moved and has not ended: until its streamer began, which reports at its end what it sent.
    """
    class_ = view.booked or view.cited
    start, end = (class_.start_time, class_.end_time) if class_ is not None else (0.0, 0.0)
    mine = [event for event in view.events if event.class_id == view.class_id]
    until = min(end, max(start, min(now, _reported_until(view))))
    return gaps.sent(start, until, view.as_run, mine, (class_.message if class_ else None) or "")


def _reported_until(view: ClassView) -> float:
    """From when on what is sent has yet to be reported; infinity if all is reported, or nothing more was sent."""
    is_open = view.booked is not None and view.booked.state in ON_STREAMER
    if not view.as_run or not (is_open or (view.sending is not None and view.sending.on_air)):
        return inf
    if view.sending is None or view.sending.is_playout_away:  # nobody knows what its streamer sends
        return max(part.ends for part in view.as_run)
    return inf if view.sending.since is None else view.sending.since


def known_gaps(view: ClassView, now: float) -> list[Gap]:
    """What was not sent until *now* (epoch seconds), by what was reported, then by what the streamer says that airs it.

    What that one says of the time before it began is what others were to send.
    """
    said = view.sending.gaps if view.sending is not None else ()
    if not view.as_run:
        return list(said)
    since = _reported_until(view)
    later = [replace(gap, begins=max(since, gap.begins)) for gap in said if gap.ends - since >= gaps.SHOWN_S]
    shown = [replace(gap, missing_s=min(gap.missing_s, gap.ends - gap.begins)) for gap in later]
    return [*what_was_sent(view, now).gaps, *shown]


def _last_error(view: ClassView, class_: Booked | Airing) -> str:
    if view.sending is not None and view.sending.why:
        return view.sending.why
    is_bad = class_.state in {BookingState.REFUSED, BookingState.BROKEN, AiringState.REFUSED, AiringState.BROKEN}
    return labelled(class_.code, class_.message) if is_bad and class_.code else ""


def _readiness(view: ClassView, known: Standing) -> str:
    if view.check is None or known not in {Standing.READY, Standing.COMING, Standing.NOT_ON_AIR, Standing.SILENT}:
        return ""
    if not view.check.reds:
        return Text("ready, checked at {at:clock}", at=view.check.at)
    return Text("not ready, checked at {at:clock}: {why}", at=view.check.at, why=view.check.reds)


def _ready_by(view: ClassView, now: float) -> str:
    class_ = view.booked or view.cited
    if class_ is None or view.ready_by is None:
        return ""
    is_rough = is_to_be_made(view.booked)
    return will_be_there(class_.stem, view.ready_by, class_.start_time, now, is_rough=is_rough)


def _open(alarm: OpenAlarm) -> str:
    times = "" if alarm.count == 1 else f" ×{alarm.count:,}"
    return Text(
        "{code}{times} on {host}, last at {last_at:clock}: {alarm}",
        code=alarm.code,
        times=times,
        host=alarm.host,
        last_at=alarm.last_at,
        alarm=alarm.message,
    )


_NO_REDIS = Text("RUNBOOK.md: redis: no heartbeat")


def _following(view: ClassView, known: Standing, now: float) -> list[str]:
    sentences: list[str] = []
    if known is Standing.SILENT:
        runs = Text(
            "On the host of {streamer}, see whether its program runs: supervisorctl status. "
            "There, lectern explain {class_id} says more.",
            streamer=view.host,
            class_id=view.class_id,
        )
        sentences.append(runs)
        sentences.append(_NO_REDIS if view.unheard == NO_REDIS else heading(STREAMER_LOST))
    elif known is Standing.NOT_ON_AIR:
        sentences += _missing(view)
    if known is not Standing.ON_AIR:
        sentences += timeline.next_of_class(view.booked, view.making, view.cited, now)
    else:
        left = Text("It is on air for another {left_s:span}.", left_s=view.end_time - now)
        sentences.append(joined((left, timeline.ending(view.class_id)), BESIDE))
    if view.check is not None and view.check.reds and known in {Standing.READY, Standing.COMING}:
        sentences = [
            Text("It is not ready for its start: {reds}", reds=view.check.reds),
            heading(NOT_READY_FOR_START),
            *sentences,
        ]
    if view.dead_air and known in {Standing.READY, Standing.COMING}:
        sentences += [
            Text("Look at its recording there, and have it replaced if that is not meant."),
            heading(DEAD_AIR),
        ]
    if view.booked is None and view.cited is None:
        sentences += timeline.next_of_unbooked(view.kept_since, malformed=view.is_malformed, now=now)
    sentences += [heading(CODES[alarm.code]) for alarm in view.alarms if alarm.code in CODES]
    return list(dict.fromkeys(sentences))


def _missing(view: ClassView) -> list[str]:
    why, code = why_not(view)
    sentences: list[str] = [Text("It should be on air now: {reason}.", reason=why), heading(code)]
    if view.sending is not None and view.sending.failures:
        reached = _reached(view.booked or view.cited)
        look = Text(
            "See whether the push host answers, on {streamer}: nc -vz {reached}.", streamer=view.host, reached=reached
        )
        sentences.append(joined((look, timeline.ending(view.class_id)), BESIDE))
    return sentences


def _reached(class_: Booked | Airing | None) -> str:
    """The host and port of a class's push URL, as programs take them; HOST PORT if it does not say them."""
    try:
        url = urls.push((class_ and class_.push_url) or "")
    except ValueError:
        return "HOST PORT"
    return f"{url.host} {url.port}"


SENT_GAPS = 5
"""Number of gaps of a class on air that its streamer tells, the last ones."""


def of_playout(status: Mapping[str, Any], now: float = 0.0, events: Iterable[EventView] = ()) -> Sending:
    """How a class is sent at *now* (epoch seconds), from its ``status``, which docs/playout.md describes.

    Its *events* say why something was not sent.
    """
    from lectern.decide import airing  # noqa: PLC0415 (of a streamer, whose tables no other command needs)

    start, end = status.get("start", 0.0), min(now, status.get("end", 0.0))
    known = gaps.sent(start, end, airing.as_run(status["as_run"]), events) if start < end else None
    pushes = status.get("pushes") or [{}]
    is_on_air = status.get("state") == "on_air"
    waits = Text("this streamer holds no lease, so it may not push") if status.get("state") == "no_lease" else None
    return Sending(
        on_air=is_on_air,
        since=status.get("first_byte_at"),
        position_s=status.get("position_s"),
        failures=0 if is_on_air else max(int(push.get("failures") or 0) for push in pushes),
        cuts=max(int(status.get("sessions") or 0) - len(pushes), 0),
        why=None if status.get("state") == "ended" else waits or spoken(status).get("why"),  # why it ended is no error
        slate=bool(status.get("slate")),
        behind_s=float(status.get("behind_s") or 0.0),
        sent_bytes=int(status.get("bytes") or 0),
        gaps=tuple(gap for gap in known.gaps if gap.missing_s >= gaps.SHOWN_S)[-SENT_GAPS:] if known else (),
    )


def without_playout(why: str) -> Sending:
    """How a class is sent while the playout does not answer: not at all."""
    return Sending(on_air=False, why=Text("the playout does not answer: {why}", why=why), is_playout_away=True)


NOT_IN_PLAYOUT = Sending(on_air=False, why=Text("its playout does not have it yet"))
"""How a class is sent that the playout, which answers, does not know."""


HOURS = 24
HOUR_S = 3600
NEEDED = "pinned by classes"
"""The name, on the wire, of the bytes that booked classes need of the cache."""


def cache_ahead(needed: Iterable[Needed], now: float) -> list[int]:
    """Bytes that classes need of the cache at each of the next 24 hours, if nothing else is booked."""
    last = {need.stem: need for need in sorted(needed, key=attrgetter("until"))}
    times = [now + hour * HOUR_S for hour in range(HOURS)]
    return [sum(need.size_bytes for need in last.values() if need.until > at) for at in times]
