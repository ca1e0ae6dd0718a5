"""Ansible's side of ``lectern_step``: a step of the window is asked of the host by a few lines, not a whole module.

A module costs 0.3 s a task: it is packed, sent, unpacked and imported. While a host is silent, that is most of its
downtime. The release's own Python asks in a tenth of that. All other steps are done by the module of the same name.
"""

from __future__ import annotations

import json
import shlex
from pathlib import PurePosixPath
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.parameters import remove_values
from ansible.module_utils.common.text.converters import to_native
from ansible.plugins.action import ActionBase

SILENT = ("stop", "alter", "create", "switch", "rekey", "adopt", "config", "env", "reload", "healthy", "commit")
"""Steps of the maintenance window, which the process does that `open` has left on the host."""

TIMED_OUT = 4
CLIENT = f"""
import json, os, socket, sys
folder, step, timeout_s = sys.argv[1:]
os.chdir(folder)  # a socket's path may have no more than 108 bytes
with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(float(timeout_s))
    connection.connect("holder.sock")
    try:
        connection.sendall(json.dumps({{"task": step}}).encode() + b"\\n")
        with connection.makefile("r", encoding="utf-8") as file:
            print(file.readline())
    except TimeoutError:
        sys.exit({TIMED_OUT})
"""


class ActionModule(ActionBase):
    """One task."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer as planned, ask the process that `open` has left, or let the module do the step."""
        super().run(tmp, task_vars)
        step = str(self._task.args.get("step"))
        # What `open` said that the step would do: a check answers with that, and so does a host that is finished.
        planned = (self._task.args.get("plan") or {}).get(step) if step in SILENT else None
        answer: dict[str, Any] | None = None if planned is None else dict(planned)
        if answer is None and step in SILENT and not self._task.check_mode:
            answer = self._asked(step)
        if answer is None:
            module: dict[str, Any] = self._execute_module(module_name="lectern_step", task_vars=task_vars)
            return module
        if not self._task.diff:
            answer.pop("diff", None)
        shown: dict[str, Any] = remove_values(answer, {str(one) for one in self._task.args.get("secrets", []) if one})
        return shown

    def _asked(self, step: str) -> dict[str, Any] | None:
        """The answer of the process on the host; None if it cannot be asked, because it has ended."""
        lectern, wanted = self._task.args.get("lectern"), self._task.args.get("wanted")
        timeout_s = self._task.args.get("timeout_s") or 900
        try:
            root = (wanted if isinstance(wanted, dict) else json.loads(wanted or ""))["root"]
        except (ValueError, TypeError, KeyError):
            root = None
        if not lectern or root is None:
            return None  # the module says what must be given
        words = [str(PurePosixPath(lectern).with_name("python")), "-I", "-S", "-c", CLIENT, f"{root}/rollout", step]
        done = self._low_level_execute_command(shlex.join([*words, str(timeout_s)]))
        if done["rc"] == TIMED_OUT:
            raise AnsibleActionFail(f"{step}: not done after {timeout_s} s. The host goes on by itself.")
        try:
            # The last line: before it, sudo may warn of the name of the host on the same terminal, bash of a locale.
            told = json.loads(to_native(done["stdout"]).strip().rpartition("\n")[2])
        except ValueError:
            return None
        return dict(told) if isinstance(told, dict) else None
