"""The release file: all that a host needs, each file checked, the same bytes each time."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lectern.errors import CallAPerson, Misuse, TryAgain
from playbooks import release
from playbooks.release import Target
from town.ports import free_port

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
TARGET = Target((3, 13), "x86_64")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests' output is theirs."""


class Index:
    """An index of packages on loopback, with wheels that nobody can install."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/simple"

    def has(self, *wheels: str) -> str:
        """Put *wheels* of one package into it; returns how they are locked."""
        name = wheels[0].partition("-")[0]
        page = self._folder / "simple" / name
        page.mkdir(parents=True)
        for wheel in wheels:
            tag, info = "-".join(wheel.removesuffix(".whl").split("-")[2:]), f"{name}-1.0.dist-info"
            with zipfile.ZipFile(page / wheel, "w") as file:
                file.writestr(f"{name}.py", wheel)
                file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
                file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
                file.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
        (page / "index.html").write_text("".join(f'<a href="{wheel}">{wheel}</a>' for wheel in wheels))
        return f"{name}==1.0 {' '.join(f'--hash=sha256:{_sha256(page / wheel)}' for wheel in wheels)}\n"

    def close(self) -> None:
        """It does not answer any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The only index that uv knows, and a cache of its own."""
    found = Index(tmp_path / "index")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_DEFAULT_INDEX", found.url)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    yield found
    found.close()


def test_it_holds_what_is_locked_and_nothing_of_the_machine_that_built_it(release_file: Path) -> None:
    with tarfile.open(release_file) as tar:
        first, *others = tar.getmembers()
        assert first.name == "manifest.json"
        manifest = json.loads(_content(tar, first.name))
        sums = [
            (one.name.removeprefix("packages/"), hashlib.sha256(_content(tar, one.name)).hexdigest()) for one in others
        ]
        told = "".join(f"{digest}  {name}\n" for name, digest in sums)
        assert manifest["sha256"] == hashlib.sha256(told.encode()).hexdigest()
        assert {(one.uid, one.gid, one.mode, one.mtime) for one in others} == {(0, 0, 0o644, manifest["built_at"])}
        names = {name for name, _ in sums}
        assert {"flows/resident/process.py", "lectern/cli/__init__.py", "prefect/__init__.py"} <= names
        assert [one for one in names if one.endswith(("/direct_url.json", "/uv_cache.json")) or "bin/" in one[:4]] == []
        own = next(name for name in names if re.fullmatch(r"lectern-[^/]+/RECORD", name))
        assert "bin/" not in _content(tar, f"packages/{own}").decode()


def test_builds_side_by_side_do_not_take_each_others_half_written_file(tmp_path: Path) -> None:
    """Two people, or two shells, type make release at the same time."""
    file, tree = tmp_path / "lectern.tar.gz", tmp_path / "tree"
    tree.mkdir()
    (tree / "one.py").write_bytes(b"x" * 1_000_000)
    with ThreadPoolExecutor(4) as builders:
        checksums = list(builders.map(lambda _: release.pack(file, tree, b"{}", 0), range(40)))
    assert checksums[0].read_text() == f"{_sha256(file)}  {file.name}\n"
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


def test_what_was_fetched_once_is_not_fetched_again(tmp_path: Path, index: Index) -> None:
    wanted = index.has("tiny-1.0-py3-none-any.whl")
    release.install(wanted, TARGET, tmp_path / "first")
    index.close()
    release.install(wanted, TARGET, tmp_path / "second")
    names = [
        sorted(str(one.relative_to(tmp_path / tree)) for one in (tmp_path / tree).rglob("*"))
        for tree in ("first", "second")
    ]
    assert names[0] == names[1]
    assert "tiny.py" in names[0]
    assert ".lock" not in names[0]


def test_a_wheel_that_comes_with_another_checksum_is_refused_by_its_name(tmp_path: Path, index: Index) -> None:
    index.has("tiny-1.0-py3-none-any.whl")
    with pytest.raises(CallAPerson, match=r"`tiny==1\.0`.*Hash mismatch.* find out what"):
        release.install(f"tiny==1.0 --hash=sha256:{'0' * 64}\n", TARGET, tmp_path / "tree")


def test_without_a_network_it_says_which_package_can_not_be_fetched(tmp_path: Path, index: Index) -> None:
    wanted = index.has("tiny-1.0-py3-none-any.whl")
    index.close()
    with pytest.raises(TryAgain, match=r"simple/tiny/.*See that this machine reaches the index"):
        release.install(wanted, TARGET, tmp_path / "tree")


def test_a_package_without_a_wheel_for_the_hosts_is_refused_by_its_name(tmp_path: Path, index: Index) -> None:
    wanted = index.has("tiny-1.0-py3-none-any.whl") + index.has("big-1.0-cp313-cp313-win_amd64.whl")
    with pytest.raises(Misuse, match=r"big==1\.0 has no wheels with a matching .* Build cp313-linux-x86_64"):
        release.install(wanted, TARGET, tmp_path / "tree")


@pytest.mark.parametrize(
    ("wheels", "chosen"),
    [
        (["big-1.0-py3-none-any.whl", "big-1.0-cp313-cp313-manylinux_2_17_x86_64.whl"], "manylinux_2_17"),
        (["big-1.0-cp311-abi3-manylinux2014_x86_64.whl", "big-1.0-cp312-cp312-manylinux2014_x86_64.whl"], "cp311-abi3"),
        (["big-1.0-py3-none-any.whl", "big-1.0-cp313-cp313-manylinux_2_34_x86_64.whl"], "none-any"),
    ],
)
def test_of_several_wheels_the_best_one_that_runs_on_the_hosts_is_taken(
    tmp_path: Path, index: Index, wheels: list[str], chosen: str
) -> None:
    """Whatever Python and platform this machine has."""
    release.install(index.has(*wheels), TARGET, tmp_path / "tree")
    assert chosen in (tmp_path / "tree/big.py").read_text()


def test_a_package_for_some_patch_versions_of_a_python_is_there_for_all_of_them(tmp_path: Path, index: Index) -> None:
    name, _, hashes = index.has("tiny-1.0-py3-none-any.whl").partition(" ")
    for number, python in enumerate([(3, 11), (3, 12)]):
        wanted = f"{name} ; python_full_version < '3.11.3' {hashes}"
        release.install(wanted, Target(python, "x86_64"), tmp_path / str(number))
        assert (tmp_path / str(number) / "tiny.py").exists() is (python == (3, 11))


@pytest.mark.parametrize(("python", "platform"), [("3.10", None), ("3", None), ("2.7", None), (None, "win32-amd64")])
def test_hosts_that_lectern_does_not_run_on_are_a_misuse(python: str | None, platform: str | None) -> None:
    with pytest.raises(Misuse, match=r"^(PYTHON_VERSION|PLATFORM)="):
        Target.parse(python, platform)


def test_only_what_is_typed_at_make_release_counts(tmp_path: Path) -> None:
    def said(*words: str) -> str:
        argv = ["make", "--dry-run", "--old-file=.venv/.built", *words]
        # These tests may run under make themselves: its variables would make this one say that it is the second.
        env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
        env |= {"PYTHON_VERSION": "3.99.1", "PLATFORM": "windows/amd64"}
        return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30, check=True).stdout

    assert said("release").split()[-2:] == ["-m", "playbooks.release"]
    assert said("release", "PYTHON_VERSION=3.13").split()[-2:] == ["--python-version", '"3.13"']


def test_the_uv_that_builds_is_that_of_the_lock_by_its_checksums(tmp_path: Path) -> None:
    """Of each platform: a mirror that has other files, or somebody in between, is found out."""
    for name in ("Makefile", "uv.lock"):
        shutil.copy(ROOT / name, tmp_path)
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    subprocess.run(["make", ".uv/uv.txt"], cwd=tmp_path, env=env, capture_output=True, timeout=30, check=True)
    (locked,) = [one for one in tomllib.loads((ROOT / "uv.lock").read_text())["package"] if one["name"] == "uv"]
    hashes = {one["hash"] for one in [locked["sdist"], *locked["wheels"]]}
    name, *options = (tmp_path / ".uv/uv.txt").read_text().split()
    assert name == f"uv=={locked['version']}"
    assert set(options) == {f"--hash={one}" for one in hashes}


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
