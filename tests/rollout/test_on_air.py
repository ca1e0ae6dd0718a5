"""The playout's part in a rollout: whatever becomes of it, the rollout or the rollback goes on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lectern.errors import CallAPerson
from lectern.playout.control_socket import PlayoutUnreachable
from lectern.rollout import on_air


def test_a_playout_that_is_gone_after_its_upgrade_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a rollback, in which the playout goes back last, would end before its own end."""

    def asked(_: Path, do: str) -> dict[str, str]:
        if do == "hello":
            return {"release": "2.0.1"}
        raise PlayoutUnreachable("no playout answers there")

    monkeypatch.setattr(on_air, "_asked", asked)
    wanted: Any = SimpleNamespace(version="2.0.0", env={}, code_dir=tmp_path, root=tmp_path)
    with pytest.raises(CallAPerson, match="no playout answers there"):
        on_air.upgrade_playout(wanted)
