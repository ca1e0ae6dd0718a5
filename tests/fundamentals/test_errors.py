"""What can go wrong is sorted by what the caller should do, and each code is defined once."""

import inspect
import itertools

import pytest

from lectern import errors
from lectern.errors import CODES, CallAPerson, ErrorCode, FallBack, Malformed, Misuse, Refuse, TryAgain

DOCUMENTED = {207: "transcoding timed out", 208: "transcoding failed", 316: "disk full"}
DOCUMENTED |= {501: "transcoded already, but the booking lacks the URL"}


def test_each_code_is_listed_once_in_its_family_with_a_meaning_of_its_own_and_what_to_do() -> None:
    """The documented ones keep theirs."""
    defined = [value for _, value in inspect.getmembers(errors) if isinstance(value, ErrorCode)]
    assert sorted(code.number for code in defined) == sorted(CODES)
    assert all(CODES[code.number] is code and code.platform_should for code in defined)
    assert {number: CODES[number].meaning for number in DOCUMENTED} == DOCUMENTED
    assert len({code.meaning for code in CODES.values()}) == len(CODES)
    assert {number // 100 for number in CODES} == {2, 3, 4, 5}


def test_a_refusal_has_a_code_and_the_class_alone_says_what_the_caller_should_do() -> None:
    with pytest.raises(TypeError):
        Refuse("c-1: no room")  # type: ignore[call-arg]  # that is the claim
    kinds = (TryAgain, FallBack, Refuse, CallAPerson, Misuse, Malformed)
    assert not [pair for pair in itertools.permutations(kinds, 2) if issubclass(*pair)]
