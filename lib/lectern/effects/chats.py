"""Reads what the robots of chats answer: DingTalk, WeCom, Feishu and Lark refuse a message with HTTP 200, too."""

import logging
from typing import Any
from urllib.parse import urlsplit

from apprise.plugins import dingtalk, feishu, lark, wecombot

log = logging.getLogger("lectern")
PLUGINS: tuple[Any, ...] = (dingtalk, feishu, lark, wecombot)
CODES = {"errcode": "errmsg", "code": "msg"}
"""The fields of an answer: a code, which is 0 if the message was taken, and the reason if it was not."""

_REFUSED = 422


class _Heeding:
    """A plugin's HTTP library: the plugin looks at the status alone, so a refusal gets one that says so."""

    def __init__(self, library: Any) -> None:  # noqa: ANN401 (the plugin's own)
        self._library = library

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever the plugin needs of it)
        return getattr(self._library, name)

    def post(self, url: str, **given: Any) -> Any:  # noqa: ANN401 (whatever the plugin gives, and its library's answer)
        answer = self._library.post(url, **given)
        why = _refusal(answer)
        if answer.ok and why is not None:
            log.warning("alarms: %s refuses a message: %s", urlsplit(url).hostname, why)
            answer.status_code = _REFUSED
        return answer


def heed_refusals() -> None:
    """Let apprise's plugins for these chats take a refused message for refused; called once."""
    for plugin in PLUGINS:
        plugin.requests = _Heeding(plugin.requests)


def _refusal(answer: Any) -> str | None:  # noqa: ANN401 (of the plugin's library)
    """Code and reason of a refusal; None if the message was taken, or if nobody knows what the answer says."""
    try:
        fields = answer.json()
    except ValueError:
        return None
    for code, why in CODES.items() if isinstance(fields, dict) else ():
        if isinstance(fields.get(code), int) and fields[code] != 0:
            return f"{fields[code]} {fields.get(why, '')}".strip()[:500]
    return None
