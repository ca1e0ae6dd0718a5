"""Which settings of a host are set, and their sources."""

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from pydantic import SecretStr

from lectern.settings import Settings
from lectern.shared_settings import own_file

ENV_FILE = Path(".env")


GONE = {
    "ALARM_BLOCK": "alarms reach people by the channel and by ALARM_URLS",
    "PLAYOUT": "each class is aired by the playout, which must run",
}
"""Settings that do nothing any more, and what is instead."""


def gone() -> list[str]:
    """A sentence for each setting of this host that does nothing any more."""
    written = {name.upper() for its in _places().values() for name in its}
    return [f"{name} does nothing any more: {why}" for name, why in GONE.items() if name in written]


def origins(settings: Settings) -> dict[str, tuple[str, str]]:
    """Each setting that is not its default: its value as people may see it, and its source."""
    places = _places().items()
    written = {place: {one.upper() for one, value in its.items() if value is not None} for place, its in places}
    found: dict[str, tuple[str, str]] = {}
    for field in sorted(settings.model_fields_set):
        name = field.upper()
        source = next((place for place, names in written.items() if name in names), None)
        source = source or str(getattr(settings, "teacher_config", None) or "the command line")
        found[name] = (_shown(getattr(settings, field)), source)
    return found


def _places() -> dict[str, Mapping[str, str | None]]:
    files = {str(one.absolute()): dotenv_values(one) for one in (own_file(), ENV_FILE)}
    return {"the environment": os.environ, **files}


def _shown(value: object) -> str:
    return "(secret)" if isinstance(value, SecretStr) else str(value)


def by_source(found: Mapping[str, tuple[str, str]]) -> dict[str, list[str]]:
    """The settings of each source, as ``NAME=value``."""
    sources: dict[str, list[str]] = {}
    for name, (value, source) in found.items():
        sources.setdefault(source, []).append(f"{name}={value}")
    return sources
