"""``lectern alarm``: whether alarms reach people."""

import time

import typer

from lectern import chinese_alarms
from lectern.cli.options import Json, say
from lectern.errors import LecternError, Misuse
from lectern.settings import Common

TEST = "lectern test alarm", "This is a test of {}: nothing is wrong."

app = typer.Typer(no_args_is_help=True, help="Whether alarms reach people.")


@app.callback()
def _group() -> None:
    """Whether alarms reach people."""


@app.command("test")
def send_test(as_json: Json = False) -> None:
    """Send a test alarm to each service of ALARM_URLS; exit code 1 if one does not take it."""
    from lectern import notify  # noqa: PLC0415 (apprise takes long to load)

    settings = Common.load()
    urls = settings.alarm_services
    if not urls:
        raise Misuse("ALARM_URLS is not set: name services as apprise writes them, for example dingtalk://TOKEN")
    names = [name for name, _ in notify.services(urls)]
    title, text = chinese_alarms.TEST if settings.lectern_lang == "zh" else TEST
    text = text.format(time.strftime("%Y-%m-%d %H:%M:%S"))
    refused = notify.send(urls, title, text, resolved=True)
    say(as_json, {"services": names, "refused": refused}, [f"{name}: took it" for name in names if name not in refused])
    if refused:
        raise LecternError(f"{', '.join(refused)}: did not take it. Is the address right, and can this host reach it?")
