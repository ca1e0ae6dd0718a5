"""A recording as it looks and sounds from its beginning to its end."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Samples:
    """What a look through a whole recording found; times are seconds from its beginning.

    A picture is a key frame: its time, its lightest part (0 to 255), and whether it shows the same as the one before.
    A sound is a second: its beginning, and its loudest moment in LUFS. *loudness* is that of the whole recording, None
    if there is no sound. In the *holes* there is neither picture nor sound.
    """

    duration_s: float
    pictures: tuple[tuple[float, int, bool], ...]
    sounds: tuple[tuple[float, float], ...]
    loudness: float | None
    holes: tuple[tuple[float, float], ...] = ()
