"""The crash matrix: one fault a case, at every task and at everything that a step does, then resumed or rolled back."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import redis

from lectern.rollout.steps import TASKS
from tests.playbooks.hosts.controller import Controller, Fault, Played
from tests.playbooks.hosts.host import Host
from tests.playbooks.hosts.old_world import fill_redis
from tests.playbooks.hosts.step_fault import IDLE
from tests.playbooks.hosts.wholly import Before

Kind = Literal["kill", "middle", "fail", "cut", "step", "step alone"]
Playbook = Literal["rollout", "rollback"]
Then = Literal["resume", "roll back"]
AT_TASKS = frozenset({"kill", "middle", "cut"})
AT_WORK = "at work on this host"
OVERLAPS = 12
"""How often a command is typed again that says another one is still at work."""
ALTERED = "fsync rollout/journal.jsonl (8)"
"""A point in the middle of a streamer's window, behind its first changes."""
STOPPED = "fsync rollout/journal.jsonl (4)"
"""A point in the middle of a streamer's rollback: all programs are stopped, and nothing is put back."""
ON_CONTROLLER = frozenset({"assert", "debug", "fail", "set_fact", "validate_argument_spec"})
"""Actions that reach no host: to be killed in one is to be killed at the next task."""
MADE_TO_FAIL = "made to fail by the test"
"""What a task says that failed in the place of the real one; of some, the next task says that the play must end."""
REPEATED = ("process", "send")
"""Kinds of things that a step does as often as it must wait: the first two of each are killed."""


class Ground:
    """What is rolled out onto: a scene of this machine, or a fleet of containers."""

    hosts: Mapping[str, Host]
    redis: redis.Redis
    controller: Controller

    def __init__(self) -> None:
        self.before: dict[str, Before] = {}

    def reset(self, *names: str) -> None:
        """The hosts *names*, or all, as the old programs left them."""
        teachers = {name for name, host in self.hosts.items() if host.places.role == "teacher"}
        if teachers & {*(names or self.hosts)}:
            fill_redis(self.redis, "t")
        elif not teachers:
            self.redis.flushdb()
            self.redis.script_flush()
        for name in names or self.hosts:
            self.hosts[name].reset()
            self.before[name] = Before(self.hosts[name], self.redis if name in teachers else None)

    def mend(self) -> None:
        """Give the network back that was cut."""

    def run(self, playbook: str, *arguments: str, fault: Fault | None = None) -> Played:
        """Run a playbook for all of them, or as *arguments* say."""
        return self.controller.run(playbook, *arguments, fault=fault)


class Only(Ground):
    """One host of many."""

    def __init__(self, ground: Ground, name: str) -> None:
        self.before, self.controller, self.hosts = ground.before, ground.controller, ground.hosts
        self._ground, self._name = ground, name

    def reset(self, *_: str) -> None:
        self._ground.reset(self._name)

    def mend(self) -> None:
        self._ground.mend()

    def run(self, playbook: str, *arguments: str, fault: Fault | None = None) -> Played:
        return self._ground.run(playbook, "--limit", self._name, *arguments, fault=fault)


@dataclass(frozen=True)
class Case:
    """One fault and what is done about it. *at* is a task's number, a part of its name, or a thing that a step does."""

    playbook: Playbook
    kind: Kind
    at: int | str
    name: str
    then: Then
    after_s: float = 0.0
    step: str = ""

    def __str__(self) -> str:
        where = f"{self.step}: {self.at}" if self.step else f"{self.at} {self.name}"
        return f"{self.playbook}, {self.kind} at {where}, then {self.then}"


def listed(ground: Ground, host: Host, playbook: Playbook, kinds: Sequence[Kind]) -> list[Case]:
    """All cases of a playbook on one host, found by playing it without any fault; the rollout's are listed first."""
    thens: tuple[Then, ...] = ("resume", "roll back") if playbook == "rollout" else ("roll back",)
    steps = ("backup", "open") if playbook == "rollout" else ("rollback",)
    ground.reset()
    if playbook == "rollback":
        host.repeat_rollout()
    log = f"{host.places.base}/points-{time.monotonic_ns()}"
    host.arm(" ".join(steps), mode="list", log=log)
    played = ground.run(playbook).assert_ok()
    assert not host.disarm(), "the step was killed instead of watched"
    if playbook == "rollout":
        host.learn()
    return _of_tasks(played, playbook, kinds, thens) + [
        Case(playbook, kind, point, "", then, step=step)
        for step in steps
        for point in points(host.read(f"{log}-{step}").decode().splitlines())
        for kind in kinds
        if kind in ("step", "step alone")
        for then in (thens if kind == "step" else thens[:1])
    ]


def _of_tasks(played: Played, playbook: Playbook, kinds: Sequence[Kind], thens: Sequence[Then]) -> list[Case]:
    return [
        Case(playbook, kind, one["number"], one["task"], then, round(end["seconds"] / 2, 3))
        for one, end in _pairs(played.tasks)
        if end["how"] == "ok"
        for kind in kinds
        if kind == "fail" or (kind in AT_TASKS and one["action"].rpartition(".")[2] not in ON_CONTROLLER)
        for then in (thens[:1] if kind == "fail" else thens)
    ]


