"""The teacher's old JSON config: two documented times, in milliseconds, in what an old program accepts as JSON."""

import json
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

from pydantic_settings import PydanticBaseSettingsSource

from lectern.errors import Misuse
from lectern.i18n import msgid

_MILLISECONDS = {"order_warn_time_out": "order_warn_time_out_s", "transcoding_time_out": "transcoding_time_out_s"}


class OldConfig(PydanticBaseSettingsSource):
    """The teacher's old JSON config, named by TEACHER_CONFIG; its times are milliseconds, as documented."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ANN401 (its signature)
        """Unused: all fields are read at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """The two documented times, in seconds; empty without a TEACHER_CONFIG. Raises Misuse if it cannot be read."""
        path = self.current_state.get("teacher_config")
        if not path:
            return {}
        try:
            return old_times(path, Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Misuse(
                "TEACHER_CONFIG={path}: {error}. Name the teacher's JSON config, or unset it.", path=path, error=error
            ) from error


def old_times(path: str | Path, text: str) -> dict[str, float]:
    """The documented times, in seconds, of the old config *text*; raises Misuse or ValueError if it is wrong."""
    found = json.loads(strict(text))
    if not isinstance(found, dict):
        raise Misuse("TEACHER_CONFIG={path}: holds no JSON object.", path=path)
    return {ours: _seconds(path, theirs, found[theirs]) for theirs, ours in _MILLISECONDS.items() if theirs in found}


def _seconds(path: str | Path, name: str, milliseconds: object) -> float:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float) or not milliseconds > 0:
        text = msgid("TEACHER_CONFIG={path}: {name} is {milliseconds!r:.40}. Write a number of milliseconds above 0.")
        raise Misuse(text, path=path, name=name, milliseconds=milliseconds)
    return milliseconds / 1000


_FACTOR = r"\d+(?:\.\d+)?"
PRODUCT = re.compile(rf"(?<![\w.]){_FACTOR}(?:[ \t]*\*[ \t]*{_FACTOR})+")
_STRING = r'"(?:\\.|[^"\\\n])*"'
_LOOSE = re.compile(rf"{_STRING}|//[^\r\n]*|/\*.*?\*/|{PRODUCT.pattern}", re.DOTALL)
_LAST_COMMA = re.compile(rf"{_STRING}|,(?=[ \t\r\n]*[}}\]])")


def strict(text: str) -> str:
    """The JSON that *text* means, with each remaining character at its old position.

    Old configs contain calculations (``1000*60*60*24, // a day``): spaces replace comments, a comma before a closing
    bracket, and a byte order mark; a product becomes its result, padded with spaces.
    """
    text = f" {text[1:]}" if text.startswith("\ufeff") else text
    return _LAST_COMMA.sub(lambda part: " " if part[0] == "," else part[0], _LOOSE.sub(_plain, text))


def _plain(part: re.Match[str]) -> str:
    found = part[0]
    if found.startswith('"'):
        return found
    if found.startswith("/"):
        return re.sub(r"[^\r\n]", " ", found)
    product = math.prod(Fraction(factor.strip()) for factor in found.split("*"))
    return str(product if product.denominator == 1 else float(product)).ljust(len(found))
