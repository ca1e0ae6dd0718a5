"""The one action of the playbooks hands over what is wanted, gives the answer back, and shows no secret."""

import contextlib
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lectern.rollout.steps import TASKS
from playbooks.action_plugins.lectern_step import IN_A_SCOPE, SILENT
from tests.playbooks import here
from tests.playbooks.here import ROOT
from tests.stage import wait_until

pytestmark = pytest.mark.live

SECRET = "made-up-token"
LECTERN = """#!{python} -S
import json, os, signal, sys, time
orders = json.load(open("{folder}/orders.json"))
call = {{"argv": sys.argv[1:], "given": sys.stdin.read(), "cwd": os.getcwd(), "env": dict(os.environ)}}
with open("{folder}/called.jsonl", "a") as log:
    log.write(json.dumps(call) + "\\n")
if "hang" in orders:
    signal.signal(signal.SIGTERM, lambda *_: (print("undone", file=sys.stderr, flush=True), os._exit(1)))
    while not os.path.exists(orders["hang"]):
        time.sleep(0.02)
    print("a line that nobody reads", file=sys.stderr, flush=True)
    open(orders["hang"] + ".done", "w").close()
sys.stdout.write(orders["out"])
sys.stderr.write(orders.get("err", ""))
sys.exit(orders.get("status", 0))
"""
PYTHON = """#!/bin/sh
echo "sudo: unable to resolve host streamer1: Name or service not known"
exec {python} "$@"
"""
"""The release's, on a host whose sudo warns on the terminal by which the answer comes."""


