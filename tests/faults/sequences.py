"""``python -m tests.faults.sequences --n 20 --seed 7``: what was answered of a class is what is aired and told.

Each class is booked, changed, moved and cancelled at random moments around its hand-over, its start and its end, while
the playout and the resident process of its streamer are killed. Afterwards the receiver is the witness.
"""

import argparse
import itertools
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lectern.decide.gaps import LEAST_S, LOST_S, LOST_SHARE
from tests.faults.accounts import ENDED, Accounts
from tests.faults.judge import FORGOTTEN_S
from tests.stage import Stage, Town, staged, wait_until
from town.ports import HOST, free_port

AT_ONCE = 10
"""Number of classes that are booked together."""

FAR_S = 3 * 3600.0
"""Seconds by which a class is moved away: further ahead than the playout is told of."""

LATE_S = 10.0
"""Seconds after a message or a fault in which a busy machine may still do what was so before."""

EDGE_S = 2.0
"""Seconds before a start and after an end within which sending may begin or end."""

NOT_SURE_S = 2.5
"""Seconds by which what a receiver took and what was sent may differ."""


@dataclass(frozen=True)
class Content:
    """When a class is aired, and under which name its receiver knows it."""

    start: float
    end: float
    push: str


@dataclass
class Step:
    """One message about a class: which fields of its content it changes, None for a cancel; how it was answered."""

    at: float
    fields: dict[str, Any] | None
    answered_at: float | None = None
    code: int | None = None
    words: str = ""
    is_with_the_last: bool = False  # sent at once after another one: nobody can tell which answer is whose

    def onto(self, content: Content | None) -> Content | None:
        """What the message makes of *content*."""
        return None if self.fields is None or content is None else replace(content, **self.fields)


@dataclass
class Story:
    """One class and all that was sent about it."""

    class_id: str
    chance: random.Random
    first: Content
    steps: list[Step] = field(default_factory=list)

    @property
    def asked(self) -> list[Step]:
        """The changes, in their order."""
        return [one for one in self.steps if one.fields is not None]

    @property
    def last(self) -> Content | None:
        """What is in force when all was done that was answered with success."""
        content: Content | None = self.first
        for one in self.steps:
            if one.fields is None or one.code == 0:
                content = one.onto(content)
        return content

    def possible(self, at: float) -> set[Content | None]:
        """All that may be in force at a moment: what was, until later content is surely in force."""
        found: set[Content | None] = {self.first}
        for one in self.steps:
            if one.at > at or one.code not in {0, None}:
                continue
            after = {one.onto(content) for content in found}
            settled_at = one.at if one.fields is None else one.answered_at
            found = after if settled_at is not None and settled_at + LATE_S < at else found | after
        return found


