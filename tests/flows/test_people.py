"""Alarms reach people: in words, with all classes, by services that need no Prefect; a resolved one is no error."""

import asyncio
import email
import json
import logging
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import stamina
from apprise.plugins import dingtalk, feishu, lark, wecombot

from flows import outbox_publisher as telling
from flows.host import Host, TeacherHost
from flows.resident import notifications
from flows.resident.prefect import recorder
from lectern import formatting, notify
from lectern.db.outbox import Telling
from lectern.errors import Misuse, TryAgain
from lectern.settings import TeacherSettings
from tests.answering import Answer, serving
from tests.typed import lectern
from tests.waiting import async_wait_until

NOW = 1_764_010_000.0


Service = Any
"""A webhook at `hook`: it has `got` what it took, gives its `answers` one by one, and `says` the same each time."""


class Hook(Answer):
    def answer(self) -> None:
        its: Any = self.server
        body, status = json.loads(self.sent()), its.answers.pop(0) if len(its.answers) > 1 else its.answers[0]
        if status == 200:
            its.got.append(body)
        self.say(status, body=its.says)


@contextmanager
def listening(answers: list[int]) -> Iterator[Service]:
    with serving(Hook) as server:
        made: Any = server
        made.answers, made.got, made.says = answers, [], b""
        made.hook = f"json://127.0.0.1:{server.server_port}/hook"
        yield made


@pytest.fixture
def service() -> Iterator[Service]:
    with listening([200]) as made:
        yield made


def alarm(**more: object) -> str:
    fields = {"code": 321, "message": "c-1: it is not on air", "host": "streamer1", "class_id": "c-1", "at": NOW}
    return json.dumps({**fields, "runbook": "321: the class could not be aired to its end", **more})


def test_an_alarm_says_how_urgent_it_is_and_where_to_read_on_and_shows_no_token(service: Service) -> None:
    title, text, resolved = notify.written(alarm(), "https://t.example/runbook")
    assert title == "lectern 321 critical: streamer1"
    assert text.splitlines()[1:] == [
        f"raised at: {formatting.moment(NOW)}",
        "classes: c-1",
        "RUNBOOK.md: 321: the class could not be aired to its end",
        "https://t.example/runbook#321",
    ]
    assert notify.send(service.hook, title, text, resolved=resolved) == []
    ended, text, resolved = notify.written(alarm(stage="resolved"), None)
    assert ended.startswith("lectern 321 resolved")
    notify.send(service.hook, ended, text, resolved=resolved)
    assert [(one["title"], one["type"]) for one in service.got] == [(title, "failure"), (ended, "success")]
    service.answers = [500]
    (name,) = notify.send(service.hook, "t", "b")
    assert "hook" not in name
    with pytest.raises(Misuse) as caught:
        notify.services("nosuch://secret-token")
    assert "secret-token" not in str(caught.value)


