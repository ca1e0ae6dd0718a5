"""Metrics count the rows of the database, and whatever a dashboard or an alert rule names is exported."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, insert

from lectern import metrics as lectern_metrics
from lectern.db import events, metrics, schema
from lectern.db.engine import reading, transaction
from lectern.model.facts import Event, Usage
from lectern.model.tables import streamer as at_streamer
from lectern.model.tables.streamer import classes, files, tasks
from lectern.model.tables.teacher import journal, orders, videos
from tests import laid

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
RUNBOOK = (Path(__file__).parents[2] / "RUNBOOK.md").read_text(encoding="utf-8")
OURS = re.compile(r"\blectern_[a-z_]+")
BOARD = json.loads((DASHBOARDS / "lectern.json").read_text(encoding="utf-8"))
HOSTS = [one["query"] for one in BOARD["templating"]["list"] if one["type"] == "query"]


def queries() -> list[str]:
    return [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]


@contextmanager
def engine_of(folder: Path, role: schema.Role) -> Iterator[Engine]:
    engine = laid.opened(role, folder / f"{role}.db")
    yield engine
    engine.dispose()


NOW = 1_764_010_000.0


def exported(engine: Engine, role: metrics.Role) -> dict[tuple[str, ...], float]:
    """Sample values at NOW by name and label values."""
    with reading(engine) as connection:
        text = metrics.exposition(role, f"{role}1", connection, bound=Usage(1000, 7), now=NOW).decode()
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_bookings_are_counted_by_state_and_code_and_the_oldest_waiter_has_an_age(teacher_engine: Engine) -> None:
    now = NOW
    common = {"start_time": now + 600, "end_time": now + 1200, "payload": "{}", "updated_at": now}
    with transaction(teacher_engine) as connection:
        for class_id, state, code, age in (
            ("a", "waiting", None, 40),
            ("b", "waiting", None, 5),
            ("c", "refused", 207, 9),
        ):
            row = {"class_id": class_id, "state": state, "code": code, "received_at": now - age, **common}
            connection.execute(insert(orders).values(**row))
        connection.execute(
            insert(videos).values(record_id=1, resolution="720P", status="transcoding", deadline=now + 60)
        )
    found = exported(teacher_engine, "teacher")
    assert found["lectern_bookings", "0", "waiting"] == 2
    assert found["lectern_bookings", "207", "refused"] == 1
    assert found["lectern_waiting_classes",] == 2
    assert found["lectern_waiting_oldest_seconds",] == 40
    assert found["lectern_waiting_slack_seconds",] == 600
    assert found["lectern_rendition_slack_seconds",] == 60
    assert found["lectern_renditions", "transcoding"] == 1


def test_a_message_that_is_not_handled_has_a_lag(teacher_engine: Engine) -> None:
    with transaction(teacher_engine) as connection:
        for state, age in (("new", 30), ("done", 900), ("dead", 60)):
            row = {"source": "order", "body": "{}", "state": state, "received_at": NOW - age}
            connection.execute(insert(journal.inbox).values(**row))
    found = exported(teacher_engine, "teacher")
    assert found["lectern_inbox_messages",] == 1
    assert found["lectern_inbox_lag_seconds",] == 30
    assert found["lectern_dead_letters",] == 1
    assert found["lectern_outbox_lag_seconds",] == 0


def test_the_cache_is_measured_in_bytes_used_reserved_pinned_and_its_bound(streamer_engine: Engine) -> None:
    with transaction(streamer_engine) as connection:
        for stem, state, cited, size in (("1", "ready", 1, 100), ("2", None, 0, 20), ("3", "downloading", 1, 7)):
            connection.execute(insert(files).values(id=stem, state=state, num_cite=cited, size_bytes=size, tries=0))
    found = exported(streamer_engine, "streamer")
    kinds = {kind: found["lectern_cache_bytes", kind] for kind in ("used", "reserved", "pinned", "bound")}
    assert kinds == {"used": 120, "reserved": 7, "pinned": 100, "bound": 1000}


def test_a_class_that_should_be_on_air_and_is_not_is_counted(streamer_engine: Engine) -> None:
    now = NOW
    with transaction(streamer_engine) as connection:
        for class_id, state, start in (
            ("late", "ready", -5),
            ("on", "on air", -5),
            ("cut", "on air", -5),
            ("soon", "ready", 90),
            ("over", "aired", -9),
        ):
            connection.execute(insert(classes).values(class_id=class_id, video_id="1", state=state))
            connection.execute(insert(tasks).values(class_id=class_id, start_time=now + start, end_time=now + 600))
        for class_id, what in (("on", "on air"), ("cut", "on air"), ("cut", "push broke off")):
            events.note(connection, at_streamer.journal, "streamer1", [Event(what, class_id)], now)
        # An old program wrote this one.
        connection.execute(insert(classes).values(class_id="old", video_id="1", state="ready"))
        times = ("2030-01-01 00:00:00", "2030-01-01 01:00:00")
        connection.exec_driver_sql("INSERT INTO task_list (class_id, start_time, end_time) VALUES ('old', ?, ?)", times)
    found = exported(streamer_engine, "streamer")
    assert found["lectern_classes_not_on_air",] == 2, "also one whose push broke off and did not come back"
    assert found["lectern_pushes_on_air",] == 1
    assert found["lectern_next_class_seconds",] == 90


@pytest.mark.parametrize("file", ["lectern.json", "alerts.yml"])
def test_what_a_dashboard_or_a_rule_names_is_exported(file: str, tmp_path: Path) -> None:
    known: set[str] = set()
    for role in ("teacher", "streamer"):
        with engine_of(tmp_path, role) as engine, transaction(engine) as connection:
            text = metrics.exposition(role, "x", connection).decode()
        for family in text_string_to_metric_families(text):
            extra = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}
            known |= {family.name, *(family.name + end for end in extra.get(family.type, ()))}
    worker = dict.fromkeys(("classes_on_air", "lateness_s", "slate_s", "bytes", "reconnects"), 0)
    playout = lectern_metrics.playout_exposition(
        {"worker": worker, "classes": [], "lease_until": 1, "boot_now": 0}
    ).decode()
    known |= {
        one.name
        for one in text_string_to_metric_families(metrics.of_process({"redis": True}, 1.0, {"lost": 1}).decode())
    }
    for family in text_string_to_metric_families(playout):
        known |= {family.name, f"{family.name}_total"}
        assert file != "lectern.json" or family.name in (DASHBOARDS / file).read_text(), "each is on the dashboard"
    text = (DASHBOARDS / file).read_text()
    expressions = "\n".join((*queries(), *HOSTS)) if "json" in file else text
    named = set(OURS.findall(expressions)) - {"lectern_page"}  # an external label of Prometheus
    assert len(named) >= 5
    assert named <= known


def test_every_metric_is_on_the_dashboard(streamer_engine: Engine, teacher_engine: Engine) -> None:
    text = (DASHBOARDS / "lectern.json").read_text()
    with transaction(streamer_engine) as connection:
        both = metrics.exposition("streamer", "s", connection)
    with transaction(teacher_engine) as connection:
        both += metrics.exposition("teacher", "t", connection) + metrics.of_process(
            {"redis": True}, 20.0, {"drained": 1}
        )
    families = {family.name for family in text_string_to_metric_families(both.decode())}
    assert {one for one in families if "process" not in one and one not in text} == set()


def test_each_panel_has_an_id_and_a_place_of_its_own_and_shows_the_hosts_that_are_chosen() -> None:
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = [
        (at["x"] + x, at["y"] + y)
        for at in (panel["gridPos"] for panel in BOARD["panels"])
        for x in range(at["w"])
        for y in range(at["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < 24
    assert [expr for expr in queries() if len(OURS.findall(expr)) != expr.count('instance=~"$host"')] == []


STATE_AT = {"nothing": 0, "a class to come": 1, "on air": 2, "slate": 3, "NOT ON AIR": 4}
"""Minutes of a streamer's evening, in which the state timeline has these states."""


