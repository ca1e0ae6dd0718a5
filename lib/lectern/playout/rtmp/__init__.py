"""RTMP as a publisher speaks it: pure functions and state machines over bytes, which do no input or output."""


class NotRtmp(Exception):
    """The other side does not keep to RTMP, or refuses; the text says how. The only error of this package."""
