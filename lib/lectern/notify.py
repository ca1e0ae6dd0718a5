"""Alarms to DingTalk, WeCom, mail, webhooks and more, by apprise; it needs neither Redis nor Prefect."""

import json
import logging
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import apprise
from apprise.plugins import dingtalk, feishu, lark, wecombot

from lectern import formatting
from lectern.errors import CODES, Misuse, Severity, alarm_in
from lectern.i18n import msgid, of_wire, translator

# Reads what the robots of chats answer: DingTalk, WeCom, Feishu and Lark refuse a message with HTTP 200, too.
log = logging.getLogger("lectern")
PLUGINS: tuple[Any, ...] = (dingtalk, feishu, lark, wecombot)
REFUSALS = {"errcode": "errmsg", "code": "msg"}
"""The fields of an answer: a code, which is 0 if the message was taken, and the reason if it was not."""

_REFUSED = 422


_LIBRARY: Any = vars(dingtalk)["requests"]  # with which all of them post


def _post(url: str, **given: Any) -> Any:  # noqa: ANN401 (the plugin's, and its library's answer)
    """The answer to a plugin, which looks at the status alone: a refusal gets one that says so."""
    answer = _LIBRARY.post(url, **given)
    why = _refusal(answer)
    if answer.ok and why is not None:
        log.warning("alarms: %s refuses a message: %s", urlsplit(url).hostname, why)
        answer.status_code = _REFUSED
    return answer


def _refusal(answer: Any) -> str | None:  # noqa: ANN401 (of the plugin's library)
    """Code and reason of a refusal; None if the message was taken, or if nobody knows what the answer says."""
    try:
        fields = answer.json()
    except ValueError:
        return None
    for code, why in REFUSALS.items() if isinstance(fields, dict) else ():
        if isinstance(fields.get(code), int) and fields[code] != 0:
            return f"{fields[code]} {fields.get(why, '')}".strip()[:500]
    return None


LONGEST = 3_000
"""Most characters of a message: who needs more of it looks at the page, or types a command."""

MOST_BYTES = {"wecombot": 2048 - len("\r\n")}
"""Most bytes of a message with its title, for services that refuse longer ones."""

_TIMES = "cto=4&rto=8"  # seconds to connect, and for the answer
for _plugin in PLUGINS:  # they take a refused message for refused from now on
    _plugin.requests = SimpleNamespace(**{**vars(_LIBRARY), "post": _post})
_APPRISE = "https://github.com/caronc/apprise"


def services(urls: str) -> list[tuple[str, apprise.Apprise]]:
    """Each service of *urls* (separated by blanks), with a name that shows no token. Raises Misuse for an odd URL."""
    found: list[tuple[str, apprise.Apprise]] = []
    for number, url in enumerate(urls.split(), 1):
        name = f"{url.partition('://')[0]}:// (number {number})"
        service = apprise.Apprise()
        if not service.add(f"{url}{'&' if '?' in url else '?'}{_TIMES}"):
            raise Misuse("ALARM_URLS: {name} is no address that apprise knows. See {page}", name=name, page=_APPRISE)
        found.append((name, service))
    return found


def send(
    urls: str,
    title: str,
    body: str,
    *,
    resolved: bool = False,
    only: Collection[str] = (),
    on_taken: Callable[[str], object] = lambda _: None,
) -> list[str]:
    """Send to all services, or to those named by *only*; returns the names of the services that did not take it.

    *on_taken* is called with the name of each service at once when it has taken it: others may hang.
    """
    kind = apprise.NotifyType.SUCCESS if resolved else apprise.NotifyType.FAILURE
    refused: list[str] = []
    for name, service in services(urls):
        if only and name not in only:
            continue
        most = MOST_BYTES.get(name.partition("://")[0])
        room = None if most is None else max(0, most - len(title.encode(errors="replace")))
        fitting = body[:LONGEST].encode(errors="replace")[:room].decode(errors="ignore")
        # Without its form, services of HTML take it for HTML: one line, of which each <word> is lost.
        if service.notify(body=fitting, title=title, notify_type=kind, body_format=apprise.NotifyFormat.TEXT):
            on_taken(name)
        else:
            refused.append(name)
    return refused


def written(alarm: str, runbook_url: str | None, language: str = "en") -> tuple[str, str, bool]:
    """The title and the text of an *alarm* in the form that was sent on the channel, and whether it is resolved."""
    fields: dict[str, Any] = json.loads(alarm)
    code, resolved = int(fields["code"]), fields.get("stage") == "resolved"
    known = CODES.get(code)
    how = msgid("resolved") if resolved else str(known.severity if known else Severity.WARNING)
    message, t = of_wire(fields), translator(language)
    heading = known.runbook_in(language) if known else fields.get("runbook")
    lines = [alarm_in(language, code, message)]
    lines += [f"{t('raised at')}: {formatting.moment(float(fields['at']))}"] if "at" in fields else []
    classes = [fields["class_id"]] if fields.get("class_id") else fields.get("classes") or []
    lines += [f"{t('classes')}: {', '.join(map(str, classes[:20]))}"] if classes else []
    lines += [f"{t('RUNBOOK.md')}: {heading}"] if heading else []
    lines += [f"{runbook_url.partition('#')[0]}#{code}"] if runbook_url else []
    return f"lectern {code} {t(how)}: {fields.get('host') or ''}".strip(": "), "\n".join(lines), resolved