@dataclass
class Host:
    """A folder with a `lectern` that does as it is told, and writes down how it was called."""

    folder: Path

    def orders(self, out: object, **orders: Any) -> None:
        text = out if isinstance(out, str) else json.dumps(out)
        (self.folder / "orders.json").write_text(json.dumps({"out": text, **orders}))

    def calls(self) -> list[dict[str, Any]]:
        log = self.folder / "called.jsonl"
        whole = log.read_text().split("\n")[:-1] if log.exists() else []  # the last line may be half written
        return [json.loads(line) for line in whole]

    @contextlib.contextmanager
    def holder(self, told: dict[str, Any], *, is_slow: bool = False) -> Iterator[list[str]]:
        """The process that `open` leaves on a host, as far as one question goes; yields what it was asked for.

        One that is slow answers when nobody waits any more.
        """
        folder, wishes, is_over = self.folder / "rollout", list[str](), threading.Event()
        folder.mkdir()

        class Holder(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                wishes.append(json.loads(self.rfile.readline())["task"])
                if is_slow:
                    is_over.wait(60)
                with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
                    self.wfile.write(json.dumps(told).encode() + b"\n")

        with contextlib.chdir(folder):
            server = socketserver.UnixStreamServer("holder.sock", Holder)
        thread = threading.Thread(target=server.handle_request, daemon=True)  # if nobody asks, it waits for ever
        thread.start()
        try:
            yield wishes
        finally:
            is_over.set()
            thread.join(10)
            server.server_close()

    def begin(self, step: str, *more: str, **options: Any) -> "subprocess.Popen[str]":
        """`ansible -m lectern_step` on this machine, in a process group of its own."""
        folder = str(self.folder)
        env = {"TOKEN": SECRET, "MAX_VIDEO_NUM": "7"}
        wanted = {"role": "streamer", "root": folder, "code_dir": folder, "env": env}
        arguments: dict[str, Any] = {"step": step, "lectern": f"{folder}/lectern"}
        arguments |= {"wanted": "{{ given.wanted | to_json }}", "secrets": "{{ given.secrets }}", **options}
        variables = self.folder / "variables.json"
        variables.write_text(json.dumps({"given": {"wanted": wanted, "secrets": [SECRET]}}))
        ansible = Path(sys.executable).with_name("ansible")
        argv = [str(ansible), "localhost", "-m", "lectern_step", "-a", json.dumps(arguments), "-e", f"@{variables}"]
        terse = {"NOCOLOR": "1", "LOCALHOST_WARNING": "false", "CALLBACK_RESULT_FORMAT": "json"}
        return subprocess.Popen(
            [*argv, *more],
            env={**here.environment(self.folder), **{f"ANSIBLE_{name}": value for name, value in terse.items()}},
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, step: str, *more: str, fails: bool = False, **options: Any) -> tuple[dict[str, Any], str]:
        """Its answer, which stands behind Ansible's arrow, and all that it showed."""
        process = self.begin(step, *more, **options)
        shown, _ = process.communicate(timeout=90)
        assert (process.returncode != 0) is fails, shown
        return json.JSONDecoder().raw_decode(shown, shown.index("=> {") + 3)[0], shown


@pytest.fixture
def host(tmp_path: Path) -> Host:
    here.program(tmp_path / "lectern", LECTERN.format(python=sys.executable, folder=tmp_path))
    here.program(tmp_path / "python", PYTHON.format(python=sys.executable))
    return Host(tmp_path)


def test_the_command_gets_what_is_wanted_and_its_answer_comes_back_without_a_secret(host: Host) -> None:
    """Even if the command tells one, and a person asks for all that Ansible can show."""
    host.orders({"changed": True, "said": [f"token is {SECRET}"], "steps": [], "downtime_s": 2})
    found, shown = host.run("rollback", "-vvvv", standing=True)
    assert (found["changed"], found["said"], found["downtime_s"]) == (True, ["token is ********"], 2)
    assert SECRET not in shown
    [call] = host.calls()
    assert call["argv"] == ["rollout", "rollback", "--standing"]
    assert json.loads(call["given"])["role"] == "streamer"


NO_JSON = "rollout backup ended with 3 and gave no JSON answer. Its last lines:\nwhy it broke"
TOO_LONG = "took longer than 8 s and was ended. Its last lines:\nundone"
REFUSED: dict[str, Any] = {"failed": True, "msg": "A class is on air. Wait.", "said": ["x"]}


@pytest.mark.parametrize(
    ("step", "orders", "options", "words"),
    [
        ("preflight", {"out": REFUSED, "status": 1}, {}, "A class is on air. Wait."),
        ("backup", {"out": "Traceback\nboom", "err": "why it broke\n", "status": 3}, {}, NO_JSON),
        ("backup", {"out": "[1]", "err": "why it broke\n", "status": 3}, {}, NO_JSON),
        ("verify", {"out": {"changed": False}, "status": 1}, {}, "verify failed and gave no reason."),
        ("open", {"out": {}}, {"lectern": "/nowhere/lectern"}, "--tags prepare"),
        ("alter", {"out": {}}, {"wanted": ""}, "lectern and wanted must be given"),
        ("alter", {"out": {}}, {"wanted": "[1]"}, "lectern and wanted must be given"),
        # Its program has begun by then.
        ("open", {"out": {}, "hang": "/never"}, {"timeout_s": 8}, TOO_LONG),
    ],
    ids=["refused", "no JSON", "no object", "its status", "not staged", "nothing wanted", "no spec", "too long"],
)
def test_a_failure_says_why(host: Host, step: str, orders: dict[str, Any], options: dict[str, Any], words: str) -> None:
    """A command that takes too long is asked to end, and may undo itself."""
    host.orders(**orders)
    found, _ = host.run(step, fails=True, **options)
    assert words in found["msg"]


@pytest.mark.parametrize("step", ["deploy", "backup"])
def test_a_release_without_its_python_is_refused_with_what_is_missing_and_what_to_type(host: Host, step: str) -> None:
    """Its link leads to one that was removed from the host; to stage the release again would change nothing."""
    here.program(host.folder / "lectern", f"#!{host.folder}/python\n")
    (host.folder / "python").unlink()
    found, _ = host.run(step, fails=True)
    assert f"or {host.folder}/python, which runs it, is not" in found["msg"]
    assert "install the Python" in found["msg"]


def test_a_check_is_a_check_of_the_command_and_shows_its_differences(host: Host) -> None:
    host.orders({"changed": True, "said": [], "diff": [{"before": "old-line\n", "after": "new-line\n"}]})
    assert "new-line" in host.run("open", "--check", "--diff")[1]
    assert "new-line" not in host.run("open", "--check")[1]
    assert [call["argv"] for call in host.calls()] == [["rollout", "open", "--check"]] * 2
    (host.folder / "lectern").unlink()
    checked, _ = host.run("open", "--check")
    assert (checked["changed"], "--tags prepare" in checked["said"][0]) == (True, True), "it is not staged yet"
    assert host.run("preflight", "--check")[0]["changed"] is False


@pytest.mark.parametrize("refused", [False, True])
def test_a_step_of_the_silence_is_asked_of_the_process_on_the_host(host: Host, *, refused: bool) -> None:
    """Its answer comes back without a secret, and without a difference that nobody wants."""
    told = {"changed": True, "said": [f"token is {SECRET}"], "diff": [{"before": "", "after": "a line"}]}
    with host.holder(told | (REFUSED if refused else {})) as wishes:
        found, shown = host.run("env", "-vvv", fails=refused)
    assert (found["changed"], found["said"]) == (True, ["x"] if refused else ["token is ********"])
    assert found.get("msg") == (REFUSED["msg"] if refused else None)
    assert SECRET not in shown
    assert "a line" not in shown
    assert (wishes, host.calls()) == (["env"], [])


def test_a_step_of_the_silence_that_takes_too_long_says_that_the_host_goes_on(host: Host) -> None:
    with host.holder({"changed": True, "said": []}, is_slow=True):
        found, _ = host.run("adopt", timeout_s=1, fails=True)
    assert found["msg"] == "adopt: not done after 1 s. The host goes on by itself."
    assert host.calls() == []


def test_the_playbooks_and_the_program_know_the_same_steps_of_the_silence() -> None:
    """The others are commands of their own."""
    assert set(SILENT) == {task for tasks in TASKS.values() for task in tasks}


def test_where_the_process_has_ended_a_step_is_its_plan_or_what_the_command_says_became_of_it(host: Host) -> None:
    """A check changes nothing, and on a finished host nothing is asked."""
    plan = {"alter": {"changed": True, "said": ["one column"], "diff": [{"before": "", "after": "the column"}]}}
    for options in (("--check", "--diff"), ()):
        found, shown = host.run("alter", *options, plan=plan)
        assert (found["changed"], "the column" in shown) == (True, bool(options))
    assert host.calls() == []
    host.orders({"changed": False, "said": ["the host went on by itself"]})
    assert host.run("alter")[0]["said"] == ["the host went on by itself"]
    assert [call["argv"] for call in host.calls()] == [["rollout", "ended", "alter"]]


@pytest.mark.parametrize("fails", [False, True])
def test_under_systemd_what_opens_a_window_is_in_a_unit_of_its_own(tmp_path: Path, *, fails: bool) -> None:
    """So that the end of the ssh session does not end what it leaves. If systemd does not answer, it does."""
    run = f'echo scope >>{tmp_path}/did; shift 3; exec "$@"'
    here.program(tmp_path / "systemd-run", f"#!/bin/sh\n{'exit 1' if fails else run}\n")
    here.program(tmp_path / "lectern", f'#!/bin/sh\necho "$@" >>{tmp_path}/did\n')
    argv = ["sh", "-c", IN_A_SCOPE.replace("/run/systemd/system", str(tmp_path)), "lectern"]
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run([*argv, str(tmp_path / "lectern"), "rollout", "open"], env=env, timeout=30, check=True)
    assert (tmp_path / "did").read_text().split() == ([] if fails else ["scope"] * 2) + ["rollout", "open"]
    assert subprocess.run([*argv, str(tmp_path / "none")], env=env, timeout=30, check=False).returncode == 127


def test_deployments_are_made_with_the_settings_and_go_on_though_the_controller_is_killed(host: Host) -> None:
    """In the code folder, and no secret is on a command line: whoever may log in can read those of all that runs."""
    gate = host.folder / "gate"
    host.orders({"changed": True, "prefect": ["deployment booking/t1"]}, hang=str(gate))
    process = host.begin("deploy")
    wait_until(host.calls, description="the command is called")
    lines = "\n".join(_command_lines())
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    gate.touch()
    wait_until(Path(f"{gate}.done").exists, description="the command goes on and finishes")
    assert (f"{host.folder}/lectern" in lines, SECRET in lines) == (True, False)
    [call] = host.calls()
    assert (call["argv"], call["cwd"]) == (["deploy", "streamer", "--json"], str(host.folder))
    assert (call["env"]["TOKEN"], call["env"]["MAX_VIDEO_NUM"]) == (SECRET, "7")
    assert host.run("deploy")[0]["said"] == ["deployment booking/t1"]


def _command_lines() -> Iterator[str]:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            yield file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
