"""Keys are renamed by rules that can be taken back, whatever happens meanwhile, also by the command."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import redis
from hypothesis import assume, given
from hypothesis import strategies as st

from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.i18n import translated
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
    names = {f"waiting:{at}:{list(Resolution)[at % 4]}".encode() for at in range(number)}
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.rpush(name, b"c-of-" + name)
        pipe.execute()
    return names


def test_keys_of_every_type_keep_their_value_and_their_time_to_live(client: redis.Redis) -> None:
    """And all come back by the inverse rules."""
    client.set("waiting:1:240P", "text")
    client.rpush("waiting:2:480P", "c-1", "c-2", "c-3")
    client.sadd("waiting:3:720P", "one", "two")
    client.zadd("waiting:4:1080P", {"one": 1, "two": 2.5})
    client.hset("waiting:0009223372036854775:720P", mapping={"field": b"\x00\xff"})
    client.xadd("waiting:9999999999999999999:720P", {"body": "{}"})
    for at, name in enumerate(sorted(names_of(client))[::2]):
        client.pexpireat(name, 4_000_000_000_000 + at)
    client.set("class/c-1.a:b_c", "c")
    before = everything(client)
    both = [RULE, Rule.parse(*CLASSES)]
    done = renamed(client, both)
    assert (done.renamed, done.matched, done.clash_count) == (7, 7, 0)
    names = {new_name(rule, name): value for name, value in before.items() for rule in both if new_name(rule, name)}
    assert everything(client) == names
    assert b"order:c-1.a:b_c:[of*2019?]" in names
    assert renamed(client, [rule.inverse for rule in both]).renamed == 7
    assert everything(client) == before


ODD = (
    b"waiting:1:720P\n",
    b"waiting:1:720P\x00",
    b"\nwaiting:1:720P",
    b"waiting:1:720P ",
    b"waiting:1:360P",
    b"waiting:1:720p",
    b"waiting::720P",
    b"waiting:12345678901234567890:720P",
    b"waiting:1:720P:720P",
    "waiting:\N{ARABIC-INDIC DIGIT ONE}:720P".encode(),
    b"waiting:1\xff:720P",
    b"\xff\xfe\x00",
    b"xwaiting:1:720P",
    b"WAITING:1:720P",
    b"waiting:" + b"1" * 70_000 + b":720P",
    b"class/" + b"x" * 251,
    b"class/",
    b"class/a b",
    b"class/\xe8\xaf\xbe",
)


def test_names_that_only_look_alike_are_left_alone(client: redis.Redis) -> None:
    client.mset(dict.fromkeys(ODD, b"odd"))
    before = everything(client)
    done = renamed(client, [RULE, Rule.parse(*CLASSES)])
    assert (done.matched, done.renamed) == (0, 0)
    assert everything(client) == before


def test_a_taken_name_is_never_written_over(client: redis.Redis, tmp_path: Path) -> None:
    """Both keys stay as they are, and are named; the others are renamed. A dry run says the same before."""
    fill(client, 10)
    client.set("4_240P", "somebody else's")
    client.set("7_1080P", "somebody else's", px=60_000_000)
    kept = {name: client.dump(name) for name in ("waiting:4:240P", "4_240P", "waiting:7:1080P", "7_1080P")}
    clashes = {("waiting:4:240P", "4_240P"), ("waiting:7:1080P", "7_1080P")}
    before = everything(client)
    planned = renamed(client, [RULE], dry_run=True, journal=tmp_path / "none")
    assert everything(client) == before
    assert not (tmp_path / "none").exists()
    assert (planned.matched, planned.renamed, planned.clash_count) == (10, 0, 2)
    assert planned.lines()[0].startswith("8 of 10 keys would be renamed")
    assert translated(planned.lines()[0], "zh").startswith("10 个键中有 8 个将改名")
    done = renamed(client, [RULE])
    assert (done.matched, done.renamed, done.clash_count) == (10, 8, 2)
    assert set(done.clashes) == set(planned.clashes) == clashes
    assert {name: client.dump(name) for name in kept} == kept
    assert "clash: waiting:4:240P stays as it is, 4_240P is there already" in done.lines()


def test_so_many_clashes_are_named_and_all_are_counted(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rename, "CLASHES_KEPT", 5)
    for name in fill(client, 20):
        client.set(new_name(RULE, name) or b"", "taken")
    done = renamed(client, [RULE])
    assert (len(done.clashes), done.clash_count) == (5, 20)
    assert done.lines()[-1] == "... and 15 more clashes"


def test_the_journal_names_every_key_and_goes_on_after_a_torn_line(client: redis.Redis, tmp_path: Path) -> None:
    journal = tmp_path / "keys.tsv"
    journal.write_bytes(b"waiting:77:240P\t77_2")
    olds = fill(client, 3000)
    renamed(client, [RULE], journal=journal)
    torn, *lines = journal.read_bytes().splitlines()
    assert torn == b"waiting:77:240P\t77_2"
    assert sorted(lines) == sorted(old + b"\t" + (new_name(RULE, old) or b"") for old in olds)


def test_a_journal_that_cannot_be_opened_or_written_is_told(
    client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before renaming, or while the server goes on: no failure of it is lost, and typed again, all is renamed."""
    olds = fill(client, 3000)
    with pytest.raises(Misuse, match=r"no/such/file: the journal cannot be written: No such file"):
        renamed(client, [RULE], journal=tmp_path / "no/such/file")
    assert names_of(client) == olds
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
        with pytest.raises(CallAPerson, match=r"Input/output error.*type the same again"):
            renamed(client, [RULE], journal=tmp_path / "keys.tsv")
    renamed(client, [RULE], journal=tmp_path / "keys.tsv")
    assert not set(olds) & set(names_of(client))


