"""The account of a class in Chinese: what explain, status and the page say in English, sentence by sentence.

A sentence that no rule knows stays as it is: the words of ffmpeg, of servers and of the log are looked for as they are.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache

from lectern import chinese_alarms
from lectern.chinese_sentences import FORMS, WORDS
from lectern.codes import CODES

_GAPS: Mapping[str, str] = {
    "t": r"\d+ (?:d|h|min|s)(?: \d+ (?:h|min))?",
    "n": r"-?[\d,]+",
    "c": r"[\d:×, ]+",
    "p": r"[\d:]+",
    "d": r"[\d: -]+",
    "x": r"\S+|its streamer",
    "y": r"\S+",
    "z": r"\S+",
    "w": r"[a-z]+",
    "b": r"the OSS transcoder|an ECS host(?: as soon as one is free)?",
    "a": r".*",
    "r": r".*",
    "s": r".*",
}
_MAKERS = {"the OSS transcoder": "OSS", "an ECS host": "ECS", "an ECS host as soon as one is free": "ECS（排队中）"}
_UNITS = {"d": "天", "h": "小时", "min": "分钟", "s": "秒"}
_ON_AIR = re.compile(
    r"(?P<slate>the slate is )?on air on (?P<x>\S+)(?: since (?P<c>[\d:]+))?(?:, at (?P<p>[\d:]+) of the recording)?"
)
_RUNBOOK = re.compile(r"RUNBOOK\.md: (?P<code>\d{3}): .*")


_ADVICE = {one.english.platform_should: one.chinese.platform_should for one in CODES.values()}
_SAYS = {english: chinese for one in CODES.values() for english, chinese in one.says.items()}

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
}
"""The first words of the lines of ``lectern status``."""


def status_line(text: str) -> str:
    """A line of ``lectern status`` in Chinese."""
    label, said = text[:12].strip(), text[12:]
    if text.startswith("  "):
        whole = text.strip()
        name, _, rest = whole.partition(": ")
        return f"  {sentence(whole) if sentence(whole) != whole else f'{name}: {sentence(rest)}'}"
    if label not in LABELS:
        return text
    if label in {"bookings", "renditions"}:
        said = re.sub("[a-z][a-z ]*", lambda word: WORDS.get(word[0], word[0]), said)
    return f"{LABELS[label]}{chr(0x3000) * (6 - len(LABELS[label]))}{sentence(said)}"


def span(text: str) -> str:
    """A length of time: ``3 h 5 min`` is ``3 小时 5 分钟``."""
    return re.sub(r"\b(d|h|min|s)\b", lambda unit: _UNITS[unit[1]], text)


def sentence(text: str) -> str:
    """A sentence of an account in Chinese; of several that stand together, each."""
    whole = _whole(text)
    if whole is not None:
        return whole
    parts = text.split("; ")
    said = [_whole(part) for part in parts]
    if len(parts) == 1 or not any(said):
        return text
    return "；".join(known if known is not None else part for known, part in zip(said, parts, strict=True))


def message(code: int, text: str) -> str:
    """The message of an alarm, with what its code means before it; words that no rule knows stay as they are."""
    said = alarm(text)
    return f"{CODES[code].chinese.meaning}：{said}" if code in CODES else said


def alarm(text: str) -> str:
    """What an alarm says, which begins with the id of what it is about, or with the name of a host."""
    about, _, rest = text.partition(": ")
    known = sentence(rest)
    if not rest or " " in about or known == rest or _whole(text) is not None:
        return sentence(text)
    return f"{about}：{known}"


def _compiled(form: str) -> "re.Pattern[str]":
    parts = re.split(r"\{(\w)(\d?)\}", form)
    said = re.escape(parts[0])
    for at in range(1, len(parts), 3):
        kind, number, text = parts[at : at + 3]
        said += f"(?P<{kind}{number}>{_GAPS[kind]})" + re.escape(text)
    return re.compile(said, re.DOTALL)


@cache
def _rules() -> list[tuple["re.Pattern[str]", str]]:
    """Compiled for the first sentence: `lectern` in English needs none of them."""
    return [(_compiled(form), chinese) for form, chinese in {**FORMS, **chinese_alarms.FORMS, **_SAYS}.items()]


def _whole(text: str) -> str | None:
    for known in (WORDS, chinese_alarms.WORDS, _SAYS, _ADVICE):
        if text in known:
            return known[text]
    if found := _RUNBOOK.fullmatch(text):
        code = CODES.get(int(found["code"]))
        return f"RUNBOOK.zh.md: {code.chinese_runbook}" if code else text
    if found := _ON_AIR.fullmatch(text):
        return _on_air(found)
    for pattern, chinese in _rules():
        if found := pattern.fullmatch(text):
            return chinese.format(**{name: _gap(name[0], value) for name, value in found.groupdict().items()})
    return None


def _on_air(found: "re.Match[str]") -> str:
    what = "垫片正在" if found["slate"] else "正在"
    since = f"，自 {found['c']} 起" if found["c"] else ""
    place = f"，播放到录像的 {found['p']}" if found["p"] else ""
    return f"{what} {found['x']} 上播出{since}{place}"


def _gap(kind: str, value: str) -> str:
    says: Mapping[str, Callable[[str], str]] = {"t": span, "s": sentence, "a": alarm, "b": lambda one: _MAKERS[one]}
    return says[kind](value) if kind in says else value
