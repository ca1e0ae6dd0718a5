"""Waits until the new program runs and answers with its version, and says what was seen last if it does not."""

import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from lectern.errors import CallAPerson
from lectern.rollout.host.supervisor import Beat, Supervisor, no_beat, wait_for
from lectern.rollout.wanted import Wanted

ASK_TIMEOUT_S = 10.0
"""Seconds for one answer; a busy host answers late, and is well all the same."""
DEAD_AFTER_S = 3.0
"""Seconds after a reload in which supervisord may still report the state before it."""
_LOOK_S = 1.0
_DEAD = frozenset({"FATAL", "EXITED"})


@dataclass
class Health:
    """What was last seen of the new program."""

    wanted: Wanted
    supervisor: Supervisor
    state: str = "unknown"
    answer: str = "nothing"
    began: float = field(default_factory=time.monotonic)
    looked_at: float = 0.0

    def is_well(self) -> bool:
        """Look once: the program answers with this version and host, and "ready", and supervisord says that it runs."""
        return self._answers_well() and self._state() == "RUNNING"

    def is_dead(self) -> bool:
        """Whether supervisord has given it up; asked once a second, as each question starts a program."""
        now = time.monotonic()
        if now - self.looked_at < _LOOK_S:
            return False
        self.looked_at = now
        return self._state() in _DEAD and now - self.began > DEAD_AFTER_S

    def _state(self) -> str:
        states = self.supervisor.states_or_none()
        self.state = "unknown" if states is None else states.get(self.wanted.program, "gone")
        return self.state

    def _answers_well(self) -> bool:
        try:
            found = httpx.get(self.wanted.health_url, timeout=ASK_TIMEOUT_S, trust_env=False)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # the latter two: no address
            self.answer = f"not ({error})"
            return False
        try:
            told: Any = found.json()
        except ValueError:
            self.answer = f"{found.status_code} and no JSON: {found.text[:80]!r}"
            return False
        self.answer = f"{found.status_code} {told}"[:200]
        expected = {"version": self.wanted.version, "role": self.wanted.role, "name": self.wanted.name, "ready": True}
        return isinstance(told, dict) and all(told.get(key) == value for key, value in expected.items())

    def fault(self) -> str:
        """What is wrong with the program, in one sentence, with its own last words."""
        program = self.wanted.program
        words = self.supervisor.last_words(program) if self._state() not in {"gone", "unknown"} else ""
        return (
            f"{program} is {self.state} and {self.wanted.health_url} answers {self.answer}, where version "
            f"{self.wanted.version} of {self.wanted.role} {self.wanted.name}, ready, is wanted; it said last: "
            f"{words or 'nothing'}. See supervisorctl tail {program} stderr."
        )


def wait_until_well(wanted: Wanted, supervisor: Supervisor, beat: Beat = no_beat) -> None:
    """Wait until the new program is well; raises CallAPerson when it is dead, or after `health_timeout_s`."""
    health = Health(wanted, supervisor)

    def look() -> bool | None:
        if health.is_well():
            return True
        if health.is_dead():
            raise CallAPerson(health.fault())
        return None

    def late() -> str:
        more = f"If it only needs longer than {wanted.health_timeout_s:g} s, raise {wanted.role}_health_timeout_s."
        return f"{health.fault()} {more}"

    wait_for(look, wanted.health_timeout_s, late, beat)
