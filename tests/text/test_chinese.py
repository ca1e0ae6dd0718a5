"""README.zh.md and RUNBOOK.zh.md say what README.md and RUNBOOK.md say: whoever changes one changes the other."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import pytest

from flows.resident import alarms
from lectern import chinese_alarms, words
from lectern.effects import notify
from lectern.errors import CODES, Severity
from lectern.settings import TeacherSettings

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # of apprise
ROOT = Path(__file__).parents[2]
NAMES = ["README", "RUNBOOK"]
PARTS = ["现象", "核实", "处理", "确认", "撤销"]


@dataclass
class Section:
    """A heading with what stands below it, up to the next heading of any level."""

    level: int
    heading: str
    lines: list[str] = field(default_factory=list)
    blocks: list[list[str]] = field(default_factory=list)  # fenced ones; the first line is the fence with its language

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def code(self) -> str:
        return self.heading.partition(":")[0] if self.heading[0].isdigit() else ""


def sections(text: str) -> Iterator[Section]:
    """The sections of a Markdown text, in their order."""
    section, block = Section(0, " "), None
    for line in text.splitlines():
        fence = line.strip().startswith("```")
        if block is not None:
            section.blocks[-1].append(line.strip())
            block = None if fence else block
        elif fence:
            block = [line.strip()]
            section.blocks.append(block)
        elif heading := re.match(r"(#+) (.+)", line):
            yield section
            section = Section(len(heading[1]), heading[2])
        else:
            section.lines.append(line)
    yield section


def read(name: str) -> list[Section]:
    return list(sections((ROOT / name).read_text(encoding="utf-8")))


ENGLISH = {name: read(f"{name}.md") for name in NAMES}
CHINESE = {name: read(f"{name}.zh.md") for name in NAMES}
SECTIONS = [
    pytest.param(one, other, id=f"{name}-{one.heading}")
    for name in NAMES
    for one, other in zip(ENGLISH[name], CHINESE[name], strict=False)
]


def typed(block: list[str]) -> list[str]:
    """A fenced block without what is for people: comments, the names in a picture, what a folder is for."""
    language = block[0]
    if language == "```mermaid":
        return [re.sub(r'".*?"|(?<=\w)[(\[]+.*?[)\]]+', "", line) for line in block]
    if language == "```":
        return [line.split("  ")[0] for line in block]
    return [re.sub(r"\s+# .*", "", line) for line in block]


def quoted(text: str) -> set[str]:
    """What stands in backquotes."""
    return set(re.findall(r"`([^`]+)`", text))


def emphasised(section: Section) -> set[str]:
    """What stands between single asterisks."""
    text = re.sub(r"`[^`]*`|\*\*.*?\*\*", "", section.text)
    return set(re.findall(r"\*([^*\n]+)\*", text))


def rows(section: Section) -> list[list[str]]:
    """The cells of each line of the section's tables."""
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in section.lines if line.startswith("|")]


@pytest.mark.parametrize("name", NAMES)
def test_both_have_the_same_sections_with_the_same_codes_in_the_same_order(name: str) -> None:
    assert [(one.level, one.code) for one in CHINESE[name]] == [(one.level, one.code) for one in ENGLISH[name]]


@pytest.mark.parametrize(("english", "chinese"), SECTIONS)
def test_a_heading_that_a_log_says_to_the_letter_is_kept_before_its_translation(
    english: Section, chinese: Section
) -> None:
    if english.level == 2 and english.heading[0].islower():
        assert chinese.heading.startswith(f"{english.heading}（")


@pytest.mark.parametrize(("english", "chinese"), SECTIONS)
def test_what_is_typed_is_the_same(english: Section, chinese: Section) -> None:
    assert [typed(block) for block in chinese.blocks] == [typed(block) for block in english.blocks]


@pytest.mark.parametrize(("english", "chinese"), SECTIONS)
def test_each_section_names_the_same_settings_commands_and_fields(english: Section, chinese: Section) -> None:
    assert quoted(chinese.text) == quoted(english.text)


@pytest.mark.parametrize(("english", "chinese"), SECTIONS)
def test_each_section_names_the_same_codes(english: Section, chinese: Section) -> None:
    def codes(section: Section) -> set[str]:
        return set(re.findall(r"(?<![\d:.])[2345]\d\d(?!\d)", section.text)) & {one.code for one in ENGLISH["RUNBOOK"]}

    assert codes(chinese) == codes(english)


@pytest.mark.parametrize(("english", "chinese"), SECTIONS)
def test_each_figure_is_the_same(english: Section, chinese: Section) -> None:
    """Figures of the English text; the Chinese may also write a number that the English has in words."""

    def figures(section: Section) -> set[str]:
        return set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]\d)", re.sub("`[^`]*`", "", section.text)))

    assert figures(english) <= figures(chinese)


@pytest.mark.parametrize(("english", "chinese"), SECTIONS)
def test_each_line_of_a_table_has_the_same_first_cell_and_names_the_same(english: Section, chinese: Section) -> None:
    own, others = rows(chinese), rows(english)
    assert len(own) == len(others)
    for row, other in zip(own, others, strict=True):
        assert len(row) == len(other), row
        assert [quoted(cell) for cell in row] == [quoted(cell) for cell in other]
        if "`" in other[0]:
            assert row[0] == other[0]


