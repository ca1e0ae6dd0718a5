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
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lectern.errors import CallAPerson, Misuse, TryAgain
from playbooks.release import download, lock, source, tarball
from playbooks.release.lock import Locked
from playbooks.release.target import Target
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

    def has(self, *wheels: str) -> Locked:
        """Put *wheels* of one package into it; returns how they are locked."""
        name = wheels[0].partition("-")[0]
        page = self._folder / "simple" / name
        page.mkdir(parents=True)
        for wheel in wheels:
            with zipfile.ZipFile(page / wheel, "w") as file:
                file.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
                file.writestr(f"{name}-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n# {wheel}\n")
        (page / "index.html").write_text("".join(f'<a href="{wheel}">{wheel}</a>' for wheel in wheels))
        hashes = tuple(f"--hash=sha256:{_sha256(page / wheel)}" for wheel in wheels)
        return Locked(name, f"{name}==1.0", None, hashes)

    def close(self) -> None:
        """It does not answer any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The only index that pip knows."""
    found = Index(tmp_path / "index")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", found.url)
    monkeypatch.setenv("PIP_RETRIES", "1")
    yield found
    found.close()


def test_it_holds_all_that_its_manifest_lists_and_nothing_else(release_file: Path) -> None:
    with tarfile.open(release_file) as tar:
        first, *others = tar.getmembers()
        assert first.name == "manifest.json"
        manifest = json.loads(_content(tar, first.name))
        sums = {one.name: hashlib.sha256(_content(tar, one.name)).hexdigest() for one in others}
        assert sums == {name: listed["sha256"] for name, listed in manifest["files"].items()}
        assert {(one.uid, one.gid, one.mtime) for one in others} == {(0, 0, manifest["built_at"])}
        assert sorted(name for name in sums if not name.startswith("wheels/")) == ["bin/uv", "requirements.txt"]
        requirements = _content(tar, "requirements.txt").decode()
        wheels = {digest for name, digest in sums.items() if name.endswith(".whl")}
        assert set(re.findall("sha256:([0-9a-f]{64})", requirements)) == wheels
        own = next(name for name in sums if name.startswith("wheels/lectern-"))
        with zipfile.ZipFile(tar.extractfile(own) or pytest.fail(own)) as wheel:
            assert {"flows/resident/process.py", "lectern/cli/__init__.py"} <= set(wheel.namelist())


def test_builds_side_by_side_do_not_take_each_others_half_written_file(tmp_path: Path) -> None:
    """Two people, or two shells, type make release at the same time."""
    file, content = tmp_path / "lectern.tar.gz", b"x" * 1_000_000
    with ThreadPoolExecutor(4) as builders:
        checksums = list(builders.map(lambda _: tarball.write(file, content), range(40)))
    assert file.read_bytes() == content
    assert checksums[0].read_text() == f"{hashlib.sha256(content).hexdigest()}  {file.name}\n"
    assert sorted(one.name for one in tmp_path.iterdir()) == [file.name, checksums[0].name]


