"""What people read stands in the catalogues, whole, and with the gaps of the English; a language is a folder."""

import ast
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po

from lectern import errors, formatting, i18n, notify
from lectern.errors import CODES, Malformed, alarm_in
from lectern.i18n import Text, from_json, joined, labelled, languages, plain, spoken, to_json, translated
from lectern.playout import control_socket
from lectern.playout import sentences as playout
from lectern.playout.sentences import Sentence
from lectern.rollout.result import in_language
from lectern.settings import TeacherSettings
from lectern.urls import redact
from lectern.wire import outgoing, parser
from lectern.wire.messages import Booking, Cancel, Change, Report, TranscodingResult
from tests.flows.test_people import NOW, alarm

ROOT = Path(__file__).parents[2]
CATALOGUES = sorted(i18n.LOCALE.glob("*/LC_MESSAGES/lectern.po"))
ERRORS = ("LecternError", "TryAgain", "FallBack", "Refuse", "CallAPerson", "Misuse", "Absent", "Lost")
PLAYOUT = ("NotRtmp", "NotAirable", "Broken")
NOTES: dict[str, tuple[int, ...] | None] = {"changes.note": None, "self.note": None}
KEYWORDS = {**dict.fromkeys(("Text", "msgid", "sentence", "t", *ERRORS)), **NOTES, "many": (1, 2)}
Ids = str | tuple[str, ...]
sentence = partial(translated, language="zh")


def ids(message: Message) -> Ids:
    return message.id if isinstance(message.id, str) else tuple(message.id)


def extracted(keywords: Mapping[str, tuple[int, ...] | None] = KEYWORDS) -> set[Ids]:
    mappings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["babel"]["mappings"]
    methods = [(one["pattern"], one["method"]) for one in mappings]
    found = [one for folder in ("lib", "flows") for one in extract_from_dir(ROOT / folder, methods, keywords=keywords)]
    return {tuple(one[2]) if isinstance(one[2], tuple | list) else one[2] for one in found if one[2]}


def entries(path: Path) -> Iterator[Message]:
    with path.open("rb") as file:
        return (message for message in read_po(file, locale=path.parent.parent.name) if message.id)


def all_of(text: str | Sequence[str] | None) -> list[str]:
    """A sentence, or its singular and its plural."""
    return [text] if isinstance(text, str) else list(text or ())


def gaps(text: str) -> set[tuple[str, str, str]]:
    return {(name, spec or "", how or "") for _, name, spec, how in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parent.parent.name)
def test_a_catalogue_has_what_the_code_says_and_nothing_else_and_is_compiled(path: Path) -> None:
    """`make catalogues` changes nothing; `make` compiles each catalogue that was changed."""
    assert {ids(one) for one in entries(path)} == extracted(), "type: make catalogues"
    with path.with_suffix(".mo").open("rb") as file:
        compiled = {ids(one): all_of(one.string) for one in read_mo(file) if one.id}
    assert compiled == {ids(one): all_of(one.string) for one in entries(path)}, "type: make .venv/.built"


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parent.parent.name)
def test_each_entry_is_translated_with_the_gaps_of_the_english(path: Path) -> None:
    wrong = []
    for one in entries(path):
        english, said = all_of(one.id), all_of(one.string)
        many = gaps(english[-1]) | {("n", ":,", ""), ("n", ",", ""), ("n", "", "")}
        same = all(gaps(text) == gaps(english[-1]) or (len(english) > 1 and gaps(text) <= many) for text in said)
        has_words = re.search("[a-z]{2,} [a-z]{2,}", re.sub("{[^}]*}", "", english[0]))
        is_chinese = all(re.search("[\u4e00-\u9fff]", text) for text in said) or "zh" not in path.parts
        if one.fuzzy or not all(said) or not same or (has_words and not is_chinese):
            wrong.append((english[0], said))
    assert wrong == []