KILLED = """
import contextlib, os, pathlib, signal, sys
import redis
from lectern.redis import key_patterns, rename
url, journal, where, fatal = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
left = [fatal]
def tick(*_):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
rename.MOST_COUNT = 100
on_slice = tick if where == "between slices" else None
if where == "before the journal":
    rename._appended = lambda path: contextlib.nullcontext(tick)
with redis.Redis.from_url(url) as client:
    rule = key_patterns.Rule.parse("waiting:{record_id}:{resolution}", "{record_id}_{resolution}")
    rename.renamed(client, [rule], journal=journal, on_slice=on_slice)
"""


@pytest.mark.parametrize("fatal", [1, 7])
@pytest.mark.parametrize("where", ["between slices", "before the journal"])
def test_killed_in_the_middle_it_goes_on(client: redis.Redis, tmp_path: Path, where: str, fatal: int) -> None:
    """What was renamed stays, the next run does the rest, the one after it nothing; and all can be taken back."""
    journal = tmp_path / "keys.tsv"
    olds = fill(client, 2000)
    before = everything(client)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, url_of(client), str(journal), where, str(fatal)], check=False, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    left = {name for name in names_of(client) if name in olds}
    assert 0 < len(left) < 2000, "the kill was not in the middle"
    assert renamed(client, [RULE], journal=journal).renamed == len(left)
    assert everything(client) == {new_name(RULE, name): value for name, value in before.items()}
    assert renamed(client, [RULE], journal=journal).renamed == 0
    written = {line.split(b"\t")[0] for line in journal.read_bytes().splitlines()}
    assert left <= written <= olds
    renamed(client, [RULE.inverse])
    assert everything(client) == before


def test_progress_is_told_by_slices_and_a_forgotten_script_is_given_again(client: redis.Redis) -> None:
    """In keys looked at; they add up to about as many as there are."""
    fill(client, 5000)
    looked: list[int] = []

    def forget(number: int) -> None:
        client.script_flush()
        looked.append(number)

    done = renamed(client, [RULE], on_slice=forget)
    assert len(looked) == done.slices > 1
    assert done.renamed == rename.to_look_at(client, [RULE]) == 5000
    assert 4000 < sum(looked) < 15_000


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


