"""Reads the folder of proved backups: their manifests, and the age of the newest one."""

import json
import math
from pathlib import Path

MANIFEST = "manifest.json"


def manifests(folder: Path, name: str) -> dict[Path, dict[str, object]]:
    """The finished backups of *name* in *folder*, the newest first, without `damaged` ones.

    Raises OSError if the folder cannot be read.
    """
    found = {one: told for one, told in _told(folder, name).items() if told is not None and told.get("name") == name}
    return dict(sorted(found.items(), key=lambda item: _seconds(item[1], "made_at"), reverse=True))


def damaged(folder: Path, name: str) -> list[Path]:
    """The backups of *name* in *folder* whose manifest cannot be read; raises OSError if the folder cannot be read."""
    return sorted(one for one, told in _told(folder, name).items() if told is None)


def _told(folder: Path, name: str) -> dict[Path, dict[str, object] | None]:
    found: dict[Path, dict[str, object] | None] = {}
    for one in folder.iterdir():
        if not one.name.startswith(f"{name}-") or not (one / MANIFEST).exists():
            continue
        try:
            told = json.loads((one / MANIFEST).read_text(encoding="utf-8"))
        except ValueError:
            told = None
        found[one] = told if isinstance(told, dict) else None
    return found


def ages_s(folder: Path, name: str, now: float) -> dict[str, float]:
    """Seconds since the newest backup of *name* was made ("here"), and since one was copied off the host ("away").

    Infinite if there is none, or the folder cannot be read; empty if this host makes no backups.
    """
    if not folder.exists():
        return {}
    try:
        told = list(manifests(folder, name).values())
    except OSError:
        return {"here": math.inf}
    ages = {"here": min((now - _seconds(one, "made_at") for one in told), default=math.inf)}
    away = [now - _seconds(one, "copied_at") for one in told if one.get("copied_at")]
    return ages | ({"away": min(away)} if away else {})


def _seconds(told: dict[str, object], field: str) -> float:
    value = told.get(field)
    return float(value) if isinstance(value, int | float) else 0.0
