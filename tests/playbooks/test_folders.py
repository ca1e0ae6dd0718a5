"""The user that runs lectern can work in the folders that are there already, whoever they belong to."""

import json
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from tests.playbooks import here
from tests.playbooks.here import ROOT

TASKS = ROOT / "playbooks/roles/provision/tasks/folders.yml"


def shared(folder: Path, *, run_as: str) -> list[str]:
    """The names of the folders in which the user would be let work, on a host that is a streamer."""
    tasks = [one for one in yaml.safe_load(TASKS.read_text()) if "ansible.builtin.user" not in one]
    for one in tasks:
        if one.pop("ansible.builtin.include_tasks", None) == "shared.yml":
            one["ansible.builtin.debug"] = {"msg": "let into {{ provision_folder }}"}
    (folder / "play.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    given = {
        "ansible_connection": "local",
        "provision_kind": "streamer",
        "provision_user": "nobody",
        "provision_run_as": run_as,
        "provision_root": str(folder / "opt"),
        "provision_code_dir": str(folder / "code"),
        "provision_video_root": str(folder / "video"),
        "provision_user_made": {"changed": False},
    }
    done = here.played(folder / "play.yml", "-i", "localhost,", "--check", "-e", json.dumps(given))
    assert done.returncode == 0, done.stdout + done.stderr
    names = ("code", "video")
    return [name for name in names if f"let into {folder / name}" in done.stdout]


@pytest.mark.parametrize(
    ("there", "run_as", "expected"),
    [
        ([], "", []),
        (["video"], "", ["video"]),
        (["code", "video"], "nobody", ["code", "video"]),
    ],
    ids=["nothing is there", "a disk is mounted", "an old program's"],
)
def test_the_user_is_let_into_each_folder_that_is_anothers(
    tmp_path: Path, there: list[str], run_as: str, expected: list[str]
) -> None:
    """On a new host the disk for the recordings is mounted already, and belongs to root."""
    for name in there:
        (tmp_path / name).mkdir()
    assert shared(tmp_path, run_as=run_as) == expected
