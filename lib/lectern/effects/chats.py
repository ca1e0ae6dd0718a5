"""Reads what the robots of chats answer: DingTalk, WeCom, Feishu and Lark refuse a message with HTTP 200, too."""

import logging
from typing import Any
from urllib.parse import urlsplit

import requests
from apprise.plugins import dingtalk, feishu, lark, wecombot

log = logging.getLogger("lectern")
PLUGINS = (dingtalk, feishu, lark, wecombot)
CODES = {"errcode": "errmsg", "code": "msg"}
"""The fields of an answer: a code, which is 0 if the message was taken, and the reason if it was not."""

_REFUSED = 422


class _Requests:
    """The module *requests* for plugins that look at the HTTP status alone: a refusal gets one that says so."""

    codes = requests.codes
    RequestException = requests.RequestException

    @staticmethod
    def post(url: str, **given: Any) -> requests.Response:  # noqa: ANN401 (whatever a plugin gives)
        answer = requests.post(url, **given)  # noqa: S113 (each plugin gives a timeout)
        why = _refusal(answer)
        if answer.ok and why is not None:
            log.warning("alarms: %s refuses a message: %s", urlsplit(url).hostname, why)
            answer.status_code = _REFUSED
        return answer


def heed_refusals() -> None:
    """Let apprise's plugins for these chats take a refused message for refused."""
    for plugin in PLUGINS:
        plugin.requests = _Requests  # type: ignore[attr-defined]  # its own import, not meant for others


def _refusal(answer: requests.Response) -> str | None:
    """Code and reason of a refusal; None if the message was taken, or if nobody knows what the answer says."""
    try:
        fields = answer.json()
    except ValueError:
        return None
    for code, why in CODES.items() if isinstance(fields, dict) else ():
        if isinstance(fields.get(code), int) and fields[code] != 0:
            return f"{fields[code]} {fields.get(why, '')}".strip()[:500]
    return None
