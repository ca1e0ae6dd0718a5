"""lectern: recorded lessons, aired as live classes."""

__version__: str
"""The release; looked up only when it is read, because the playout imports this package without site-packages."""


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(name)
    from importlib.metadata import version  # noqa: PLC0415 (takes longer than the playout's own start)

    return version("lectern")
