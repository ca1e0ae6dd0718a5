"""Which settings of a host are set, and where each came from."""

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from pydantic import SecretStr

from lectern.settings import Settings

ENV_FILE = Path(".env")


def origins(settings: Settings) -> dict[str, tuple[str, str]]:
    """Each setting that is not its default: its value as people may see it, and where it came from."""
    environment = {name.upper() for name in os.environ}
    written = {name.upper() for name, value in dotenv_values(ENV_FILE).items() if value is not None}
    found: dict[str, tuple[str, str]] = {}
    for field in sorted(settings.model_fields_set):
        name = field.upper()
        source = "the environment" if name in environment else str(ENV_FILE.absolute()) if name in written else None
        if source is None:
            source = str(getattr(settings, "teacher_config", None) or "the command line")
        found[name] = (_shown(getattr(settings, field)), source)
    return found


def _shown(value: object) -> str:
    return "(secret)" if isinstance(value, SecretStr) else str(value)


def by_source(found: Mapping[str, tuple[str, str]]) -> dict[str, list[str]]:
    """The settings of each source, as ``NAME=value``."""
    sources: dict[str, list[str]] = {}
    for name, (value, source) in found.items():
        sources.setdefault(source, []).append(f"{name}={value}")
    return sources
