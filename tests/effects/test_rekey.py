"""Keys are renamed by rules that can be taken back, whatever happens meanwhile, also by the command."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import assume, given
from hypothesis import strategies as st

from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.redis import key_patterns, rename
from lectern.redis.key_patterns import Pattern
from lectern.redis.rename import Rule, renamed
from lectern.states import Resolution
from tests import typed
from tests.effects.redis_servers import paused, redis_server, url_of
from tests.strategies import resolutions
from town.ports import free_port

WAITING = ("waiting:{record_id}:{resolution}", "{record_id}_{resolution}")
CLASSES = ("class/{class_id}", "order:{class_id}:[of*2019?]")
RULE = Rule.parse(*WAITING)


def new_name(rule: Rule, name: bytes) -> bytes | None:
    """The new name of *name*, or None if it does not fit the rule."""
    values = rule.old.values(name)
    return None if values is None else rule.new.name(**values).encode()


def names_of(client: redis.Redis) -> set[bytes]:
    return set(client.scan_iter(count=1000))


def everything(client: redis.Redis) -> dict[bytes, bytes]:
    """Every key, its value and when it expires, as Redis itself writes them down."""
    found: dict[bytes, bytes] = {}
    for name in client.scan_iter(count=1000):
        expires: Any = client.pexpiretime(name)
        value: Any = client.dump(name)
        found[name] = f"{expires} ".encode() + value
    return found


def fill(client: redis.Redis, number: int) -> set[bytes]:
    """Lists with a time to live."""
    names = {f"waiting:{at}:{list(Resolution)[at % 4]}".encode() for at in range(number)}
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.rpush(name, b"c-of-" + name)
            pipe.pexpireat(name, 4_000_000_000_000)
        pipe.execute()
    return names


@pytest.mark.parametrize(
    "name",
    ["waiting:1:360P", "waiting:1:720p", "waiting::720P", f"waiting:{10**19}:720P", "class/" + "x" * 251, "class/a b"],
)
def test_a_name_that_only_looks_alike_is_left_alone(client: redis.Redis, name: str) -> None:
    client.set(name, b"odd")
    assert renamed(client, [RULE, Rule.parse(*CLASSES)]).matched == 0
    assert names_of(client) == {name.encode()}


def test_of_many_taken_names_some_are_told_and_all_are_counted(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run says the same before."""
    monkeypatch.setattr(rename, "CLASHES_KEPT", 5)
    taken = {(old.decode(), (new_name(RULE, old) or b"").decode()) for old in sorted(fill(client, 20))[:7]}
    for _, name in taken:
        client.set(name, "somebody else's")
    planned = renamed(client, [RULE], dry_run=True)
    assert planned.lines()[0].startswith("13 of 20 keys would be renamed")
    done = renamed(client, [RULE])
    for one in (planned, done):
        assert (one.matched, one.renamed, one.clash_count) == (20, 13 * (one is done), 7)
        assert (len(one.clashes), set(one.clashes) < taken) == (5, True)
    assert (len(done.lines()[1:-1]), done.lines()[-1]) == (5, "... and 2 more clashes")


KILLED = """
import os, signal, sys
import redis
from lectern.redis import rename
left = [7]
def tick(*_):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return 100
rename.next_count = tick  # after each slice
with redis.Redis.from_url(sys.argv[1]) as client:
    rename.renamed(client, [rename.Rule.parse(*sys.argv[2:])])
"""


def test_killed_in_the_middle_it_goes_on(client: redis.Redis) -> None:
    """What was renamed stays, the next run does the rest, the one after it nothing; and all can be taken back."""
    olds = fill(client, 2000)
    before = everything(client)
    argv = [sys.executable, "-c", KILLED, url_of(client), *WAITING]
    assert subprocess.run(argv, check=False, timeout=60).returncode == -signal.SIGKILL
    left = names_of(client) & olds
    assert 0 < len(left) < 2000, "the kill was not in the middle"
    assert renamed(client, [RULE]).renamed == len(left)
    assert everything(client) == {new_name(RULE, name): value for name, value in before.items()}
    assert renamed(client, [RULE]).renamed == 0
    renamed(client, [RULE.inverse])
    assert everything(client) == before


