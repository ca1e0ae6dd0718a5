"""Judges a day from outside: by the answers on the bus, the pushes received, and the rows of the databases."""

import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lectern.decide.reports import ENDS_AFTER_S
from tests.faults.accounts import OVER, Accounts
from tests.faults.day import Class
from tests.faults.play import Play
from tests.faults.world import HOSTS
from tests.fuzz.odd_messages import TWO_WAYS
from town.platform import seconds
from town.recordings import Publish

SUMS_S = 1.0
"""Seconds by which what was told as sent, and what the receiver took, may differ."""

FORGOTTEN_S = 3.0
"""Seconds of a push that a playout may not have written down when it is killed: one that breaks off is shorter."""


@dataclass
class Verdict:
    seed: int
    numbers: Counter[str] = field(default_factory=Counter)  # by what was counted
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # by what is wrong

    def complaints(self) -> list[str]:
        return [f"{what}: {one}" for what, found in self.wrong.items() for one in found]

    def line(self) -> str:
        wrong = ", ".join(f"{len(found)} {what}" for what, found in self.wrong.items() if found) or "nothing is wrong"
        return f"seed {self.seed}: {', '.join(f'{number} {what}' for what, number in self.numbers.items())}; {wrong}"


def judge(play: Play) -> Verdict:
    world, classes, verdict = play.world, play.day.classes, Verdict(play.day.seed)
    numbers = verdict.numbers
    numbers.update({"faults": world.faults + world.struck_itself(), "odd things": play.content.happened})
    numbers.update({"classes": len(classes), "streamers lost": play.losses, "taken over on air": play.moved})
    wrong = verdict.wrong
    wrong["not at rest"] += play.waits
    wrong["cache over bound"] += sorted(play.over_bound)
    answers, alarmed = play.sight.answers(), play.sight.alarmed()
    for one in classes:
        class_id = play.class_id(one)
        told = answers.get(class_id, [])
        said = set(told)
        if not said:
            wrong["lost"].append(class_id)
        elif len(said) > 1 and not _was_cancelled(play, class_id, told):
            wrong["answered twice"].append(f"{class_id}: {sorted(said)}")
        else:
            numbers["answered once"] += 1
            numbers["with success"] += said == {("success", 0)}
        odd = {code for _, code in said} - allowed(play, one) - ({411} if len(said) > 1 else set())
        if odd:
            wrong["refused in vain"].append(f"{class_id} ({one.kind}): {sorted(odd)}")
        pushes = [[push for push in some if push.first_media_at is not None] for some in play.pushes(one)]
        numbers["pushed"] += any(pushes)
        if (over_s := max(map(overlap_s, pushes))) > 0:
            wrong["pushed twice"].append(f"{class_id}: {over_s:.1f} s")
        is_left = one.cancelled_after_s is None and not one.changed_after_s
        is_to_air = one.is_on_air and is_left and said == {("success", 0)}
        if is_to_air and not any(pushes) and class_id not in alarmed:
            wrong["silently missing"].append(class_id)
    wrong["events wrong"] += play.sight.faulty_events()
    wrong["told otherwise"] += _told_otherwise(play)
    _judge_odd(play, answers, verdict)
    for who in HOSTS[1:]:
        wrong["citations wrong"] += _citations(play, who)
    return verdict


def _told_otherwise(play: Play) -> Iterator[str]:
    """Who says of classes that are over another state, other events, or another sum than the platform was told."""
    stage, told = play.world.stage, play.sight.events()
    accounts = Accounts(stage, stage.settings["API_BIND"], HOSTS[1:])
    for one in play.day.classes:
        class_id = play.class_id(one)
        its, order = [*told.get(class_id, {}).values()], stage.order(class_id)
        if its != (asked := accounts.events(class_id)):
            yield f"{class_id}: {its} was told, who asks gets {asked}"
        state = order.get("state")
        if state in OVER and its and its[-1]["event"] == "ended":
            yield from (f"{class_id}: {differs}" for differs in accounts.differ(class_id, state))
            pushes = [push for some in play.pushes(one) for push in some]
            until = min(order["end_time"], order["updated_at"]) - SUMS_S
            forgotten_s = FORGOTTEN_S * sum((push.last_media_at or until) < until for push in pushes)
            sent_s, taken_s = its[-1]["sent_s"] + its[-1]["slate_s"], taken_s_of(pushes, order["start_time"])
            late = "select id from inbox_list where command = 'ended' and body like ? and received_at > ?"
            waited_s = its[-1]["at"] - min(order["end_time"], order["updated_at"])
            if waited_s >= ENDS_AFTER_S and stage.rows("teacher", late, f'%"{class_id}"%', its[-1]["at"]):
                continue  # its streamer came back after its end was told
            if not -SUMS_S - forgotten_s <= sent_s - taken_s <= SUMS_S:
                yield f"{class_id}: {sent_s:.1f} s were told as sent, its receiver took {taken_s:.1f} s"


