"""Renaming Redis keys on servers that will not, and by the command."""

import json
import subprocess
from pathlib import Path

import pytest
import redis

from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.redis import rename
from lectern.redis.rename import Rule, renamed
from tests import typed
from tests.effects.redis_servers import paused, redis_server, url_of
from tests.effects.rekeying import CLASSES, WAITING, everything, fill, names_of
from town.ports import free_port

pytestmark = pytest.mark.live


def test_a_cluster_and_a_replica_are_refused(tmp_path: Path) -> None:
    """It says whom to ask; a dry run only reads."""
    cluster = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with redis_server(tmp_path, *cluster) as client, pytest.raises(Misuse, match="Redis Cluster"):
        renamed(client, [Rule.parse(*WAITING)])
    with redis_server(tmp_path) as replica:
        replica.set("waiting:1:720P", "c")
        replica.replicaof("127.0.0.1", 1)  # nobody is there, so that its own keys stay
        with pytest.raises(CallAPerson, match="It is a replica: name its master in REDIS_URL"):
            renamed(replica, [Rule.parse(*WAITING)])
        assert renamed(replica, [Rule.parse(*WAITING)], dry_run=True).matched == 1


def test_a_user_who_may_not_is_told_what_is_needed(client: redis.Redis) -> None:
    """What was renamed before the refusal is in the journal, and counted."""
    fill(client, 3)
    client.acl_setuser(
        "reader", enabled=True, passwords=["+secret"], commands=["+@all", "-renamenx"], keys=["*"], reset=True
    )
    url = url_of(client).replace("redis://", "redis://reader:secret@")
    with rename.opened(url) as reader, pytest.raises(CallAPerson, match=r"^Redis refused: .* needs INFO, SCAN, EXISTS"):
        renamed(reader, [Rule.parse(*WAITING)])
    with rename.opened(url.replace("secret", "wrong")) as stranger, pytest.raises(Misuse, match="refuses the login"):
        renamed(stranger, [Rule.parse(*WAITING)])
    assert len([name for name in names_of(client) if name.startswith(b"waiting:")]) == 3


def test_a_server_that_goes_away_in_the_middle_is_said_in_words(tmp_path: Path) -> None:
    """How far it came, and that the same can be typed again."""
    with redis_server(tmp_path) as client:
        fill(client, 3000)
        other = rename.opened(url_of(client), timeout_s=5)

        def away(_: int) -> None:
            client.shutdown(nosave=True)

        with other, pytest.raises(TryAgain, match=r"Redis does not answer: .* [1-9]\d* keys, or a slice more, were"):
            renamed(other, [Rule.parse(*WAITING)], on_slice=away)


def test_a_server_that_hangs_is_not_waited_for_without_end(client: redis.Redis) -> None:
    with (
        rename.opened(url_of(client), timeout_s=0.3) as other,
        paused(client),
        pytest.raises(TryAgain, match="does not answer"),
    ):
        renamed(other, [Rule.parse(*WAITING)])


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(Misuse, match="REDIS_URL is no Redis URL"):
        rename.opened("http://127.0.0.1/")


# -- the command -------------------------------------------------------------------------------------------------------


def lectern(client: redis.Redis, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return typed.lectern(folder, "rekey", *arguments, REDIS_URL=url_of(client))


def test_the_command_counts_renames_and_takes_back(client: redis.Redis, tmp_path: Path) -> None:
    """Rules come from a file and from options; what programs read is JSON, and no bar is in it."""
    (tmp_path / "rules").write_text("# waiting lists\n" + " => ".join(WAITING) + "\n")
    extra = ["--rule", "=>".join(CLASSES)]
    olds = fill(client, 20)
    client.set("class/c-1", "c")
    before = everything(client)
    planned = lectern(client, tmp_path, "rules", *extra, "--dry-run", "--json")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert json.loads(planned.stdout)["matched"] == 21
    assert everything(client) == before
    done = lectern(client, tmp_path, "rules", *extra, "--journal", "keys.tsv")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("21 keys renamed")
    assert len((tmp_path / "keys.tsv").read_text().splitlines()) == 21
    assert not olds & names_of(client)
    again = lectern(client, tmp_path, "rules", *extra)
    assert again.stdout.startswith("0 keys renamed")
    assert lectern(client, tmp_path, "rules", *extra, "--back").returncode == 0
    assert everything(client) == before


def test_the_command_lists_clashes_and_ends_with_1(client: redis.Redis, tmp_path: Path) -> None:
    fill(client, 2)
    client.set("1_480P", "somebody else's")
    done = lectern(client, tmp_path, "--rule", "=>".join(WAITING))
    assert done.returncode == 1
    assert "clash: waiting:1:480P stays as it is, 1_480P is there already\n" in done.stdout
    found = json.loads(lectern(client, tmp_path, "--rule", "=>".join(WAITING), "--json").stdout)
    assert (found["renamed"], found["clashes"]) == (0, [["waiting:1:480P", "1_480P"]])


def test_misuse_of_the_command_ends_with_2_in_words(client: redis.Redis, tmp_path: Path) -> None:
    for arguments, words in (
        ((), "No rule is given"),
        (("--rule", "a=b"), "is no rule"),
        (("no-file",), "No such file"),
    ):
        done = lectern(client, tmp_path, *arguments)
        assert done.returncode == 2, arguments
        assert words in done.stderr
        assert "Traceback" not in done.stderr
