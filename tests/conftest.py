"""What holds for every test."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    """Undo what a test's code sets in the environment: a notebook's first cell, say, leads OpenAI() somewhere."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)