def test_a_forgotten_script_is_given_again(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(client, 5000)

    def forget(count: int, _: float) -> int:
        client.script_flush()
        return count

    monkeypatch.setattr(rename, "next_count", forget)
    done = renamed(client, [RULE])
    assert (done.renamed, done.slices > 1) == (5000, True)


def test_a_server_without_clock_is_timed_from_here(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts of old servers cannot look at it."""
    monkeypatch.setattr(rename, "_SCRIPT", rename._SCRIPT.replace("rawget(_G, 'os')", "nil"))
    monkeypatch.setattr(rename, "MOST_COUNT", 1000)
    fill(client, 3000)
    done = renamed(client, [RULE])
    assert done.renamed == 3000
    assert done.longest_slice_s > 0


def test_slices_follow_the_time_they_take() -> None:
    """A quick one is doubled at most, a slow one cut at once; neither end is passed."""
    assert rename.next_count(1000, rename.TARGET_S) == 1000
    assert rename.next_count(1000, 0) == 2000
    assert rename.next_count(1000, 10 * rename.TARGET_S) == 100
    assert rename.next_count(1000, 60) == rename.LEAST_COUNT
    assert rename.next_count(rename.MOST_COUNT, 0) == rename.MOST_COUNT


digits = st.from_regex(r"[0-9]{1,19}", fullmatch=True)
names = st.from_regex(r"[A-Za-z0-9_.:-]{1,250}", fullmatch=True)
literals = st.text(st.sampled_from("ab0P_:|/ %.-[]*?^$\\()é课"), max_size=4)
fields = st.lists(st.sampled_from(["record_id", "resolution", "class_id", "host"]), unique=True, max_size=3)
separators = st.tuples(literals, st.sampled_from("|/ %[]*?^$\\()é课"), literals).map("".join)


@st.composite
def patterns(draw: st.DrawFn, named: list[str] | None = None) -> Pattern:
    chosen = draw(st.permutations(named) if named is not None else fields)
    between = separators if draw(st.integers(0, 9)) else literals
    text = "".join(f"{draw(between)}{{{name}}}" for name in chosen) + draw(literals)
    try:
        return Pattern.parse(text or "nothing")
    except Misuse:
        assume(False)
        raise


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    old = draw(patterns())
    new = draw(patterns(list(old.fields)))
    assume(not old.meets(new))
    return Rule.parse(old.text, new.text)


def values(draw: st.DrawFn, pattern: Pattern) -> dict[str, str]:
    kinds = {"record_id": digits, "resolution": resolutions.map(str)}
    return {field: draw(kinds.get(field, names)) for field in pattern.fields}


@given(st.data())
def test_a_rule_and_its_inverse_take_every_name_there_and_back(data: st.DataObject) -> None:
    """What the fields hold is kept, and a new name is not renamed again."""
    rule = data.draw(rules())
    held = data.draw(st.composite(values)(rule.old))
    old = rule.old.name(**held).encode()
    new = new_name(rule, old)
    assert new == rule.new.name(**held).encode()
    assert rule.new.values(new) == held
    assert new_name(rule.inverse, new) == old
    assert new_name(rule, new) is None
    assert rule.inverse.inverse == rule


@st.composite
def near(draw: st.DrawFn, pattern: Pattern) -> bytes:
    """A name that fits, or nearly does."""
    name = bytearray(pattern.name(**values(draw, pattern)).encode())
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(name)))
        name[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2) | st.sampled_from([b"P", b"1", b"\n"]))
    return bytes(name) or b"x"


@given(st.data())
def test_the_server_renames_what_the_regex_says_and_nothing_else(server: redis.Redis, data: st.DataObject) -> None:
    """Glob, Lua and regex come from one table: they agree on any bytes."""
    rule = data.draw(rules())
    there = {
        name: b"%d" % at
        for at, name in enumerate(data.draw(st.lists(near(rule.old) | near(rule.new) | st.binary(min_size=1))))
    }
    server.flushall()
    if there:
        server.mset(there)
    wanted = dict(there)
    clashes = set()
    for old, value in there.items():
        new = new_name(rule, old)
        if new is not None and new in there:
            clashes.add((old.decode(), new.decode()))
        elif new is not None:
            del wanted[old]
            wanted[new] = value
    planned = renamed(server, [rule], dry_run=True)
    done = renamed(server, [rule])
    found = {name: server.get(name) for name in names_of(server)}
    assert found == wanted
    assert set(done.clashes) == set(planned.clashes) == clashes
    assert done.renamed == planned.matched - planned.clash_count
    assert renamed(server, [rule.inverse]).clash_count == 0 or clashes


WRONG: dict[tuple[str, ...], str] = {
    (): "No rule is given",
    ("a:{record_id}",): "is no rule",
    ("waiting:*=>class:*",): "Write a field for what differs",
    ("*=>b",): "a * is no wildcard",
    ("=>b",): "is no pattern",
    ("a\t{record_id}=>b",): "is no pattern",
    ("x" * 251 + "=>b",): "is no pattern",
    ("{Record}=>b",): "a brace belongs to no field",
    ("a}{record_id}=>b",): "a brace belongs to no field",
    ("{record_id}:{record_id}=>b",): "{record_id}:{record_id}: each field may be named once",
    ("".join(f"{{f{at}}}/" for at in range(10)) + "=>b",): "at most 9",
    ("{record_id}{resolution}=>b",): "taken apart in two ways",
    ("{record_id}0{resolution}=>b",): "taken apart in two ways",
    ("{class_id}:{host}=>b",): "taken apart in two ways",
    ("a:{record_id}=>a:{class_id}x",): "the fields of the two differ",
    ("{class_id}=>class:{class_id}",): "renamed again",
    ("class:{class_id}=>class:new:{class_id}",): "renamed again",
    ("{class_id}=>class/{class_id}", "a:{record_id}=>b/{record_id}"): "{class_id} and a:{record_id}",
    ("a:{record_id}=>b:{record_id}", "b:{record_id}=>c:{record_id}"): "b:{record_id} and b:{record_id}",
    ("a:{record_id}=>c:{record_id}", "b:{class_id}=>c:{class_id}"): "c:{record_id} and c:{class_id}",
}


@pytest.mark.parametrize("lines", WRONG)
def test_rules_that_can_not_be_right_are_refused_in_words(lines: tuple[str, ...]) -> None:
    """Before or after, there or back, a name is the business of one rule, and is taken apart in one way."""
    with pytest.raises(Misuse) as refused:
        rename.rules_in(list(lines))
    assert WRONG[lines] in refused.value.message


@pytest.mark.parametrize(
    "text", ["{class_id}_{record_id}", "{record_id}_{class_id}", "{class_id}_{resolution}", "{class_id}|{host}", "one"]
)
def test_fields_may_be_parted_by_what_one_of_them_may_hold(text: str) -> None:
    """As long as only one way of reading remains."""
    assert Pattern.parse(text).text == text


def test_rules_are_read_from_lines_with_a_star_and_fields() -> None:
    """Comments and empty lines are passed over; back turns each around."""
    lines = ["# the waiting lists", "", "  waiting:{record_id}:{resolution}  =>  {record_id}_{resolution} "]
    assert rename.rules_in(lines) == [RULE]
    assert rename.rules_in(lines, back=True) == [Rule.parse(*reversed(WAITING))]
    (rule,) = rename.rules_in(["a*:{record_id}=>b:{record_id}"])
    assert new_name(rule, b"a*:7") == b"b:7"
    assert new_name(rule, b"aa:7") is None
    assert all(not set(kind.ending) & set(kind.letters) for kind in (*key_patterns.KINDS.values(), key_patterns.NAME))


# Servers that will not.


def test_a_cluster_and_a_replica_are_refused(tmp_path: Path) -> None:
    """It says whom to ask; a dry run only reads."""
    cluster = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with redis_server(tmp_path, *cluster) as client, pytest.raises(Misuse, match="Redis Cluster"):
        renamed(client, [RULE])
    with redis_server(tmp_path) as replica:
        replica.set("waiting:1:720P", "c")
        replica.replicaof("127.0.0.1", 1)  # nobody is there, so that its own keys stay
        with pytest.raises(CallAPerson, match="It is a replica: name its master in REDIS_URL"):
            renamed(replica, [RULE])
        assert renamed(replica, [RULE], dry_run=True).matched == 1


def test_a_user_who_may_not_is_told_what_is_needed(client: redis.Redis) -> None:
    fill(client, 3)
    client.acl_setuser(
        "reader", enabled=True, passwords=["+secret"], commands=["+@all", "-renamenx"], keys=["*"], reset=True
    )
    url = url_of(client).replace("redis://", "redis://reader:secret@")
    with rename.opened(url) as reader, pytest.raises(CallAPerson, match=r"^Redis refused: .* needs INFO, SCAN, EXISTS"):
        renamed(reader, [RULE])
    with rename.opened(url.replace("secret", "wrong")) as stranger, pytest.raises(Misuse, match="refuses the login"):
        renamed(stranger, [RULE])
    assert len([name for name in names_of(client) if name.startswith(b"waiting:")]) == 3


def test_a_server_that_hangs_or_goes_away_in_the_middle_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How far it came, and that the same can be typed again."""
    with redis_server(tmp_path) as client:
        fill(client, 3000)
        hangs = pytest.raises(TryAgain, match="does not answer")
        with rename.opened(url_of(client), timeout_s=0.3) as other, paused(client), hangs:
            renamed(other, [RULE])

        def away(count: int, _: float) -> int:
            client.shutdown(nosave=True)
            return count

        monkeypatch.setattr(rename, "next_count", away)
        said = r"Redis does not answer: .* [1-9]\d* keys, or a slice more, were"
        with rename.opened(url_of(client), timeout_s=5) as other, pytest.raises(TryAgain, match=said):
            renamed(other, [RULE])


# The command.


def lectern(client: redis.Redis, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return typed.lectern(folder, "rekey", *arguments, REDIS_URL=url_of(client))


def test_the_command_counts_renames_and_takes_back(client: redis.Redis, tmp_path: Path) -> None:
    """Rules come from a file and from options; what programs read is JSON."""
    (tmp_path / "rules").write_text("# waiting lists\n" + " => ".join(WAITING) + "\n")
    extra = ["--rule", "=>".join(CLASSES)]
    olds = fill(client, 20)
    client.set("class/c-1", "c")
    before = everything(client)
    planned = lectern(client, tmp_path, "rules", *extra, "--dry-run", "--json")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert json.loads(planned.stdout)["matched"] == 21
    assert everything(client) == before
    done = lectern(client, tmp_path, "rules", *extra)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("21 keys renamed")
    assert not olds & names_of(client)
    again = lectern(client, tmp_path, "rules", *extra)
    assert again.stdout.startswith("0 keys renamed")
    assert lectern(client, tmp_path, "rules", *extra, "--back").returncode == 0
    assert everything(client) == before


def test_the_command_ends_with_1_if_names_clash_and_with_2_if_it_is_misused(
    client: redis.Redis, tmp_path: Path
) -> None:
    fill(client, 2)
    client.set("1_480P", "somebody else's")
    done = lectern(client, tmp_path, "--rule", "=>".join(WAITING))
    assert "clash: waiting:1:480P stays as it is, 1_480P is there already\n" in done.stdout
    found = json.loads(lectern(client, tmp_path, "--rule", "=>".join(WAITING), "--json").stdout)
    assert (done.returncode, found["renamed"], found["clashes"]) == (1, 0, [["waiting:1:480P", "1_480P"]])
    for words, *arguments in (["No rule is given"], ["is no rule", "--rule", "a=b"], ["No such file", "no-file"]):
        done = lectern(client, tmp_path, *arguments)
        assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (2, True, False)
