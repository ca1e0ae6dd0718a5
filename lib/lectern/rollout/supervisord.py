"""What is asked of supervisord and of the programs' health; the answers of `supervisorctl` are not to be trusted."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from lectern import subprocesses
from lectern.errors import CallAPerson, TryAgain
from lectern.i18n import BESIDE, Text, joined, msgid
from lectern.rollout.spec import Spec

ProgramState = Literal["STOPPED", "STARTING", "RUNNING", "BACKOFF", "STOPPING", "EXITED", "FATAL", "UNKNOWN"]
States = Mapping[str, ProgramState]

CALL_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 180.0
"""`stop all` waits for the slowest program: its stopwaitsecs, then KILL."""

STOP_TRIES = 5
LOOK_S = 1.5
"""Seconds within which supervisord notices that a program has ended: it looks every second, and when it is asked."""

ANSWER_TIMEOUT_S = 30.0
_POLL_S, _SLOWER = 0.1, 1.3
_LINE = re.compile(r"(\S+)\s+(STOPPED|STARTING|RUNNING|BACKOFF|STOPPING|EXITED|FATAL|UNKNOWN)(?:\s|$)")
_WORDS = 300
_AT_WORK = frozenset({"STARTING", "RUNNING", "BACKOFF", "STOPPING"})
_RAN = frozenset({"STARTING", "RUNNING"})

Beat = Callable[[], None]
"""Called between looks; an exception that it raises ends the wait."""


def no_beat() -> None:
    """The beat of a wait that only its timeout ends."""


class Supervisord:
    """One supervisord, reached by *argv* (``supervisorctl`` and how to find its socket)."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = tuple(argv)

    def _call(self, *words: str, timeout_s: float = CALL_TIMEOUT_S) -> subprocesses.Finished:
        return asyncio.run(subprocesses.run([*self._argv, *words], timeout_s=timeout_s))

    async def _call_and_ask(self, *words: str) -> subprocesses.Finished:
        """As `_call`, and ask supervisord for its states meanwhile, so that it looks at once and not in a second."""
        done = asyncio.ensure_future(subprocesses.run([*self._argv, *words], timeout_s=STOP_TIMEOUT_S))
        pause_s = _POLL_S
        while not (await asyncio.wait({done}, timeout=pause_s))[0]:
            with suppress(TryAgain):  # of no account: the call itself says what is wrong
                await subprocesses.run([*self._argv, "status"], timeout_s=CALL_TIMEOUT_S)
            pause_s = min(pause_s * _SLOWER, LOOK_S)
        return await done

    def states(self) -> States:
        """Every program and its state; raises TryAgain if supervisord does not answer.

        The exit code does not count: it is 3 if any program is stopped, and 1 during a reload.
        """
        answer = self._call("status")
        states: dict[str, ProgramState] = {}
        for line in answer.output.splitlines():
            match = _LINE.match(line)
            if match is not None:
                states[match[1]] = match[2]  # type: ignore[assignment]  # the pattern has the words of the type
            elif line.strip():
                raise self._silent(line)
        if answer.returncode not in {0, 3}:
            raise self._silent(answer.last_words)
        return states

    def _silent(self, answer: str) -> TryAgain:
        return TryAgain(
            f"supervisord does not answer `{' '.join(self._argv)} status` "
            f"({answer.strip()[:_WORDS] or 'it says nothing'}). Start it (systemctl start supervisor), run this again."
        )

    def states_or_none(self) -> States | None:
        """The states, or None while supervisord does not answer."""
        try:
            return self.states()
        except TryAgain:
            return None

    def stop_all(self) -> None:
        """Stop every program, and check that none is left; raises CallAPerson that names the programs that are.

        A program that has just died is EXITED until supervisord's next look: it is then not stopped, but restarted.
        """
        left: list[str] = []
        for _ in range(STOP_TRIES):
            asyncio.run(self._call_and_ask("stop", "all"))
            states = self.states()
            if "EXITED" in states.values():
                time.sleep(LOOK_S)
                states = self.states()
            left = [name for name, state in states.items() if state in _AT_WORK]
            if not left:
                return
        raise CallAPerson(
            "{left}: still at work after `{supervisorctl} stop all`. See why (supervisorctl status, supervisorctl "
            "tail {first} stderr), then run this again.",
            left=", ".join(left),
            supervisorctl=" ".join(self._argv),
            first=left[0],
        )

    def begin_anew(self, before: States, *programs: str) -> None:
        """Let supervisord read its program files again; start *programs*, and the programs that ran *before*.

        A reload would also start, for a moment, programs that a person had stopped. So if there is one, supervisord
        reads the files without a reload.
        """
        is_reload = "STOPPED" not in before.values()  # which is answered before it begins
        answer = self._call("reload") if is_reload else asyncio.run(self._call_and_ask("update"))
        if answer.returncode != 0:
            raise self._silent(answer.output or answer.errors)
        if not is_reload:  # a missing one is reported
            self.order("start", *sorted({*programs, *ran(before)}))

    def order(self, what: Literal["start", "stop"], *names: str) -> None:
        """Start or stop programs; `states` says afterwards what became of them."""
        self._call(what, *names, timeout_s=STOP_TIMEOUT_S)

    def last_words(self, name: str) -> str:
        """The end of a program's stderr, or else of its stdout; empty if neither can be read."""
        for channel in ("stderr", "stdout"):
            answer = self._call("tail", name, channel)
            lines = [line.strip() for line in answer.output.splitlines() if line.strip()]
            if answer.returncode == 0 and lines:
                return " / ".join(lines[-3:])[-_WORDS:]
        return ""


def programs_in(conf: str) -> set[str]:
    """The names, before the colon, that `status` has for what a supervisor file declares."""
    sections = re.findall(r"^\s*\[(program|group|fcgi-program|eventlistener):([^\]]+)\]", conf, re.MULTILINE)
    return {name.strip() for _, name in sections}