WRONG_PATTERNS = {
    "": "no pattern",
    "a\n{record_id}": "no pattern",
    "a\t{record_id}": "no pattern",
    "x" * 251: "no pattern",
    "{Record}": "a brace belongs to no field",
    "a}{record_id}": "a brace belongs to no field",
    "{record_id}:{record_id}": "may be named once",
    "".join(f"{{f{at}}}/" for at in range(10)): "at most 9",
    "{record_id}{resolution}": "taken apart in two ways",
    "{class_id}{host}": "taken apart in two ways",
    "{class_id}:{host}": "taken apart in two ways",
    "{class_id}_{record_id}_{host}": "taken apart in two ways",
    "{record_id}0{resolution}": "taken apart in two ways",
}


@pytest.mark.parametrize("text", WRONG_PATTERNS)
def test_a_pattern_that_can_not_be_right_is_refused_in_words(text: str) -> None:
    with pytest.raises(Misuse, match=WRONG_PATTERNS[text]):
        Pattern.parse(text)


@pytest.mark.parametrize(
    "text", ["{class_id}_{record_id}", "{record_id}_{class_id}", "{class_id}_{resolution}", "{class_id}|{host}", "one"]
)
def test_fields_may_be_parted_by_what_one_of_them_may_hold(text: str) -> None:
    """As long as only one way of reading remains."""
    assert Pattern.parse(text).text == text


WRONG_RULES = {
    ("a:{record_id}", "a:{class_id}x"): "the fields of the two differ",
    ("a:{record_id}", "b"): "the fields of the two differ",
    ("a:{record_id}", "a:{record_id}"): "renamed again",
    ("{class_id}", "class:{class_id}"): "renamed again",
    ("class:{class_id}", "class:new:{class_id}"): "renamed again",
}


@pytest.mark.parametrize("pair", WRONG_RULES)
def test_a_rule_that_can_not_be_right_is_refused_in_words(pair: tuple[str, str]) -> None:
    with pytest.raises(Misuse, match=WRONG_RULES[pair]):
        Rule.parse(*pair)


WRONG_SETS = {
    (): "No rule is given",
    ("{class_id}=>class/{class_id}", "a:{record_id}=>b/{record_id}"): "{class_id} and a:{record_id}",
    ("a:{record_id}=>b:{record_id}", "b:{record_id}=>c:{record_id}"): "b:{record_id} and b:{record_id}",
    ("a:{record_id}=>c:{record_id}", "b:{class_id}=>c:{class_id}"): "c:{record_id} and c:{class_id}",
    ("a:{record_id}",): "is no rule",
    ("waiting:*=>class:*",): "Write a field for what differs",
    ("*=>b",): "a * is no wildcard",
}


@pytest.mark.parametrize("lines", WRONG_SETS)
def test_rules_that_are_about_one_name_are_refused_in_words(lines: tuple[str, ...]) -> None:
    """Before or after, there or back, a name is the business of one rule."""
    with pytest.raises(Misuse) as refused:
        rename.rules_in(list(lines))
    assert WRONG_SETS[lines] in refused.value.message


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
    """What was renamed before the refusal is in the journal, and counted."""
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


def test_a_server_that_goes_away_in_the_middle_is_said_in_words(tmp_path: Path) -> None:
    """How far it came, and that the same can be typed again."""
    with redis_server(tmp_path) as client:
        fill(client, 3000)
        other = rename.opened(url_of(client), timeout_s=5)

        def away(_: int) -> None:
            client.shutdown(nosave=True)

        with other, pytest.raises(TryAgain, match=r"Redis does not answer: .* [1-9]\d* keys, or a slice more, were"):
            renamed(other, [RULE], on_slice=away)


def test_a_server_that_hangs_is_not_waited_for_without_end(client: redis.Redis) -> None:
    with (
        rename.opened(url_of(client), timeout_s=0.3) as other,
        paused(client),
        pytest.raises(TryAgain, match="does not answer"),
    ):
        renamed(other, [RULE])


# The command.


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
    for words, *arguments in (["No rule is given"], ["is no rule", "--rule", "a=b"], ["No such file", "no-file"]):
        done = lectern(client, tmp_path, *arguments)
        assert done.returncode == 2, arguments
        assert words in done.stderr
        assert "Traceback" not in done.stderr
