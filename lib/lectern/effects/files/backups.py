"""Reads the folder of proved backups: their manifests, and the age of the newest one."""

import json
import math
from pathlib import Path

MANIFEST = "manifest.json"


def manifests(folder: Path, name: str) -> dict[Path, dict[str, object]]:
    """The finished backups of *name* in *folder*, the newest first; raises OSError if it cannot be read."""
    found: dict[Path, dict[str, object]] = {}
    for one in folder.iterdir():
        if one.name.startswith(f"{name}-") and (one / MANIFEST).exists():
            told = json.loads((one / MANIFEST).read_text(encoding="utf-8"))
            if told.get("name") == name:
                found[one] = told
    return dict(sorted(found.items(), key=lambda item: _seconds(item[1], "made_at"), reverse=True))


def ages_s(folder: Path, name: str, now: float) -> dict[str, float]:
    """Seconds since the newest backup of *name* was made ("here"), and since one was copied off the host ("away").

    Infinite if there is none, or the folder cannot be read; empty if this host makes no backups.
    """
    if not folder.exists():
        return {}
    try:
        told = list(manifests(folder, name).values())
    except (OSError, ValueError):
        return {"here": math.inf}
    ages = {"here": min((now - _seconds(one, "made_at") for one in told), default=math.inf)}
    away = [now - _seconds(one, "copied_at") for one in told if one.get("copied_at")]
    return ages | ({"away": min(away)} if away else {})


def _seconds(told: dict[str, object], field: str) -> float:
    value = told.get(field)
    return float(value) if isinstance(value, int | float) else 0.0
