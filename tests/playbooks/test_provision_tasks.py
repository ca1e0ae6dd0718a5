"""Tasks of `provision`, against stand-ins: what a failed run left undone is done by the next one, and once."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from tests.answering import Answer, serving
from tests.playbooks import here
from tests.playbooks.here import PROVISION, ROOT
from tests.stage.postgres import postgres_server
from tests.waiting import wait_until
from town.ports import free_port

pytestmark = pytest.mark.live


def has(task: dict[str, Any], *modules: str) -> bool:
    return any(f"ansible.builtin.{one}" in task for one in modules)


def copied(task: dict[str, Any], content: str) -> dict[str, Any]:
    dest = task.pop("ansible.builtin.template")["dest"]
    return {**task, "ansible.builtin.copy": {"content": content, "dest": dest}}


def outcome(folder: Path, tasks: list[dict[str, Any]], given: Mapping[str, object]) -> tuple[int, set[str]]:
    """The exit status of a run whose programs are those of *folder*, and what they did."""
    done, did = here.tasks_played(folder, tasks, given, environment={"PATH": f"{folder}:/usr/bin:/bin"})
    return done.returncode, did


# -- what has new settings is begun anew, also if a later task of the host fails ---------------------------------------

PLAYS = {
    "Redis is begun anew": "redis",
    "PostgreSQL is begun anew": "postgres",
    "The balancer is begun anew": "prefect_balancer",
}


@pytest.mark.parametrize(
    "notified", sorted({one["listen"] for one in yaml.safe_load((PROVISION / "handlers/main.yml").read_text())})
)
def test_what_has_new_settings_is_begun_anew_also_if_a_later_task_fails(tmp_path: Path, notified: str) -> None:
    """The next run would see no change."""
    plays = yaml.safe_load((ROOT / "playbooks/provision.yml").read_text())
    [play] = [one for one in plays if f"'{PLAYS[notified]}'" in str(one.get("tasks"))]
    del play["vars_files"]  # the secrets are given below
    play["tasks"] = [
        {"include_role": {"name": "provision", "tasks_from": "firewall_addresses"}},  # it only looks
        {"command": "true", "changed_when": True, "notify": notified},
        {"fail": {"msg": "a later task"}},
    ]
    supervisorctl = ["sh", "-c", 'echo "$@" >"$0"', str(tmp_path / "told")]
    stand_ins = {"provision_has_systemd": False, "provision_supervisorctl": supervisorctl}
    done = here.played_with(tmp_path, json.dumps([play]), **stand_ins)
    assert (done.returncode, "a later task" in done.stdout) == (2, True), done.stdout
    assert (tmp_path / "told").exists(), done.stdout
    assert (tmp_path / "told").read_text().startswith("restart "), done.stdout


# -- the firewall ------------------------------------------------------------------------------------------------------

NFT = """\
#!/bin/sh
case $1 in
    list) test -e {folder}/loaded ;;
    *) touch {folder}/loaded {folder}/did-load ;;
