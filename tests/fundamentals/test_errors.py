"""What can go wrong is sorted by what the caller should do, and each code is defined once."""

import inspect

import pytest

from lectern import errors
from lectern.errors import (
    CODES,
    DISK_FULL,
    MALFORMED,
    CallAPerson,
    ErrorCode,
    FallBack,
    LecternError,
    Malformed,
    Misuse,
    Refuse,
    TryAgain,
)

DOCUMENTED = {207: "transcoding timed out", 208: "transcoding failed", 316: "disk full"}
DOCUMENTED |= {501: "transcoded already, but the booking lacks the URL"}


def test_each_code_is_listed_once_in_its_family_with_a_meaning_of_its_own_and_what_to_do() -> None:
    """The documented ones keep theirs; success is none."""
    defined = [value for _, value in inspect.getmembers(errors) if isinstance(value, ErrorCode)]
    assert sorted(code.number for code in defined) == sorted(CODES)
    assert all(CODES[code.number] is code for code in defined)
    assert {number: CODES[number].meaning for number in DOCUMENTED} == DOCUMENTED
    assert len({code.meaning for code in CODES.values()}) == len(CODES)
    assert {number // 100 for number in CODES} == {2, 3, 4, 5}
    assert all(code.platform_should for code in CODES.values())
    assert errors.OK == 0
    assert 0 not in CODES


@pytest.mark.parametrize("kind", [TryAgain, FallBack, CallAPerson, Misuse])
def test_an_error_says_its_sentence_and_may_carry_a_code(kind: type[LecternError]) -> None:
    error = kind("6666_720P: the disk has 3 bytes", DISK_FULL)
    assert (str(error), error.message, error.code) == (error.message, "6666_720P: the disk has 3 bytes", DISK_FULL)
    assert kind("no code").code is None


def test_a_refusal_has_a_code_and_the_class_alone_says_what_the_caller_should_do() -> None:
    assert Refuse("c-1: no room", DISK_FULL).code is DISK_FULL
    with pytest.raises(TypeError):
        Refuse("c-1: no room")  # type: ignore[call-arg]  # that is the claim
    assert (Malformed("no JSON").code, Malformed("no JSON").class_id) == (MALFORMED, None)
    assert Malformed("push_url: Field required", "c-1").class_id == "c-1"
    kinds = (TryAgain, FallBack, Refuse, CallAPerson, Misuse, Malformed)
    assert not [(one, other) for one in kinds for other in kinds if one is not other and issubclass(one, other)]
