"""The account of a class in Chinese: what explain, status and the page say in English, sentence by sentence.

A sentence that no rule knows stays as it is: the words of ffmpeg, of servers and of the log are looked for as they are.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import NamedTuple

from lectern import chinese_alarms, chinese_reasons, chinese_transcoding
from lectern.chinese_sentences import FORMS, WORDS
from lectern.errors import CODES
from lectern.i18n import Text, translated

_GAPS: Mapping[str, str] = {
    "t": r"\d+(?:\.\d+)? (?:d|h|min|s)(?: \d+ (?:h|min|s))*",
    "n": r"-?[\d,]+(?:\.\d+)?",
    "c": r"[\d:×, ]+",
    "p": r"[\d:]+",
    "d": r"[\d: -]+",
    "x": r"\S+|its streamer",
    "y": r"\S+",
    "z": r"\S+",
    "v": r"[\d,.]+ (?:bytes|kB|MB|GB)",
    "w": r"[a-z]+",
    "k": r"[2-5]\d\d",
    "m": r"the recording|the slate",
    "l": r".*",
    "o": r".*",
    "r": r".*",
    "s": r".*",
}
_THINGS = {"the recording": "录像", "the slate": "垫片"}
_AND = {" and ": " 和 ", " or ": " 或 "}
_UNITS = {"d": "天", "h": "小时", "min": "分钟", "s": "秒"}
_ON_AIR = re.compile(
    r"(?P<slate>the slate is )?on air on (?P<x>\S+)(?: since (?P<c>[\d:]+))?(?:, at (?P<p>[\d:]+) of the recording)?"
)
_RUNBOOK = re.compile(r"RUNBOOK\.md: (?P<code>\d{3}): .*")


_SAYS = {
    **{english: chinese for one in CODES.values() for english, chinese in one.says.items()},
    **chinese_reasons.SAYS,
    **chinese_transcoding.SAYS,
}
_FORMS = {**FORMS, **chinese_alarms.FORMS, **_SAYS}
_WHOLE = {**_FORMS, **WORDS, **chinese_alarms.WORDS}
_MANY, _DEEP = 30, 8  # of what stands together, and of what stands in each other; what comes on top stays as it is

LABELS: Mapping[str, str] = {
    "on air": "正在上课",
    "next": "下一节",
    "bookings": "约课",
    "renditions": "视频",
    "under way": "转码中",
    "waiting": "等待",
    "incident": "报警",
    "inbox": "收件箱",
    "outbox": "发件箱",
    "streamer": "推流端",
    "redis": "Redis",
}
"""The first words of the lines of ``lectern status``."""


def status_line(text: str) -> str:
    """A line of ``lectern status`` in Chinese."""
    label, said = text[:12].strip(), text[12:]
    if text.startswith("  "):
        return f"  {sentence(text.strip())}"
    if label not in LABELS:
        return text
    if label in {"bookings", "renditions"}:
        said = re.sub("[a-z][a-z ]*", lambda word: WORDS.get(word[0], word[0]), said)
    return f"{LABELS[label]}{chr(0x3000) * (6 - len(LABELS[label]))}{sentence(said)}"


def span(text: str) -> str:
    """A length of time: ``3 h 5 min`` is ``3 小时 5 分钟``."""
    return re.sub(r"\b(d|h|min|s)\b", lambda unit: _UNITS[unit[1]], text)


def sentence(text: str, deep: int = 0) -> str:
    """A sentence in Chinese; of several that stand together, each. What it is about stays before it, as in an alarm.

    *deep* counts the sentences around it. One with an id is in the catalogue; the patterns are for the others.
    """
    if isinstance(text, Text):
        return translated(text, "zh", lambda words: sentence(words, deep + 1))
    if (whole := _one(text, deep)) is not None:
        return whole
    parts = text.split("; ", _MANY)
    known = [_one(part, deep) for part in parts] if len(parts) > 1 else [None]
    said = known[0] or parts[0]
    for at in range(1, len(parts)):
        said += f"{'；' if known[at - 1] or known[at] else '; '}{known[at] or parts[at]}"
    return said


def writer(language: str) -> Callable[[str], str]:
    """What writes a sentence in *language*."""
    return sentence if language == "zh" else partial(translated, language=language)


def message(code: int, text: str) -> str:
    """The message of an alarm, with what its code means before it; words that no rule knows stay as they are."""
    said = sentence(text)
    return f"{translated(CODES[code].meaning, 'zh')}：{said}" if code in CODES else said


def _one(text: str, deep: int) -> str | None:
    """A single sentence in Chinese; before it stand the class, host or URL that it is about, each with a colon."""
    about = ""
    for _ in range(_DEEP):
        whole = _whole(text, deep)
        if whole is not None and whole != text:
            return f"{about}{whole}"
        name, _, text = text.partition(": ")
        if not text or " " in name:
            return None
        about += f"{name}："
    return None


@cache
def _compiled(form: str) -> "re.Pattern[str]":
    parts = re.split(r"\{(\w)(\d?)\}", form)
    said = re.escape(parts[0])
    for at in range(1, len(parts), 3):
        kind, number, text = parts[at : at + 3]
        said += f"(?P<{kind}{number}>{_GAPS[kind]})" + re.escape(text)
    return re.compile(said, re.DOTALL)


class _Rule(NamedTuple):
    form: str
    chinese: str
    words: str  # its longest, by which it is passed over for most texts
    spans: bool  # whether it may be of several sentences that stand together


def _rule(form: str, chinese: str) -> _Rule:
    words = max(re.split(r"{\w+}", form), key=len)
    return _Rule(form, chinese, words, "; " in form)


@cache
def _rules() -> list[_Rule]:
    """Made for the first sentence: `lectern` in English needs none of them."""
    return [_rule(form, chinese) for form, chinese in _FORMS.items() if "{" in form]


def _whole(text: str, deep: int) -> str | None:
    if deep > _DEEP:
        return None
    if text in _WHOLE:
        return _WHOLE[text]
    if found := _RUNBOOK.fullmatch(text):
        code = CODES.get(int(found["code"]))
        return f"RUNBOOK.zh.md: {code.runbook_in('zh')}" if code else text
    if found := _ON_AIR.fullmatch(text):
        return _on_air(found)
    several = "; " in text
    for rule in _rules():
        if rule.words not in text or (several and not rule.spans):
            continue
        if found := _compiled(rule.form).fullmatch(text):
            gaps = {name: _gap(name[0], value, deep + 1) for name, value in found.groupdict().items()}
            return rule.chinese.format(**gaps)
    return None


def _on_air(found: "re.Match[str]") -> str:
    what = "垫片正在" if found["slate"] else "正在"
    since = f"，自 {found['c']} 起" if found["c"] else ""
    place = f"，播放到录像的 {found['p']}" if found["p"] else ""
    return f"{what} {found['x']} 上播出{since}{place}"


def _gap(kind: str, value: str, deep: int) -> str:
    says: Mapping[str, Callable[[str], str]] = {
        "t": span,
        "v": lambda one: one.replace("bytes", "字节"),
        "s": lambda one: sentence(one, deep),
        "m": _THINGS.__getitem__,
        "l": lambda one: re.sub(" (?:and|or) ", lambda word: _AND[word[0]], one),
        "o": lambda one: chinese_alarms.PARTS.get(one) or sentence(one, deep),
    }
    return says[kind](value) if kind in says else value