@pytest.mark.parametrize(("english", "chinese"), SECTIONS)
def test_each_list_has_as_many_points(english: Section, chinese: Section) -> None:
    def points(section: Section) -> list[tuple[bool, int]]:
        kinds = [bool(re.match(r"\d+\. ", line)) for line in section.lines if re.match(r"(\d+\.|-) ", line)]
        return [(numbered, len(list(group))) for numbered, group in groupby(kinds)]

    assert points(chinese) == points(english)


@pytest.mark.parametrize("section", [one for one in CHINESE["RUNBOOK"] if one.level == 2], ids=lambda one: one.heading)
def test_each_section_of_the_runbook_has_the_five_parts_in_their_order(section: Section) -> None:
    assert re.findall(r"^\*\*(.+?)\*\*", section.text, flags=re.MULTILINE) == PARTS


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_the_same_places(name: str) -> None:
    def targets(found: list[Section]) -> set[str]:
        links = re.findall(r"\]\(([^)]+)\)", "\n".join(one.text for one in found))
        return {target.replace(".zh.md", ".md") for target in links}

    assert targets(CHINESE[name]) == targets(ENGLISH[name])


def test_each_code_has_its_chinese_which_is_the_heading_of_the_runbook() -> None:
    assert [CODES[code].chinese_runbook for code in sorted(CODES)] == [
        one.heading for one in CHINESE["RUNBOOK"] if one.code
    ]
    assert {str(one) for one in Severity} < chinese_alarms.TERMS.keys()


@pytest.mark.parametrize("code", CODES)
def test_what_the_platform_should_do_keeps_the_names_of_fields(code: int) -> None:
    def names(text: str) -> set[str]:
        return set(re.findall(r"[a-z]+_[a-z_]+|URL|ECS", text))

    said = CODES[code]
    assert names(said.english.platform_should) <= names(said.chinese.platform_should)
    assert said.chinese.platform_should.endswith("。")


@pytest.mark.parametrize("code", CODES)
def test_each_code_and_each_sentence_of_its_alarms_is_chinese_with_the_same_gaps(code: int) -> None:
    said = CODES[code]
    for text in (*said.chinese, *said.says.values()):
        assert re.search("[\u4e00-\u9fff]", text), text
    for english, translated in said.says.items():
        assert sorted(re.findall(r"{\w+}", translated)) == sorted(re.findall(r"{\w+}", english))


def alarm(code: int, **more: object) -> str:
    fields = {"code": code, "message": "c-1: it is not on air", "host": "streamer1", "class_id": "c-1", "at": 1.0}
    return json.dumps({**fields, "runbook": "a heading", **more})


def test_an_alarm_is_told_in_chinese_with_the_words_of_the_program() -> None:
    title, text, resolved = notify.written(alarm(321), "https://t.example/runbook", "zh")
    assert (title, resolved) == ("lectern 321 严重: streamer1", False)
    assert text.splitlines() == [
        "课没有完整播出：c-1: it is not on air",
        f"报警时间: {words.moment(1.0)}",
        "课程: c-1",
        "RUNBOOK.zh.md: 321: 课没有完整播出",
        "https://t.example/runbook#321",
    ]


def test_the_end_of_an_incident_and_a_code_of_another_release_are_told_too() -> None:
    assert notify.written(alarm(321, stage="resolved"), None, "zh")[0] == "lectern 321 已恢复: streamer1"
    title, text, _ = notify.written(alarm(999), None, "zh")
    assert title == "lectern 999 警告: streamer1"
    assert text.splitlines()[2:] == ["课程: c-1", "RUNBOOK.zh.md: a heading"]


@pytest.mark.parametrize(("language", "message"), [("en", "c-1: cut"), ("zh", "课没有完整播出：c-1: cut")])
def test_the_event_for_prefects_automations_is_in_the_language_that_is_set(language: str, message: str) -> None:
    settings = TeacherSettings.load(transcode_sign_key="made up", teacher_name="teacher", lectern_lang=language)
    event = alarms._event(settings, alarm(321, message="c-1: cut"))
    assert event is not None
    payload = event["payload"]
    assert isinstance(payload, dict)
    assert payload["message"] == message


def test_whoever_opens_the_readme_finds_the_other_language_in_its_first_lines() -> None:
    assert "(README.zh.md)" in ENGLISH["README"][1].text[:100]
    assert "(README.md)" in CHINESE["README"][1].text[:100]


@pytest.mark.parametrize(("english", "chinese"), SECTIONS)
def test_what_is_emphasised_is_kept_and_a_heading_is_named_as_it_is_written(english: Section, chinese: Section) -> None:
    """States, buttons and words of the program stay English; *How do I …?* becomes the Chinese heading."""
    pairs = zip(ENGLISH["RUNBOOK"], CHINESE["RUNBOOK"], strict=True)
    headings = {one.heading: other.heading for one, other in pairs if not one.heading[0].islower()}
    assert {headings.get(one, one) for one in emphasised(english)} <= emphasised(chinese)