@pytest.mark.usefixtures("release_file")  # its wheels are in the cache now
def test_two_builds_are_byte_for_byte_the_same_and_need_no_network(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("flows", "lib", "playbooks"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "uv.lock", "README.md", "RUNBOOK.md", "RUNBOOK.zh.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tree)
    argv = [sys.executable, "-m", "playbooks.release", "--cache", str(ROOT / "dist" / ".wheels"), "--dist"]
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


def test_a_wheel_that_was_tampered_with_in_the_cache_is_refused_by_its_name(tmp_path: Path, index: Index) -> None:
    wanted = index.has("tiny-1.0-py3-none-any.whl")
    fetch = partial(download.fetched, [wanted], TARGET, tmp_path / "cache")
    assert [file.name for file in fetch(tmp_path / "first")] == ["tiny-1.0-py3-none-any.whl"]
    index.close()
    assert [file.name for file in fetch(tmp_path / "second")] == ["tiny-1.0-py3-none-any.whl"], "out of the cache"
    [kept] = (tmp_path / "cache" / TARGET.name).iterdir()
    kept.write_bytes(b"as nobody locked")
    with pytest.raises(CallAPerson, match=rf"^tiny==1\.0: file://.*{kept.name} has sha256 {_sha256(kept)}"):
        fetch(tmp_path / "third")


def test_a_wheel_that_comes_with_another_checksum_is_refused_by_its_name_and_not_kept(
    tmp_path: Path, index: Index
) -> None:
    wanted = replace(index.has("tiny-1.0-py3-none-any.whl"), hashes=(f"--hash=sha256:{'0' * 64}",))
    with pytest.raises(CallAPerson, match=r"^tiny==1\.0: http://127.0.0.1.* has sha256 .* uv\.lock does not list"):
        download.fetched([wanted], TARGET, tmp_path / "cache", tmp_path)
    assert list((tmp_path / "cache" / TARGET.name).iterdir()) == []


def test_without_a_network_it_says_which_package_can_not_be_fetched(tmp_path: Path, index: Index) -> None:
    wanted = index.has("tiny-1.0-py3-none-any.whl")
    index.close()
    with pytest.raises(
        TryAgain, match=r"^tiny==1\.0: could not be fetched \(.*See that this machine reaches the index"
    ):
        download.fetched([wanted], TARGET, tmp_path / "cache", tmp_path)
    assert list((tmp_path / "cache" / TARGET.name).iterdir()) == []


def test_a_package_without_a_wheel_for_the_hosts_is_refused_by_its_name(tmp_path: Path, index: Index) -> None:
    packages = [index.has("tiny-1.0-py3-none-any.whl"), index.has("big-1.0-cp313-cp313-win_amd64.whl")]
    with pytest.raises(Misuse, match=r"^big==1\.0: uv\.lock has no wheel for cp313-linux-x86_64 with glibc 2\.28"):
        download.fetched(packages, TARGET, tmp_path / "cache", tmp_path)


@pytest.mark.parametrize(
    ("wheels", "chosen"),
    [
        (["big-1.0-py3-none-any.whl", "big-1.0-cp313-cp313-manylinux_2_17_x86_64.whl"], "manylinux_2_17"),
        (["big-1.0-cp311-abi3-manylinux2014_x86_64.whl", "big-1.0-cp312-cp312-manylinux2014_x86_64.whl"], "cp311-abi3"),
        (["big-1.0-py3-none-any.whl", "big-1.0-cp313-cp313-manylinux_2_34_x86_64.whl"], "none-any"),
        (["big-1.0-py3-none-any.whl", "big-1.0-cp313-cp313-musllinux_1_2_x86_64.whl"], "none-any"),
        (["big-1.0-py3-none-any.whl", "big-1.0-cp313-cp313t-manylinux_2_17_x86_64.whl"], "none-any"),
    ],
)
def test_of_several_wheels_the_best_one_that_runs_on_the_hosts_is_taken(
    tmp_path: Path, index: Index, wheels: list[str], chosen: str
) -> None:
    [file] = download.fetched([index.has(*wheels)], TARGET, tmp_path / "cache", tmp_path)
    assert chosen in file.name


def test_a_package_for_some_hosts_of_a_python_is_packed_with_its_marker() -> None:
    exported = "tiny==1.0 ; python_full_version < '3.11.3' \\\n    --hash=sha256:a \\\n    --hash=sha256:b\nbig==2\n"
    tiny, big = lock.wanted(exported, Target((3, 11), "x86_64"))
    assert (tiny.pinned, tiny.hashes) == ("tiny==1.0", ("--hash=sha256:a", "--hash=sha256:b"))
    assert tiny.line("--hash=sha256:b") == 'tiny==1.0 ; python_full_version < "3.11.3" --hash=sha256:b\n'
    assert lock.wanted(exported, Target((3, 12), "x86_64")) == [big]


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
    found = source.look(project)
    assert (found.version, found.dirty) == ("1.0.0", False)
    assert re.fullmatch("[0-9a-f]{40}", found.commit or "")