def taken_s_of(pushes: list[Publish], start: float) -> float:
    """Seconds of media that a receiver took from *start* on, without what a push that fell behind has left out.

    A change that was asked for before its start can move that while it is on air: what was sent till then is none of
    the class any more.
    """
    left_out_s = sum(one.largest_step_ms / 1000 for one in pushes if one.largest_step_ms > 1000)
    times = [(one.first_media_at, one.last_media_at) for one in pushes]
    early_s = sum(max(min(last, start) - first, 0.0) for first, last in times if first is not None and last is not None)
    return seconds(pushes) - left_out_s - early_s


def _was_cancelled(play: Play, class_id: str, said: Sequence[tuple[str, int]]) -> bool:
    """Whether a promised class was cancelled, and its booking delivered once more after that."""
    before = list(itertools.takewhile(lambda one: one == ("success", 0), said))
    is_so = play.world.stage.order(class_id).get("state") == "cancelled"
    return is_so and bool(before) and {code for _, code in said[len(before) :]} == {411}


def _judge_odd(play: Play, answers: Mapping[str, list[tuple[str, int]]], verdict: Verdict) -> None:
    for class_id, kind in play.content.due.items():
        said = set(answers.get(class_id, []))
        if not said:
            verdict.wrong["lost"].append(f"{class_id} (odd: {kind})")
        elif len(said) > 1 and kind not in TWO_WAYS:
            verdict.wrong["answered twice"].append(f"{class_id} (odd: {kind}): {sorted(said)}")


def allowed(play: Play, one: Class) -> set[int]:
    codes = {316, 317}  # a full cache; two streamers down at once
    if one.cancelled_after_s is not None or one in {lost for lost, _ in play.day.losses}:
        codes.add(411)  # of a lost one, because it is cancelled once another streamer airs it, if only the slate
    if one.is_on_air:
        codes |= {324, 410}  # nobody was there before its end, or too late for it
    if one.kind == "transcoded" and one.resolution:
        rendition = play.day.renditions[one.record, one.resolution]
        return codes | rendition.codes | ({501} if rendition.result == "made" else set())
    return codes | {0}


def overlap_s(pushes: list[Publish]) -> float:
    ends_at = worst = 0.0
    for one in sorted(pushes, key=lambda one: one.first_media_at or 0):
        worst = max(worst, ends_at - (one.first_media_at or 0)) if ends_at else 0.0
        ends_at = max(ends_at, one.last_media_at or 0)
    return worst


def _citations(play: Play, who: str) -> list[str]:
    """What is cited, beside what the teacher's bookings say should be.

    A class that is broken keeps its citation until its end, unless its last streamer had no room for it, or was lost.
    The end of an odd class may be years ahead.
    """
    stage = play.world.stage
    booked = stage.rows(
        "teacher",
        "select coalesce(url_stem, record_id) as record, resolution from order_list"
        " where streamer = ? and (state in ('placed', 'ready')"
        " or (state = 'broken' and class_id like 'odd-%' and end_time > ?"
        " and coalesce(message, '') not like streamer || ': 316 %'"
        " and coalesce(message, '') <> streamer || ' is lost'))",
        stage.name(who),
        time.time(),
    )
    should = Counter(
        f"{row['record']}_{row['resolution']}" if row["resolution"] else str(row["record"]) for row in booked
    )
    found = {row["id"]: row["num_cite"] for row in stage.rows(who, "select id, num_cite from video_list")}
    return [
        f"{who}: {stem} is cited {found.get(stem) or 0} times, not {should[stem]}"
        for stem in sorted({*should, *found})
        if (found.get(stem) or 0) != should[stem]
    ]
