"""The small faults that can be made in a module: one changed expression or statement each."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: the module, its line there and what it is, and the module's tree with it."""

    module: str
    line: int
    change: str
    tree: ast.Module

    @property
    def key(self) -> tuple[str, str]:
        """What stays when lines move."""
        return self.module, self.change


def _expressions(node: ast.AST) -> Iterator[Callable[[], ast.AST]]:
    """What may stand in an expression's place."""
    match node:
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            yield lambda: ast.Compare(left, [COMPARISONS[type(operator)]()], [right])
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in ARITHMETIC:
            yield lambda: ast.BinOp(left, ARITHMETIC[type(operator)](), right)
        case ast.BoolOp(op=operator, values=values):
            other = ast.Or() if isinstance(operator, ast.And) else ast.And()
            yield lambda: ast.BoolOp(other, values)
        case ast.UnaryOp(operand=operand):
            yield lambda: operand
        case ast.IfExp(test=test, body=body, orelse=otherwise):
            yield lambda: ast.IfExp(test, otherwise, body)
        case ast.Constant(value=bool(value)):
            yield lambda: ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield lambda: ast.Constant(value + 1)
        case ast.Call(func=function, args=[first, second, *more], keywords=keywords):
            yield lambda: ast.Call(function, [second, first, *more], keywords)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        owner = node.func.value  # x.abs() becomes x; torch.abs(x) becomes x
        of_torch = isinstance(owner, ast.Name) and owner.id == "torch"
        if not of_torch:
            yield lambda: owner
        elif len(node.args) == 1:
            yield lambda: node.args[0]


def _statements(node: ast.AST) -> Iterator[Callable[[], ast.AST]]:
    """What may stand in a statement's place."""
    match node:
        case ast.If(test=test, body=body, orelse=otherwise) if not _negated(test):
            yield lambda: ast.If(ast.UnaryOp(ast.Not(), test), body, otherwise)
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Continue():
            yield ast.Pass


def _negated(test: ast.AST) -> bool:
    """Whether taking its `not` away negates a condition already."""
    return isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)


def _sites(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, Callable[[], ast.AST]]]:
    """(parent, field, place in it, replacement) of every change, in the order of the source."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "type_comment", "decorator_list"):
            continue
        for place, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or _for_types(child) or _only_guards(child):
                continue
            at = place if isinstance(value, list) else None
            for new in (*_expressions(child), *_statements(child)):
                yield node, field, at, new
            # The words of an error are not a result; an alias of a type does nothing at run time.
            if not isinstance(child, ast.Raise) and not _is_alias(child):
                yield from _sites(child)


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _only_guards(node: ast.AST) -> bool:
    """Whether it is the strict=True of a zip, which changes nothing unless there is a fault."""
    return isinstance(node, ast.keyword) and node.arg == "strict"


def _is_alias(node: ast.AST) -> bool:
    """Whether a statement names a type, such as `Bound = float | Tensor | None`."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, (ast.BinOp, ast.Subscript)):
        return False
    return isinstance(node.targets[0], ast.Name) and node.targets[0].id.istitle()


def mutants(module: str) -> list[Mutant]:
    """Every mutant of a module."""
    source = (ROOT / "torchfgsm" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    found: list[Mutant] = []
    counts: Counter[str] = Counter()
    for number in range(sum(1 for _ in _sites(ast.parse(source)))):
        tree = ast.parse(source)
        parent, field, place, new = next(s for i, s in enumerate(_sites(tree)) if i == number)
        old = getattr(parent, field) if place is None else getattr(parent, field)[place]
        replacement = ast.copy_location(new(), old)
        before, line = _short(old), old.lineno
        if place is None:
            setattr(parent, field, replacement)
        else:
            getattr(parent, field)[place] = replacement
        function = _function(tree, line)
        change = f"{function}: {before} -> {_short(replacement)}"
        counts[change] += 1
        if counts[change] > 1:
            change += f" (number {counts[change]})"
        found.append(Mutant(module, line, change, ast.fix_missing_locations(tree)))
    return found


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(ast.fix_missing_locations(node)).split())
    return text if len(text) <= 90 else f"{text[:87]}..."


def _function(tree: ast.Module, line: int) -> str:
    """The innermost function around a line."""
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and node.lineno <= line <= (node.end_lineno or line)
    ]
    return max(around, key=lambda node: node.lineno).name if around else "module"
