"""Where a class's recording lies."""

import os


def recording(root: str, class_id: str, video_url: str) -> "str | None":
    """The file that was downloaded for the class alone, else the one that is named as its URL ends."""
    for name in (class_id + ".flv", video_url.rsplit("/", 1)[-1]):
        path = os.path.join(root, name)
        if os.path.isfile(path):
            return path
    return None
