"""What each field on the wire may hold, and how it is read."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, WithJsonSchema

from lectern import urls
from lectern.i18n import Text
from lectern.states import Backend, Resolution

MAX_NAME = 250
NAME = re.compile(rf"[A-Za-z0-9_.:-]{{1,{MAX_NAME}}}")
"""A class_id or institution_id, which becomes a file name, a key and an argument."""

BACKUP = "~backup"
"""The suffix that marks the id of a class's second airing; no class_id on the wire can have it."""

REVISION = "^"
"""Stands before the number at the end of a revision's id: `c-1^2` is the second change of c-1, until it is in force."""

COUNT_BOUND = 2**31
"""Placements, attempts and codes are below it: every database can keep them."""

_AS_WRITTEN = frozenset(map(str, Resolution))
_DIGITS = re.compile(r"0|[1-9][0-9]{0,18}")


def is_name(text: str) -> bool:
    """Whether *text* may be a class_id, an institution_id, or a host's name."""
    return NAME.fullmatch(text) is not None and text not in {".", ".."}


def is_count(value: object) -> bool:
    """Whether *value* is an int that can be a placement, an attempt or a code."""
    return type(value) is int and 0 <= value < COUNT_BOUND


def a_name(text: str) -> str:
    """*text*, if it is a valid name; else raises ValueError."""
    if not is_name(text):
        raise ValueError(Text("must be 1 to 250 of the characters A-Z a-z 0-9 _ . : -"))
    return text


def revision_id(class_id: str, number: int) -> str:
    """The id of the class as its change *number* makes it; no class_id on the wire can have it."""
    return f"{class_id}{REVISION}{number}"


def revised(airing_id: str) -> str | None:
    """The class that *airing_id* is a revision of; None if it is not the id of a revision."""
    class_id, mark, number = airing_id.rpartition(REVISION)
    return class_id if mark and _DIGITS.fullmatch(number) else None


def called(airing_id: str) -> str:
    """The id under which people know a class, a second airing, or a revision: that of a revision is its class's."""
    return revised(airing_id) or airing_id


def class_of(airing_id: str) -> str:
    """The class_id on the wire of a class, of its second airing, or of a revision of either."""
    return (revised(airing_id) or airing_id).removesuffix(BACKUP)


def read_resolution(value: object) -> object:
    """The resolution with its ``P``: the original protocol writes the smallest as ``240``."""
    if isinstance(value, str) and value in _AS_WRITTEN:  # as in nearly all messages
        return value
    text = str(value).upper() if isinstance(value, int | str) and not isinstance(value, bool) else value
    return f"{text}P" if isinstance(text, str) and text.isdigit() else text


M = TypeVar("M", bound=BaseModel)
_NOT_GIVEN = frozenset({"cls", "_fields_set"})
"""Parameters of `model_construct` itself, under which no sender's field can be given to it."""


def unchecked(kind: type[M], fields: Mapping[str, Any]) -> M:
    """A message of *fields* that were checked before, with the unknown ones of its sender, whatever their names are."""
    odd = {name: fields[name] for name in _NOT_GIVEN if name in fields}
    made = kind.model_construct(**{name: value for name, value in fields.items() if name not in odd} if odd else fields)
    if odd and made.model_extra is not None:
        made.model_extra.update(odd)
    return made


SUCCESS = frozenset({"sucess", "success"})
"""How the wire spells success; the original protocol has ``sucess``."""

FAILURE = frozenset({"fail", "failed", "failure"})


def _result(text: str) -> str:
    if text.strip().lower() not in SUCCESS | FAILURE:
        raise ValueError(Text("must be success or failed"))
    return text.strip()


def _backend(value: object) -> str | None:
    """The name of a backend, in any case; None for anything else."""
    name = value.strip().lower() if isinstance(value, str) else ""
    return name if name in set(Backend) else None


def _number(value: object) -> object:
    if isinstance(value, bool):  # Python would read true as 1
        raise ValueError(Text("must be a number"))  # noqa: TRY004 (pydantic takes ValueError)
    return value


def _record(value: object) -> object:
    """A record_id as a number; strings of digits in the number's own spelling are converted."""
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value


UrlList = Annotated[Mapping[str, str | None], BeforeValidator(lambda listed: {} if listed is None else listed)]


def _pattern(regex: str) -> WithJsonSchema:
    """The pattern of a text for the JSON Schema of the messages; a function does the check itself."""
    return WithJsonSchema({"type": "string", "pattern": f"^({regex})$"})


MAX_AUTHOR = 100
PLATFORM = "platform"
"""Who asked for it, if a message does not say."""


def _author(value: object) -> str | None:
    """Who sent a message, as people may read it; None if it does not say."""
    return "".join(one for one in value if one.isprintable())[:MAX_AUTHOR] or None if isinstance(value, str) else None


Author = Annotated[str | None, BeforeValidator(_author)]
"""Who asked for it: a client, a person at a host; without one it is the platform."""
Name = Annotated[str, AfterValidator(a_name), _pattern(NAME.pattern)]
AiringName = Annotated[str, AfterValidator(lambda text: a_name(class_of(text)) and text)]
"""A class_id, or the id of its second airing, or of a revision of either."""
HttpUrl = Annotated[str, AfterValidator(lambda text: urls.http(text).text), _pattern("[hH][tT][tT][pP][sS]?://.+")]
RtmpUrl = Annotated[str, AfterValidator(lambda text: urls.push(text).text), _pattern("[rR][tT][mM][pP][sS]?://.+")]
RtmpUrlOrNone = Annotated[
    str, AfterValidator(lambda text: text and urls.push(text).text), _pattern("|[rR][tT][mM][pP][sS]?://.+")
]
"""A push URL, or an empty text that takes it away."""
WireResolution = Annotated[Resolution, BeforeValidator(read_resolution)]
Count = Annotated[int, Field(strict=True, ge=0, lt=COUNT_BOUND)]
RecordId = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
LooseRecordId = Annotated[RecordId, BeforeValidator(_record)]
ResultWord = Annotated[str, AfterValidator(_result)]
LooseBackend = Annotated[Backend | None, BeforeValidator(_backend)]
EpochSeconds = Annotated[float, Field(gt=0, lt=4e9, allow_inf_nan=False), BeforeValidator(_number)]
