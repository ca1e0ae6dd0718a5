"""Tasks of `provision`, against stand-ins: what a failed run left undone is done by the next one, and once."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from tests.answering import Answer, serving
from tests.playbooks import here
from tests.playbooks.here import PROVISION, ROOT
from town.ports import free_port

pytestmark = pytest.mark.live


def has(task: dict[str, Any], *modules: str) -> bool:
    return any(f"ansible.builtin.{one}" in task for one in modules)


def copied(task: dict[str, Any], content: str) -> dict[str, Any]:
    """The task, with *content* for its template."""
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
UNIT = """\
[Unit]
DefaultDependencies=no
Conflicts=shutdown.target
{order}
[Service]
Type=oneshot
ExecStart=/bin/true
"""
ORDERS = {
    "networking": """\
Wants=network.target
After=local-fs.target network-pre.target
Before=network.target shutdown.target network-online.target""",
    "cloud-init": """\
After=networking.service
Before=network-online.target sysinit.target shutdown.target""",
}
"""As Debian's packages have them: cloud-init wants the network before anything else is started."""


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None or not (SYSTEM / "basic.target").exists(), reason="no systemd is here"
)
def test_no_unit_of_a_machine_in_a_cloud_waits_for_itself(tmp_path: Path) -> None:
    """Systemd would leave one of them out at the start of the machine: the firewall, or the network."""
    unit = (PROVISION / "templates/lectern-firewall.service.j2").read_text()
    for name, order in ORDERS.items():
        (tmp_path / f"{name}.service").write_text(UNIT.format(order=order))
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


def provisioned(folder: Path) -> tuple[int, set[str]]:
    """What becomes of a server that serves out of the wanted release, in a run that writes new settings."""
    [server] = [one for one in here.tasks("prefect_server", folder) if "block" in one]
    server["block"] = [found for one in server["block"] if (found := _stub(folder, one)) is not None]
    del server["rescue"]
    into = f"{folder}/opt/releases/2.0.0"
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
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/prefect").symlink_to("releases/2.0.0")
    (tmp_path / "prefect.env").write_text("old")
    (tmp_path / "no-database").touch()
    assert provisioned(tmp_path) == (2, set())
    (tmp_path / "no-database").unlink()
    assert provisioned(tmp_path) == (0, {"did-migrate", "did-restart"})
    assert provisioned(tmp_path) == (0, set())


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
