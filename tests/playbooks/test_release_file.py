"""The release file: all that a host needs, each file checked, the same bytes each time."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from lectern.errors import CallAPerson, LecternError, Misuse, TryAgain
from playbooks import release
from playbooks.release import Target
from tests.answering import Answer, serving
from town.ports import free_port

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
TARGET = Target((3, 13), "x86_64")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Index(Answer):
    """An index of packages, with wheels that nobody can install."""

    files: ClassVar[dict[str, bytes]] = {}

    def answer(self) -> None:
        content = self.files.get(self.path)
        self.say(404 if content is None else 200, {"content-type": "text/html"}, content or b"")


def locked(*wheels: str) -> str:
    """Put *wheels* of one package into the index; returns how they are locked."""
    name, hashes = wheels[0].partition("-")[0], []
    for wheel in wheels:
        tag, info, packed = "-".join(wheel.removesuffix(".whl").split("-")[2:]), f"{name}-1.0.dist-info", io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            file.writestr(f"{name}.py", wheel)
            file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
            file.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
        Index.files[f"/simple/{name}/{wheel}"] = packed.getvalue()
        hashes.append(f"--hash=sha256:{_sha256(packed.getvalue())}")
    Index.files[f"/simple/{name}/"] = "".join(f'<a href="{wheel}">{wheel}</a>' for wheel in wheels).encode()
    return f"{name}==1.0 {' '.join(hashes)}\n"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of the only index that uv knows, with a cache of its own."""
    Index.files.clear()
    with serving(Index) as server:
        settings = {"NO_CONFIG": "1", "CACHE_DIR": str(tmp_path / "cache"), "HTTP_RETRIES": "0"}
        for name, value in {**settings, "DEFAULT_INDEX": f"{server.url}/simple"}.items():
            monkeypatch.setenv(f"UV_{name}", value)
        yield f"{server.url}/simple"


def test_it_holds_what_is_locked_and_nothing_of_the_machine_that_built_it(release_file: Path) -> None:
    with tarfile.open(release_file) as tar:
        first, *others = tar.getmembers()
        assert first.name == "manifest.json"
        manifest = json.loads(_content(tar, first.name))
        sums = [(one.name.removeprefix("packages/"), _sha256(_content(tar, one.name))) for one in others]
        told = "".join(f"{digest}  {name}\n" for name, digest in sums)
        assert manifest["sha256"] == _sha256(told.encode())
        assert {(one.uid, one.gid, one.mode, one.mtime) for one in others} == {(0, 0, 0o644, manifest["built_at"])}
        names = {name for name, _ in sums}
        assert {"flows/resident/process.py", "lectern/cli/__init__.py", "prefect/__init__.py"} <= names
        strange = ("/direct_url.json", "/uv_cache.json", ".lock")
        assert [one for one in names if one.endswith(strange) or "bin/" in one[:4]] == []
        own = next(name for name in names if re.fullmatch(r"lectern-[^/]+/RECORD", name))
        assert "bin/" not in _content(tar, f"packages/{own}").decode()


def test_builds_side_by_side_do_not_take_each_others_half_written_file(tmp_path: Path) -> None:
    """Two people, or two shells, type make release at the same time."""
    file, tree = tmp_path / "lectern.tar.gz", tmp_path / "tree"
    tree.mkdir()
    (tree / "one.py").write_bytes(b"x" * 1_000_000)
    with ThreadPoolExecutor(4) as builders:
        checksums = list(builders.map(lambda _: release.pack(file, tree, b"{}", 0), range(40)))
    assert checksums[0].read_text() == f"{_sha256(file.read_bytes())}  {file.name}\n"
    assert sorted(one.name for one in tmp_path.iterdir()) == [file.name, checksums[0].name, "tree"]


