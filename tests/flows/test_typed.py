"""What a person types where the terminal has another encoding than this host is known to nobody: no traceback."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows.as_run_report import Format
from lectern.cli import report, viewer
from lectern.errors import Misuse
from tests import laid

GBK = "\udcbf\udcce"


@pytest.fixture(autouse=True)
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with a teacher's database."""
    url = f"sqlite:///{laid.database('teacher', tmp_path / 'teacher.db')}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEACHER_DATABASE_URL", url)
    monkeypatch.setenv("TRANSCODE_SIGN_KEY", "made up")


def test_a_viewer_whose_name_was_typed_in_another_encoding_is_none() -> None:
    with pytest.raises(Misuse, match="is no viewer"):
        viewer.revoke(cast("Any", SimpleNamespace(command_path="lectern viewer revoke")), GBK)


@pytest.mark.parametrize("form", Format)
def test_the_report_of_an_institution_that_was_typed_in_another_encoding_is_empty(
    form: Format, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    report.report(since="2026-11-25", institution=GBK, form=form)
    assert b"2026-11-25" not in capsysbinary.readouterr().out or form is Format.html
