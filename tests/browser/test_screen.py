"""The page as a screen: the strip is seen without scrolling, and an open page changes without being loaded again."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import pytest
from playwright.sync_api import Page, ViewportSize
from starlette.applications import Starlette

from flows.host import TeacherHost
from flows.resident.page import Page as Served
from lectern.db import events, viewers
from lectern.model.facts import AsRun, Usage
from lectern.model.views import EventView, Gap, Network, OpenAlarm, Sending, StreamerStatus
from lectern.settings import TeacherSettings
from tests import laid
from tests.browser.conftest import SHOTS
from tests.flows.test_page import Words, book, order
from tests.rows import commit
from tests.stage.town import Background
from town.ports import HOST, Http, free_port

pytestmark = pytest.mark.night
PHONE: ViewportSize = {"width": 390, "height": 844}
WIDER = """
[...document.querySelectorAll("body, section, table, td")]
    .filter(one => one.scrollWidth > one.clientWidth || one.getBoundingClientRect().right > innerWidth)
    .map(one => one.outerHTML.slice(0, 300))
"""
STREAMERS, CLASSES = 3, 40
AXE = "4.14.1"
NETWORK = Network(600_000, 4_000_000, 12_500_000)
SCREEN: ViewportSize = {"width": 1280, "height": 800}


@dataclass
class Screen:
    """A teacher's page, which a thread serves, and a made-up day."""

    host: TeacherHost
    server: Http
    background: Background = field(default_factory=Background)
    address: str = ""

    def book(self, class_id: str, state: str, start: float, **more: object) -> None:
        book(self.host, order(class_id, state, start, **more))