esac
"""


def test_rules_that_a_failed_run_wrote_are_loaded_by_the_next_one_and_once(tmp_path: Path) -> None:
    """Else a streamer that is new in the inventory would be shut out, and the run would say that all is well."""
    here.program(tmp_path / "nft", NFT.format(folder=tmp_path))

    def provisioned(rules: str, *, fails: bool = False) -> tuple[int, set[str]]:
        tasks: list[dict[str, Any]] = []
        for one in here.tasks("firewall", tmp_path):
            if has(one, "template"):
                tasks += [copied(one, rules), {"fail": {}, "when": fails}]
            elif has(one, "command", "file"):
                tasks.append(one)
        return outcome(tmp_path, tasks, {})

    assert provisioned("old") == (0, {"did-load"})
    assert provisioned("new", fails=True) == (2, set())
    assert provisioned("new") == (0, {"did-load"})
    assert provisioned("new") == (0, set())


SYSTEM = Path("/usr/lib/systemd/system")
UNIT = "[Unit]\nDefaultDependencies=no\nConflicts=shutdown.target\n{}\n[Service]\nType=oneshot\nExecStart=/bin/true\n"
ORDERS = {
    "networking": ["network.target", "local-fs.target network-pre.target", "network.target network-online.target"],
    "cloud-init": ["", "networking.service", "network-online.target sysinit.target"],
}
"""What each wants, after what and before what, as Debian has them: cloud-init wants the network before all else."""


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None or not (SYSTEM / "basic.target").exists(), reason="no systemd is here"
)
def test_no_unit_of_a_machine_in_a_cloud_waits_for_itself(tmp_path: Path) -> None:
    """Systemd would leave one of them out at the start of the machine: the firewall, or the network."""
    unit = (PROVISION / "templates/lectern-firewall.service.j2").read_text()
    for name, (wants, after, before) in ORDERS.items():
        order = f"Wants={wants}\nAfter={after}\nBefore={before} shutdown.target"
        (tmp_path / f"{name}.service").write_text(UNIT.format(order))
    (tmp_path / "lectern-firewall.service").write_text(unit.replace("/usr/sbin/nft", "/bin/true"))
    wanted = "Requires=basic.target networking.service cloud-init.service lectern-firewall.service"
    (tmp_path / "boot.target").write_text(f"[Unit]\n{wanted}\n")
    argv = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "boot.target")]
    env = {"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{tmp_path}:{SYSTEM}"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "cycle" not in done.stderr
    assert "Before=network-pre.target" in unit


# -- folders that are there already ------------------------------------------------------------------------------------

PROGRAMS = {
    "runuser": "test -e {folder}/is-writable",
    "setfacl": "[ $1 = --recursive ] || exit 0; touch {folder}/is-writable {folder}/did-begin; [ ! -e {folder}/dies ]",
}
"""What they do on a host whose file system has the lists: the folder itself comes first, and what lies in it later."""


@pytest.mark.parametrize(
    ("there", "run_as"),
    [([], ""), (["video"], ""), (["code", "video"], "nobody")],
    ids=["nothing is there", "a disk is mounted", "an old program's"],
)
def test_the_user_is_let_into_each_folder_that_is_anothers(tmp_path: Path, there: list[str], run_as: str) -> None:
    """On a new host the disk for the recordings is mounted already, and belongs to root."""
    for name in there:
        (tmp_path / name).mkdir()
    tasks = [one for one in here.tasks("folders", tmp_path) if not has(one, "user")]
    for one in tasks:
        if one.pop("ansible.builtin.include_tasks", None) == "shared.yml":
            one["ansible.builtin.debug"] = {"msg": "let into {{ provision_folder }}"}
    places = {"root": "opt", "code_dir": "code", "video_root": "video"}
    given: dict[str, object] = {f"provision_{name}": str(tmp_path / place) for name, place in places.items()}
    user = {"provision_kind": "streamer", "provision_user": "nobody", "provision_user_made": {"changed": False}}
    given |= {"provision_run_as": run_as, **user}
    done, _ = here.tasks_played(tmp_path, tasks, given, "-i", "localhost,", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [one for one in ("code", "video") if f"let into {tmp_path / one}" in done.stdout] == there


def test_a_user_who_was_let_into_half_of_a_folder_is_let_into_the_rest_by_the_next_run(tmp_path: Path) -> None:
    """Recordings take a while; what was left would be read by nobody, and the run would say that all is well."""
    for name, does in PROGRAMS.items():
        here.program(tmp_path / name, f"#!/bin/sh\n{does.format(folder=tmp_path)}\n")
    tasks = [one for one in here.tasks("shared", tmp_path) if "block" in one]
    folder = {"provision_folder": str(tmp_path / "code"), "provision_owner": "nobody"}
    given: dict[str, object] = {"provision_acl": {"changed": False}, **folder}
    (tmp_path / "dies").touch()
    assert outcome(tmp_path, tasks, given) == (2, {"did-begin"})
    (tmp_path / "dies").unlink()
    assert outcome(tmp_path, tasks, given) == (0, {"did-begin"})
    assert outcome(tmp_path, tasks, given) == (0, set())


# -- the Prefect server ------------------------------------------------------------------------------------------------


def provisioned(folder: Path, version: str = "2.0.0") -> tuple[int, set[str]]:
    """What becomes of a server whose link leads to the wanted release, in a run that writes new settings."""
    [server] = [one for one in here.tasks("prefect_server", folder) if "block" in one]
    server["block"] = [found for one in server["block"] if (found := _stub(folder, one)) is not None]
    del server["rescue"]
    into = f"{folder}/opt/releases/{version}"
    given = {
        "provision_root": f"{folder}/opt",
        "provision_prefect_apart": True,
        "provision_prefect_first": True,
        "provision_prefect_from": into,
        "provision_prefect_link": {"stat": {"exists": True}},
        "release_asked": {"into": into},
    }
    return outcome(folder, [server], given)


def _stub(folder: Path, task: dict[str, Any]) -> dict[str, Any] | None:
    """The task, without what it needs of a real host; None if nothing of it is left."""
    if has(task, "template"):
        return copied(task, "new")
    if "upgrade" in task.get("ansible.builtin.command", {}).get("argv", ()):
        migrates = f"test ! -e {folder}/no-database; touch {folder}/did-migrate"
        return {"command": {"argv": ["sh", "-ec", migrates]}, "when": task["when"]}
    if task.get("ansible.builtin.include_tasks") == "prefect_restart.yml":
        return {"command": {"argv": ["touch", f"{folder}/did-restart"]}, "when": task["when"]}
    return None if has(task, "include_tasks", "uri") else task


def test_what_a_failed_run_left_undone_is_done_by_the_next_one_and_once(tmp_path: Path) -> None:
    """As while PostgreSQL is away: a server that went on with its old settings would keep the balancer's port."""
    for version in ("2.0.0", "2.1.0"):
        (tmp_path / "opt/releases" / version).mkdir(parents=True)
        (tmp_path / "opt/releases" / version / "manifest.json").write_text(version)
    (tmp_path / "opt/prefect").symlink_to("releases/2.0.0")
    (tmp_path / "prefect.env").write_text("old")
    (tmp_path / "no-database").touch()
    assert provisioned(tmp_path) == (2, set())
    (tmp_path / "no-database").unlink()
    assert provisioned(tmp_path) == (0, {"did-migrate", "did-restart"})
    assert provisioned(tmp_path) == (0, set())
    # A run that is killed here leaves the server of the older release at work, and nothing to switch.
    (tmp_path / "opt/prefect").unlink()
    (tmp_path / "opt/prefect").symlink_to("releases/2.1.0")
    assert provisioned(tmp_path, "2.1.0") == (0, {"did-migrate", "did-restart"})
    assert provisioned(tmp_path, "2.1.0") == (0, set())


