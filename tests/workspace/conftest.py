"""A course of tiny notebooks, built where no other test looks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import kicourse.syllabus
from kicourse.syllabus import course

Publish = Callable[..., None]


def notebook(prose: str, stub: str) -> bytes:
    def cell(kind: str, source: str, **nbgrader: object) -> dict[str, object]:
        metadata = {"nbgrader": nbgrader} if nbgrader else {}
        return {"cell_type": kind, "metadata": metadata, "source": source.splitlines(keepends=True)}

    cells = [
        cell("markdown", prose),
        cell("code", stub, grade_id="sample", solution=True, grade=False),
        cell("code", "check.sample(sample)", grade_id="sample-check", solution=False, grade=True),
    ]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Publish a release of the whole course; called again, a newer one."""
    root = tmp_path / "released"
    units, languages = course().finished, course().languages
    monkeypatch.setattr(kicourse.syllabus, "course_root", lambda: root)
    monkeypatch.delenv("KICOURSE_LANG", raising=False)

    def publish(release: str = "first", stub: str = "raise NotImplementedError\n") -> None:
        for unit in units:
            for language in languages:
                path = unit.exercise(language)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(notebook(f"{unit.slug} {language} {release}", stub))

    publish()
    return publish
