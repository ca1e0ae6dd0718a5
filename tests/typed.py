"""Types ``lectern …`` in this process: what it prints, and the code that it ends with."""

import gc
import io
import os
import sys
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

import pytest

from lectern.cli.app import main

SETTINGS = {"PATH": "/usr/bin:/bin", "REDIS_URL": "redis://127.0.0.1:1/0"}
"""Nothing answers at this Redis."""


def lectern(folder: Path, *words: str, text: str = "", **more: str) -> "CompletedProcess[str]":
    """Run a command to its end in *folder*, with SETTINGS and *more* as its whole environment."""
    files = io.BytesIO(text.encode()), io.BytesIO(), io.BytesIO()
    streams = [io.TextIOWrapper(one, "utf-8", write_through=True) for one in files]
    with mock.patch.dict(os.environ, {**SETTINGS, **more}, clear=True), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(gc, "freeze", lambda: None)  # a process does it once; here it would freeze the tests' own objects
        patch.setattr(sys, "argv", ["lectern", *words])
        for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as end:
            main()
    code = end.value.code if isinstance(end.value.code, int) else 0
    _, out, err = (one.getvalue().decode() for one in files)
    return CompletedProcess(["lectern", *words], code, out, err)
