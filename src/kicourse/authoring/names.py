"""Which names a code cell needs from the cells before it, and which ones it defines."""

import ast
import builtins
import symtable
from collections.abc import Iterator
from dataclasses import dataclass

_BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__", "get_ipython", "display"}


@dataclass(frozen=True)
class Names:
    """The names of one cell."""

    needed: frozenset[str]
    defined: frozenset[str]


def names(code: str) -> Names:
    """Analyse plain Python code with the compiler's own symbol tables, so that scopes are understood.

    A statement needs what those before it do not define, also where it is an assignment and defines the name itself
    (`total = total + 1`); of loops and the like that goes unnoticed. What functions, classes and comprehensions use may
    be defined anywhere in the cell.
    """
    needed: set[str] = set()
    defined: set[str] = set()
    later: set[str] = set()
    for statement in ast.parse(code).body:
        top = symtable.symtable(ast.unparse(statement), "<cell>", "exec")
        inside = [symbol for table in _descendants(top) for symbol in table.get_symbols()]
        own = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
        used = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()}
        simple = isinstance(statement, ast.Assign | ast.AnnAssign | ast.Expr)
        if simple and not any(isinstance(node, ast.NamedExpr) for node in ast.walk(statement)):
            needed |= used - defined
        else:  # a loop defines a name before it uses it, say
            needed |= used - defined - own
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            needed |= {statement.target.id} - defined
        later |= {symbol.get_name() for symbol in inside if _reads_global(symbol)}
        defined |= own | {symbol.get_name() for symbol in inside if _assigns_global(symbol)}
    return Names(frozenset((needed | (later - defined)) - _BUILTINS), frozenset(defined))


def _descendants(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _descendants(child)


def _assigns_global(symbol: symtable.Symbol) -> bool:
    return symbol.is_declared_global() and symbol.is_assigned()


def _reads_global(symbol: symtable.Symbol) -> bool:
    return symbol.is_global() and symbol.is_referenced()
