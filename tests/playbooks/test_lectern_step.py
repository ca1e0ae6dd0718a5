"""The one module of the playbooks hands over what is wanted, gives the answer back, and shows no secret."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from playbooks.action_plugins import lectern_step as of_the_plugin
from playbooks.library import lectern_step as of_the_module
from tests.playbooks import here
from tests.playbooks.here import ROOT
from tests.playbooks.hosts.faults import Case, points
from tests.playbooks.hosts.step_fault import IDLE, Watch
from tests.playbooks.matrix import Share
from tests.stage import wait_until

pytestmark = pytest.mark.live

SECRET = "made-up-token"
LECTERN = """#!{python} -S
import json, os, signal, sys, time
orders = json.load(open({orders!r}))
given = sys.stdin.read()
with open({called!r}, "a") as log:
    log.write(json.dumps({{"argv": sys.argv[1:], "given": given, "cwd": os.getcwd(), "env": dict(os.environ)}}) + "\\n")
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


@dataclass
class Host:
    """A folder with a `lectern` that does as it is told, and writes down how it was called."""

    folder: Path

    @property
    def lectern(self) -> Path:
        return self.folder / "lectern"

    def orders(self, **orders: Any) -> None:
        (self.folder / "orders.json").write_text(json.dumps(orders))

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
        with socket.socket(socket.AF_UNIX) as listener:
            with contextlib.chdir(folder):
                listener.bind("holder.sock")
            listener.listen()

            def serve() -> None:
                connection, _ = listener.accept()
                with connection, connection.makefile("r") as file:
                    wishes.append(json.loads(file.readline())["task"])
                    if is_slow:
                        is_over.wait(60)
                    with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
                        connection.sendall(json.dumps(told).encode() + b"\n")

            thread = threading.Thread(target=serve)
            thread.start()
            try:
                yield wishes
            finally:
                is_over.set()
                thread.join(10)

    def begin(self, step: str, *more: str, **options: Any) -> "subprocess.Popen[str]":
        """`ansible -m lectern_step` on this machine, in a process group of its own."""
        wanted = {
            "role": "streamer",
            "root": str(self.folder),
            "code_dir": str(self.folder),
            "env": {"TOKEN": SECRET, "MAX_VIDEO_NUM": "7"},
        }
        arguments: dict[str, Any] = {
            "step": step,
            "lectern": str(self.lectern),
            "wanted": "{{ given.wanted | to_json }}",
            "secrets": "{{ given.secrets }}",
            **options,
        }
        variables = self.folder / "variables.json"
        variables.write_text(json.dumps({"given": {"wanted": wanted, "secrets": [SECRET]}}))
        ansible = Path(sys.executable).with_name("ansible")
        argv = [str(ansible), "localhost", "-m", "lectern_step", "-a", json.dumps(arguments), "-e", f"@{variables}"]
        return subprocess.Popen(
            [*argv, *more],
            env={
                **here.environment(self.folder),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_LOCALHOST_WARNING": "false",
                "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            },
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, step: str, *more: str, **options: Any) -> tuple[int, str]:
        """Its exit code, and all that it showed."""
        process = self.begin(step, *more, **options)
        shown, _ = process.communicate(timeout=90)
        return process.returncode, shown

    def done(self, step: str, *more: str, **options: Any) -> dict[str, Any]:
        """The answer of a step that does not fail."""
        status, shown = self.run(step, *more, **options)
        assert status == 0
        return answer(shown)

    def failed(self, step: str, **options: Any) -> dict[str, Any]:
        """The answer of a step that fails."""
        status, shown = self.run(step, **options)
        assert status != 0
        return answer(shown)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    found = Host(tmp_path)
    names = {name: str(tmp_path / f"{name}.{ending}") for name, ending in (("orders", "json"), ("called", "jsonl"))}
    found.lectern.write_text(LECTERN.format(python=sys.executable, **names))
    found.lectern.chmod(0o755)
    (tmp_path / "python").symlink_to(sys.executable)
    return found


def answer(shown: str) -> dict[str, Any]:
    """What stands behind Ansible's arrow."""
    found: dict[str, Any] = json.JSONDecoder().raw_decode(shown, shown.index("=> {") + 3)[0]
    return found


def test_the_command_gets_what_is_wanted_and_its_answer_comes_back(host: Host) -> None:
    host.orders(out=json.dumps({"changed": True, "said": ["down for 2 s"], "steps": [], "downtime_s": 2}))
    found = host.done("open")
    assert (found["changed"], found["said"], found["downtime_s"]) == (True, ["down for 2 s"], 2)
    [call] = host.calls()
    assert call["argv"] == ["rollout", "open"]
    assert json.loads(call["given"])["role"] == "streamer"


def test_a_refusal_is_the_failure_in_its_own_words(host: Host) -> None:
    host.orders(out=json.dumps({"failed": True, "msg": "A class is on air. Wait.", "said": ["x"]}), status=1)
    found = host.failed("preflight")
    assert (found["msg"], found["said"]) == ("A class is on air. Wait.", ["x"])


@pytest.mark.parametrize("out", ["", "Traceback\nboom", "[1]", '{"changed": true}\n{"changed": true}'])
def test_an_answer_that_is_no_json_object_is_an_error_in_words_with_the_last_lines(host: Host, out: str) -> None:
    host.orders(out=out, err="why it broke\n", status=3)
    told = host.failed("backup")["msg"]
    assert "rollout backup ended with 3 and gave no JSON answer" in told
    assert "why it broke" in told


def test_an_exit_status_other_than_0_is_a_failure_whatever_the_answer_says(host: Host) -> None:
    host.orders(out='{"changed": false, "said": []}', status=1)
    assert host.run("verify")[0] != 0


@pytest.mark.parametrize("arguments", [(), ("-vvvv",)])
def test_no_secret_is_shown_even_if_the_command_tells_it(host: Host, arguments: Sequence[str]) -> None:
    host.orders(out=json.dumps({"changed": False, "said": [f"token is {SECRET}"]}))
    status, shown = host.run("verify", *arguments)
    assert status == 0
    assert SECRET not in shown
    assert "token is ********" in shown


def test_a_check_is_a_check_of_the_command_and_shows_its_differences(host: Host) -> None:
    host.orders(
        out=json.dumps({"changed": True, "said": [], "diff": [{"before": "old-line\n", "after": "new-line\n"}]})
    )
    assert "new-line" in host.run("open", "--check", "--diff")[1]
    assert "new-line" not in host.run("open", "--check")[1]
    assert [call["argv"] for call in host.calls()] == [["rollout", "open", "--check"]] * 2


def test_where_the_release_is_not_staged_a_check_says_so_and_a_run_is_refused(host: Host) -> None:
    host.lectern.unlink()
    checked = host.done("open", "--check")
    assert checked["changed"] is True
    assert "--tags prepare" in checked["said"][0]
    assert host.done("preflight", "--check")["changed"] is False
    assert "--tags prepare" in host.failed("open")["msg"]


def test_a_rollback_of_what_stands_says_so_to_the_command(host: Host) -> None:
    host.orders(out='{"changed": false, "said": []}')
    host.run("rollback", standing=True)
    host.run("rollback")
    assert [call["argv"] for call in host.calls()] == [["rollout", "rollback", "--standing"], ["rollout", "rollback"]]


def test_a_step_of_the_silence_is_asked_of_the_process_on_the_host(host: Host) -> None:
    with host.holder({"changed": True, "said": ["a column"], "steps": []}) as wishes:
        found = host.done("alter")
    assert (found["changed"], found["said"]) == (True, ["a column"])
    assert wishes == ["alter"]
    assert host.calls() == []


def test_an_answer_is_heard_on_a_host_whose_sudo_warns_of_its_name() -> None:
    """Both come by one terminal; else each rollout of that host was taken back, as if its process had ended."""
    plugin = of_the_plugin.ActionModule.__new__(of_the_plugin.ActionModule)
    plugin._task = SimpleNamespace(args={"lectern": "/r/bin/lectern", "wanted": {"root": "/r"}})
    warned = "sudo: unable to resolve host streamer1: Name or service not known\r\n"
    shown = {"rc": 0, "stdout": warned + '{"changed": true, "said": []}\r\n\r\n'}
    plugin._low_level_execute_command = lambda _: shown
    assert plugin._asked("stop") == {"changed": True, "said": []}


def test_no_secret_of_the_process_on_the_host_is_shown_nor_a_difference_that_nobody_wants(host: Host) -> None:
    told = {"changed": True, "said": [f"token is {SECRET}"], "diff": [{"before": "", "after": "a line"}]}
    with host.holder(told):
        status, shown = host.run("env", "-vvv")
    assert status == 0
    assert answer(shown)["said"] == ["token is ********"]
    assert SECRET not in shown
    assert "a line" not in shown


def test_a_step_of_the_silence_that_takes_too_long_says_that_the_host_goes_on(host: Host) -> None:
    with host.holder({"changed": True, "said": []}, is_slow=True):
        found = host.failed("adopt", timeout_s=1)
    assert found["msg"] == "adopt: not done after 1 s. The host goes on by itself."
    assert host.calls() == []


@pytest.mark.parametrize("wanted", ["", "no JSON", "[1]"])
def test_a_step_of_the_silence_without_what_is_wanted_says_what_must_be_given(host: Host, wanted: str) -> None:
    assert "lectern and wanted must be given" in host.failed("alter", wanted=wanted)["msg"]


def test_both_sides_of_ansible_know_the_same_steps_of_the_silence() -> None:
    """The plugin asks the process on the host for them, and the module the command if that process has ended."""
    assert of_the_plugin.SILENT == of_the_module.SILENT


def test_a_step_of_the_silence_that_fails_is_the_failure_in_its_own_words(host: Host) -> None:
    with host.holder({"failed": True, "msg": "The window failed in step 5.", "said": []}):
        assert host.failed("switch")["msg"] == "The window failed in step 5."


def test_where_the_process_has_ended_the_command_says_what_became_of_a_step(host: Host) -> None:
    host.orders(out=json.dumps({"changed": False, "said": ["the host went on by itself"]}))
    assert host.done("alter")["said"] == ["the host went on by itself"]
    assert [call["argv"] for call in host.calls()] == [["rollout", "ended", "alter"]]


@pytest.mark.parametrize("options", [("--check", "--diff"), ()])
def test_a_step_that_is_planned_answers_with_its_plan(host: Host, options: Sequence[str]) -> None:
    """A check changes nothing, and on a finished host nothing is asked."""
    plan = {"alter": {"changed": True, "said": ["one column"], "diff": [{"before": "", "after": "the column"}]}}
    status, shown = host.run("alter", *options, plan=plan)
    assert status == 0
    assert answer(shown)["changed"] is True
    assert ("the column" in shown) is bool(options)
    assert host.calls() == []


def test_deployments_are_made_in_the_code_folder_with_the_settings_and_no_secret_on_a_command_line(host: Host) -> None:
    gate = host.folder / "gate"
    host.orders(out='{"changed": true, "prefect": ["deployment booking/t1"]}', hang=str(gate))
    process = host.begin("deploy")
    wait_until(host.calls, description="the command is called")
    lines = _command_lines()
    gate.touch()
    shown, _ = process.communicate(timeout=90)
    assert answer(shown)["said"] == ["deployment booking/t1"]
    [call] = host.calls()
    assert call["argv"] == ["deploy", "streamer", "--json"]
    assert call["cwd"] == str(host.folder)
    assert (call["env"]["TOKEN"], call["env"]["MAX_VIDEO_NUM"]) == (SECRET, "7")
    assert str(host.lectern) in lines
    assert SECRET not in lines


def _command_lines() -> str:
    """Of all that runs on this machine: whoever may log in can read them."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(found)


def test_a_command_that_takes_too_long_is_asked_to_end_and_may_undo_itself(host: Host) -> None:
    host.orders(out="{}", hang=str(host.folder / "never"))
    told = host.failed("open", timeout_s=8)["msg"]  # its program has begun by then
    assert "took longer than 8 s" in told
    assert "undone" in told


def test_the_command_finishes_though_the_controller_and_the_module_are_killed(host: Host) -> None:
    gate = host.folder / "gate"
    host.orders(out='{"changed": true, "said": []}', hang=str(gate))
    process = host.begin("open")
    wait_until(host.calls, description="the command is called")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    gate.touch()
    wait_until(Path(f"{gate}.done").exists, description="the command goes on and finishes")


def test_what_watches_a_step_marks_what_changes_nothing(tmp_path: Path) -> None:
    """A kill just before it leaves the same host as one just after it: the crash matrix plays one of them."""
    log, there, absent = tmp_path / "points", tmp_path / "there", tmp_path / "absent"
    there.mkdir()
    journal = tmp_path / "journal"
    journal.touch()
    watch = Watch({"mode": "list", "log": str(log)})
    watch.hook("open", ("/srv/rollout/lock", None, os.O_WRONLY))
    for event, path in (("os.remove", absent), ("os.mkdir", there), ("os.mkdir", absent), ("os.rmdir", there)):
        watch.hook(event, (str(path), 0o755, -1))
    for path, flags in ((journal, os.O_APPEND), (journal, os.O_TRUNC), (absent, os.O_CREAT)):
        watch.hook("open", (str(path), None, os.O_WRONLY | flags))
    watch.hook("sqlite3.connect", ("file:/srv/task_list.db?mode=ro",))
    watch.hook("os.posix_spawn", ("/bin/x", ["supervisorctl", "stop", "all"], {}))
    lines = [line.removeprefix(f"{tmp_path.name}/") for line in log.read_text().splitlines()]
    assert [line.partition(" ")[0] for line in lines if line.endswith(IDLE)] == [
        "os.remove",
        "os.mkdir",
        "open",
        "sqlite3.connect",
    ]
    assert [line.partition(" ")[0] for line in points(lines)] == ["os.mkdir", "os.rmdir", "open", "open", "process"]
    assert points([f"open a (1){IDLE}", f"fsync a (1){IDLE}"]) == ["fsync a (1)"]


def test_the_crash_matrix_goes_on_where_it_was_ended() -> None:
    """By the numbers that its log has of the cases."""
    cases = [Case("rollout", "fail", number, f"task {number}", "resume") for number in range(10)]

    def numbers(parts: str, every: int = 1, only: str = "") -> list[int]:
        return [number for number, case in Share(only, parts, every).of(cases) if case == cases[number]]

    assert numbers("0-", every=3) == [0, 3, 6, 9]
    assert numbers("7+2-4+8-", every=1) == [7, 2, 3, 4, 8, 9]
    assert numbers("0-", only="task [13]") == [1, 3]
    drawn = [number for number, _ in Share("task [1-9]", "0-", 1, draw=5, seed=7).of(cases)]
    assert (len(drawn), sorted(drawn), 0 in drawn) == (5, drawn, False)
    assert drawn == [number for number, _ in Share("task [1-9]", "0-", 1, draw=5, seed=7).of(cases)]
    with pytest.raises(ValueError, match="there are 10 cases"):
        numbers("9-10")


def test_what_watches_a_step_sees_neither_itself_nor_what_changes_nothing(tmp_path: Path) -> None:
    """Its own log is opened for each thing that it notes; and /dev/null for each program, as often as it is waited."""
    log, written = tmp_path / "points-1", os.O_WRONLY | os.O_CREAT
    watch = Watch({"mode": "list", "log": str(log)})
    database = "/srv/code/task_list.db"
    for path in ("/srv/rollout/lock", str(log), database, "/dev/null", str(log), database):
        watch.hook("open", (path, None, written))
    assert log.read_text().splitlines() == ["open code/task_list.db (1)", "open code/task_list.db (2)"]


PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Nothing to be said
      ansible.builtin.set_fact: {{seen: true}}
    - name: A step
      lectern_step: {{step: verify, lectern: {lectern}, wanted: '{{"role": "teacher"}}'}}
"""


def test_what_a_step_answers_stands_under_its_task(host: Host) -> None:
    """Once, whether it is done or fails; a task that says nothing is shown to whoever asks for all of them."""
    play = host.folder / "play.yml"
    play.write_text(PLAY.format(lectern=host.lectern))
    steps = [{"step": "5 switch", "seconds": 0.25}]
    host.orders(out=json.dumps({"changed": True, "said": ["One thing is done."], "steps": steps}))
    done = here.played(play, "-i", "here,", "-e", "ansible_connection=local")
    assert "changed: [here]\n    One thing is done.\n    5 switch: 0.25 s\n" in done.stdout
    assert "Nothing to be said" not in done.stdout
    assert "Nothing to be said" in here.played(play, "-v", "-i", "here,", "-e", "ansible_connection=local").stdout
    host.orders(out=json.dumps({"failed": True, "msg": "A class is on air.", "said": ["A class is on air."]}), status=1)
    failed = here.played(play, "-i", "here,", "-e", "ansible_connection=local")
    assert failed.stdout.count("A class is on air.") == 1
    gone = here.played(play, "-i", "gone,", "-e", "ansible_port=1 ansible_host=127.0.0.1")
    assert "gone cannot be reached. If it was being rolled out" in gone.stdout