@pytest.mark.live
@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here (Debian: apt install prometheus)")
def test_prometheus_understands_each_query_of_the_dashboard_and_a_streamers_worst_state_wins(tmp_path: Path) -> None:
    rules = [{"record": f"q{n}", "expr": expr.replace("$host", ".*")} for n, expr in enumerate(queries())]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    (panel,) = (one for one in BOARD["panels"] if one["title"] == "What each streamer sends")
    names = {
        int(value): one["text"] for value, one in panel["fieldConfig"]["defaults"]["mappings"][0]["options"].items()
    }
    series = {
        "classes_not_on_air": "0x7 1x2",
        "next_class_seconds": "_x1 60x7",
        "pushes_on_air": "0x3 1x6",
        "playout_slate_seconds": "0x5 30 60 90 120",
    }
    shown = [
        {
            "expr": panel["targets"][0]["expr"].replace("$host", ".*"),
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": '{instance="s1"}', "value": value}],
        }
        for value, minute in ((value, STATE_AT[name]) for value, name in names.items())
    ]
    given = [{"series": f'lectern_{name}{{instance="s1"}}', "values": values} for name, values in series.items()]
    tests = [{"interval": "30s", "input_series": given, "promql_expr_test": shown}]
    (tmp_path / "test.yml").write_text(json.dumps({"evaluation_interval": "30s", "tests": tests}))
    _promtool(tmp_path, "check", "rules", "--lint=none", "rules.yml")
    _promtool(tmp_path, "test", "rules", "test.yml")


def _promtool(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], check=False, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.live
@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here (Debian: apt install prometheus)")
def test_promtool_takes_the_rules_and_they_fire_on_what_they_are_for() -> None:
    _promtool(DASHBOARDS, "check", "rules", "alerts.yml")
    _promtool(DASHBOARDS, "test", "rules", "alerts.test.yml")


def test_what_is_over_is_counted_for_a_day_and_what_is_open_for_ever(teacher_engine: Engine) -> None:
    """To count all that is kept would take longer each day."""
    now = NOW
    common = {"start_time": now, "end_time": now + 60, "payload": "{}", "updated_at": now}
    ages = (("a", "aired", 3600), ("b", "aired", 100_000), ("c", "waiting", 100_000), ("d", "broken", 100_000))
    with transaction(teacher_engine) as connection:
        for class_id, state, age in ages:
            row = {"class_id": class_id, "state": state, "received_at": now - age, **common}
            connection.execute(insert(orders).values(**row))
    found = exported(teacher_engine, "teacher")
    assert {key[1:]: value for key, value in found.items() if key[0] == "lectern_bookings"} == {
        ("0", "aired"): 1,
        ("0", "waiting"): 1,
    }
