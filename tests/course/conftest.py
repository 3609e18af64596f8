"""Every finished unit, run once a worker: its notebooks' code without demonstrations, and the answers it gives."""

import ast
import contextlib
import json
import linecache
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kicourse.checks import Check, diagnosis
from kicourse.syllabus import course

SLUGS = [unit.slug for unit in course().finished]


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a unit's tests on one worker (`--dist loadgroup`), so that its code runs once."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec and callspec.params.get("slug") in SLUGS:
            item.add_marker(pytest.mark.xdist_group(callspec.params["slug"]))


@pytest.fixture(params=SLUGS, scope="session")
def slug(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def solution(slug: str) -> dict[str, Any]:
    """The answers that a unit's solution hands to its checks, by task."""
    return answers_of(course().unit(slug).solution("en"))


@pytest.fixture(scope="session")
def exercise(slug: str) -> dict[str, Any]:
    """The answers that the untouched exercise hands to its checks, by task."""
    return answers_of(course().unit(slug).exercise("en"), tolerate=(NotImplementedError,))


@pytest.fixture
def undiagnosed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out, for speed, the search for what a mistake is called: it is tested for all units."""
    monkeypatch.setattr(diagnosis, "name", lambda *_: ("", False))


def answers_of(notebook: Path, tolerate: tuple[type[BaseException], ...] = ()) -> dict[str, Any]:
    """Run a notebook's cells as grading does (no demonstrations) and return what its check cells were given."""
    answers: dict[str, Any] = {}
    namespace: dict[str, Any] = {"__name__": "__main__"}
    environment = dict(os.environ)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MPLBACKEND", "agg")
            patch.setattr(Check, "__call__", lambda check, answer: answers.__setitem__(check.task, answer))
            for number, source in enumerate(code_cells(notebook)):
                name = f"<{notebook.stem} cell {number}>"
                linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
                with contextlib.suppress(*tolerate):
                    exec(compile(ast.parse(source), name, "exec"), namespace)
    finally:
        # A notebook's first cell leads OpenAI() to the embedded GPT; the tests that follow start their own.
        os.environ.clear()
        os.environ.update(environment)
    return answers


def code_cells(notebook: Path) -> Iterator[str]:
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code" and "demo" not in cell["metadata"].get("tags", []):
            yield "".join(cell["source"])
