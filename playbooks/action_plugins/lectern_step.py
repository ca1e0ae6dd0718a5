"""``lectern_step``: one step of the rollout, done on the host by the new release's own ``lectern``.

It is no module of Ansible's, which costs 0.3 s a task: it is packed, sent, unpacked and imported. While a host is
silent, that would be most of its downtime.

A step is the command ``lectern rollout STEP``, which gets what is wanted as JSON on standard input, and prints its
answer; all logic is in that command, where it is tested. ``deploy`` is ``lectern deploy ROLE``, in the folder and with
the settings that are wanted. The steps of the maintenance window are asked of the process that ``open`` has left on the
host; if that is no longer there, ``lectern rollout ended STEP`` says what became of them. In check mode the command
says what it would do, and does nothing.
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
READERS = ("preflight", "verify", "healthy")
CHANGERS = ("backup", "deploy", "playout", "open", "rollback", *(step for step in SILENT if step not in READERS))
ARGUMENTS: dict[str, dict[str, Any]] = {
    "step": {"type": "str", "required": True, "choices": [*READERS, *CHANGERS]},
    "lectern": {"type": "str"},  # the release's command, an absolute path on the host
    "wanted": {"type": "str", "no_log": True},  # a JSON object; it holds secrets, and is never shown
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},  # blotted out of the answer
    "plan": {"type": "dict", "default": {}},  # what `open` said that each step of the window would do
    "standing": {"type": "bool", "default": False},  # whether `rollback` and `verify` mean what was rolled out last
    "by_hand": {"type": "bool", "default": False},  # whether a person confirms each step, for whom `open` then waits
    "timeout_s": {"type": "int", "default": 900},  # the command is then sent TERM, and KILL a minute later
}
LAST_LINES = 12

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

COMMAND_TIMED_OUT = 124
NOT_THERE = (126, 127)
RUN = """
cd "$1" && log=$(mktemp -d) || exit
shift
exec 3>"$log/out" 4>"$log/err"
rm -r "$log"
setsid -w timeout -k 60 "$@" >&3 2>&4 3>&- 4>&-
status=$?
cat /dev/fd/4 >&2
cat /dev/fd/3
exit $status
"""
"""Runs a command in a folder, in a session of its own; what it writes goes to files that have no name any more.

So if the network or the controller is lost, it gets neither a hang-up nor a broken pipe, and finishes.
"""
IN_A_SCOPE = """
[ -x "$1" ] || exit 127
scope="systemd-run --scope --quiet --collect"
[ -d /run/systemd/system ] && $scope true 2>/dev/null && exec $scope "$@"
exec "$@"
"""
"""Runs `open` in a unit of its own under systemd: else the end of the session (ssh) could end what it leaves."""
WITH_SETTINGS = "import json, os, sys; os.environ.update(json.load(sys.stdin)); os.execv(sys.argv[1], sys.argv[1:])"
"""Runs a command with settings that it reads: on a command line, as Ansible's `environment:`, all could read them."""


