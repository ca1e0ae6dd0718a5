"""A release is staged beside the live one: whole or not at all, once, and in check mode never."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.playbooks.hosts.controller import Controller, Played
from tests.playbooks.small_release import Small, answer, on_host, small
from tests.waiting import wait_until

pytestmark = pytest.mark.live

_PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: release
    - ansible.builtin.command: "{{ release_asked.into }}/venv/bin/lectern --help"
      register: tried
      changed_when: false
    - ansible.builtin.debug:
        msg: "tried {{ release_asked.into }}/venv/bin/lectern: {{ tried.stdout | default('nothing') }}"
"""
Stage = Callable[..., Played]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return small(tmp_path_factory.mktemp("small"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where a host has its releases; not there yet."""
    return tmp_path / "host" / "lectern"


@pytest.fixture
def stage(tmp_path: Path, root: Path) -> Stage:
    """Plays the role on this machine, as whoever runs the tests; arguments are the role's inputs."""
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    own = {"release_python": sys.executable, "release_root": str(root)}
    (tmp_path / "play.yml").write_text(_PLAY)
    controller = Controller(tmp_path, {"all": {"hosts": {"here": host | own}}}, os.environ["PATH"])
    begin = ["ansible-playbook", str(tmp_path / "play.yml"), "-i", str(controller.inventory)]

    def play(*words: str, fault: dict[str, Any] | None = None, **inputs: Any) -> Played:
        given = json.dumps({name: str(value) for name, value in inputs.items()})
        return controller.type([*begin, "-e", given, *words], fault=fault)

    return play


def test_a_release_named_by_its_version_is_staged_once_and_works(stage: Stage, root: Path, first: Small) -> None:
    """It is the one for the host's own Python."""
    named = {"release": first.version, "release_dist": first.file.parent}
    played, release = stage(**named).assert_ok(), root / "releases" / first.version
    [tried] = [one["msg"] for one in played.tasks if str(one.get("msg", "")).startswith("tried ")]
    assert tried == f"tried {release}/venv/bin/lectern: small"
    assert played.changed == {"here": 3}, "the folder, the copy, the staging"
    staged_at = (release / "manifest.json").stat().st_mtime_ns
    for words in ((), ("--check", "--diff")):
        assert stage(*words, **named).assert_ok().changed == {"here": 0}
    assert (release / "manifest.json").stat().st_mtime_ns == staged_at
    [failure] = stage(**named | {"release": "1.0.1"}).assert_failed().failures()
    assert f"there is no such file: {str(first.file).replace('1.0.0', '1.0.1')}." in failure


def test_a_check_changes_nothing_and_what_is_pruned_is_a_change(
    stage: Stage, root: Path, tmp_path: Path, first: Small
) -> None:
    """Half-staged releases are pruned, too."""
    checked = stage("--check", "--diff", release_file=first.file).assert_ok()
    assert "--tags prepare" in checked.output
    assert (checked.changed, root.parent.exists()) == ({"here": 1}, False)
    half = root / "releases" / "0.9.0"
    half.mkdir(parents=True)
    (half / "manifest.json").write_text("{}")
    _staged(small(tmp_path / "older", "1.1.0"), root)
    checked = stage("--check", release_file=first.file, release_keep=1).assert_ok()
    assert (checked.changed, half.exists()) == ({"here": 2}, True), "staged and pruned, if it were done"
    played = stage(release_file=first.file, release_keep=1).assert_ok()
    assert played.changed == {"here": 3}, "copied, staged, pruned"
    assert [one.name for one in (root / "releases").glob("[0-9]*")] == [first.version]


@pytest.mark.parametrize("damage", ["cut off", "another one"])
def test_a_release_file_that_is_not_as_it_was_is_told_and_nothing_of_it_stays(
    root: Path, tmp_path: Path, first: Small, damage: str
) -> None:
    """As a disk or a copy that went wrong leaves it, or somebody who builds while it is rolled out."""
    file, whole = tmp_path / "damaged.tar.gz", first.file.read_bytes()
    other = small(tmp_path, says="other").file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage == "cut off" else other)
    (root / "releases").mkdir(parents=True)
    with on_host("stage", first.asked(root, tarball=str(file))) as process:
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert (said.startswith(f"{file}: "), said.count("\n")) == (True, 1)
    assert ("its manifest is not the one of the release file. Run this again." in said) is (damage == "another one")
    assert [one.name for one in (root / "releases").iterdir()] == [".lock"]


def test_a_second_controller_waits_for_the_orphan_of_a_killed_one_and_disturbs_nothing(
    stage: Stage, root: Path, first: Small
) -> None:
    (root / "releases").mkdir(parents=True)
    gate = root / "releases" / "gate"
    gate.touch()
    release = root / "releases" / first.version
    fault = {"kind": "middle", "task": "unpacked, checked and installed", "once": str(release / "installing")}
    killed = stage(release_file=first.file, fault=fault)
    assert killed.fault_fired
    assert killed.exit_code == -signal.SIGKILL
    begun = (release / "manifest.json").stat().st_mtime_ns
    with on_host("stage", first.asked(root, tarball=f"{root}/releases/.1.0.0.tar.gz")) as second:
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(1)
        gate.unlink()
        assert json.loads(second.communicate(timeout=60)[0]) == {"staged": False}
    assert (release / "manifest.json").stat().st_mtime_ns == begun
    assert stage(release_file=first.file).assert_ok().changed == {"here": 0}


@pytest.mark.parametrize("at", ["manifest.json", "packages/lectern.py", "venv/pyvenv.cfg", "installing"])
def test_staging_that_was_killed_anywhere_is_begun_anew_by_the_next_run(root: Path, first: Small, at: str) -> None:
    release = root / "releases" / first.version
    release.parent.mkdir(parents=True)
    gate = release.parent / "gate"
    gate.touch()
    tarball = release.parent / ".tarball"
    tarball.write_bytes(first.file.read_bytes())
    asked = first.asked(root, tarball=str(tarball))
    with on_host("stage", asked) as process:
        wait_until((release / at).exists, pause_s=0, description=f"there is {at}")  # what comes next is not far
        process.kill()
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert answer("look", asked) == {"staged": False, "refusals": [], "superfluous": []}
    gate.unlink()
    assert answer("stage", asked) == {"staged": True}
    assert subprocess.run([release / "venv/bin/lectern"], capture_output=True, check=True).stdout == b"small\n"
    assert not tarball.exists()


def test_the_live_release_is_neither_replaced_by_another_of_its_version_nor_pruned(
    root: Path, tmp_path: Path, first: Small
) -> None:
    _staged(first, root)
    instance = root / "instances/teacher-1.0.0-12345678"
    instance.mkdir(parents=True)
    (instance / "venv").symlink_to("../../releases/1.0.0/venv")
    (root / "current").symlink_to(instance.relative_to(root))
    other = small(tmp_path / "other", says="other")
    [refusal] = answer("look", other.asked(root))["refusals"]
    assert "is in use, and is not what this release file holds" in refusal
    assert answer("prune", first.asked(root, version="9", keep=0, check=True)) == {"pruned": []}
    (root / "current").unlink()
    assert answer("look", other.asked(root)) == {"staged": False, "refusals": [], "superfluous": []}
    program = _staged(other, root)
    assert subprocess.run([program], capture_output=True, check=True).stdout == b"other\n"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"python": "cp399"}, "and the release is for cp399. Type: make release PYTHON_VERSION="),
        ({"platform": "linux-vax"}, "and the release is for linux-vax. Type: make release PLATFORM="),
        ({"glibc": "9.9"}, "and the release needs glibc 9.9 or newer"),
        ({"needs_bytes": 1 << 60}, "and the release needs 1099511627840 MB. Make room there"),
    ],
)
def test_a_host_that_does_not_fit_is_refused_in_words(
    root: Path, first: Small, more: dict[str, Any], words: str
) -> None:
    [refusal] = answer("look", first.asked(root, **more))["refusals"]
    assert words in refusal
    assert not root.exists()


