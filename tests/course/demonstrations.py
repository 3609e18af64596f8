"""Plays a unit's solution with all of its demonstrations, in a kernel, as a learner does who runs every cell."""

from dataclasses import dataclass
from pathlib import Path

import nbclient
import nbformat
import pytest

from kicourse.models import gpt
from kicourse.syllabus import course

_SECONDS = 600


@dataclass(frozen=True)
class Shown:
    """What a notebook has shown: the alternative texts of its figures, and all that was printed."""

    figures: list[str]
    printed: str


def demonstrated(slug: str, language: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Run a solution in `folder`. Raises CellExecutionError where a cell fails."""
    unit = course().unit(slug)
    monkeypatch.setenv("KICOURSE_LANG", language)
    monkeypatch.setenv("KICOURSE_RECORD", "0")
    notebook = nbformat.read(unit.solution(language), as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(notebook, timeout=_SECONDS, kernel_name="python3", resources=resources)
    if unit.gpt:
        with gpt.running():  # the kernel inherits where it is
            client.execute()
    else:
        client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    data = [output.data for output in outputs if "data" in output]
    figures = [one["text/plain"] for one in data if "<img" in one.get("text/html", "")]
    return Shown(figures, "".join(output.get("text", "") for output in outputs))
