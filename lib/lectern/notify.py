"""Alarms to DingTalk, WeCom, mail, webhooks and more, by apprise; it needs neither Redis nor Prefect."""

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

import apprise

from lectern import chinese_account, chinese_alarms, words
from lectern.effects import chats
from lectern.errors import CODES, Misuse, Severity

LONGEST = 3_000
"""Most characters of a message: who needs more of it looks at the page, or types a command."""

MOST_BYTES = {"wecombot": 2048 - len("\r\n")}
"""Most bytes of a message with its title, for services that refuse longer ones."""

_TIMES = "cto=4&rto=8"  # seconds to connect, and for the answer
chats.heed_refusals()


def services(urls: str) -> list[tuple[str, apprise.Apprise]]:
    """Each service of *urls* (separated by blanks), with a name that shows no token. Raises Misuse for an odd URL."""
    found: list[tuple[str, apprise.Apprise]] = []
    for number, url in enumerate(urls.split(), 1):
        name = f"{url.partition('://')[0]}:// (number {number})"
        service = apprise.Apprise()
        if not service.add(f"{url}{'&' if '?' in url else '?'}{_TIMES}"):
            raise Misuse(f"ALARM_URLS: {name} is no address that apprise knows. See https://github.com/caronc/apprise")
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
        if service.notify(body=_fitting(name, title, body), title=title, notify_type=kind):
            on_taken(name)
        else:
            refused.append(name)
    return refused


def _fitting(name: str, title: str, body: str) -> str:
    """As much of *body* as the service *name* takes."""
    most = MOST_BYTES.get(name.partition("://")[0])
    room = None if most is None else max(0, most - len(title.encode(errors="replace")))
    return body[:LONGEST].encode(errors="replace")[:room].decode(errors="ignore")


def written(alarm: str, runbook_url: str | None, language: str = "en") -> tuple[str, str, bool]:
    """The title and the text of an *alarm* in the form that was sent on the channel, and whether it is resolved."""
    fields: dict[str, Any] = json.loads(alarm)
    code, resolved = int(fields["code"]), fields.get("stage") == "resolved"
    known = CODES.get(code)
    how = "resolved" if resolved else str(known.severity if known else Severity.WARNING)
    message, heading, terms = str(fields["message"]), fields.get("runbook"), dict[str, str]()
    if language == "zh":
        message, terms = chinese_account.message(code, message), dict(chinese_alarms.TERMS)
        heading = known.chinese_runbook if known else heading
    lines = [message]
    lines += [f"{terms.get('raised at', 'raised at')}: {words.moment(float(fields['at']))}"] if "at" in fields else []
    lines += [f"{terms.get('classes', 'classes')}: {', '.join(_classes(fields))}"] if _classes(fields) else []
    lines += [f"{terms.get('RUNBOOK.md', 'RUNBOOK.md')}: {heading}"] if heading else []
    lines += [f"{runbook_url.partition('#')[0]}#{code}"] if runbook_url else []
    return f"lectern {code} {terms.get(how, how)}: {fields.get('host') or ''}".strip(": "), "\n".join(lines), resolved


def _classes(fields: dict[str, Any]) -> Sequence[str]:
    found = [fields["class_id"]] if fields.get("class_id") else fields.get("classes") or []
    return [str(one) for one in found[:20]]
