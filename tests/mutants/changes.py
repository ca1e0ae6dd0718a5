"""Single faults that can be put into a function: an operator, a bound or a condition each.

That a bound belongs to the other side is no fault where a clock is compared, or a time that was measured: it is never
met exactly, and both outcomes are right. What is counted meets its bounds, as times of media in milliseconds and those
of two classes do; and 0, `NEVER` and infinity are values of their own.
"""

import ast
import copy
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

_SIDES: list[type[ast.cmpop]] = [ast.Lt, ast.Gt, ast.Eq, ast.In, ast.Is]
_OTHERS: list[type[ast.cmpop]] = [ast.LtE, ast.GtE, ast.NotEq, ast.NotIn, ast.IsNot]
COMPARED = dict(zip(_SIDES + _OTHERS, _OTHERS + _SIDES, strict=True))
CALCULATED: dict[type[ast.operator], type[ast.operator]] = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add}
_NO_INSTANT = re.compile(r"\blen\(|[<>]=? (0|NEVER|math\.inf)$")
_INSTANT = re.compile(
    r"\b(now|mono|wall|position_ms)\b(?!\[)|\b(time|monotonic|perf_counter|boot_now)\(\)|[a-z]_(s|at)\b"
)
CHOSEN = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """One changed expression of one function."""

    module: str
    path: Path
    function: str
    number: int  # which of the changes that the function allows
    line: int
    before: str
    after: str

    @property
    def name(self) -> str:
        """How it is listed among the known survivors; lines move, so it names none."""
        return f"{self.module}:{self.function}: {self.before} -> {self.after}"


def mutants(module: str, path: Path) -> Iterator[Mutant]:
    """All mutants of the functions of a module, in their order."""
    for function, node in _functions(ast.parse(path.read_text())):
        for number, place in enumerate(_places(node)):
            before = ast.unparse(place)
            changed = copy.deepcopy(place)
            _change(changed)
            yield Mutant(module, path, function, number, place.lineno, before, ast.unparse(changed))


def put_in(mutant: Mutant) -> None:
    """Give the function of this process the changed code; whoever imported it by name has it, too."""
    target = _target(mutant)
    for function, node in _functions(ast.parse(mutant.path.read_text())):
        if function == mutant.function:
            _change(list(_places(node))[mutant.number])
            target.__code__ = _compiled(node, target.__code__, mutant.path)
            return
    raise LookupError(f"{mutant.name}: there is no such function")


def can_be_put_in(mutant: Mutant) -> bool:
    """Whether the function has a code of its own that can be replaced; one that closes over values has not."""
    try:
        return not _target(mutant).__code__.co_freevars
    except (AttributeError, LookupError, TypeError):
        return False


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The functions of a module and the methods of its classes, by their qualified names."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{node.name}.{inner.name}", inner


def _places(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Any]:
    """The expressions of a function's body that can be changed."""
    for statement in function.body:
        for node in ast.walk(statement):
            if (
                (isinstance(node, ast.Compare) and len(node.ops) == 1 and not _is_instant(node))
                or isinstance(node, ast.BoolOp)
                or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))
                or (isinstance(node, ast.BinOp) and type(node.op) in CALCULATED and not _is_text(node))
                or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CHOSEN)
                or (isinstance(node, ast.If | ast.IfExp) and isinstance(node.test, ast.Name | ast.Attribute))
            ):
                yield node


def _is_instant(node: ast.Compare) -> bool:
    """Whether a comparison has a bound that is met at one instant at most."""
    text = ast.unparse(node)
    is_order = isinstance(node.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)
    return is_order and _INSTANT.search(text) is not None and _NO_INSTANT.search(text) is None


def _is_text(node: ast.BinOp) -> bool:
    """Whether the parts of a sum are texts or lists, of which none can be taken away."""
    texts = (ast.JoinedStr, ast.List, ast.ListComp, ast.Tuple)
    return any(
        isinstance(side, texts) or (isinstance(side, ast.Constant) and isinstance(side.value, str | bytes))
        for side in (node.left, node.right)
    )


def _change(node: Any) -> None:
    match node:  # a function is called by its name: `_places` finds no other call
        case ast.Compare():
            node.ops = [COMPARED[type(node.ops[0])]()]
        case ast.BoolOp():
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        case ast.UnaryOp():
            node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)
        case ast.BinOp():
            node.op = CALCULATED[type(node.op)]()
        case ast.Call():
            node.func = ast.Name(CHOSEN[ast.unparse(node.func)], ast.Load())
        case _:
            node.test = ast.UnaryOp(ast.Not(), node.test)
    ast.fix_missing_locations(node)


def _target(mutant: Mutant) -> FunctionType:
    """The function object, below its decorators and Prefect's flow."""
    found: Any = importlib.import_module(mutant.module)
    for part in mutant.function.split("."):
        found = inspect.getattr_static(found, part)
    for _ in range(8):
        inner = getattr(found, "__func__", None) or getattr(found, "fget", None) or getattr(found, "fn", None)
        inner = inner or getattr(found, "__wrapped__", None)
        if inner is None:
            break
        found = inner
    if not isinstance(found, FunctionType):
        raise TypeError(f"{mutant.name}: is no function")
    return found


def _compiled(node: ast.FunctionDef | ast.AsyncFunctionDef, old: CodeType, path: Path) -> CodeType:
    bare = copy.copy(node)
    bare.decorator_list = []
    whole = ast.fix_missing_locations(ast.Module([bare], []))
    made = compile(whole, str(path), "exec")
    codes = [one for one in made.co_consts if isinstance(one, CodeType) and one.co_name == old.co_name]
    return codes[0].replace(co_qualname=old.co_qualname)
