"""A recording as it looks and sounds from its beginning to its end."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Samples:
    """What a look through a whole recording found; times are seconds from its beginning.

    A picture is a key frame: its time, its lightest part (0 to 255), and whether it is still the picture before. A
    sound is a second: its beginning, and the loudest of it in LUFS. *loudness* is that of the whole, None if there is
    no sound.
    """

    duration_s: float
    pictures: tuple[tuple[float, int, bool], ...]
    sounds: tuple[tuple[float, float], ...]
    loudness: float | None
