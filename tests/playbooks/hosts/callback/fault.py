"""Test-only callback plugin: writes down what every task came to, and makes one of them go wrong.

``LECTERN_TASKS`` names the file for the facts, one JSON line each. ``LECTERN_FAULT`` is a JSON object:
``kind`` (kill, middle, fail or cut), ``at`` (the number of the task among those that a host was given, from 0)
or ``task`` (a part of its name), ``fired`` (a file that is made when the fault was made), for *middle* ``after_s``
(at the task's end, if that comes sooner) or ``once``, a file that must be there, and for *cut* ``command``, which
takes the host's network away.
"""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: fault
type: notification
short_description: Facts about tasks, and faults
description: [Test-only.]
"""


class CallbackModule(CallbackBase):
    """One instance a run of ansible-playbook."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "fault"

    def __init__(self) -> None:
        super().__init__()
        self._facts = os.environ.get("LECTERN_TASKS")
        self._fault: dict[str, Any] = json.loads(os.environ.get("LECTERN_FAULT", "{}"))
        self._begun: dict[str, float] = {}
        self._number = -1
        self._middle_of: tuple[str, str] | None = None

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Rewrite the task into a failing one, while no host has been given it yet."""
        if self._fault.get("kind") == "fail" and self._is_it(task, self._number + 1):
            self._fire()
            task.action = "ansible.builtin.fail"
            task.args = {"msg": "made to fail by the test"}

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Count, and kill or cut."""
        self._number += 1
        self._begun[host.name] = time.monotonic()
        self._write("begun", host.name, task.get_name(), number=self._number, action=task.action)
        kind = self._fault.get("kind")
        if kind not in ("kill", "middle", "cut") or not self._is_it(task, self._number):
            return
        if kind == "middle":
            self._middle_of = host.name, task.get_name()
            threading.Thread(target=self._kill_later, daemon=True).start()
        elif kind == "kill":
            self._kill()
        else:
            self._fire()
            subprocess.run(self._fault["command"], check=True, timeout=30)

    def v2_runner_on_ok(self, result: Any) -> None:
        self._ended("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._ended("failed", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._ended("skipped", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._ended("unreachable", result)

    def _ended(self, how: str, result: Any) -> None:
        host, found = result._host.get_name(), result._result
        items = [one for one in found.get("results", []) if isinstance(one, dict)]
        self._write(
            how,
            host,
            result._task.get_name(),
            changed=bool(found.get("changed")),
            seconds=round(time.monotonic() - self._begun.get(host, time.monotonic()), 3),
            msg="; ".join(str(one["msg"]) for one in [found, *items] if one.get("msg")),
            said=found.get("said", []),
            steps=found.get("steps", []),
        )
        if self._middle_of == (host, result._task.get_name()) and "once" not in self._fault:
            self._kill()

    def _write(self, how: str, host: str, task: str, **more: object) -> None:
        if self._facts:
            with Path(self._facts).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"how": how, "host": host, "task": task, **more}, default=str) + "\n")

    def _is_it(self, task: Any, number: int) -> bool:
        if "at" in self._fault:
            return bool(number == self._fault["at"])
        return str(self._fault["task"]) in task.get_name() and not Path(self._fault["fired"]).exists()

    def _fire(self) -> None:
        Path(self._fault["fired"]).touch()

    def _kill_later(self) -> None:
        time.sleep(self._fault.get("after_s", 0))
        while "once" in self._fault and not Path(self._fault["once"]).exists():
            time.sleep(0.05)
        self._kill()

    def _kill(self) -> None:
        """The controller with all that it started, as when its machine dies."""
        self._fire()
        os.killpg(os.getpgrp(), signal.SIGKILL)
