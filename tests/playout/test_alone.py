"""The playout needs nothing but Python: no package that an upgrade could take from under it."""

import ast
import sys
from pathlib import Path

import pytest

import lectern.playout

FOLDER = Path(lectern.playout.__file__).parent
MODULES = sorted(FOLDER.rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=[str(one.relative_to(FOLDER)) for one in MODULES])
def test_a_module_imports_the_standard_library_only(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        else:
            continue
        for name in names:
            assert name.startswith("lectern.playout") or name.partition(".")[0] in sys.stdlib_module_names, name
