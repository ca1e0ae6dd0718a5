"""``lectern alarm``: whether alarms reach people."""

import time

import typer

from lectern.cli.options import Json, say
from lectern.errors import LecternError, Misuse
from lectern.i18n import Text, translator
from lectern.settings import Common

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
        raise Misuse(Text("ALARM_URLS is not set: name services as apprise writes them, for example dingtalk://TOKEN"))
    names = [name for name, _ in notify.services(urls)]
    t = translator(settings.lectern_lang)
    title, text = t("lectern test alarm"), t("This is a test of {at:moment}: nothing is wrong.", at=time.time())
    refused = notify.send(urls, title, text, resolved=True)
    say(as_json, {"services": names, "refused": refused}, [f"{name}: took it" for name in names if name not in refused])
    if refused:
        raise LecternError(
            Text(
                "{refused}: did not take it. Is the address right, and can this host reach it?",
                refused=", ".join(refused),
            )
        )
