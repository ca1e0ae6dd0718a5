"""The product stays readable: a module is one idea, none import in a circle, and few functions take many parameters."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = sorted(path for folder in ("flows", "lib", "playbooks") for path in (ROOT / folder).rglob("*.py"))
LONGEST, SHORTEST = 550, 60
PROGRAM = ("__init__", "__main__", "env")


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("lectern", "flows", exclude_type_checking_imports=False, cache_dir=None)


def test_a_module_is_one_idea(imports: grimp.ImportGraph) -> None:
    """None is too long to be read at once; a short one that only one module imports is a part of that one."""
    lines = {path.relative_to(ROOT).with_suffix(""): len(path.read_text().splitlines()) for path in PRODUCT}
    assert len(lines) > 100, "the product was found"
    assert not {name: number for name, number in lines.items() if number > LONGEST}, "split these by noun"
    short = [path for path, number in lines.items() if number < SHORTEST and path.name not in PROGRAM]
    names = {".".join(path.parts).removeprefix("lib."): path for path in short}
    importers = {name: imports.find_modules_that_directly_import(name) for name in names.keys() & imports.modules}
    alone = {name: found for name, found in importers.items() if len(found) == 1}
    entries = {name for name, found in alone.items() if found == {"flows.resident.prefect.deployments"}}
    assert not alone.keys() - entries, "merge each into the module that imports it"


def test_no_modules_import_in_a_circle(imports: grimp.ImportGraph) -> None:
    """Imports for types and those in functions count, too."""
    needs = {name: imports.find_modules_directly_imported_by(name) for name in imports.modules}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        raise AssertionError(f"these import in a circle: {error.args[1]}") from error


def test_few_functions_take_six_parameters() -> None:
    """Values that travel together are a type; commands of the command line have as many options as they have."""
    many = []
    for path in PRODUCT:
        for one in ast.walk(ast.parse(path.read_text())):
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
                given = {arg.arg for arg in (*one.args.posonlyargs, *one.args.args, *one.args.kwonlyargs)}
                is_command = any(ast.unparse(its).startswith("app.command(") for its in one.decorator_list)
                if len(given - {"self", "cls"}) >= 6 and not is_command:
                    many.append(f"{path.relative_to(ROOT)}:{one.lineno} {one.name}")
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
