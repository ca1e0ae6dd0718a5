"""Keys are renamed by rules that can be taken back, whatever happens meanwhile."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from hypothesis import assume, given
from hypothesis import strategies as st

from lectern.errors import CallAPerson, Misuse
from lectern.i18n import translated
from lectern.redis import key_patterns, rename
from lectern.redis.key_patterns import Pattern
from lectern.redis.rename import Rule, renamed
from tests.effects.redis_servers import url_of
from tests.effects.rekeying import CLASSES, WAITING, everything, fill, names_of, new_name
from tests.strategies import resolutions


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
    both = [Rule.parse(*WAITING), Rule.parse(*CLASSES)]
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
    done = renamed(client, [Rule.parse(*WAITING), Rule.parse(*CLASSES)])
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
    planned = renamed(client, [Rule.parse(*WAITING)], dry_run=True, journal=tmp_path / "none")
    assert everything(client) == before
    assert not (tmp_path / "none").exists()
    assert (planned.matched, planned.renamed, planned.clash_count) == (10, 0, 2)
    assert planned.lines()[0].startswith("8 of 10 keys would be renamed")
    assert translated(planned.lines()[0], "zh").startswith("10 个键中有 8 个将改名")
    done = renamed(client, [Rule.parse(*WAITING)])
    assert (done.matched, done.renamed, done.clash_count) == (10, 8, 2)
    assert set(done.clashes) == set(planned.clashes) == clashes
    assert {name: client.dump(name) for name in kept} == kept
    assert "clash: waiting:4:240P stays as it is, 4_240P is there already" in done.lines()


def test_so_many_clashes_are_named_and_all_are_counted(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rename, "CLASHES_KEPT", 5)
    for name in fill(client, 20):
        client.set(new_name(Rule.parse(*WAITING), name) or b"", "taken")
    done = renamed(client, [Rule.parse(*WAITING)])
    assert (len(done.clashes), done.clash_count) == (5, 20)
    assert done.lines()[-1] == "... and 15 more clashes"


def test_the_journal_names_every_key_and_goes_on_after_a_torn_line(client: redis.Redis, tmp_path: Path) -> None:
    """Old and new name, a line each."""
    journal = tmp_path / "keys.tsv"
    journal.write_bytes(b"waiting:77:240P\t77_2")
    rule = Rule.parse(*WAITING)
    olds = fill(client, 3000)
    renamed(client, [rule], journal=journal)
    torn, *lines = journal.read_bytes().splitlines()
    assert torn == b"waiting:77:240P\t77_2"
    assert sorted(lines) == sorted(old + b"\t" + (new_name(rule, old) or b"") for old in olds)


def test_a_journal_that_cannot_be_written_is_refused_before_renaming(client: redis.Redis, tmp_path: Path) -> None:
    fill(client, 3)
    before = everything(client)
    with pytest.raises(Misuse, match=r"no/such/file: the journal cannot be written: No such file"):
        renamed(client, [Rule.parse(*WAITING)], journal=tmp_path / "no/such/file")
    assert everything(client) == before


def test_a_disk_that_does_not_take_the_journal_is_told(
    client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes to the disk while the server goes on, and no failure of it is lost; typed again, all is renamed."""
    rule, olds = Rule.parse(*WAITING), fill(client, 3000)

    def fsync(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(CallAPerson, match=r"Input/output error.*type the same again"):
            renamed(client, [rule], journal=tmp_path / "keys.tsv")
    renamed(client, [rule], journal=tmp_path / "keys.tsv")
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
    rule = Rule.parse(*WAITING)
    assert renamed(client, [rule], journal=journal).renamed == len(left)
    assert everything(client) == {new_name(rule, name): value for name, value in before.items()}
    assert renamed(client, [rule], journal=journal).renamed == 0
    written = {line.split(b"\t")[0] for line in journal.read_bytes().splitlines()}
    assert left <= written <= olds
    renamed(client, [rule.inverse])
    assert everything(client) == before


def test_a_server_that_forgets_the_script_gets_it_again(client: redis.Redis) -> None:
    fill(client, 3000)

    def forget(_: int) -> None:
        client.script_flush()

    done = renamed(client, [Rule.parse(*WAITING)], on_slice=forget)
    assert done.slices > 1
    assert done.renamed == 3000


def test_a_server_without_clock_is_timed_from_here(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts of old servers cannot look at it."""
    monkeypatch.setattr(rename, "_SCRIPT", rename._SCRIPT.replace("rawget(_G, 'os')", "nil"))
    monkeypatch.setattr(rename, "MOST_COUNT", 1000)
    fill(client, 3000)
    done = renamed(client, [Rule.parse(*WAITING)])
    assert done.renamed == 3000
    assert done.longest_slice_s > 0


def test_slices_follow_the_time_they_take() -> None:
    """A quick one is doubled at most, a slow one cut at once; neither end is passed."""
    assert rename.next_count(1000, rename.TARGET_S) == 1000
    assert rename.next_count(1000, 0) == 2000
    assert rename.next_count(1000, 10 * rename.TARGET_S) == 100
    assert rename.next_count(1000, 60) == rename.LEAST_COUNT
    assert rename.next_count(rename.MOST_COUNT, 0) == rename.MOST_COUNT


def test_progress_is_told_slice_by_slice(client: redis.Redis) -> None:
    """In keys looked at; they add up to about as many as there are."""
    fill(client, 5000)
    looked: list[int] = []
    done = renamed(client, [Rule.parse(*WAITING)], on_slice=looked.append)
    assert len(looked) == done.slices
    assert rename.to_look_at(client, [Rule.parse(*WAITING)]) == 5000
    assert 4000 < sum(looked) < 15_000


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
    assert rename.rules_in(lines) == [Rule.parse(*WAITING)]
    assert rename.rules_in(lines, back=True) == [Rule.parse(*reversed(WAITING))]
    (rule,) = rename.rules_in(["a*:{record_id}=>b:{record_id}"])
    assert new_name(rule, b"a*:7") == b"b:7"
    assert new_name(rule, b"aa:7") is None
    assert all(not set(kind.ending) & set(kind.letters) for kind in (*key_patterns.KINDS.values(), key_patterns.NAME))
