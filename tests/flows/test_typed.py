"""What a person types where the terminal has another encoding than this host is known to nobody: no traceback."""

from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from flows.as_run_report import Format
from lectern.cli import report, viewer
from lectern.db import bookings
from lectern.db.engine import open_database
from lectern.errors import Misuse
from lectern.states import BookingState
from tests import laid, strategies
from tests.rows import commit

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


def test_a_report_of_an_institution_without_a_name_or_in_another_encoding_shows_nobodys_classes(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A script whose variable is empty must not hand one school the classes of all."""
    start = datetime(2026, 11, 25, 12).astimezone().timestamp()
    done = strategies.booking("c-1", institution_id="i-7", start_time=start, end_time=start + 60)
    engine = open_database(f"sqlite:///{tmp_path}/teacher.db")
    commit(engine, bookings.add, [(done, BookingState.AIRED)], 1.0)
    engine.dispose()
    for institution, is_shown in (("i-7", True), ("", False), (GBK, False)):
        for form in Format:
            report.report(since="2026-11-25", institution=institution, form=form)
            assert (b"c-1" in capsysbinary.readouterr().out) is is_shown, form


def test_a_viewers_calendar_has_its_whole_address(capsys: pytest.CaptureFixture[str]) -> None:
    """One that is put together by hand gets a slash too many, and the page does not know it."""
    viewer.add_viewer("school-7", as_json=False)
    page, calendar = (line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines())
    assert calendar == page.replace("/?", "/timetable.ics?")
    assert urlsplit(calendar).path == "/timetable.ics"


def test_no_token_is_made_where_nobody_could_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address would be http:///?token=…, and a token is shown only once."""
    monkeypatch.setenv("API_BIND", "")
    for add in (viewer.add_viewer, viewer.add_client):
        with pytest.raises(Misuse, match="API_BIND is empty"):
            add("school-7")
    monkeypatch.setenv("API_BIND", "127.0.0.1:8800")
    viewer.add_viewer("school-7")
