# It imports its neighbours by their bare names, as a stand-alone program does.
# mypy: ignore-errors
"""Pushes the classes that are due."""

import subprocess
import time

from db_helper import Database
from filemanager import recording
from model import BOOKED, ON_AIR, OVER


class LiveStreamer:
    """One ffmpeg a class."""

    def __init__(self, database: Database, root: str) -> None:
        self._database = database
        self._root = root
        self._pushes: dict[str, "subprocess.Popen[bytes]"] = {}

    def look(self) -> None:
        """Begin what is due, note what is over."""
        for class_id, video_url, push_url, _, end_time in self._database.due(time.time(), BOOKED):
            path = recording(self._root, class_id, video_url)
            if path is not None:
                self._database.set_status(class_id, ON_AIR)
                seconds = str(max(1, int(end_time - time.time())))
                argv = ["ffmpeg", "-loglevel", "error", "-re", "-i", path, "-t", seconds]
                push = subprocess.Popen([*argv, "-c", "copy", "-f", "flv", push_url], stdin=subprocess.DEVNULL)
                self._pushes[class_id] = push
        for class_id, push in list(self._pushes.items()):
            if push.poll() is not None:
                del self._pushes[class_id]
                self._database.set_status(class_id, OVER)

    def stop(self) -> None:
        """End all pushes."""
        for push in self._pushes.values():
            push.terminate()
            push.wait()
