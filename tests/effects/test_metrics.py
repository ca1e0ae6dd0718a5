"""Metrics count the rows of the database, and whatever a dashboard or an alert rule names is exported."""

import json
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, insert

from lectern import metrics as lectern_metrics
from lectern.db import events, metrics
from lectern.db.engine import transaction
from lectern.model.facts import Event, Usage
from lectern.model.tables.streamer import classes, files
from lectern.model.tables.teacher import journal, orders, videos
from lectern.states import Backend, Role
from tests.rows import bare, look, order, put
from tests.strategies import NOW

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
RUNBOOK = (Path(__file__).parents[2] / "RUNBOOK.md").read_text(encoding="utf-8")
OURS = re.compile(r"\blectern_[a-z_]+")
BOARD = json.loads((DASHBOARDS / "lectern.json").read_text(encoding="utf-8"))
HOSTS = [one["query"] for one in BOARD["templating"]["list"] if one["type"] == "query"]


def queries() -> list[str]:
    return [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]


def exported(engine: Engine, role: Role) -> dict[tuple[str, ...], float]:
    """Sample values at NOW by name and label values."""
    text = look(engine, lambda one: metrics.exposition(role, f"{role}1", one, bound=Usage(1000, 7), now=NOW)).decode()
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_bookings_are_counted_by_state_and_code_and_what_waits_has_an_age(teacher_engine: Engine) -> None:
    """What is over counts for a day, what is open for ever: to count all that is kept would take longer each day."""
    states = [("waiting", None, 100_000), ("waiting", None, 5), ("refused", 207, 9)]
    states += [("placed", None, 4000), ("aired", None, 86_400), ("aired", None, 100_000), ("broken", None, 100_000)]
    several = [
        order(f"c-{number}", state, 600, 1200, code=code, received_at=NOW - age, updated_at=NOW)
        for number, (state, code, age) in enumerate(states)
    ]
    several.append(order("c-1~backup", "placed", 600, 1200, received_at=NOW - 9000, promised_at=NOW - 9000))
    # Changes, one in force and one that waits, of classes that go on as they are.
    several.append(order("c-3^1", "cancelled", 600, 1200, revises="c-3"))
    several.append(order("c-6^1", "waiting", -60, 1200, revises="c-6", received_at=NOW - 200_000))
    messages = [
        {"source": "order", "body": "{}", "state": state, "received_at": NOW - age}
        for state, age in (("new", 30), ("done", 900), ("dead", 60))
    ]
    begun = {"record_id": 1, "resolution": "720P", "status": "transcoding", "deadline": NOW + 60}
    put(teacher_engine, {orders: several, videos: [begun], journal.inbox: messages})
    found = exported(teacher_engine, "teacher")
    assert {key[1:]: value for key, value in found.items() if key[0] == "lectern_bookings"} == {
        ("0", "waiting"): 2,
        ("207", "refused"): 1,
        ("0", "aired"): 1,
        ("0", "placed"): 2,
    }
    assert found["lectern_placed_oldest_seconds",] == 4000, "it was sent again since; a second airing gets no answer"
    assert found["lectern_waiting_classes",] == 2
    assert found["lectern_waiting_oldest_seconds",] == 100_000
    assert found["lectern_waiting_slack_seconds",] == 600
    assert found["lectern_rendition_slack_seconds",] == 60
    assert found["lectern_renditions", "transcoding"] == 1
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
    assert (found["lectern_cache_places", "pinned"], found["lectern_cache_renditions", "unknown"]) == (1, 1)


def test_a_class_that_should_be_on_air_and_is_not_is_counted(streamer_engine: Engine) -> None:
    states = [("late", 0, "ready"), ("on", -5, "on air"), ("cut", -5, "on air"), ("soon", 90, "ready")]
    with transaction(streamer_engine) as connection:
        for class_id, start, state in (*states, ("over", -9, "aired"), ("just over", -600, "ready")):
            bare(connection, class_id, NOW + start, state)
        for class_id, what in (("on", "on air"), ("cut", "on air"), ("cut", "push broke off")):
            events.note(connection, "streamer1", [Event(what, class_id)], NOW)
        # An old program wrote this one.
        connection.execute(insert(classes).values(class_id="old", video_id="1", state="ready"))
        times = ("2030-01-01 00:00:00", "2030-01-01 01:00:00")
        connection.exec_driver_sql("INSERT INTO task_list (class_id, start_time, end_time) VALUES ('old', ?, ?)", times)
    found = exported(streamer_engine, "streamer")
    assert found["lectern_classes_not_on_air",] == 2, "also one whose push broke off and did not come back"
    assert found["lectern_pushes_on_air",] == 1
    assert found["lectern_next_class_seconds",] == 90


@pytest.fixture
def families(streamer_engine: Engine, teacher_engine: Engine) -> list[Metric]:
    """All that hosts export."""
    worker = dict.fromkeys(("classes_on_air", "lateness_s", "slate_s", "bytes", "reconnects"), 0)
    playout = {"worker": worker, "classes": [], "lease_until": 1, "boot_now": 0}
    told = [lectern_metrics.playout_exposition(playout), metrics.of_process({"redis": True}, 20.0, {"drained": 1})]
    told.append(look(streamer_engine, lambda connection: metrics.exposition("streamer", "s", connection)))
    told.append(look(teacher_engine, lambda connection: metrics.exposition("teacher", "t", connection)))
    return [family for one in told for family in text_string_to_metric_families(one.decode())]


def test_what_a_dashboard_or_a_rule_names_is_exported_and_every_metric_is_on_the_dashboard(
    families: list[Metric],
) -> None:
    ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}
    known = {family.name + end for family in families for end in ("", *ends.get(family.type, ()))}
    for expressions in ("\n".join((*queries(), *HOSTS)), (DASHBOARDS / "alerts.yml").read_text()):
        named = set(OURS.findall(expressions)) - {"lectern_page"}  # an external label of Prometheus
        assert len(named) >= 5
        assert named <= known
    text = (DASHBOARDS / "lectern.json").read_text()
    assert [one.name for one in families if "process" not in one.name and one.name not in text] == []


def test_the_first_transcodings_of_a_process_that_fail_are_counted_by_their_alert() -> None:
    """Prometheus sees no increase in a series that begins with them: ten that fail together would be none."""
    lectern = [sys.executable, "-c", "from lectern.metrics import *; print(generate_latest(SEEN).decode())"]
    text = subprocess.run(lectern, check=True, capture_output=True, text=True, timeout=60).stdout
    rule = re.search(r'lectern_transcodes_total\{outcome=~"([a-z_|]+)"\}', (DASHBOARDS / "alerts.yml").read_text())
    assert rule is not None
    for backend, outcome in product(Backend, rule[1].split("|")):
        assert f'lectern_transcodes_total{{backend="{backend}",outcome="{outcome}"}} 0.0' in text


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


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here (apt install prometheus)"
)


@pytest.mark.live
@needs_promtool
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
@needs_promtool
def test_promtool_takes_the_rules_and_they_fire_on_what_they_are_for() -> None:
    _promtool(DASHBOARDS, "check", "rules", "alerts.yml")
    _promtool(DASHBOARDS, "test", "rules", "alerts.test.yml")