def wait_for(look: Callable[[], bool], timeout_s: float, failure: Callable[[], str], beat: Beat = no_beat) -> None:
    """Wait until *look* returns True; raises CallAPerson with the text of *failure* after *timeout_s*."""
    give_up_at = time.monotonic() + timeout_s
    while not look():
        if time.monotonic() >= give_up_at:
            raise CallAPerson(failure())
        beat()
        time.sleep(_POLL_S)


def ran(states: States) -> set[str]:
    """The programs that ran, or were starting."""
    return {name for name, state in states.items() if state in _RAN}


def as_before(
    supervisor: Supervisord, before: States, timeout_s: float = ANSWER_TIMEOUT_S, beat: Beat = no_beat
) -> list[str]:
    """After a reload, let the same programs run as *before*, and no others; returns what had to be done, in sentences.

    A reload also starts programs that were stopped by hand, and does not start those with ``autostart=false``.
    """
    done: dict[str, str] = {}

    def look() -> bool:
        if (now := supervisor.states_or_none()) is None:
            return False
        is_as_before = True
        for name, state in before.items():
            here = now.get(name)
            if state in _RAN and here != "RUNNING":
                is_as_before = False
                if here == "STOPPED" and name not in done:
                    supervisor.order("start", name)
                    done[name] = Text("{program}: a reload does not start it; started, as it ran before", program=name)
            elif state == "STOPPED" and here in _AT_WORK:
                is_as_before = False
                supervisor.order("stop", name)
                done[name] = Text("{program}: the reload started it; stopped again, as it was before", program=name)
        return is_as_before

    def failure() -> str:
        now = supervisor.states_or_none() or {}
        unlike = [name for name in sorted(ran(before)) if now.get(name) != "RUNNING"]
        name = next(iter(unlike), "")
        words = supervisor.last_words(name) if name in now else Text("supervisord does not know it any more")
        states = [Text("{program} is {state}", program=name, state=now.get(name) or Text("gone")) for name in unlike]
        return Text(
            "{programs} {timeout_s:g} s after the reload, and ran before it; it said last: {words}. See supervisorctl "
            "tail {name} stderr, or stdout.",
            programs=joined(states, msgid("{first}, {second}")) or Text("Programs are not as before"),
            timeout_s=timeout_s,
            words=words or Text("nothing"),
            name=name,
        )

    wait_for(look, timeout_s, failure, beat)
    return list(done.values())


ASK_TIMEOUT_S = 10.0
"""Seconds for one answer; a busy host answers late, and is well all the same."""
DEAD_AFTER_S = 3.0
"""Seconds after a reload in which supervisord may still report the state before it."""
_LOOK_S = 1.0
_DEAD = frozenset({"FATAL", "EXITED"})


@dataclass
class Health:
    """What was last seen of the new program."""

    wanted: Spec
    supervisor: Supervisord
    state: str = "unknown"
    answer: str = "nothing"

    def is_well(self) -> bool:
        """Look once: the program answers with this version and host, and "ready", and supervisord says that it runs."""
        return self.answers(ready=True) and self.current_state() == "RUNNING"

    def current_state(self) -> str:
        """What supervisord says of the program now."""
        states = self.supervisor.states_or_none()
        self.state = "unknown" if states is None else states.get(self.wanted.program, "gone")
        return self.state

    def answers(self, **more: object) -> bool:
        """Look once: whether the program answers with this version and host, and with *more*."""
        try:
            response = httpx.get(self.wanted.health_url, timeout=ASK_TIMEOUT_S, trust_env=False)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # the latter two: no address
            self.answer = f"not ({error})"
            return False
        try:
            body: Any = response.json()
        except ValueError:
            self.answer = f"{response.status_code} and no JSON: {response.text[:80]!r}"
            return False
        self.answer = f"{response.status_code} {body}"[:200]
        expected = {"version": self.wanted.version, "role": self.wanted.role, "name": self.wanted.name, **more}
        return isinstance(body, dict) and all(body.get(key) == value for key, value in expected.items())

    def fault(self) -> str:
        """What is wrong with the program, in one sentence, with its own last words."""
        program = self.wanted.program
        words = self.supervisor.last_words(program) if self.current_state() not in {"gone", "unknown"} else ""
        return Text(
            "{program} is {state} and {url} answers {answer}, where version {version} of {role} {name}, ready, is "
            "wanted; it said last: {words}. See supervisorctl tail -3000 {program}.",
            program=program,
            state=self.state,
            url=self.wanted.health_url,
            answer=self.answer,
            version=self.wanted.version,
            role=self.wanted.role,
            name=self.wanted.name,
            words=words or Text("nothing"),
        )


def wait_until_well(wanted: Spec, supervisor: Supervisord, beat: Beat = no_beat) -> None:
    """Wait until the new program is well; raises CallAPerson when it is dead, or after `health_timeout_s`."""
    health, began = Health(wanted, supervisor), time.monotonic()
    look_at = began + DEAD_AFTER_S

    def look() -> bool:
        nonlocal look_at
        if health.is_well():
            return True
        if (now := time.monotonic()) >= look_at:
            look_at = now + _LOOK_S  # not at each look, as each question starts a program
            if health.current_state() in _DEAD:  # supervisord has given it up
                raise CallAPerson(health.fault())
        return False

    def late() -> str:
        text = msgid("If it only needs longer than {timeout_s:g} s, raise {role}_health_timeout_s.")
        more = Text(text, timeout_s=wanted.health_timeout_s, role=wanted.role)
        return joined([health.fault(), more], BESIDE)

    wait_for(look, wanted.health_timeout_s, late, beat)
