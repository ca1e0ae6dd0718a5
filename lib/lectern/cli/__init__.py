"""``lectern …``: what the operations team types."""

import gc


def main() -> None:
    """The entry point of the command."""
    gc.disable()  # while a million objects are made and none of them is garbage: a quarter of every start
    from lectern.cli import app  # noqa: PLC0415 (what costs is this import)

    gc.freeze()
    gc.enable()
    app.main()
