"""The logins that live servers ask a publisher for: Adobe's (a challenge and its response) and Limelight's (a digest).

A server refuses `connect`, and says in the refusal what it wants; the next connection carries it as a query of the app.
"""

import base64
import hashlib

from lectern.playout.rtmp import NotRtmp
from lectern.playout.rtmp.url import Target
from lectern.playout.sentences import sentence

ADOBE, LIMELIGHT = "authmod=adobe", "authmod=llnw"
_COUNT = "00000001"
"""How often a nonce is used: always the first time."""


class LoginWanted(NotRtmp):
    """The server wants a login; the next connection must carry *query*."""

    def __init__(self, query: str) -> None:
        super().__init__("the server asks for a login")
        self.query = query


def is_asked(refusal: str) -> bool:
    """Whether the words of a refusal are about a login that we know."""
    return ADOBE in refusal or LIMELIGHT in refusal


def wanted(target: Target, refusal: str, query: str, nonce: str) -> LoginWanted:
    """What the connection after a *refusal* of the one with *query* must carry; *nonce* is random.

    Raises NotRtmp in words that name neither user nor password if there is nothing that would be taken.
    """
    if not target.user or not target.password:
        raise NotRtmp(sentence("the server asks for a user and password, and the push URL has none"))
    if "reason=authfailed" in refusal or "reason=nosuchuser" in refusal or "&response=" in query:
        raise NotRtmp(sentence("the server does not take the user and password of the push URL"))
    method = ADOBE if ADOBE in refusal else LIMELIGHT
    _, is_challenge, rest = refusal.partition("?reason=needauth")
    if is_challenge:
        asked = dict(field.partition("=")[::2] for field in rest.partition(" ")[0].split("&"))
        answer = _adobe(target, asked, nonce) if method == ADOBE else _limelight(target, asked, nonce)
        return LoginWanted(f"?{method}&user={target.user}{answer}")
    if query:
        raise NotRtmp(sentence("the server asks for a login again, and gives nothing to answer"))
    return LoginWanted(f"?{method}&user={target.user}")


def _adobe(target: Target, asked: dict[str, str], nonce: str) -> str:
    secret = _base64(target.user + asked.get("salt", "") + target.password)
    opaque = asked.get("opaque", "")
    response = _base64(secret + (opaque or asked.get("challenge", "")) + nonce)
    return f"&challenge={nonce}&response={response}" + (f"&opaque={opaque}" if opaque else "")


def _limelight(target: Target, asked: dict[str, str], nonce: str) -> str:
    theirs = asked.get("nonce", "")
    place = target.app if "/" in target.app else f"{target.app}/_definst_"
    user, publish = _hex(f"{target.user}:live:{target.password}"), _hex(f"publish:/{place}")
    response = _hex(f"{user}:{theirs}:{_COUNT}:{nonce}:auth:{publish}")
    return f"&nonce={theirs}&cnonce={nonce}&nc={_COUNT}&response={response}"


def _md5(text: str) -> "hashlib._Hash":
    return hashlib.md5(text.encode("utf-8", "surrogateescape"), usedforsecurity=False)  # what these servers speak


def _base64(text: str) -> str:
    return base64.b64encode(_md5(text).digest()).decode()


def _hex(text: str) -> str:
    return _md5(text).hexdigest()
