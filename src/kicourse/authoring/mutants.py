"""Small changes of a reference solution: each is a fault that a check should notice."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import singledispatch

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

from kicourse.authoring.rules import BEGIN, END

_SWAPPED: dict[type[cst.CSTNode], tuple[type[cst.CSTNode], ...]] = {
    cst.LessThan: (cst.LessThanEqual, cst.GreaterThan),
    cst.LessThanEqual: (cst.LessThan, cst.GreaterThanEqual),
    cst.GreaterThan: (cst.GreaterThanEqual, cst.LessThan),
    cst.GreaterThanEqual: (cst.GreaterThan, cst.LessThanEqual),
    cst.Equal: (cst.NotEqual,),
    cst.NotEqual: (cst.Equal,),
    cst.In: (cst.NotIn,),
    cst.NotIn: (cst.In,),
    cst.Is: (cst.IsNot,),
    cst.IsNot: (cst.Is,),
    cst.And: (cst.Or,),
    cst.Or: (cst.And,),
    cst.Add: (cst.Subtract,),
    cst.Subtract: (cst.Add,),
    cst.Multiply: (cst.Divide,),
    cst.Divide: (cst.Multiply,),
    cst.FloorDivide: (cst.Divide,),
    cst.Modulo: (cst.Multiply,),
    cst.Power: (cst.Multiply,),
    cst.BitAnd: (cst.BitOr,),
    cst.BitOr: (cst.BitAnd,),
    cst.AddAssign: (cst.SubtractAssign,),
    cst.SubtractAssign: (cst.AddAssign,),
    cst.MultiplyAssign: (cst.DivideAssign,),
    cst.DivideAssign: (cst.MultiplyAssign,),
}

# Functions that give the same whichever way round they get two arguments.
_SYMMETRIC = frozenset({"allclose", "isclose", "max", "min", "swapaxes", "swapdims", "transpose"})


@dataclass(frozen=True)
class Mutant:
    """A changed solution: the whole cell, and the lines that differ, stripped and joined where there are several."""

    source: str
    before: str
    after: str

    def diff(self, original: str) -> str:
        """Return the change as a unified diff."""
        lines = difflib.unified_diff(original.splitlines(), self.source.splitlines(), lineterm="", n=2)
        return "\n".join(list(lines)[2:])


def mutants(cell: str) -> list[Mutant]:
    """Return every mutant of a task cell: one small change each, only between its solution markers.

    Docstrings, annotations, imports and the texts of exceptions stay as they are: no check should look at them.
    """
    wrapper = MetadataWrapper(cst.parse_module(cell), unsafe_skip_copy=True)
    positions = wrapper.resolve(PositionProvider)
    regions = _regions(cell)
    found: dict[str, Mutant] = {}
    for node in _nodes(wrapper.module):
        where = positions[node]
        if not any(start < where.start.line and where.end.line < end for start, end in regions):
            continue
        for changed in variants(node):
            source = cst.ensure_type(wrapper.module.deep_replace(node, changed), cst.Module).code
            found.setdefault(source, Mutant(source, *_changed_lines(cell, source)))
    found.pop(cell, None)
    return list(found.values())


@singledispatch
def variants(node: cst.CSTNode) -> Iterable[cst.CSTNode]:
    """Return what a node may be changed into."""
    if type(node) not in _SWAPPED:
        return []
    return [_like(node, kind) for kind in _SWAPPED[type(node)]]


@variants.register
def _(node: cst.Integer) -> Iterable[cst.CSTNode]:
    number = int(node.value, 0)
    # A million and one is nobody's mistake.
    near = [number + 1, abs(number - 1)] if number < 1000 else [number * 2, number // 2]
    numbers = dict.fromkeys([*near, 0, 1])
    return [cst.Integer(str(other)) for other in numbers if other != number]


@variants.register
def _(node: cst.Float) -> Iterable[cst.CSTNode]:
    number = float(node.value)
    return [cst.Float(repr(other)) for other in dict.fromkeys([number + 1, 0.0]) if other != number]


@variants.register
def _(node: cst.Name) -> Iterable[cst.CSTNode]:
    opposite = {"True": "False", "False": "True"}.get(node.value)
    return [cst.Name(opposite)] if opposite else []


@variants.register(cst.SimpleString)
@variants.register(cst.FormattedString)
def _(node: cst.SimpleString | cst.FormattedString) -> Iterable[cst.CSTNode]:
    return [] if cst.Module([]).code_for_node(node) in ('""', "''") else [cst.SimpleString('""')]


@variants.register
def _(node: cst.UnaryOperation) -> Iterable[cst.CSTNode]:
    return [node.expression] if isinstance(node.operator, cst.Not | cst.Minus) else []


@variants.register
def _(node: cst.Call) -> Iterable[cst.CSTNode]:
    symmetric = len(node.args) == 2 and _called(node) in _SYMMETRIC
    for place, argument in enumerate(node.args):
        if argument.keyword is not None and not _is_strict_zip(node, argument):
            yield node.with_changes(args=_without(node.args, place))
        if place and not symmetric and _positional(argument) and _positional(node.args[place - 1]):
            yield node.with_changes(args=_swapped(node.args, place))


@variants.register
def _(node: cst.Return) -> Iterable[cst.CSTNode]:
    return _with_none(node, node.value)


@variants.register
def _(node: cst.Yield) -> Iterable[cst.CSTNode]:
    return [] if isinstance(node.value, cst.From) else _with_none(node, node.value)


@variants.register
def _(node: cst.If) -> Iterable[cst.CSTNode]:
    return _always_and_never(node)


@variants.register
def _(node: cst.CompIf) -> Iterable[cst.CSTNode]:
    return [node.with_changes(test=cst.Name("True"), whitespace_before_test=cst.SimpleWhitespace(" "))]


@variants.register
def _(node: cst.IfExp) -> Iterable[cst.CSTNode]:
    return [node.with_changes(body=node.orelse, orelse=node.body)]


@variants.register
def _(node: cst.Slice) -> Iterable[cst.CSTNode]:
    """Each bound one further and one less; numbers are changed as numbers."""
    for name in ("lower", "upper"):
        bound = getattr(node, name)
        if bound is not None and not _ends_in_number(bound):
            for operator in (cst.Add(), cst.Subtract()):
                moved = cst.BinaryOperation(_bracketed(bound), operator, cst.Integer("1"))
                yield node.with_changes(**{name: moved})


@variants.register
def _(node: cst.Break) -> Iterable[cst.CSTNode]:
    return [cst.Continue(semicolon=node.semicolon)]


@variants.register
def _(node: cst.Continue) -> Iterable[cst.CSTNode]:
    return [cst.Break(semicolon=node.semicolon)]


@variants.register
def _(node: cst.SimpleStatementLine) -> Iterable[cst.CSTNode]:
    """The statement is dropped."""
    match node.body[0]:
        case cst.Pass():
            return []
        case cst.Return(value=cst.BaseExpression()):
            return []  # to return nothing instead is a change of its own
    return [_dropped(node)]


@variants.register(cst.For)
@variants.register(cst.While)
def _(node: cst.For | cst.While) -> Iterable[cst.CSTNode]:
    return [_dropped(node)]


def _nodes(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """Every node that may be changed, in the order of the code."""
    if isinstance(node, cst.Annotation | cst.Import | cst.ImportFrom | cst.Decorator) or _is_text_alone(node):
        return
    if isinstance(node, cst.SimpleStatementLine) and isinstance(node.body[0], cst.Import | cst.ImportFrom):
        return
    yield node
    if isinstance(node, cst.SimpleStatementLine) and isinstance(node.body[0], cst.Raise):
        return
    for child in node.children:
        if not (isinstance(node, cst.Call) and isinstance(child, cst.Arg) and _is_strict_zip(node, child)):
            yield from _nodes(child)


def _is_text_alone(node: cst.CSTNode) -> bool:
    """Whether a statement is a docstring."""
    match node:
        case cst.SimpleStatementLine(body=[cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString())]):
            return True
    return False


def _called(call: cst.Call) -> str:
    """The name of the function or method that is called, or nothing."""
    match call.func:
        case cst.Name(value=name) | cst.Attribute(attr=cst.Name(value=name)):
            return str(name)
    return ""


def _is_strict_zip(call: cst.Call, argument: cst.Arg) -> bool:
    """Whether an argument only asserts what holds anyway: the `strict=True` of a zip."""
    return _called(call) == "zip" and argument.keyword is not None and argument.keyword.value == "strict"


def _regions(cell: str) -> list[tuple[int, int]]:
    """The numbers of the lines with markers, in pairs."""
    lines = [number for number, line in enumerate(cell.splitlines(), 1) if line.strip() in (BEGIN, END)]
    return list(zip(lines[::2], lines[1::2], strict=True))


def _changed_lines(before: str, after: str) -> tuple[str, str]:
    """The lines that differ on either side, stripped and joined by spaces."""
    old, new = before.splitlines(), after.splitlines()
    while old and new and old[0] == new[0]:
        old, new = old[1:], new[1:]
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    return " ".join(map(str.strip, old)), " ".join(map(str.strip, new))


def _like(node: cst.CSTNode, kind: type[cst.CSTNode]) -> cst.CSTNode:
    """An operator of another kind, spaced like this one where both are written with spaces around them."""
    spaced = ("whitespace_before", "whitespace_after")
    return kind(**{name: getattr(node, name) for name in spaced if hasattr(node, name)})


def _positional(argument: cst.Arg) -> bool:
    return argument.keyword is None and not argument.star


def _without(arguments: Sequence[cst.Arg], place: int) -> list[cst.Arg]:
    kept = [argument for other, argument in enumerate(arguments) if other != place]
    if kept and place == len(arguments) - 1:
        kept[-1] = kept[-1].with_changes(comma=arguments[-1].comma)
    return kept


def _swapped(arguments: Sequence[cst.Arg], place: int) -> list[cst.Arg]:
    """The argument at this place and the one before it, exchanged."""
    changed = list(arguments)
    first, second = changed[place - 1], changed[place]
    changed[place - 1] = first.with_changes(value=second.value)
    changed[place] = second.with_changes(value=first.value)
    return changed


def _with_none(node: cst.Return | cst.Yield, value: cst.CSTNode | None) -> list[cst.CSTNode]:
    if value is None or (isinstance(value, cst.Name) and value.value == "None"):
        return []
    return [node.with_changes(value=cst.Name("None"))]


def _always_and_never(node: cst.If) -> list[cst.CSTNode]:
    space = cst.SimpleWhitespace(" ")
    return [node.with_changes(test=cst.Name(truth), whitespace_before_test=space) for truth in ("True", "False")]


def _ends_in_number(bound: cst.BaseExpression) -> bool:
    match bound:
        case cst.Integer() | cst.UnaryOperation(expression=cst.Integer()):
            return True
        case cst.BinaryOperation(operator=cst.Add() | cst.Subtract(), right=cst.Integer()):
            return True
    return False


def _bracketed(node: cst.BaseExpression) -> cst.BaseExpression:
    if isinstance(node, cst.Name | cst.Attribute | cst.Call | cst.Subscript | cst.UnaryOperation) or node.lpar:
        return node
    return node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def _dropped(node: cst.SimpleStatementLine | cst.For | cst.While) -> cst.SimpleStatementLine:
    return cst.SimpleStatementLine([cst.Pass()], leading_lines=node.leading_lines)
