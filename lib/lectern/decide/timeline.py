"""The story of a class in few lines, and what will happen next to it, or what a person should type."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lectern import formatting
from lectern.errors import CODES, MALFORMED, STREAMER_LOST, ErrorCode
from lectern.i18n import BESIDE, Text, joined, labelled, msgid
from lectern.model.facts import Airing
from lectern.model.tables.teacher import RenditionRow
from lectern.model.views import DETAIL_TOLD, Booked, ClassView, EventView, Gap
from lectern.states import ON_STREAMER, AiringState, Backend, BookingState
from lectern.wire.fields import BACKUP

ANSWERED_S = 15.0
"""Seconds within which an answer leaves, if Redis takes it."""

WAITING = Text("RUNBOOK.md: messages wait in the inbox")
SOON_S = 600.0
"""Seconds before its start in which a class that is not ready is in danger; the platform can still move it."""


def next_of_class(booked: Booked | None, making: RenditionRow | None, cited: Airing | None, now: float) -> list[str]:
    """What comes next for a class: its streamer's view, if a streamer has it, then its teacher's; some of it twice."""
    if booked is None:
        return [] if cited is None else next_of_airing(cited, now)
    sentences = next_of_booking(booked, making, now)
    if cited is not None and booked.state in ON_STREAMER and booked.lost_since is None:
        return next_of_airing(cited, now) + sentences[1:]
    return sentences


def next_of_booking(class_: Booked, making: RenditionRow | None, now: float) -> list[str]:
    """What comes next for a booking, in sentences: the time that is left, and the RUNBOOK.md heading to read."""
    sentences = _standing(class_, making, now)
    if class_.state in {BookingState.RECEIVED, BookingState.WAITING, BookingState.PLACED}:
        sentences += _danger(class_.class_id, class_.start_time, now)
    elif class_.code is not None and _is_unanswered(class_):
        waits_s = ANSWERED_S if class_.decided_at is None else now - class_.decided_at
        text = Text(
            "Its answer has not left for {waits_s:span}: see whether Redis answers. It is sent as soon as it does.",
            waits_s=waits_s,
        )
        sentences.append(Text("Its answer is being sent.") if waits_s < ANSWERED_S else text)
    return sentences


def next_of_unbooked(kept_since: float | None, *, malformed: bool, now: float) -> list[str]:
    """What comes next for a class that has no booking, only messages."""
    if kept_since is not None:
        text = msgid(
            "A message about it has waited in the inbox for {waits_s:span}: "
            "it is handled within a minute if its servers answer."
        )
        return [Text(text, waits_s=now - kept_since), WAITING]
    return [Text("It is not booked: {heading}", heading=heading(MALFORMED))] if malformed else []


def next_of_airing(view: Airing, now: float) -> list[str]:
    """What comes next for a class, by its state on its streamer."""
    match view.state:
        case AiringState.REFUSED if view.lost:
            moves = Text(
                "It was ready and lost its file: its teacher gives it to another streamer, or raises alarm 323."
            )
            return [moves, *_over(view, now), *_danger(view.class_id, view.start_time, now)]
        case AiringState.WAITING:
            sentences = [
                Text(
                    "{stem} is being downloaded; then it is ready. `lectern cache ls` shows the download.",
                    stem=view.stem,
                )
            ]
            return sentences + _danger(view.class_id, view.start_time, now)
        case AiringState.READY | AiringState.ON_AIR:
            return _begins(view.start_time, view.end_time, now)
        case _:
            return _over(view, now)


def _standing(class_: Booked, making: RenditionRow | None, now: float) -> list[str]:
    if class_.lost_since is not None and class_.state in ON_STREAMER:
        lost = Text(
            "{streamer} is lost, as its teacher noted {since_s:span} ago. "
            "Its classes are moved to other streamers if possible.",
            streamer=class_.streamer,
            since_s=now - class_.lost_since,
        )
        return [lost, heading(STREAMER_LOST)]
    match class_.state:
        case BookingState.RECEIVED:
            return [Text("It is about to be decided. If this stays so for a minute, restart the teacher.")]
        case BookingState.WAITING:
            return [_making(class_.stem, making, now)]
        case BookingState.PLACED:
            text = msgid("It waits for {streamer}, which downloads {stem} unless it has it.")
            loads = Text(text, streamer=class_.streamer, stem=class_.stem)
            comes = Text("Its answer comes then; the sweeper asks again until it does.")
            return [joined((loads, comes), BESIDE) if _is_unanswered(class_) else loads]
        case BookingState.READY:
            has = Text("{streamer} has {stem}.", streamer=class_.streamer, stem=class_.stem)
            return [joined((has, *_begins(class_.start_time, class_.end_time, now)), BESIDE)]
        case _:
            return _over(class_, now)


def _is_unanswered(class_: Booked) -> bool:
    """Whether the platform has heard no answer yet; of a second airing it gets none."""
    return not class_.answered and not class_.class_id.endswith(BACKUP)


def heading(code: ErrorCode) -> Text:
    """The heading in RUNBOOK.md about *code*."""
    return Text("RUNBOOK.md: {code}: {meaning}", code=code.number, meaning=code.meaning)


def _making(stem: str, making: RenditionRow | None, now: float) -> str:
    if making is None or not making.under_way:
        return Text("It waits for {stem}, which nobody is making: the sweeper settles it within a minute.", stem=stem)
    by = Text("an ECS host as soon as one is free") if making.queued else Text("an ECS host")
    by = Text("the OSS transcoder") if making.backend is Backend.OSS else by
    attempt = Text(
        "It waits for {stem}: attempt {attempt}, by {transcoder}", stem=stem, attempt=making.attempt, transcoder=by
    )
    if making.deadline is None:
        return Text("{waits}.", waits=attempt)
    left_s = making.deadline - now
    return joined((attempt, Text("without a result in {left_s:span} it is settled as timed out.", left_s=left_s)))


def _begins(start: float, end: float, now: float) -> list[str]:
    if now < start:
        return [Text("It is aired in {left_s:span}.", left_s=start - now)]
    return [] if now < end else [Text("Its time is over; its end will be noted within a minute.")]


def _over(class_: Booked | Airing, now: float) -> list[str]:
    """What comes next for a class that is over, by its state and code, at its teacher as on its streamer."""
    if class_.state in {BookingState.AIRED, AiringState.AIRED}:
        return [Text("It was aired to its end. Nothing is to be done.")]
    if class_.state in {BookingState.CANCELLED, AiringState.CANCELLED}:
        return [Text("It was cancelled and is not aired. To have it all the same, book it with a new class_id.")]
    known = CODES.get(class_.code or 0)
    sentences: list[str] = [Text("Cause: {message}", message=class_.message)] if class_.message else []
    if known is None:
        return [*sentences, Text("Nothing comes next.")]
    should = Text("The platform should: {platform_should}", platform_should=known.platform_should)
    return [*sentences, heading(known), *([] if now >= class_.end_time else [should])]


def _danger(class_id: str, start: float, now: float) -> list[str]:
    left = start - now
    if left > SOON_S:
        return []
    begins = Text("In danger: it begins in {left_s:span}.", left_s=left)
    if left <= 0:
        begins = Text("In danger: it should have begun {late_s:span} ago.", late_s=-left)
    move = Text("To have it moved, cancel it (lectern cancel {class_id}) and tell the platform.", class_id=class_id)
    if class_id.endswith(BACKUP):
        move = ending(class_id)  # the first airing may be well
    return [joined((begins, move), BESIDE)]


def ending(class_id: str) -> Text:
    """What to type to end a class; a second airing is ended alone, by a change, because no cancel can name it."""
    if class_id.endswith(BACKUP):
        text = msgid("To end it: lectern change {class_id} --push-url-backup ''")
        return Text(text, class_id=class_id.removesuffix(BACKUP))
    return Text("To end it: lectern cancel {class_id}", class_id=class_id)


NOT_SENT = msgid("not sent")
"""The line of a gap, which stands at its begin and names its end."""

_GOES_ON = re.compile("(?:at|by|from|on|to|until|with) ")

SERIES = 3
"""Number of equal events from which on they are shown as one line."""

BY_TURNS = frozenset(
    {"connected", "on air", "push broke off", "push refused", "slate", "nothing to send", "recording again"}
)
"""Events that alternate while a push host has trouble: each kind of them is then shown as one line."""


@dataclass(frozen=True)
class TimelineLine:
    """A series of *number* events of one kind: its first, and its last."""

    first: EventView
    last: EventView
    number: int = 1

    @property
    def thing(self) -> str:
        """The class or the rendition that it is about."""
        return self.first.class_id or self.first.stem or ""

    def text(self, translate: Callable[[str], str] = str) -> str:
        """The line for people, without its time, in the language of *translate*."""
        what, detail = self.first.what, self.first.detail
        text = what = what if " " in what else Text(what)  # elsewhere, a word alone is a name, and stays as it is
        if self.number > 1:
            text = Text("{what}, {n:,} times until {until:clock}", what=what, n=self.number, until=self.last.at)
            last = [Text("the last: {detail}", detail=self.last.detail)] if self.last.detail else []
            text = joined([text, *last])
        elif detail:
            text = labelled(what, detail)
            if _GOES_ON.match(detail):
                text = Text("{what} {detail}", what=what, detail=detail)
        return f"{self.thing}: {translate(text)}"

    def written(self, translate: Callable[[str], str] = str) -> str:
        """The line with its time and host."""
        return f"{formatting.moment(self.first.at)}  {self.first.host}  {self.text(translate)}"


def story(view: ClassView, gaps: Iterable[Gap]) -> list[TimelineLine]:
    """The story of a class in lines, in time order, with a line for each of its *gaps*.

    Its teacher has a copy of what its streamer noted: of both, the last one is shown.
    """
    by_content = {
        (noted.at, noted.what, noted.class_id, noted.host, noted.detail[:DETAIL_TOLD]): noted for noted in view.events
    }
    for gap in gaps:
        text = Text(
            "until {ends:clock}, {missing_s:length}: {why}", ends=gap.ends, missing_s=gap.missing_s, why=gap.reason()
        )
        event = EventView(gap.begins, NOT_SENT, view.class_id, None, view.host, text)
        by_content[event.at, event.what, event.class_id, event.host, text] = event
    return lines(by_content.values())


def lines(events: Iterable[EventView]) -> list[TimelineLine]:
    """The story in lines, in time order."""
    all_series: list[list[EventView]] = []
    for event in sorted(events, key=lambda event: event.at):
        within = next((series for series in all_series[-2:] if _goes_on(series[-1], event, all_series[-1][-1])), None)
        if within is None:
            all_series.append([event])
        else:
            within.append(event)
    shown = [TimelineLine(event, event) for series in all_series if len(series) < SERIES for event in series]
    shown += [TimelineLine(series[0], series[-1], len(series)) for series in all_series if len(series) >= SERIES]
    return sorted(shown, key=lambda line: line.first.at)


def _goes_on(before: EventView, event: EventView, newest: EventView) -> bool:
    """Whether *event* belongs to the series that *before* ended so far; *newest* is the last of all."""
    if event.what == NOT_SENT:
        return False
    if (before.what, before.class_id, before.stem, before.host) != (event.what, event.class_id, event.stem, event.host):
        return False
    return before is newest or {before.what, newest.what} <= BY_TURNS
