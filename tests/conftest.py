"""What holds for every test."""

import atexit
import gc
import os
import sys
from collections.abc import Iterator

import pytest

# As in kicourse's own command line: a grammar that nothing here uses takes more than a second to build, and so does
# the last look for garbage, in each of the processes that run the tests.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
atexit.register(gc.freeze)


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Find no GPT that others serve, a test beside this one say: it may end at any moment. Nor do they find ours."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    """Undo what a test's code sets in the environment: a notebook's first cell, say, leads OpenAI() somewhere."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)