@pytest.mark.parametrize(
    ("keep", "links", "goes"),
    [
        (5, {}, []),
        (2, {}, ["1", "2", "3"]),
        (2, {"current": "3"}, ["1"]),
        (1, {"current": "3"}, ["1", "4"]),
        (1, {"current": "5"}, ["1", "2", "3"]),
        (1, {"current": "1"}, ["2", "3", "4"]),
        (0, {"current": "4", "prefect": "1"}, ["2"]),
    ],
)
def test_old_releases_are_pruned_but_none_that_is_in_use_and_not_the_one_before(
    root: Path, keep: int, links: dict[str, str], goes: list[str]
) -> None:
    """Staged in the order of their numbers; 5 is wanted."""
    for number in range(1, 6):
        release = root / "releases" / str(number)
        release.mkdir(parents=True)
        (release / "manifest.json").write_text("{}")
        (release / ".complete").write_text("digest\n")
        os.utime(release / ".complete", ns=(0, number * 1_000_000))
    (root / "releases" / "by-hand").mkdir()
    for link, name in links.items():
        (root / link).symlink_to(f"releases/{name}")
    asked = {"root": str(root), "version": "5", "keep": keep, "check": True}
    assert answer("prune", asked) == {"pruned": goes}
    assert len(list((root / "releases").iterdir())) == 6, "check mode removes nothing"
    assert answer("prune", asked | {"check": False}) == {"pruned": goes}
    stays = {"by-hand", ".lock", *"12345"} - set(goes)
    assert {one.name for one in (root / "releases").iterdir()} == stays
    assert answer("prune", asked | {"check": False}) == {"pruned": []}


def _staged(release: Small, root: Path) -> Path:
    """Stage it as the role does; returns its program."""
    tarball = root / "releases" / ".tarball"
    tarball.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(release.file, tarball)
    assert answer("stage", release.asked(root, tarball=str(tarball))) == {"staged": True}
    return root / "releases" / release.version / "venv/bin/lectern"