def test_whoever_raises_a_failure_says_it_by_an_id() -> None:
    """Not by words put together on the spot, which no catalogue has. The playout marks what it says of its work."""
    paths = [path for folder in ("flows", "lib/lectern") for path in (ROOT / folder).rglob("*.py")]
    raised = {
        f"{path.relative_to(ROOT)}: {ast.unparse(word)}"
        for path in paths
        if "rollout" not in path.parts
        for names in [PLAYOUT if "playout" in path.parts else ERRORS]
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and getattr(call.func, "id", getattr(call.func, "attr", "")) in names
        for word in call.args
        if isinstance(word, ast.JoinedStr) or (names is PLAYOUT and isinstance(word, ast.Constant))
    }
    assert raised == set()


def test_a_sentence_without_gaps_needs_no_id() -> None:
    """As the names of events have none in the rows; one word alone is a name."""
    assert translated("cancel confirmed", "zh") == translated(Text("cancel confirmed"), "zh") != "cancel confirmed"
    assert translated("ready", "zh") == "ready"


def test_a_third_language_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tlh" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    made = Catalog(locale="de", domain="lectern")
    made.add("{streamer} has sent no heartbeat for {silent_s:span}.", "{silent_s:span}: {streamer} mute")
    made.add(("{n} class", "{n:,} classes"), ("{n} Stunde", "{n:,} Stunden"))
    made.add("min", "minutes")
    (folder / "lectern.po").touch()
    with (folder / "lectern.mo").open("wb") as file:
        write_mo(file, made)
    monkeypatch.setattr(i18n, "LOCALE", tmp_path)
    i18n.catalogue.cache_clear()
    languages.cache_clear()
    try:
        assert languages() == ("en", "tlh")
        said = Text("{streamer} has sent no heartbeat for {silent_s:span}.", streamer="streamer1", silent_s=300)
        assert translated(said, "tlh") == "5 minutes: streamer1 mute"
        many = [translated(Text.many("{n} class", "{n:,} classes", n=n), "tlh") for n in (1, 2000)]
        assert many == ["1 Stunde", "2,000 Stunden"]
        assert translated(Text("not in the catalogue"), "tlh") == "not in the catalogue"
        monkeypatch.setenv("LECTERN_LANG", "xx")
        with pytest.raises(errors.Misuse, match="LECTERN_LANG"):
            TeacherSettings.load()
    finally:
        i18n.catalogue.cache_clear()
        languages.cache_clear()


def test_a_sentence_is_stored_as_its_id_and_its_values() -> None:
    """It is read back as it was; what another program has stored is shown as it stands."""
    parts = [Text("{x} is lost", x="streamer1"), Text.many("{n} class", "{n} classes", n=3), "words of a program"]
    text = joined(parts)
    again = from_json(plain(text), to_json(text))
    assert isinstance(again, Text)
    assert again == text == "streamer1 is lost; 3 classes; words of a program"
    assert again.pair() == text.pair()  # type: ignore[attr-defined]
    assert to_json("words") is None
    odd = (None, "", "{", "[]", '{"id": 5, "args": {}}', '{"id": "{x}", "args": {}}', '{"id": "", "args": {"x": []}}')
    assert {from_json("as it stands", one) for one in odd} == {"as it stands"}
    assert json.loads(json.dumps({"text": text})) == {"text": plain(text)}


def test_a_secret_in_a_value_is_masked() -> None:
    """In each language, because the values themselves are masked; also one that only the whole sentence shows."""
    url = "rtmp://user:secret@h/a/b?key=secret"
    for text in (Text("{url} does not answer", url=url), Text("{why}; again", why=Text("{url} is odd", url=url))):
        error = errors.TryAgain(text)
        assert "secret" not in str(error) + json.dumps(error.message.pair())  # type: ignore[attr-defined]
        assert isinstance(error.message, Text)
    assert errors.TryAgain("{url} is odd", url="rtmp://h/a").message == Text("{url} is odd", url=redact("rtmp://h/a"))
    apart = errors.TryAgain("rtmp://{user}@h/a is odd", user="user:secret")
    assert apart.message == redact("rtmp://user:secret@h/a is odd")
    assert not isinstance(apart.message, Text)


