"""The templates of the page, which also make the report that stands in a file of its own."""

import time
from typing import Any

from jinja2 import Environment, PackageLoader

from lectern import chinese_account, words
from lectern.errors import CODES
from lectern.page import labels


def rendered(template: str, language: str = "en", **fields: Any) -> str:  # noqa: ANN401 (a template's variables)
    """The page that *template* makes of *fields*, in *language*."""
    given = {
        "t": labels.of(language),
        "codes": {code: one.chinese if language == "zh" else one.english for code, one in CODES.items()},
        "language": language,
        "say": chinese_account.sentence if language == "zh" else str,
        "tell": chinese_account.message if language == "zh" else _as_it_is,
        "now": time.time(),
    }
    return _TEMPLATES.get_template(template).render(**given, **fields)


def _as_it_is(_code: int, message: str) -> str:
    return message


def _day(at: float) -> str:
    return words.moment(at)[:10]


def _local(at: float) -> str:
    return words.moment(at)[5:16]


_TEMPLATES = Environment(loader=PackageLoader("lectern.page"), autoescape=True, trim_blocks=True)
_TEMPLATES.filters |= {"moment": words.moment, "clock": words.clock, "span": words.span, "when": words.when}
_TEMPLATES.filters |= {"size": words.size, "place": words.position, "day": _day, "local": _local}