def test_a_mail_has_the_lines_and_the_words_of_its_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mail is HTML unless it is told otherwise, in which a line ends nowhere, and `<c-1>` is a tag that nobody sees."""
    mails: list[str] = []

    class Server(SimpleNamespace):
        def sendmail(self, _by: str, _to: object, mail: str) -> None:
            mails.append(mail)

    done = dict.fromkeys(("ehlo", "starttls", "login", "quit", "set_debuglevel"), lambda *_, **__: None)
    monkeypatch.setattr(smtplib, "SMTP", lambda *_, **__: Server(**done))
    assert notify.send("mailto://user:pass@mail.example", "title", "<c-1>: no & no\nraised at: 19:00") == []
    (mail,) = (email.message_from_string(one) for one in mails)
    assert mail.get_content_type() == "text/plain"
    assert str(mail.get_payload()).splitlines() == ["<c-1>: no & no", "raised at: 19:00"]


CHATS: list[tuple[Any, ...]] = [
    (dingtalk.NotifyDingTalk, "dingtalk://TOKEN", {"errcode": 310000, "errmsg": "关键词不匹配"}, {"errcode": 0}),
    (wecombot.NotifyWeComBot, "wecombot://KEY", {"errcode": 93000, "errmsg": "invalid webhook"}, {"errcode": 0}),
    (feishu.NotifyFeishu, "feishu://TOKEN", {"code": 19024, "msg": "Key Words Not Found"}, {"code": 0, "data": {}}),
    (lark.NotifyLark, "lark://TOKEN", {"code": 11232, "msg": "frequency limited"}, {"StatusCode": 0, "code": 0}),
]


@pytest.mark.parametrize("chat", CHATS, ids=lambda chat: chat[1])
def test_a_chat_that_refuses_an_alarm_in_an_answer_of_http_200_has_not_taken_it(
    chat: tuple[Any, ...], service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Their robots do so for a wrong token, a missing keyword, or too many messages a minute; the log says which."""
    plugin, url, refusal, taken = chat
    monkeypatch.setattr(plugin, "notify_url", f"{service.url}/")
    monkeypatch.setattr(plugin, "request_rate_per_sec", 0)
    service.says = json.dumps(refusal, ensure_ascii=False).encode()
    with caplog.at_level(logging.WARNING, "lectern"):
        assert notify.send(url, "t", "b") == [f"{url.partition('://')[0]}:// (number 1)"]
    (why,) = [one.getMessage() for one in caplog.records if one.name == "lectern"]
    assert all(str(value) in why for value in refusal.values())
    assert "TOKEN" not in why
    for answer in (taken, {"odd": True}, ["odd"]):
        service.says = json.dumps(answer).encode()
        assert notify.send(url, "t", "b") == []