def test_an_alarm_has_its_id_and_values_beside_the_english() -> None:
    """Whoever reads it in another language needs no English; one without an id is passed on as it stands."""
    said = Text("{streamer} is lost", streamer="streamer1")
    sent = outgoing.alarm(errors.NOT_MOVED, Text("{thing}: {what}", thing="c-1", what=said), 1.0, "teacher").to_json()
    fields = json.loads(sent)
    assert fields["message"] == "c-1: streamer1 is lost"
    assert fields["message_id"] == "{thing}: {what}"
    assert fields["args"]["what"] == {"id": "{streamer} is lost", "args": {"streamer": "streamer1"}}
    assert notify.written(json.dumps({**fields, "message": "?"}), None, "zh")[1].startswith(
        f"{translated(errors.NOT_MOVED.meaning, 'zh')}：c-1：streamer1 失联\n"
    )
    plain_one = json.loads(outgoing.alarm(errors.NOT_MOVED, "as it stands", 1.0, "teacher").to_json())
    assert plain_one.keys().isdisjoint({"message_id", "args", "message_plural"})


def test_a_sentence_of_another_program_is_plain_words_if_its_gaps_are_none_of_ours() -> None:
    """A width could fill the memory of whoever writes it; each gap of ours is read again."""
    for gap in ("{n:>999999999}", "{n:09999999d}", "{n.real}", "{", "{n:{n}}", "{n:{n:9}}"):
        assert i18n.of_wire({"message": "as it said", "message_id": f"{gap} classes", "args": {"n": 3}}) == "as it said"
    plurals = dict.fromkeys(("message_id", "message_plural"), "{n:,} classes")
    for n, more in ((math.inf, {"message_id": "{n:span}"}), (10**400, {"message_id": "{n:.1f}"}), ("many", plurals)):
        assert i18n.of_wire({"message": "as it said", "args": {"n": n}, **more}) == "as it said", "nobody can write it"
    kinds = {kind for wanted in extracted() for text in all_of(wanted) for _, kind, _ in gaps(text)}
    for kind in kinds:
        body = {"message": "plain", "message_id": f"{{n:{kind}}}", "args": {"n": "x" if kind[1:].isdecimal() else 3}}
        assert isinstance(i18n.of_wire(body), Text), kind


def test_a_step_of_a_rollout_answers_in_the_language_of_the_host() -> None:
    """Its sentences, its failure, and what the plan says of each task; but no path, which is no sentence."""
    answer: dict[str, Any] = {"said": [Text("{id} is finished.", id="x"), "/a/b"], "msg": Text("Reload supervisord.")}
    written = in_language({**answer, "plan": {"stop": answer}}, "zh")
    for fields in (written, written["plan"]["stop"]):
        assert fields["said"] == [translated(answer["said"][0], "zh"), "/a/b"]
        assert fields["msg"] == translated(answer["msg"], "zh") != answer["msg"]


# To those who read Chinese an alarm is Chinese to its last word; programs keep their own words.


def left(text: str) -> list[str]:
    """The words of a sentence that have no id, but for names, which are one word, and for the words of programs."""
    if not isinstance(text, Sentence):
        return [text] if re.search("[a-z]{2,} [a-z]{2,}", text) and sentence(text) == text else []
    return [word for value in text.args.values() if isinstance(value, str) for word in left(value)]


def test_what_the_playout_says_keeps_its_id_on_its_way_to_people() -> None:
    """Also a sentence in a sentence; that of a playout of the release before has none, and stays English."""
    fault = playout.sentence("is broken: it cannot be read from byte {place} on", place=7)
    why = playout.sentence("the recording {fault}", fault=fault)
    told = json.loads(control_socket._line({"event": "slate", "why": why}))
    assert told["why"] == "the recording is broken: it cannot be read from byte 7 on"
    heard = errors.TryAgain(labelled("c-1", spoken(told)["why"])).message
    assert heard == f"c-1: {told['why']}"
    assert left(heard) == []
    assert from_json(plain(heard), to_json(heard)).pair() == heard.pair()  # type: ignore[attr-defined]
    del told["sentence"]
    assert translated(spoken(told)["why"], "zh") == told["why"]