def points(lines: Sequence[str]) -> list[str]:
    """Where to kill: of what a wait repeats only the first two times; what changes nothing only at the very end."""
    return [
        line.removesuffix(IDLE)
        for line, following in pairwise([*dict.fromkeys(lines), ""])
        if not (line.endswith(IDLE) and following)
        and (not line.startswith(REPEATED) or int(line.removesuffix(IDLE).rpartition("(")[2].rstrip(")")) <= 2)
    ]


def _pairs(tasks: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for number, one in enumerate(tasks):
        if one["how"] == "begun":
            same = (end for end in tasks[number + 1 :] if (end["host"], end["task"]) == (one["host"], one["task"]))
            end = next((end for end in same if end["how"] != "begun"), None)
            if end is not None:
                yield one, end


def play(ground: Ground, host: Host, case: Case) -> list[str]:
    """Play *case*; returns what is wrong at its end, nothing where all is well."""
    wrong = _begin(ground, host, case)
    is_killed = case.kind == "step" and not wrong and _killed(host, case)
    if case.kind == "step" and not wrong and not is_killed:
        wrong = _begin(ground, host, case)  # without a playbook it does not come to that
    if not wrong and not is_killed:
        wrong = _by_playbook(ground, host, case)
    if wrong:
        return wrong
    last = again(ground, "rollout" if case.then == "resume" else "rollback")
    if last.exit_code != 0:
        wrong.append(f"{case.then}: ended with {last.exit_code}: {'; '.join(last.failures())}")
    host.settle()
    before = ground.before[host.places.name]
    return wrong + (before.not_new() if case.then == "resume" else before.not_old())


def _begin(ground: Ground, host: Host, case: Case) -> list[str]:
    """The host as the case finds it; returns what is wrong with it."""
    ground.reset()
    if case.playbook == "rollout":
        return []
    host.repeat_rollout()
    return [f"before the rollback: {one}" for one in ground.before[host.places.name].not_new()]


def _killed(host: Host, case: Case) -> bool:
    """Kill the step of *case* with nobody at the other end, as if its controller were killed with it.

    So only what comes then needs a playbook, which takes most of a case's time. Returns whether the step came to that.
    """
    host.arm(case.step, mode="kill", at=str(case.at))
    if case.playbook == "rollback":
        host.typed("rollback", "--standing")
    else:
        host.typed("backup")
        if case.step == "open":
            host.typed("open")
            host.speak(TASKS[host.places.role])
    host.settle()
    return host.disarm()


def _by_playbook(ground: Ground, host: Host, case: Case) -> list[str]:
    """Run the playbook with its fault; returns what is wrong then, before a person does anything."""
    fired, played = _faulty(ground, host, case)
    ground.mend()
    if not fired:
        return [f"the fault was not made; it ended with {played.exit_code}"]
    if case.kind not in ("fail", "step alone") or case.playbook != "rollout":
        return []
    before = ground.before[host.places.name]
    if case.kind == "step alone" and played.exit_code == 0:
        # It was killed with its last line written: the playbook learned of the host that all is done.
        return [f"said to be done: {one}" for one in before.not_new()]
    wrong = [] if played.exit_code == 2 else [f"the failed rollout ended with {played.exit_code}"]
    return wrong + [f"not taken back by itself: {one}" for one in before.not_old()]


def _faulty(ground: Ground, host: Host, case: Case) -> tuple[bool, Played]:
    if case.step:
        orders = {"mode": "kill", "at": str(case.at)}
        if case.kind == "step":
            orders["controller"] = str(ground.controller.folder / "pid")
        host.arm(case.step, **orders)
        played = ground.run(case.playbook)
        return host.disarm(), played
    where = "at" if isinstance(case.at, int) else "task"
    fault: dict[str, Any] = {"kind": case.kind, where: case.at, "after_s": case.after_s}
    if case.kind == "cut":
        fault["command"] = ground.controller.cut
    played = ground.run(case.playbook, fault=fault)
    done = case.kind != "fail" or any(one["how"] != "begun" and MADE_TO_FAIL in one["msg"] for one in played.tasks)
    return played.fault_fired and done, played


def cut_off(ground: Ground, host: Host, step: str, at: str, playbook: str, *arguments: str, release: str = "*") -> None:
    """Run a playbook until *step* of *host* comes to the point *at*: it is killed there, and the controller with it."""
    host.arm(step, release=release, mode="kill", at=at, controller=str(ground.controller.folder / "pid"))
    ground.run(playbook, *arguments)
    assert host.disarm(release=release), f"{step} was not killed at {at}"
    host.settle()


def again(ground: Ground, playbook: str) -> Played:
    """Run a playbook as a person would who is told that a step of before is still at work."""
    played = ground.run(playbook)
    for _ in range(OVERLAPS):
        if played.exit_code == 0 or AT_WORK not in played.output:
            break
        time.sleep(2)
        played = ground.run(playbook)
    return played
