"""Which names a code cell needs from the cells before it, and which ones it defines."""

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

    A name that the cell both defines and uses is not needed from elsewhere: what is used before it is defined in the
    same cell goes unnoticed.
    """
    top = symtable.symtable(code, "<cell>", "exec")
    defined = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    for table in _descendants(top):
        defined |= {symbol.get_name() for symbol in table.get_symbols() if _assigns_global(symbol)}
    used = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()}
    for table in _descendants(top):
        used |= {symbol.get_name() for symbol in table.get_symbols() if _reads_global(symbol)}
    return Names(frozenset(used - defined - _BUILTINS), frozenset(defined))


def _descendants(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _descendants(child)


def _assigns_global(symbol: symtable.Symbol) -> bool:
    return symbol.is_declared_global() and symbol.is_assigned()


def _reads_global(symbol: symtable.Symbol) -> bool:
    return symbol.is_global() and symbol.is_referenced()
