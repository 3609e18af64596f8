"""A fresh workspace works without JupyterLab's page too: `jupyter execute` runs its notebooks."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kicourse.checks import load
from kicourse.checks.verdict import MIMETYPE
from kicourse.syllabus import course
from kicourse.workspace import progress
from kicourse.workspace.folder import Workspace

SECONDS = 600


FIRST, *OTHERS = (unit.slug for unit in course().finished)


@pytest.mark.parametrize("unit", [FIRST, *(pytest.param(unit, marks=pytest.mark.long) for unit in OTHERS)])
def test_a_fresh_notebook_runs_and_no_task_in_it_is_wrong(unit: str, tmp_path: Path) -> None:
    workspace = Workspace.open_or_make(tmp_path / "work", "en")
    notebook = workspace.root / workspace.notebooks[unit]
    program = Path(sys.executable).with_name("jupyter-execute")
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"}
    command = [str(program), "--allow-errors", "--inplace", notebook.name]
    subprocess.run(command, cwd=workspace.root, env=environment, check=True, timeout=SECONDS)

    errors = [(is_demo(cell), output["ename"]) for cell, output in outputs(notebook) if "ename" in output]
    # Demonstrations wait for the answer of the task before them, or for a demonstration that does.
    assert set(errors) <= {(True, "NotImplementedError"), (True, "NameError")}
    data = [output.get("data", {}) for _cell, output in outputs(notebook)]
    verdicts = [formats[MIMETYPE] for formats in data if MIMETYPE in formats]
    assert {verdict["task"]: verdict["status"] for verdict in verdicts} == dict.fromkeys(load(unit), "not_started")
    assert not next(share for share in progress.read(workspace.root).units if share.unit.slug == unit).is_started


def outputs(notebook: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return every output with its cell."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [(cell, output) for cell in cells for output in cell.get("outputs", [])]


def is_demo(cell: dict[str, Any]) -> bool:
    return "demo" in cell["metadata"].get("tags", [])
