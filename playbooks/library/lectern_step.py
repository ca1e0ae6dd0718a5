#!/usr/bin/python
"""Ansible module: one step of the rollout, done on the host by the new release's own ``lectern``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from typing import IO, Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: lectern_step
short_description: One step of the rollout, done on the host
description:
  - Calls C(lectern rollout STEP) of a staged release, hands over what is wanted as JSON on standard input,
    and gives back its answer. All logic is in that command, where it is tested.
  - The step C(deploy) calls C(lectern deploy ROLE) instead, in the folder and with the settings that are wanted.
  - The steps of the maintenance window are asked of the process that C(open) has left on the host, by the action
    plugin of the same name; only where it is no longer there, C(lectern rollout ended STEP) says what became of them.
  - In check mode the command says what it would do, and does nothing.
options:
  lectern:
    description: The release's command, an absolute path on the host.
    type: path
  step:
    description: What is to be done.
    type: str
    required: true
  wanted:
    description: The state that is wanted, a JSON object. It holds secrets and is never shown.
    type: str
  secrets:
    description: Texts that are blotted out wherever they appear in the answer.
    type: list
    elements: str
    default: []
  plan:
    description:
      - What C(open) said that each step of the maintenance window would do. A check answers with that, and so does a
        host that is finished already; the action plugin reads it.
    type: dict
    default: {}
  standing:
    description:
      - Of C(rollback) and C(verify), whether they mean what was rolled out on the host last. Then nothing is read of
        C(wanted) but role, root and version.
    type: bool
    default: false
  by_hand:
    description: Of C(open), whether a person confirms each step; then it waits, and takes all back if nobody comes.
    type: bool
    default: false
  timeout_s:
    description: After so many seconds the command is asked to end (TERM), a minute later it is ended (KILL).
    type: int
    default: 900
author: lectern
"""

READERS = ("preflight", "verify", "healthy")
SILENT = ("stop", "alter", "create", "switch", "rekey", "adopt", "config", "env", "reload", "healthy", "commit")
"""Steps of the maintenance window, which the process does that `open` has left on the host."""
CHANGERS = ("backup", "deploy", "playout", "open", "rollback", *(one for one in SILENT if one != "healthy"))
GRACE_S = 60
LAST_LINES = 12


def main() -> None:
    """Run the step, and give its answer to Ansible."""
    module = AnsibleModule(
        argument_spec={
            "lectern": {"type": "path"},
            "step": {"type": "str", "required": True, "choices": [*READERS, *CHANGERS]},
            "wanted": {"type": "str", "no_log": True},
            "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "plan": {"type": "dict", "default": {}},
            "standing": {"type": "bool", "default": False},
            "by_hand": {"type": "bool", "default": False},
            "timeout_s": {"type": "int", "default": 900},
        },
        supports_check_mode=True,
    )
    answer = _answer(module)
    if not module._diff:
        answer.pop("diff", None)
    if answer.pop("failed", False):
        said = answer.pop("msg", None) or f"{module.params['step']} failed and gave no reason."
        module.fail_json(msg=said, **answer)
    module.exit_json(**answer)


def _answer(module: AnsibleModule) -> dict[str, Any]:
    """The command's JSON answer; if it gives none, a failure with its exit status and its last lines."""
    step, lectern = module.params["step"], module.params["lectern"]
    wanted = _object(module.params["wanted"])
    if wanted is None or not lectern:
        return _failure("lectern and wanted must be given. Write: wanted: '{{ host_wanted | to_json }}'")
    if not os.access(lectern, os.X_OK):
        return _not_there(module, step, lectern)
    if step in SILENT and module.check_mode:
        return {"changed": step in CHANGERS, "said": [f"{step}: what `open` has said cannot be foreseen here."]}
    command, folder, environment, given = _call(step, lectern, wanted, module.params["wanted"])
    command += ["--standing"] if module.params["standing"] else []
    command += ["--by-hand"] if step == "open" and module.params["by_hand"] else []
    command += ["--check"] if module.check_mode else []
    timeout_s = module.params["timeout_s"]
    try:
        status, out, err = _run(command, folder, environment, given, timeout_s)
    except OSError as error:
        return _failure(f"{' '.join(command)} cannot be started in {folder}: {error}")
    except subprocess.TimeoutExpired as error:
        return _failure(f"{' '.join(command)} took longer than {timeout_s} s and was ended.{_last(error.output)}")
    answer = _object(out)
    if answer is None:
        return _failure(f"{' '.join(command)} ended with {status} and gave no JSON answer.{_last(err + out)}")
    answer.setdefault("changed", False)
    answer.setdefault("said", answer.get("prefect", []))
    answer["failed"] = status != 0 or bool(answer.get("failed"))
    return answer


def _call(step: str, lectern: str, wanted: dict[str, Any], text: str) -> tuple[list[str], str, dict[str, str], str]:
    """Command, working folder, environment and standard input of a step."""
    if step != "deploy":
        words = ["ended", step] if step in SILENT else [step]
        return [lectern, "rollout", *words], "/", dict(os.environ), text
    # Not by Ansible's `environment:`, which would put the secrets on a command line.
    settings = {name: str(value) for name, value in wanted["env"].items()}
    return [lectern, "deploy", wanted["role"], "--json"], wanted["code_dir"], {**os.environ, **settings}, ""


def _run(
    command: list[str], folder: str, environment: dict[str, str], given: str, timeout_s: float
) -> tuple[int, str, str]:
    """Run to the end: exit status, standard output, standard error.

    The command runs in a session of its own, and writes its output to files. So if the network or the controller is
    lost, it gets neither a hang-up nor a broken pipe, and finishes.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=err, env=environment, cwd=folder, start_new_session=True
        )
        try:
            process.communicate(given.encode(), timeout_s)
        except subprocess.TimeoutExpired as error:
            _end(process)
            error.output = _text(err) + _text(out)
            raise
        return process.returncode, _text(out), _text(err)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Send TERM, so that a window undoes itself, and KILL if the command does not end."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(GRACE_S)


def _not_there(module: AnsibleModule, step: str, lectern: str) -> dict[str, Any]:
    """The answer for a host without the release: a check says that it cannot look there, a step fails."""
    if module.params["standing"]:
        said = "No such release stands on this host; what runs is another one, or the old program."
        return {**_failure(f"{step}: {lectern} is not here. {said}"), "staged": False}
    stage = "Stage it, which touches nothing that runs: ansible-playbook playbooks/rollout.yml -i … -e … --tags prepare"
    if module.check_mode:
        said = f"{step}: {lectern} is not here yet, so a check cannot look further. {stage}"
        return {"changed": step in CHANGERS, "said": [said], "staged": False}
    return {**_failure(f"{step}: {lectern} is not here. {stage}"), "staged": False}


def _failure(message: str) -> dict[str, Any]:
    return {"failed": True, "msg": message, "said": []}


def _last(text: str) -> str:
    lines = text.strip().splitlines()[-LAST_LINES:]
    return " Its last lines:\n" + "\n".join(lines) if lines else " It wrote nothing."


def _object(text: str | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text or "")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _text(written: IO[bytes]) -> str:
    written.seek(0)
    return written.read().decode("utf-8", "replace")


if __name__ == "__main__":
    main()