PLACES = ("backups/prefect-1/manifest.json", "releases/2.0.0/venv/bin/prefect")


class Healthy(Answer):
    def answer(self) -> None:
        self.say(200 if self.path == "/api/health" else 404)


@pytest.mark.parametrize("gone", [None, "another serves", *PLACES])
def test_nothing_is_stopped_if_its_backup_or_its_release_is_gone_or_another_serves(
    tmp_path: Path, gone: str | None
) -> None:
    """The nights' backups take that of an upgrade away after two weeks, and rollouts the release."""
    for name in PLACES:
        (tmp_path / name).parent.mkdir(parents=True)
        if name != gone:
            (tmp_path / name).touch()
    was = {"from": f"{tmp_path}/releases/2.0.0", "backup": f"{tmp_path}/backups/prefect-1"}
    (tmp_path / "prefect-upgrade.json").write_text(json.dumps(was))
    tasks = here.tasks("prefect_back", tmp_path)
    tasks[-1]["block"] = [{"command": f"touch {tmp_path}/did-stop"}]
    with serving(Healthy) as other:
        port = other.server_port if gone == "another serves" else free_port()
        given = {"provision_prefect_others": ["127.0.0.1"], "provision_prefect_listens_port": port}
        done, did = here.tasks_played(tmp_path, tasks, given, "-i", "localhost,127.0.0.1,")
    assert (done.returncode, bool(did)) == ((2, False) if gone else (0, True)), done.stdout
    assert ("Nothing was stopped" in done.stdout) is (gone is not None)


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


def settings_tasks(folder: Path, setting: str, *, fails: bool) -> list[dict[str, Any]]:
    """Those that write its settings and make them count, without what needs a real host."""
    [block] = [one["block"] for one in here.tasks("postgres", folder) if "block" in one]
    until = next(at for at, one in enumerate(block) if has(one, "meta")) + 1
    kept = [one for one in block[:until] if has(one, "template", "copy", "blockinfile", "command", "meta")]
    for one in kept:
        one.pop("become", None), one.pop("become_user", None)
    after = next(at for at, one in enumerate(kept) if has(one, "blockinfile")) + 1
    kept.insert(after, {"fail": {}, "when": fails})
    return [copied(one, setting) if has(one, "template") else one for one in kept]


