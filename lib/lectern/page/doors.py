"""The cookie of a viewer's token, and the rates at which viewers may ask for the page and tokens may be tried."""

import time
from collections import OrderedDict
from dataclasses import dataclass, field

COOKIE = "lectern_viewer"
BURST, EACH_S = 30.0, 3.0
"""Number of requests that a viewer may send at once, and then in a second."""

TRIES = 20.0
"""Number of wrong tokens that one address may try at once; after that, one a second."""

KNOWN = 2_000


@dataclass
class Bucket:
    """The requests that are left of a rate."""

    left: float
    at: float = field(default_factory=time.monotonic)

    def has_left(self, most: float, each_s: float) -> bool:
        """Whether a request is left."""
        now = time.monotonic()
        self.left = min(most, self.left + (now - self.at) * each_s)
        self.at = now
        return self.left >= 1

    def take(self, most: float, each_s: float) -> bool:
        """Take one request; returns False if none is left."""
        if not self.has_left(most, each_s):
            return False
        self.left -= 1
        return True


class Rates:
    """A bucket for each name; above KNOWN names, the one that asked least recently is forgotten."""

    def __init__(self, most: float, each_s: float) -> None:
        self._most, self._each_s = most, each_s
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def has_left(self, name: str) -> bool:
        """Whether *name* may ask now; nothing is taken from its bucket."""
        bucket = self._buckets.get(name)
        return bucket is None or bucket.has_left(self._most, self._each_s)

    def allow(self, name: str) -> bool:
        """Whether *name* may ask now; if so, one request is taken from its bucket."""
        bucket = self._buckets.setdefault(name, Bucket(self._most))
        self._buckets.move_to_end(name)
        if len(self._buckets) > KNOWN:
            self._buckets.popitem(last=False)
        return bucket.take(self._most, self._each_s)
