"""The log: an odd line of a library is that line's trouble alone."""

import logging

import pytest

from lectern import logs


def test_a_line_of_a_library_that_cannot_be_formatted_does_not_end_who_wrote_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its arguments do not fit its text: it is written as it is, without secrets, and so are the next ones."""
    handler = logging.StreamHandler()
    handler.addFilter(logs.without_secrets)
    library = logging.getLogger("a library")
    monkeypatch.setattr(library, "propagate", False)  # not to those of pytest
    library.addHandler(handler)
    try:
        library.warning("%d connections to %s", "many", "redis://:hidden@redis.example/0")
        library.warning("the next line")
    finally:
        library.removeHandler(handler)
    said = capsys.readouterr().err
    assert said == "%d connections to %s ('many', 'redis://redis.example/0')\nthe next line\n"
