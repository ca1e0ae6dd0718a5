"""A push URL leads to the same app and stream as ffmpeg's."""

import subprocess
from pathlib import Path

import pytest

from lectern.playout.rtmp.url import target
from tests.playout.receiver import HOST, Receiver
from tests.playout.test_rtmp import URLS
from tests.waiting import wait_until

SOUND = ("-f", "lavfi", "-i", "sine=duration=0.1", "-c:a", "aac", "-f", "flv")


@pytest.mark.parametrize("path", [url.split("/", 3)[3] for url, *_ in URLS])
def test_ffmpeg_publishes_to_the_same_place(path: str, tmp_path: Path) -> None:
    with Receiver() as receiver:
        receiver.strict = False
        url = f"rtmp://{HOST}:{receiver.port}/{path}"
        subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *SOUND, url], timeout=60, capture_output=True, check=False)
        wait_until(lambda: receiver.sessions and receiver.sessions[0].published is not None, description=path)
        (session,) = receiver.sessions
    found = target(url)
    assert (session.connect["app"], session.connect["tcUrl"]) == (found.app, found.tc_url)
    assert session.published == found.stream
