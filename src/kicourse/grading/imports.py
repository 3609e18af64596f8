"""Imports with few system calls: the supervisor of a sandbox looks at each file that is looked up or opened."""

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest.mock import patch

_PIECE = 2**20
_module_of = inspect.getmodule
_known: frozenset[str] = frozenset()
_importing: Any = import_module("importlib._bootstrap_external")  # what `import` itself is made of


@contextmanager
def with_few_calls() -> Iterator[None]:
    """Let imports look up each path once and read files in one go, while nothing on the disk changes.

    What they do otherwise is the same; half of the time of importing PyTorch in a sandbox is saved.
    """
    stat = _remembering(os.stat)
    with (
        patch.object(_importing, "_path_stat", stat),
        patch.object(_importing.FileLoader, "get_data", _content),
        patch.object(os, "stat", stat),
        patch.object(inspect, "getmodule", _module),
    ):
        yield


def note_known() -> None:
    """Note which modules are there, once, before forks: to look through them all takes a fork milliseconds."""
    global _known
    _known = frozenset(sys.modules)


def new() -> list[str]:
    """Return which modules have been imported since then."""
    return sorted(set(sys.modules) - _known) if len(sys.modules) != len(_known) else []


def _remembering(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, with a memory for paths. A descriptor's number can mean another file the next time."""
    remembered = cache(function)

    def look(path: Any, **how: Any) -> Any:
        return remembered(path) if isinstance(path, str) and not how else function(path, **how)

    return look


def _module(thing: Any, filename: str | None = None) -> ModuleType | None:
    """Return the module of a thing; a frame's is known by name, where `inspect` would look for it in all there are.

    PyTorch asks for that of each operator, and for each module there are a dozen calls in its real path.
    """
    if inspect.isframe(thing):
        return sys.modules.get(thing.f_globals.get("__name__", ""))
    return _module_of(thing, filename)


def _content(_loader: Any, path: str) -> bytes:
    """Return what a file holds. `open()` would ask for its state three times before it reads."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, _PIECE), b""))
    finally:
        os.close(descriptor)
