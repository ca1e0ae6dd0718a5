"""What a step is asked for is read strictly."""

from pathlib import Path
from typing import Any

import pytest

from tests.rollout.host import a_host


@pytest.mark.parametrize(
    ("change_of", "words"),
    [
        ({"role": "walrus"}, "role"),
        ({"surprise": 1}, "surprise"),
        ({"root": "relative"}, "root: must be an absolute path"),
        ({"env": {"A-B": "hidden"}}, "no name of a setting"),
        ({"record_patterns": ["("]}, "no regular expression"),
        ({"old_programs": ["../x.conf"]}, "file name"),
    ],
)
def test_what_is_wanted_is_read_strictly_and_no_value_is_shown(tmp_path: Path, change_of: Any, words: str) -> None:
    with a_host(tmp_path, start=False) as host:
        answered = host.step("preflight", wanted={**host.wanted(), **change_of})
        assert answered.code == 2
        assert words in answered.msg
        assert "hidden" not in answered.msg + answered.errors