class ActionModule(ActionBase):
    """One task."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer as planned, ask the process that `open` has left, or run the command."""
        super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(ARGUMENTS)
        step = given["step"]
        # A check answers with what `open` said that the step would do, and so does a host that is finished.
        answer = given["plan"].get(step) if step in SILENT else None
        answer = self._answer(given) if answer is None else dict(answer)
        if answer.get("failed"):
            answer["msg"] = answer.get("msg") or f"{step} failed and gave no reason."
        if not self._task.diff:
            answer.pop("diff", None)
        shown: dict[str, Any] = remove_values(answer, {secret for secret in given["secrets"] if secret})
        return shown

    def _answer(self, given: dict[str, Any]) -> dict[str, Any]:
        step, wanted = given["step"], _object(given["wanted"])
        if wanted is None or not given["lectern"]:
            return _failure("lectern and wanted must be given. Write: wanted: '{{ host_wanted | to_json }}'")
        if step not in SILENT:
            return self._ran(given, wanted, step)
        if self._task.check_mode:
            return {"changed": step in CHANGERS, "said": [f"{step}: what `open` has said cannot be foreseen here."]}
        answer = self._asked(given, f"{wanted.get('root')}/rollout")
        return self._ran(given, wanted, "ended", step) if answer is None else answer

    def _asked(self, given: dict[str, Any], folder: str) -> dict[str, Any] | None:
        """The answer of the process on the host; None if it cannot be asked, because it has ended."""
        step, timeout_s = given["step"], given["timeout_s"]
        words = [_beside(given["lectern"]), "-I", "-S", "-c", CLIENT, folder, step, str(timeout_s)]
        done = self._low_level_execute_command(shlex.join(words))
        if done["rc"] == TIMED_OUT:
            raise AnsibleActionFail(f"{step}: not done after {timeout_s} s. The host goes on by itself.")
        return _object(to_native(done["stdout"]))

    def _ran(self, given: dict[str, Any], wanted: dict[str, Any], *words: str) -> dict[str, Any]:
        """The JSON answer of the command; if it gives none, a failure with its exit status and its last lines."""
        step, lectern, timeout_s = words[0], given["lectern"], given["timeout_s"]
        command, folder, stdin, before = [lectern, "rollout", *words], "/", given["wanted"], list[str]()
        if step == "open":
            before = ["sh", "-c", IN_A_SCOPE, "lectern"]
        if step == "deploy":
            command, folder = [lectern, "deploy", wanted["role"], "--json"], wanted["code_dir"]
            stdin = json.dumps({name: str(value) for name, value in wanted["env"].items()})
            before = [_beside(lectern), "-I", "-S", "-c", WITH_SETTINGS]
        command += ["--standing"] if given["standing"] else []
        command += ["--by-hand"] if step == "open" and given["by_hand"] else []
        command += ["--check"] if self._task.check_mode else []
        argv = ["sh", "-c", RUN, "lectern", folder, str(timeout_s), *before, *command]
        done = self._low_level_execute_command(shlex.join(argv), in_data=stdin.encode())
        status, typed = done["rc"], " ".join(command)
        last = "\n".join((to_native(done["stderr"]) + to_native(done["stdout"])).strip().splitlines()[-LAST_LINES:])
        last = f" Its last lines:\n{last}" if last else " It wrote nothing."
        if status in NOT_THERE:
            return self._not_there(given)
        if status == COMMAND_TIMED_OUT:
            return _failure(f"{typed} took longer than {timeout_s} s and was ended.{last}")
        if (answer := _object(to_native(done["stdout"]))) is None:
            return _failure(f"{typed} ended with {status} and gave no JSON answer.{last}")
        failed = {"failed": True} if status != 0 or answer.get("failed") else {}
        return {"changed": False, "said": answer.get("prefect", []), **answer, **failed}

    def _not_there(self, given: dict[str, Any]) -> dict[str, Any]:
        """The answer for a host without the release: a check says that it cannot look there, a step fails."""
        step, lectern, python = given["step"], given["lectern"], _beside(given["lectern"])
        gone = f"{step}: {lectern} is not here, or {python}, which runs it, is not"
        staged = f"If `ls {lectern}` finds it, install the Python to which `readlink -m {python}` leads."
        if given["standing"]:
            why = "No such release stands on this host; what runs is another one, or the old program."
            return _failure(f"{gone}. {why} {staged}")
        how = "which touches nothing that runs: ansible-playbook playbooks/rollout.yml -i … -e … --tags prepare"
        if self._task.check_mode:
            return {
                "changed": step in CHANGERS,
                "said": [f"{gone}, so a check sees no more. Stage it, {how}. {staged}"],
            }
        return _failure(f"{gone}. Stage it, {how}. {staged}")


def _beside(lectern: str) -> str:
    """The Python of the release whose command *lectern* is."""
    return str(PurePosixPath(lectern).with_name("python"))


def _failure(message: str) -> dict[str, Any]:
    return {"failed": True, "msg": message, "said": []}


def _object(text: str | None) -> dict[str, Any] | None:
    """The JSON object in *text*, before which sudo may warn of the name of the host, and bash of a locale."""
    _, brace, more = (text or "").partition("{")
    try:
        found: dict[str, Any] = json.loads(brace + more)
    except ValueError:
        return None
    return found
