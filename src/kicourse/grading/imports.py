"""Imports with few system calls: the supervisor of a sandbox looks at each file that is looked up or opened."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any
from unittest.mock import patch

_PIECE = 2**20
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
        # PyTorch asks for its operators' sources, and `inspect` then for the real paths of all modules.
        patch.object(os, "stat", stat),
        patch.object(os, "lstat", _remembering(os.lstat)),
        patch.object(os, "readlink", _remembering(os.readlink)),
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


def _content(_loader: Any, path: str) -> bytes:
    """Return what a file holds. `open()` would ask for its state three times before it reads."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, _PIECE), b""))
    finally:
        os.close(descriptor)