def fill(screen: Screen, now: float) -> None:
    """CLASSES on STREAMERS: some show the slate, one is not on air; one's recording will be late; some have gaps."""
    sendings: dict[str, dict[str, Sending]] = {f"streamer{n + 1}": {} for n in range(STREAMERS)}
    screen.book("c-late", "placed", now + 1500, streamer="streamer1")
    for at in range(CLASSES - 1):
        name, class_id = f"streamer{at % STREAMERS + 1}", f"c-{7000 + at}"
        start = now - 7050 + at // STREAMERS * 1900 + at % STREAMERS * 400
        if start + 2700 < now:
            whole = AsRun(0, 1, "recording", start, start + 2700, 0, 2700, 500_000_000)
            cut = [
                AsRun(0, 1, "recording", start, start + 900, 0, 900, 170_000_000),
                AsRun(0, 1, "slate", start + 900, start + 1200, 0, 300),
                AsRun(0, 2, "recording", start + 1400, start + 2700, 1400, 1300, 240_000_000),
            ]
            has_gaps = at % 3 == 1
            screen.book(class_id, "aired with gaps" if has_gaps else "aired", start, streamer=name)
            commit(screen.host.engine, events.keep_parts, class_id, cut if has_gaps else [whole], name)
            if has_gaps:
                refused = EventView(start + 1201, "push refused", class_id, "6666_720P", name, "no such stream")
                commit(screen.host.engine, events.keep_of, [refused])
        elif start <= now:
            screen.book(class_id, "ready", start, streamer=name)
            gaps = (Gap(start + 100, start + 300, 200, "the push broke off"),) if at % 2 else ()
            sent = Sending(
                True, since=start, position_s=now - start, slate=name == "streamer3", gaps=gaps, cuts=len(gaps)
            )
            if name == "streamer2":
                sent = Sending(False, failures=17, why="push.example: Connection refused")
            sendings[name][class_id] = sent
        else:
            waits = start > now + 9000 and at % 9 == 0
            state, place = ("waiting", None) if waits else ("ready", name)
            screen.book(class_id, state, start, streamer=place)
    for at in range(8):
        screen.book(f"c-r{at}", "refused", now - 6000 + 1800 * at, code=316, message="no room for 6666_720P")
    alarm = OpenAlarm(321, "streamer2", 3, now - 60, "c-7010: the push is refused", ("c-7010",))
    used, bound, late = Usage(9 * 10**11, 12), Usage(10**12, 12), {"c-late": now + 1800}
    cast("Words", screen.host.bus).said = {
        name: StreamerStatus(now, its, {}, [alarm], 1, len(its), used=used, bound=bound, network=NETWORK, ready_by=late)
        for name, its in sendings.items()
    }


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screen]:
    """The page of a day with 3 streamers and 40 classes."""
    engine = laid.opened("teacher", tmp_path_factory.mktemp("screen") / "teacher.db")
    settings = TeacherSettings.load(_env_file=None, transcode_sign_key="made up", site_name="Live school")
    now, port = time.time(), free_port()
    host = TeacherHost(settings, engine, cast("Any", Words()), cast("Any", None))
    made = Screen(host, Http(Starlette(routes=Served(host).routes()), port))
    fill(made, now)
    made.background.run(made.server.start())
    made.address = f"http://{HOST}:{port}/?token={commit(engine, viewers.make, 'eye', None, now)}"
    yield made
    made.background.run(made.server.stop())
    made.background.close()
    engine.dispose()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program axe-core, which looks for what hinders readers of a page."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is missing, by which axe-core comes: apt install npm")
    folder = tmp_path_factory.mktemp("axe")
    wanted = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", f"axe-core@{AXE}"]
    subprocess.run(wanted, cwd=folder, check=True, timeout=180, capture_output=True)
    return (folder / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


def shot(page: Page, name: str) -> None:
    page.screenshot(path=SHOTS / f"{name}.png")


def test_what_counts_is_seen_without_scrolling(page: Page, screen: Screen) -> None:
    """The counts, the strip, and what is not on air with its heading of the runbook."""
    page.set_viewport_size(SCREEN)
    page.goto(f"{screen.address}&lang=zh")
    shot(page, "screen zh")
    page.goto(screen.address)
    shot(page, "screen")
    for part in ("#line", "#strip .strip", "#missing", "#on-air h2"):
        box = page.locator(part).bounding_box()
        assert box is not None, part
        assert box["y"] + box["height"] <= SCREEN["height"], part
    assert page.locator("#missing a[href='/runbook#321']").count() >= 1
    assert page.title().endswith("NOT ON AIR - Live school")
    assert page.locator("#soon tr.bad a").all_inner_texts() == ["c-late"]
    assert page.evaluate(WIDER) == []


def test_an_open_page_changes_without_being_loaded_again(page: Page, screen: Screen) -> None:
    """What somebody has opened stays open, and the clock goes on."""
    page.goto(screen.address)
    page.evaluate("window.mark = 1")
    page.locator("#refused summary").first.click()
    clock = page.locator("time.now").inner_text()
    screen.book("c-new", "ready", time.time() + 600, streamer="streamer1")
    page.locator("#soon a", has_text="c-new").wait_for()
    assert page.evaluate("window.mark") == 1
    screen.book("c-r9", "refused", time.time() + 60, code=316, message="no room for 7777")
    page.locator("#refused p", has_text="no room for 7777").wait_for()
    assert page.locator("#refused details").first.get_attribute("open") is not None
    assert page.locator("time.now").inner_text() != clock


def test_on_a_phone_nothing_is_wider_than_it_and_a_message_has_lines_to_itself(page: Page, screen: Screen) -> None:
    """The day, a class, the as-run, a search and the runbook, in both languages.

    Beside four other cells, a message would be a column of single words.
    """
    page.set_viewport_size(PHONE)
    base = screen.address.partition("/?")[0]
    page.goto(screen.address)
    messages = [(one.inner_text(), one.bounding_box()) for one in page.locator("td.wide:visible").all()]
    assert len(messages) >= 2
    assert [said for said, box in messages if box is None or box["width"] <= 0.9 * (PHONE["width"] - 20)] == []
    for path in ("/", "/class/c-7001", "/as-run?day=" + time.strftime("%F"), "/classes?q=c-7", "/runbook?q=lease"):
        for language in ("en", "zh"):
            page.goto(f"{base}{path}{'&' if '?' in path else '?'}lang={language}")
            shot(page, f"phone{path.partition('?')[0].replace('/', ' ')} {language}")
            assert page.evaluate(WIDER) == [], path
    page.set_viewport_size({"width": 1280, "height": 960})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hinders_readers(page: Page, screen: Screen, axe: str, scheme: Literal["light", "dark"]) -> None:
    """No colour is too pale, no picture, field or link is without a name, and no heading is left out."""
    page.emulate_media(color_scheme=scheme)
    page.goto(screen.address)
    today, found = time.strftime("%F"), list[str]()
    for path in (
        "/",
        "/class/c-7001",
        f"/as-run?day={today}",
        "/classes?q=c-7",
        "/runbook",
        "/class/none",
        "/?lang=zh",
    ):
        page.goto(f"{screen.address.partition('/?')[0]}{path}")
        page.evaluate(f"{axe};0")
        for one in page.evaluate("axe.run(document)")["violations"]:
            found += [f"{path}: {one['help']}: {node['html'][:200]}" for node in one["nodes"]]
    page.emulate_media(color_scheme="light")
    assert found == []


def test_a_page_that_gets_no_answer_says_since_when(page: Page, screen: Screen) -> None:
    page.goto(screen.address)
    screen.background.run(screen.server.stop())
    page.locator("time.now.stale").wait_for()
    screen.background.run(screen.server.start())
    page.locator("time.now:not(.stale)").wait_for()