BOOKING = {"cmd": "order", "class_id": "c-1", "start_time": 1.0, "end_time": 2.0, "push_url": "rtmp://h/a/s"}
RESULT = {"cmd": "transcoding", "record_id": 6, "video_resolution": "720P"}
HERE = {**BOOKING, "video_url": "http://h/6.flv"}
BODIES: list[Mapping[str, object] | list[object]] = [
    [],
    {},
    BOOKING,
    {**HERE, "institution_id": "a\0b"},
    {**HERE, "end_time": 0.5},
    {**HERE, "video_resolution": "720P"},
    {**BOOKING, "video_resolution": "8K", "video_url": "ftp://h/6.flv", "institution_id": "a b"},
    {**BOOKING, "video_url": 7, "start_time": "soon", "end_time": True, "record_id": 1.5, "video_url_list": 7},
    {**HERE, "record_id": 6, "video_resolution": "720P", "video_url_list": {"720P": "ftp://h/6.flv"}},
    {**BOOKING, "push_url": "rtmp://h", "video_url": f"http://h/{'6' * 3000}"},
    {**BOOKING, "push_url": "rtmp://h:99999/a/s", "video_url": "http://h 7/6.flv"},
    {**BOOKING, "push_url": f"rtmp://{'h' * 70}/a/s", "video_url": "http://1.2.3/6.flv"},
    {**HERE, "push_url": "rtmp://a\\b@h/a/s"},
    {**HERE, "push_url": f"rtmp://{'é' * 99}/a/s"},
    {**HERE, "push_url_backup": "rtmp://h/a/s"},
    {**HERE, "push_url_backup": "rtmp://h/a/t", "class_id": "c" * 250},
    {"cmd": "change", "class_id": "c-1"},
    {"cmd": "change", "class_id": "c-1", "end_time": 5, "institution_id": "i-8"},
    {**RESULT, "result": "maybe"},
    {**RESULT, "result": "success"},
    {**RESULT, "result": "failed"},
]


def test_what_is_wrong_with_a_message_is_said_in_chinese() -> None:
    """Each fault of it; the names of its fields and commands stay, because the sender looks for them."""
    for raw in (*map(json.dumps, BODIES), "x" * 99_999):
        with pytest.raises(Malformed) as caught:
            parser.parse(raw, (Booking, Cancel, Change, TranscodingResult, Report))
        text = labelled("c-1", caught.value.message)
        assert left(text) == [], sentence(text)


def test_the_words_of_a_program_stay_as_they_are() -> None:
    """Also those that begin as ours do, and those that stand together."""
    counts = "1.5 classes refused", ", classes refused"  # as ours, but for their number
    for text in ("404 Not Found", "Conversion failed!", "a: b; c: d", "frame=12; it: slow", "x" * 900, *counts):
        assert alarm_in("zh", 208, f"6_720P: {text}") == f"{translated(CODES[208].meaning, 'zh')}：6_720P: {text}"


def test_what_the_platform_should_do_names_the_same_fields_in_chinese() -> None:
    for number, code in CODES.items():
        fields = re.findall(r"[a-z]+_[a-z_]+|URL|ECS", code.platform_should)
        assert all(one in translated(code.platform_should, "zh") for one in fields), number


def test_an_alarm_is_told_in_chinese_with_the_words_of_the_program() -> None:
    """So are the end of an incident, and a code of another release."""
    title, text, resolved = notify.written(alarm(), "https://t.example/runbook", "zh")
    assert (title, resolved) == ("lectern 321 严重: streamer1", False)
    assert text.splitlines() == [
        "课没有完整播出：c-1: it is not on air",
        f"报警时间: {formatting.moment(NOW)}",
        "课程: c-1",
        "RUNBOOK.zh.md: 321: 课没有完整播出",
        "https://t.example/runbook#321",
    ]
    assert notify.written(alarm(stage="resolved"), None, "zh")[0] == "lectern 321 已恢复: streamer1"
    title, text, _ = notify.written(alarm(code=999, runbook="a heading"), None, "zh")
    assert title == "lectern 999 警告: streamer1"
    assert text.splitlines()[2:] == ["课程: c-1", "RUNBOOK.zh.md: a heading"]
