"""Imports with few system calls: the supervisor of a sandbox looks at each file that is looked up or opened."""

import importlib._bootstrap_external as importing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

_PIECE = 2**20


@contextmanager
def with_few_calls() -> Iterator[None]:
    """Let imports look up each path once and read files in one go, while nothing on the disk changes.

    What they do otherwise is the same; half the time of importing in a sandbox is saved.
    """
    loader: Any = importing.FileLoader
    look_up: Any = getattr(importing, "_path_stat")  # noqa: B009 - it is private
    with patch.object(importing, "_path_stat", cache(look_up)), patch.object(loader, "get_data", _content):
        yield


def _content(_loader: Any, path: str) -> bytes:
    """Return what a file holds. `open()` would ask for its state three times before it reads."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, _PIECE), b""))
    finally:
        os.close(descriptor)