def test_a_long_alarm_is_cut_to_the_bytes_that_wecom_takes(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses a longer one, with its title; a Chinese character takes three of its 2048 bytes."""
    monkeypatch.setattr(wecombot.NotifyWeComBot, "notify_url", f"{service.url}/")
    title, text = "lectern 321 紧急: streamer1", "c-1：没有在播出；" * 100
    assert notify.send(f"wecombot://KEY {service.hook}", title, text) == []
    chat, webhook = service.got
    said = chat["text"]["content"]
    assert 2000 < len(said.encode()) <= 2048
    assert said.startswith(title)
    assert "c-1：没有在播出；" * 50 in said
    assert "\ufffd" not in said
    assert webhook["message"] == text


def test_a_service_that_took_an_alarm_does_not_get_it_again_because_another_hangs(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without name servers, two services can take longer than all of them may together."""
    monkeypatch.setattr(notifications, "backoff_s", lambda _: 0.01)
    monkeypatch.setattr(notifications, "SEND_S", 3.0)  # in which the other one has surely taken it
    monkeypatch.setattr(notifications, "TRIES", 2)
    monkeypatch.setattr(notify, "_TIMES", "cto=4&rto=4")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hangs = f"json://127.0.0.1:{silent.getsockname()[1]}/hook"
        how = asyncio.run(notifications.People(stand(f"{service.hook} {hangs}"))._pass_on(alarm()))
    assert (how, len(service.got)) == (Telling.GIVEN_UP, 1)


async def test_an_alarm_is_sent_while_all_other_threads_hang(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with the disk of the recordings: the alarm about that was given up, and nobody was told by ALARM_URLS."""
    monkeypatch.setattr(notifications, "SEND_S", 10.0)
    monkeypatch.setattr(notifications, "TRIES", 1)
    monkeypatch.setattr(notifications, "NOBODY_S", 0.0)
    is_back = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        threads.submit(is_back.wait, 60)
        try:
            how = await notifications.People(stand(service.hook))._pass_on(alarm())
        finally:
            is_back.set()
    assert (how, len(service.got)) == (Telling.TOLD, 1)


def test_a_service_that_is_dead_holds_up_no_later_alarm_for_the_others(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The minutes would add up: it has one try of each until it takes one. Who took an alarm does not get it again.

    Nobody says that nobody was told.
    """
    monkeypatch.setattr(notifications, "backoff_s", lambda _: 0.0)
    with listening([500] * (notifications.TRIES + 1) + [200, 500, 500, 200]) as busy:
        people = notifications.People(stand(f"{service.hook} {busy.hook}"))
        with caplog.at_level(logging.WARNING):
            found = [asyncio.run(people._pass_on(alarm())) for _ in range(4)]
    assert found == [Telling.GIVEN_UP, Telling.GIVEN_UP, Telling.TOLD, Telling.TOLD]
    assert (len(service.got), len(busy.got)) == (4, 2)
    assert sum("does not take an alarm" in one.message for one in caplog.records) == notifications.TRIES + 3
    assert not [one.message for one in caplog.records if "nobody" in one.message]


def stand(urls: str) -> Host[Any]:
    """A host without a database: it passes on what is in memory."""
    settings = TeacherSettings.load(_env_file=None, transcode_sign_key="made up", alarm_urls=urls)
    return TeacherHost(settings, cast("Any", None), cast("Any", None), cast("Any", None))


async def test_a_service_that_is_named_meanwhile_is_told(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one, alarms wait; no restart is needed."""
    monkeypatch.setattr(notifications, "LOOK_S", 0.01)
    host = stand("")
    host.to_people.append(alarm())
    telling = asyncio.create_task(notifications.People(host).tell())
    await asyncio.sleep(0.05)
    assert len(host.to_people) == 1
    host.settings = stand(service.hook).settings
    await async_wait_until(lambda: len(service.got) == 1, description="it is told")
    telling.cancel()


def test_a_test_alarm_can_be_sent_by_hand(service: Service, tmp_path: Path) -> None:
    done = lectern(tmp_path, "alarm", "test", ALARM_URLS=service.hook)
    assert (done.returncode, "took it" in done.stdout) == (0, True), done.stderr
    assert "nothing is wrong" in service.got[0]["message"]
    assert lectern(tmp_path, "alarm", "test").returncode == 2
    service.answers = [500]
    assert lectern(tmp_path, "alarm", "test", ALARM_URLS=service.hook).returncode == 1


def test_with_json_each_line_is_json_a_librarys_too_and_what_was_foreseen_has_no_traceback(tmp_path: Path) -> None:
    code = """
import logging, warnings
from lectern import logs
from lectern.errors import TryAgain
logs.set_up("json", "INFO")
import prefect.logging.configuration as configuration
configuration.setup_logging()
logs.all_alike()
logging.getLogger("lectern").info("ours: http://o.example/1.flv?sign=s3")
logging.getLogger("prefect.flow_runs").warning("a run")
logging.getLogger("uvicorn.error").error("a server")
logging.getLogger("elsewhere").warning("a library")
warnings.warn("old")
for error in (TryAgain("the OSS does not answer"), KeyError("odd")):
    try:
        raise error
    except (TryAgain, KeyError):
        logging.getLogger("prefect.task_runs").exception("Task run failed")
"""
    environment = {"PATH": "/usr/bin:/bin", "PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": "http://127.0.0.1:1/api"}
    environment["PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW"] = "ignore"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=90, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    said = [line["message"] for line in lines]
    assert said[:4] == ["ours: http://o.example/1.flv?…", "a run", "a server", "a library"]
    assert len(lines) == 7
    assert [("traceback" in line) for line in lines[-2:]] == [False, True]


@pytest.mark.parametrize(
    ("stage", "level"), [("resolved", logging.INFO), ("more", logging.ERROR), (None, logging.ERROR)]
)
def test_end_of_incident_is_no_error_in_log(stage: str | None, level: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lectern")
    telling._log(json.dumps({"code": 321, "message": "c-1: it is not on air", "stage": stage}))
    assert [one.levelno for one in caplog.records] == [level]


def test_a_retry_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    """The library's own line has neither the subject nor the reason."""
    recorder.set_up()

    @stamina.retry(on=TryAgain, attempts=2, wait_initial=0.01, wait_jitter=0.01)
    def ask() -> None:
        raise TryAgain("6666_720P: the OSS API answers 503")

    with pytest.raises(TryAgain):
        ask()
    assert [one.getMessage().partition(";")[0] for one in caplog.records] == ["6666_720P: the OSS API answers 503"]
