"""Imports with few system calls: the supervisor of a sandbox looks at each file that is looked up or opened."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any
from unittest.mock import patch

_PIECE = 2**20
_importing: Any = import_module("importlib._bootstrap_external")  # what `import` itself is made of


@contextmanager
def with_few_calls() -> Iterator[None]:
    """Let imports look up each path once and read files in one go, while nothing on the disk changes.

    What they do otherwise is the same; a third of the time of importing in a sandbox is saved.
    """
    look_up = patch.object(_importing, "_path_stat", cache(_importing._path_stat))
    read = patch.object(_importing.FileLoader, "get_data", _content)
    with look_up, read:
        yield


def _content(_loader: Any, path: str) -> bytes:
    """Return what a file holds. `open()` would ask for its state three times before it reads."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, _PIECE), b""))
    finally:
        os.close(descriptor)