@pytest.mark.usefixtures("release_file")  # its wheels are in the cache now
def test_two_builds_are_byte_for_byte_the_same_and_need_no_network(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("flows", "lib", "playbooks", "docs"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "uv.lock", "README.md", "RUNBOOK.md", "RUNBOOK.zh.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tree)
    argv = [sys.executable, "-m", "playbooks.release", "--dist"]
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1764010800", "HTTPS_PROXY": f"http://127.0.0.1:{free_port()}"}
    builds = [
        subprocess.Popen(
            [*argv, str(tmp_path / name)], cwd=tree, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name in ("first", "second")
    ]
    said = [build.communicate(timeout=300) for build in builds]
    assert [build.returncode for build in builds] == [0, 0], said
    first, second = (Path(out.strip()) for out, _ in said)
    assert first.read_bytes() == second.read_bytes()
    assert Path(f"{first}.sha256").read_text() == Path(f"{second}.sha256").read_text()
    with tarfile.open(first) as tar:
        manifest = json.loads(_content(tar, "manifest.json"))
    assert (manifest["built_at"], manifest["commit"], manifest["dirty"]) == (1764010800, None, False)


def test_a_package_that_cannot_be_fetched_or_has_no_wheel_or_another_checksum_is_named(
    tmp_path: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, big = locked("tiny-1.0-py3-none-any.whl"), locked("big-1.0-cp313-cp313-win_amd64.whl")
    refused: list[tuple[str, str, type[LecternError], str]] = [
        ("http://127.0.0.1:1/simple", tiny, TryAgain, r"simple/tiny/.*See that this machine reaches the index"),
        (index, tiny + big, Misuse, r"big==1\.0 has no wheels with a matching .* Build cp313-linux-x86_64"),
        (index, f"tiny==1.0 --hash=sha256:{'0' * 64}\n", CallAPerson, r"`tiny==1\.0`.*Hash mismatch.* find out what"),
    ]
    for url, wanted, error, words in refused:
        monkeypatch.setenv("UV_DEFAULT_INDEX", url)
        with pytest.raises(error, match=words):
            release.install(wanted, TARGET, tmp_path / error.__name__)


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(
    ("wheels", "chosen"),
    [
        (["big-1.0-py3-none-any.whl", "big-1.0-cp313-cp313-manylinux_2_17_x86_64.whl"], "manylinux_2_17"),
        (["big-1.0-cp311-abi3-manylinux2014_x86_64.whl", "big-1.0-cp312-cp312-manylinux2014_x86_64.whl"], "cp311-abi3"),
        (["big-1.0-py3-none-any.whl", "big-1.0-cp313-cp313-manylinux_2_34_x86_64.whl"], "none-any"),
    ],
)
def test_of_several_wheels_the_best_one_that_runs_on_the_hosts_is_taken(
    tmp_path: Path, wheels: list[str], chosen: str
) -> None:
    """Whatever Python and platform this machine has."""
    release.install(locked(*wheels), TARGET, tmp_path / "tree")
    assert chosen in (tmp_path / "tree/big.py").read_text()


@pytest.mark.usefixtures("index")
def test_a_package_for_some_patch_versions_of_a_python_is_there_for_all_of_them(tmp_path: Path) -> None:
    name, _, hashes = locked("tiny-1.0-py3-none-any.whl").partition(" ")
    for number, python in enumerate([(3, 11), (3, 12)]):
        wanted = f"{name} ; python_full_version < '3.11.3' {hashes}"
        release.install(wanted, Target(python, "x86_64"), tmp_path / str(number))
        assert (tmp_path / str(number) / "tiny.py").exists() is (python == (3, 11))


@pytest.mark.parametrize(("python", "platform"), [("3.10", None), ("3", None), ("2.7", None), (None, "win32-amd64")])
def test_hosts_that_lectern_does_not_run_on_are_a_misuse(python: str | None, platform: str | None) -> None:
    with pytest.raises(Misuse, match=r"^(PYTHON_VERSION|PLATFORM)="):
        Target.parse(python, platform)


def made(folder: Path, *words: str) -> str:
    # These tests may run under make themselves: its variables would make this one say that it is the second.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    env |= {"PYTHON_VERSION": "3.99.1", "PLATFORM": "windows/amd64"}
    return subprocess.run(
        ["make", *words], cwd=folder, env=env, capture_output=True, text=True, timeout=30, check=True
    ).stdout


def test_only_what_is_typed_at_make_release_counts() -> None:
    for typed, last in (((), ["-m", "playbooks.release"]), (("PYTHON_VERSION=3.13",), ["--python-version", '"3.13"'])):
        assert made(ROOT, "--dry-run", "--old-file=.venv/.built", "release", *typed).split()[-2:] == last


def test_the_uv_that_builds_is_that_of_the_lock_by_its_checksums(tmp_path: Path) -> None:
    """Of each platform: a mirror that has other files, or somebody in between, is found out."""
    for name in ("Makefile", "uv.lock"):
        shutil.copy(ROOT / name, tmp_path)
    made(tmp_path, ".uv/uv.txt")
    (uv,) = [one for one in tomllib.loads((ROOT / "uv.lock").read_text())["package"] if one["name"] == "uv"]
    name, *options = (tmp_path / ".uv/uv.txt").read_text().split()
    assert name == f"uv=={uv['version']}"
    assert {*options} == {f"--hash={one['hash']}" for one in [uv["sdist"], *uv["wheels"]]}


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    content = tar.extractfile(name)
    assert content is not None
    return content.read()


def test_a_person_whose_git_shows_signatures_builds_a_release_of_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says whose each one is before the line that is asked for."""
    project, key = tmp_path / "project", tmp_path / "key"
    project.mkdir()
    (project / "pyproject.toml").write_text('[project]\nversion = "1.0.0"\n')
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=60)
    (tmp_path / "signers").write_text(f"me {key.with_suffix('.pub').read_text()}")
    (tmp_path / "config").write_text(
        f"[user]\n\tname = me\n\temail = me\n\tsigningkey = {key}\n[log]\n\tshowSignature = true\n"
        f'[gpg]\n\tformat = ssh\n[gpg "ssh"]\n\tallowedSignersFile = {tmp_path}/signers\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-S", "-m", "signed"]):
        subprocess.run(["git", "-C", str(project), *words], check=True, timeout=60)
    found = release.look(project)
    assert (found.version, found.dirty) == ("1.0.0", False)
    assert re.fullmatch("[0-9a-f]{40}", found.commit or "")
