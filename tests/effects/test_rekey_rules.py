"""Rules that say how Redis keys are renamed: what they match, what they refuse."""

import pytest
import redis
from hypothesis import assume, given
from hypothesis import strategies as st

from lectern.effects.redis import key_patterns, rekey
from lectern.effects.redis.key_patterns import Pattern
from lectern.effects.redis.rekey import Rule, renamed
from lectern.errors import Misuse
from tests.effects.rekeying import WAITING, names_of
from tests.strategies import resolutions

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
    new = rule.applied(old)
    assert new == rule.new.name(**held).encode()
    assert rule.new.values(new) == held
    assert rule.inverse.applied(new) == old
    assert rule.applied(new) is None
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
        new = rule.applied(old)
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
        rekey.rules_in(list(lines))
    assert WRONG_SETS[lines] in refused.value.message


def test_a_star_beside_a_field_is_a_star() -> None:
    """An old program may have such keys; who names a field knows how a rule is written."""
    (rule,) = rekey.rules_in(["a*:{record_id}=>b:{record_id}"])
    assert rule.applied(b"a*:7") == b"b:7"
    assert rule.applied(b"aa:7") is None


def test_rules_are_read_from_lines() -> None:
    """Comments and empty lines are passed over; back turns each around."""
    lines = ["# the waiting lists", "", "  waiting:{record_id}:{resolution}  =>  {record_id}_{resolution} "]
    assert rekey.rules_in(lines) == [Rule.parse(*WAITING)]
    assert rekey.rules_in(lines, back=True) == [Rule.parse(*reversed(WAITING))]


def test_every_kind_of_field_has_its_ending_outside_its_letters() -> None:
    """What the reading of patterns rests on."""
    assert all(not set(kind.ending) & set(kind.letters) for kind in (*key_patterns.KINDS.values(), key_patterns.NAME))