class Play:
    """Sequences on one stage."""

    def __init__(self, stage: Stage, seed: int, bind: str) -> None:
        self.stage, self.chance = stage, random.Random(seed)
        self.accounts = Accounts(stage, bind, ["streamer1"])
        self.sequences: list[Story] = []
        self.faults: list[tuple[float, float, str]] = []  # from, to, what
        self._over = threading.Event()

    def play(self, count: int, record: int) -> None:
        """Play *count* sequences together, with some faults; returns when the last class of them is over."""
        new = [self._booked(record) for _ in range(count)]
        self.sequences += new
        threads = [threading.Thread(target=self._speak, args=(one,), name=one.class_id) for one in new]
        for one in threads:
            one.start()
        self._kill(max(1, count // 5))  # in this thread: what it starts dies with the thread that started it
        for one in threads:
            one.join()
        begun = [found for one in new if (found := one.last) is not None and found.start < time.time() + FAR_S / 2]
        over = min(max((one.end for one in begun), default=0.0), time.time() + 90) + LATE_S
        wait_until(lambda: time.time() > over, timeout_s=120, description="all classes are over")
        self._take_answers()

    def _booked(self, record: int) -> Story:
        booking = self.stage.booking(
            record, starts_in_s=self.chance.uniform(14, 30), length_s=self.chance.uniform(12, 30)
        )
        class_id = self.stage.book_on_stream(booking)
        first = Content(float(booking["start_time"]), float(booking["end_time"]), class_id)
        return Story(class_id, random.Random(self.chance.random()), first)

    # -- what is sent --------------------------------------------------------------------------------------------------

    def _speak(self, one: Story) -> None:
        """Send a few messages about a class at its odd moments."""
        chance = one.chance
        wait_until(
            lambda: self.stage.ear.answers[one.class_id], timeout_s=90, description=f"{one.class_id} is answered"
        )
        for _ in range(chance.randint(1, 4)):
            known = one.last
            if known is None:
                return
            moments = [time.time(), time.time() + 2, known.start, known.start, (known.start + known.end) / 2, known.end]
            at = chance.choice(moments) + chance.uniform(-2, 2)
            if at - time.time() > 60:
                at = time.time() + chance.uniform(0, 3)
            time.sleep(max(0.0, at - time.time()))  # the moment is drawn: nothing is waited for
            self._send(one, known)
            if chance.random() < 0.3:
                self._send(one, known)
                one.steps[-1].is_with_the_last = True
            self._wait_for_answers(one)
        last = one.last
        if last is not None and last.start > time.time() + FAR_S / 2:
            self.stage.cancel_on_stream(one.class_id)
            one.steps.append(Step(time.time(), None))

    def _send(self, one: Story, known: Content) -> None:
        draw, now, chance = one.chance.random(), time.time(), one.chance
        if draw < 0.12:
            self.stage.cancel_on_stream(one.class_id)
            one.steps.append(Step(now, None))
            return
        end, by = known.end, chance.choice([-4.0, 3.0, 8.0])
        if draw < 0.4:
            fields: dict[str, Any] = {"end": max(end + 2 * by, known.start + 3)}
        elif draw < 0.6:
            fields = {"push": f"{one.class_id}-{len(one.steps)}"}
        else:
            if draw > 0.8:  # moved away, or back
                by = FAR_S if known.start < now + FAR_S / 2 else now + 12 - known.start
            fields = {"start": known.start + by, "end": end + by}
        one.steps.append(Step(now, fields))
        body: dict[str, Any] = {"cmd": "change", "class_id": one.class_id}
        body |= {f"{name}_time": value for name, value in fields.items() if name != "push"}
        if "push" in fields:
            body["push_url"] = self.stage.town.receiver.url(fields["push"])
        self.stage.town.redis.xadd(self.stage.channels["change"], {"body": json.dumps(body)})

    def _wait_for_answers(self, one: Story) -> None:
        def are_there() -> bool:
            self._take_answers()
            return all(step.code is not None for step in one.asked)

        wait_until(are_there, timeout_s=150, description=f"all changes of {one.class_id} are answered")

    def _take_answers(self) -> None:
        """Note the answers that came: those of one class come in the order of its changes."""
        for one in self.sequences:
            told = self._answers(one.class_id)
            for step, answer in zip(one.asked, told, strict=False):
                if step.code is None:
                    step.answered_at, step.code, step.words = time.time(), answer["code"], str(answer["message"])

    def _answers(self, class_id: str) -> list[dict[str, Any]]:
        found = self.stage.stream(self.stage.channels["change_result"])
        return [one for one in found if one["class_id"] == class_id]

    # -- what is killed ------------------------------------------------------------------------------------------------

    def _kill(self, count: int) -> None:
        """Kill the playout or the resident process of the streamer a few times, and start it again."""
        for _ in range(count):
            time.sleep(self.chance.uniform(6, 14))  # the moment is drawn: nothing is waited for
            at, who = time.time(), self.chance.choice(["playout", "resident", "both"])
            if who != "resident":
                self.stage.playouts["streamer1"].kill()
            if who != "playout":
                self.stage.residents["streamer1"].kill()
            time.sleep(self.chance.uniform(0, 2))
            if who != "playout":
                self.stage.serve("streamer1").wait_for("started!", timeout_s=120)
            else:
                self.stage.play("streamer1")
            self.faults.append((at, time.time(), who))


def complaints(play: Play) -> Iterator[str]:
    """What was answered and not aired, aired and not answered, or told otherwise than it was."""
    lines = play.accounts.report(min(one.first.start for one in play.sequences) - 60)
    if not any(play.accounts.runs(one.class_id) for one in play.sequences):
        yield "Prefect has no run of any class"
    for one in play.sequences:
        line = lines.get(one.class_id, {})
        found = min((list(_of(play, way, line)) for way in _ways(one)), key=len)
        story = "; ".join(
            f"{step.at - one.first.start:+.1f} {_shown(one, step.onto(one.first))} -> {step.code} {step.words}"
            for step in one.steps
        )
        killed = [f"{what} {at - one.first.start:+.1f}..{to - one.first.start:+.1f}" for at, to, what in play.faults]
        for complaint in found:
            yield f"{one.class_id}: {complaint} [{_shown(one, one.first)}; {story}; killed {killed}]"


def _ways(one: Story) -> Iterator[Story]:
    """All ways in which the answers of changes that came together can belong to them."""
    asked = one.asked
    pairs = [at for at in range(1, len(asked)) if asked[at].is_with_the_last and asked[at].code != asked[at - 1].code]
    for swapped in itertools.chain.from_iterable(itertools.combinations(pairs, n) for n in range(len(pairs) + 1)):
        order = list(range(len(asked)))
        for at in swapped:
            order[at - 1], order[at] = order[at], order[at - 1]
        told = {
            id(step): replace(step, code=asked[n].code, answered_at=asked[n].answered_at)
            for step, n in zip(asked, order, strict=True)
        }
        yield replace(one, steps=[told.get(id(step), step) for step in one.steps])


def _shown(one: Story, content: Content | None) -> str:
    if content is None:
        return "cancelled"
    return f"{content.start - one.first.start:+.1f}..{content.end - one.first.start:+.1f} {content.push}"


def _of(play: Play, one: Story, line: dict[str, Any]) -> Iterator[str]:
    stage, last = play.stage, one.last
    answers = stage.ear.answers[one.class_id]
    if {(found["result"], found["code"]) for found in answers} - {("success", 0)}:
        if not ({found["code"] for found in answers} <= {0, 411}):
            yield f"was answered {[(found['result'], found['code']) for found in answers]}"
        return
    asked = len(one.asked)
    if len(play._answers(one.class_id)) != asked:
        yield f"{asked} changes, {len(play._answers(one.class_id))} answers"
    names = {one.first.push, *(step.fields["push"] for step in one.asked if step.fields and "push" in step.fields)}
    taken = [
        (push.first_media_at, push.last_media_at or push.first_media_at, name)
        for name in names
        for push in stage.pushes(name)
        if push.first_media_at is not None
    ]
    yield from _wrongly_aired(one, taken)
    yield from _told_otherwise(play, one, last, taken, line)


def _wrongly_aired(one: Story, taken: Sequence[tuple[float, float, str]]) -> Iterator[str]:
    """Moments at which was sent what nothing that was asked for allows."""
    for begins, ends, name in taken:
        at = begins
        while at <= ends:
            allowed = one.possible(at)
            fits = any(
                content is not None and content.push == name and content.start - EDGE_S <= at <= content.end + EDGE_S
                for content in allowed
            )
            if not fits:
                yield f"{name} was sent at {at - one.first.start:+.1f} s, and nothing in force says so"
                return
            at += 0.5


def _told_otherwise(
    play: Play, one: Story, last: Content | None, taken: Sequence[tuple[float, float, str]], line: dict[str, Any]
) -> Iterator[str]:
    """How the class ended, by the receiver and by all that tell of it."""
    stage = play.stage
    order = stage.order(one.class_id)
    state = order.get("state")
    if last is None:
        if state not in {"cancelled", "aired", "aired with gaps", "broken"}:
            yield f"was cancelled, and is {state}"
        yield from _told(play, one, str(state))
        return
    if last.start > time.time():  # it was moved away at last, and nothing can be said of how it will be aired
        if taken or state not in {"ready", "placed"}:
            yield f"is to begin in hours, and is {state}"
        return
    got = _covered([(begins, ends) for begins, ends, _ in taken], last.start, last.end)
    length = last.end - last.start
    missing = length - got
    bound = max(LEAST_S, min(LOST_S, LOST_SHARE * length))
    killed = [at for at, _, what in play.faults if what != "resident" and last.start < at < last.end]
    forgotten_s = len(killed) * FORGOTTEN_S
    if missing > bound + NOT_SURE_S and state not in {"aired with gaps", "broken"}:
        yield f"{missing:.1f} of {length:.1f} s were not sent, and it is {state}"
    if missing < bound - NOT_SURE_S - forgotten_s and state != "aired":
        yield f"all but {missing:.1f} of {length:.1f} s were sent, and it is {state}: {order.get('message')}"
    reported_s = line.get("missing_s", 0.0) - missing
    if state != "broken" and not -NOT_SURE_S - 1 < reported_s < NOT_SURE_S + 1 + forgotten_s:
        yield f"the report says {line.get('missing_s')} s are missing, the receiver {missing:.1f}"
    yield from _told(play, one, str(state))
    code = {"aired with gaps": 329, "broken": 321}.get(str(state))
    if code is not None and not stage.alarms(code, class_id=one.class_id):
        yield f"is {state}, and nobody was alarmed"


def _told(play: Play, one: Story, state: str) -> Iterator[str]:
    """Who says of a class that is over another state than its teacher."""
    if (said := play.stage.airing("streamer1", one.class_id).get("state")) != state:
        yield f"the streamer says {said}, the teacher {state}"
    yield from play.accounts.differ(one.class_id, state)


def _covered(spans: Sequence[tuple[float, float]], begin: float, end: float) -> float:
    """Seconds between *begin* and *end* that *spans* cover."""
    total, reached = 0.0, begin
    for begins, ends in sorted(spans):
        if ends > reached:
            total += max(0.0, min(ends, end) - max(begins, reached))
            reached = max(reached, ends)
    return total


def _goes_on(play: Play, one: Story) -> bool:
    """Whether a class is not over, or one of its runs is not."""
    is_open = any(kind not in ENDED for kind, _ in play.accounts.runs(one.class_id))
    return is_open or play.stage.order(one.class_id).get("state") in {"ready", "placed"}


def played(town: Town, folder: Path, count: int, seed: int) -> list[str]:
    """Play *count* sequences in *town*, a portion after the other; returns what is wrong."""
    with staged(town, folder) as stage:
        bind = f"{HOST}:{free_port()}"
        stage.own["teacher"] = {"API_BIND": bind}
        stage.up("teacher", "streamer1")
        record = stage.town.record(seconds=90)
        cached = stage.book(stage.booking(record, starts_in_s=2 * 86_400))
        stage.answer(cached)
        play = Play(stage, seed, bind)
        for done in range(0, count, AT_ONCE):
            play.play(min(AT_ONCE, count - done), record)
            sys.stderr.write(f"{len(play.sequences)} of {count} sequences\n")
        give_up_at = time.monotonic() + 120  # what is not over then is a complaint of its class
        while any(_goes_on(play, one) for one in play.sequences) and time.monotonic() < give_up_at:
            time.sleep(1.0)
        return list(complaints(play))


def main() -> int:
    """Play them; the exit code is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sequences", description=__doc__)
    parser.add_argument("--n", type=int, default=200, help="how many classes")
    parser.add_argument("--seed", type=int, default=None, help="what is drawn; at random by default")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="lectern-sequences-"))
    (folder / "stage").mkdir()
    with Town(folder / "town") as town:
        found = played(town, folder / "stage", given.n, seed)
    for one in found:
        sys.stdout.write(f"{one}\n")
    sys.stdout.write(f"seed {seed}: {given.n} sequences, {len(found)} complaints\n")
    if found:
        sys.stdout.write(f"logs and databases: {folder}\n")
    else:
        shutil.rmtree(folder)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
