"""The user that runs lectern can work in the folders that are there already, whoever they belong to."""

from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from tests.playbooks import here
from tests.playbooks.here import ROOT

pytestmark = pytest.mark.live

TASKS = ROOT / "playbooks/roles/provision/tasks/folders.yml"
SHARED = ROOT / "playbooks/roles/provision/tasks/shared.yml"
PROGRAMS = {
    "runuser": "test -e {folder}/is-writable",
    "setfacl": "[ $1 = --recursive ] || exit 0; touch {folder}/is-writable {folder}/did-begin; [ ! -e {folder}/dies ]",
}
"""What they do on a host whose file system has the lists: the folder itself comes first, and what lies in it later."""


def shared(folder: Path, *, run_as: str) -> list[str]:
    """The names of the folders in which the user would be let work, on a host that is a streamer."""
    tasks = [one for one in yaml.safe_load(TASKS.read_text()) if "ansible.builtin.user" not in one]
    for one in tasks:
        if one.pop("ansible.builtin.include_tasks", None) == "shared.yml":
            one["ansible.builtin.debug"] = {"msg": "let into {{ provision_folder }}"}
    given = {
        "provision_kind": "streamer",
        "provision_user": "nobody",
        "provision_run_as": run_as,
        "provision_root": str(folder / "opt"),
        "provision_code_dir": str(folder / "code"),
        "provision_video_root": str(folder / "video"),
        "provision_user_made": {"changed": False},
    }
    done, _ = here.tasks_played(folder, tasks, given, "-i", "localhost,", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    names = ("code", "video")
    return [name for name in names if f"let into {folder / name}" in done.stdout]


@pytest.mark.parametrize(
    ("there", "run_as", "expected"),
    [([], "", []), (["video"], "", ["video"]), (["code", "video"], "nobody", ["code", "video"])],
    ids=["nothing is there", "a disk is mounted", "an old program's"],
)
def test_the_user_is_let_into_each_folder_that_is_anothers(
    tmp_path: Path, there: list[str], run_as: str, expected: list[str]
) -> None:
    """On a new host the disk for the recordings is mounted already, and belongs to root."""
    for name in there:
        (tmp_path / name).mkdir()
    assert shared(tmp_path, run_as=run_as) == expected


def let_in(folder: Path) -> tuple[int, bool]:
    """The exit status of a run that lets the user work in a folder that is another's, and whether it had to."""
    tasks = [one for one in yaml.safe_load(SHARED.read_text().replace("/etc/lectern", str(folder))) if "block" in one]
    given = {"provision_acl": {"changed": False}, "provision_folder": str(folder / "code"), "provision_owner": "nobody"}
    done, did = here.tasks_played(folder, tasks, given, environment={"PATH": f"{folder}:/usr/bin:/bin"})
    return done.returncode, bool(did)


def test_a_user_who_was_let_into_half_of_a_folder_is_let_into_the_rest_by_the_next_run(tmp_path: Path) -> None:
    """Recordings take a while; what was left would be read by nobody, and the run would say that all is well."""
    for name, does in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does.format(folder=tmp_path)}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "dies").touch()
    assert let_in(tmp_path) == (2, True)
    (tmp_path / "dies").unlink()
    assert let_in(tmp_path) == (0, True)
    assert let_in(tmp_path) == (0, False)