@pytest.mark.skipif(os.geteuid() != 0, reason="the server belongs to another user")
def test_a_new_host_is_let_in_without_a_restart_which_would_cut_off_all_others(tmp_path: Path) -> None:
    """Also if the run that named it ended before the server had read that; the next one sees no change."""
    with postgres_server() as url:

        def asked(what: str) -> str:
            plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
            with psycopg.connect(plain) as connection:
                [[found]] = connection.execute(what).fetchall()
            return str(found)

        cluster = Path(asked("SHOW data_directory"))  # its settings are there, too
        (cluster / "conf.d").mkdir()
        with (cluster / "postgresql.conf").open("a") as file:
            file.write("include_dir 'conf.d'\n")
        restart = {"name": "r", "listen": "PostgreSQL is begun anew", "command": f"touch {tmp_path}/did-restart"}
        at = {"PGHOST": url.host, "PGPORT": str(url.port), "PGUSER": url.username}

        def provisioned(hosts: list[str], setting: str, *, fails: bool = False) -> tuple[int, bool, bool]:
            """The exit status of a run, whether the server has read its files anew, and would be restarted."""
            before, tasks = asked("SELECT pg_conf_load_time()"), settings_tasks(tmp_path, setting, fails=fails)
            given = {"provision_cluster": str(cluster), "provision_fleet_addresses": hosts}
            done, did = here.tasks_played(tmp_path, tasks, given, handlers=[restart], environment=at)
            return done.returncode, asked("SELECT pg_conf_load_time()") != before, bool(did)

        two = ["192.0.2.21", "192.0.2.22"]
        assert provisioned(two[:1], "work_mem = '5MB'\n") == (0, True, False)
        assert provisioned(two, "work_mem = '5MB'\n", fails=True) == (2, False, False)
        assert provisioned(two, "work_mem = '5MB'\n") == (0, True, False)
        assert provisioned(two, "max_locks_per_transaction = 100\n") == (0, True, True)


# -- packages ----------------------------------------------------------------------------------------------------------

LOOK = """
- hosts: teachers:streamers
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: provision, tasks_from: command, public: true, apply: {when: false}}
    - """


@pytest.mark.parametrize(
    ("url", "expected"),
    [("postgresql+psycopg://lectern:x@192.0.2.10/lectern", True), ("sqlite:////srv/lectern/teacher.db", False)],
)
def test_a_teacher_on_postgresql_has_the_programs_that_back_it_up(tmp_path: Path, url: str, *, expected: bool) -> None:
    """Also the second one, which is no control host: without them its rollout and each night's backup fail."""
    [apt] = [one["ansible.builtin.apt"] for one in here.tasks("main", tmp_path) if has(one, "apt")]
    look = LOOK + here.told("packages", apt["name"].removeprefix("{{ ").removesuffix(" }}"))
    second = json.dumps({"teachers": {"hosts": {"teacher2": {"ansible_host": "192.0.2.11"}}}})
    out = here.written(tmp_path, look, second, teacher_database_url=url)
    for host in ("teacher1", "teacher2", "streamer1"):
        packages = json.loads((out / f"{host}.packages").read_text())
        assert "sqlite3" in packages
        assert ("postgresql-client" in packages) is (expected and host.startswith("teacher"))


# -- a supervisord apart -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "stopped", "expected"),
    [("cron", False, "2000"), ("playout", False, "1000"), ("playout", True, "2000")],
    ids=["another program", "the playout", "a playout that is stopped"],
)
def test_what_has_new_settings_is_begun_anew_but_a_playout_that_runs(
    tmp_path: Path, program: str, *, stopped: bool, expected: str
) -> None:
    """Begun anew, it would cut every class on air: its settings count from its next start, as under systemd."""
    role, conf, bin_ = tmp_path / "roles/provision", tmp_path / "supervisord.conf", Path(sys.executable).parent
    shutil.copytree(PROVISION, role)
    for part in (role / "tasks/apart.yml", role / "templates/supervisord.conf.j2"):
        text = part.read_text().replace("[supervisord,", f"[{bin_ / 'supervisord'},")
        part.write_text(re.sub(r"/etc/lectern|/run|/var/log", str(tmp_path), text))
    (tmp_path / "play.yml").write_text(here.play_of("localhost", "provision", "apart"))
    supervisorctl, sleep = [str(bin_ / "supervisorctl"), "-c", str(conf)], str(shutil.which("sleep"))
    given: dict[str, object] = {"ansible_connection": "local", "provision_program": program}
    given |= {"provision_service": "", "provision_supervisord": str(conf), "provision_supervisorctl": supervisorctl}

    def told(*words: str) -> str:
        return subprocess.run([*supervisorctl, *words], capture_output=True, text=True, timeout=60, check=False).stdout

    def provisioned(seconds: int) -> str:
        """Provision a program that sleeps for *seconds*; returns for how many the one sleeps that runs then."""
        text = f"[program:{program}]\ncommand={sleep} {seconds}\nstartsecs=0\n"
        (role / f"templates/program-{program}.conf.j2").write_text(text)
        done = here.played(tmp_path / "play.yml", "-i", "localhost,", "-e", json.dumps(given))
        assert done.returncode == 0, done.stdout + done.stderr
        line = Path(f"/proc/{int(told('pid', program))}/cmdline")
        wait_until(lambda: line.read_text().startswith(sleep), description="it is that program")
        return line.read_text().split("\0")[1]

    try:
        assert provisioned(1000) == "1000"
        if stopped:
            told("stop", program)
        assert provisioned(2000) == expected
    finally:
        told("shutdown")
