"""The teacher's old JSON config: two documented times, in milliseconds."""

import json
from pathlib import Path
from typing import Any

from pydantic_settings import PydanticBaseSettingsSource

from lectern.errors import Misuse

_MILLISECONDS = {"order_warn_time_out": "order_warn_time_out_s", "transcoding_time_out": "transcoding_time_out_s"}


class OldConfig(PydanticBaseSettingsSource):
    """The teacher's old JSON config, named by TEACHER_CONFIG; its times are milliseconds, as documented."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ANN401 (its signature)
        """Unused: all fields are read at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """The two documented fields, in seconds."""
        path = self.current_state.get("teacher_config")
        if not path:
            return {}
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Misuse(f"TEACHER_CONFIG={path}: {error}. Name the teacher's JSON config, or unset it.") from error
        if not isinstance(found, dict):
            raise Misuse(f"TEACHER_CONFIG={path}: holds no JSON object.")
        return {
            ours: _seconds(path, theirs, found[theirs]) for theirs, ours in _MILLISECONDS.items() if theirs in found
        }


def _seconds(path: str | Path, name: str, milliseconds: object) -> float:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float) or not milliseconds > 0:
        raise Misuse(f"TEACHER_CONFIG={path}: {name} is {milliseconds!r:.40}. Write a number of milliseconds above 0.")
    return milliseconds / 1000
