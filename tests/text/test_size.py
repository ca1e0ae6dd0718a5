"""The product stays readable: how long its modules may be, and how many parameters its functions take."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = sorted(path for folder in ("flows", "lib", "playbooks") for path in (ROOT / folder).rglob("*.py"))
LINES = 500


def test_no_module_is_too_long_to_be_read_at_once() -> None:
    names = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in PRODUCT}
    assert len(names) > 100, "the product was found"
    long = {name: lines for name, lines in names.items() if lines > LINES}
    assert not long, "split these by noun"


def test_few_functions_take_six_parameters() -> None:
    """Values that travel together are a type; commands of the command line have as many options as they have."""
    many = [f"{path.relative_to(ROOT)}:{one.lineno} {one.name}" for path in PRODUCT for one in _with_many(path)]
    assert len(many) < 10, many


def test_few_handlers_catch_whatever_is_raised() -> None:
    """What one item raises is kept from the others by one context, `Caught`; the playout has its own."""
    broad = {"Exception", "BaseException"}
    found = [
        f"{path.relative_to(ROOT)}:{one.lineno}"
        for path in PRODUCT
        for one in ast.walk(ast.parse(path.read_text()))
        if isinstance(one, ast.ExceptHandler) and (one.type is None or ast.unparse(one.type) in broad)
    ]
    assert len(found) <= 8, found


def _with_many(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for one in ast.walk(ast.parse(path.read_text())):
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_command(one):
            given = [arg.arg for arg in (*one.args.posonlyargs, *one.args.args, *one.args.kwonlyargs)]
            if len(set(given) - {"self", "cls"}) >= 6:
                yield one


def _is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(one).startswith("app.command(") for one in function.decorator_list)
