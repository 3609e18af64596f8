"""Building: what learners and nbgrader get from a source."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from kicourse.authoring.build import build, run
from kicourse.authoring.source import RefusedError
from kicourse.errors import UsageError
from kicourse.syllabus import UnknownUnitError

from .conftest import Desk


def notebook(desk: Desk, room: str, language: str = "en") -> Any:
    return json.loads((desk.root / room / language / "averages.ipynb").read_text(encoding="utf-8"))


def cell(desk: Desk, room: str, name: str) -> Any:
    return next(cell for cell in notebook(desk, room)["cells"] if cell["id"] == name)


def source(cell: Any) -> str:
    return "".join(cell["source"])


def test_the_exercise_has_a_stub_where_the_solution_was(desk: Desk) -> None:
    build()
    assert source(cell(desk, "exercises", "mean")) == (
        "def mean(values: list[float]) -> float:\n"
        '    """Return the mean, and NaN of nothing."""\n'
        "    # YOUR CODE HERE\n"
        "    raise NotImplementedError()"
    )
    assert "total / len(values)" in source(cell(desk, "solutions", "mean"))


def test_points_come_from_the_check(desk: Desk) -> None:
    build()
    metadata = cell(desk, "exercises", "mean-check")["metadata"]["nbgrader"]
    assert (metadata["points"], metadata["grade"], metadata["locked"]) == (6, True, True)


@pytest.mark.long
def test_nbgrader_makes_the_same_exercise_from_the_solution(desk: Desk, tmp_path: Path) -> None:
    build()
    school = tmp_path / "school"
    (school / "source" / "averages").mkdir(parents=True)
    solved = (desk.root / "solutions" / "en" / "averages.ipynb").read_bytes()
    (school / "source" / "averages" / "averages.ipynb").write_bytes(solved)
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", "averages"]
    # nbgrader calls alembic, which lies beside this Python.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    made = subprocess.run(command, cwd=school, check=False, capture_output=True, text=True, env=environment)
    assert made.returncode == 0, made.stderr
    released = (school / "release" / "averages" / "averages.ipynb").read_text(encoding="utf-8")
    assert json.loads(released) == notebook(desk, "exercises")


def test_nothing_random_is_in_a_notebook(desk: Desk) -> None:
    files = build()
    before = {file: file.read_bytes() for file in files}
    for file in files:
        file.unlink()
    assert sorted(build()) == sorted(files)
    assert before == {file: file.read_bytes() for file in files}
    assert build() == []


def test_both_languages_have_the_same_code_and_the_same_ids(desk: Desk) -> None:
    build()
    for room in ("exercises", "solutions"):
        english, german = notebook(desk, room, "en"), notebook(desk, room, "de")
        assert [cell["id"] for cell in english["cells"]] == [cell["id"] for cell in german["cells"]]
        assert [cell for cell in english["cells"] if cell["cell_type"] == "code"] == [
            cell for cell in german["cells"] if cell["cell_type"] == "code"
        ]


def test_the_german_edition_is_german(desk: Desk) -> None:
    build()
    first, *_, manual = (cell for cell in notebook(desk, "solutions", "de")["cells"] if cell["cell_type"] == "markdown")
    assert source(first).startswith("# Mittelwerte\n\nEine Pumpe meldet jede Sekunde ihren Druck.\n\n```python\n")
    assert source(first).endswith("| Pumpe | Druck |\n| --- | --- |\n| eins | 3 bar |")
    assert source(manual) == "Den Pumpen geht es gut."


def test_the_english_edition_is_what_its_author_wrote(desk: Desk) -> None:
    build()
    first = notebook(desk, "exercises")["cells"][0]
    assert source(first).startswith("# Averages\nA pump reports its pressure every second.\n\n```python\n")


def test_the_manual_cell_is_a_text_to_grade(desk: Desk) -> None:
    build()
    memo = cell(desk, "exercises", "memo")
    assert source(memo) == "YOUR ANSWER HERE"
    assert memo["metadata"]["nbgrader"]["grade"]
    assert memo["metadata"]["nbgrader"]["solution"]


def test_equal_cells_have_different_ids(desk: Desk) -> None:
    build()
    ids = [cell["id"] for cell in notebook(desk, "exercises")["cells"]]
    assert len(set(ids)) == len(ids)
    nbformat.validate(notebook(desk, "exercises"))


def test_only_the_setup_and_the_checks_are_locked(desk: Desk) -> None:
    build()
    cells = notebook(desk, "exercises")["cells"]
    locked = [cell["metadata"]["nbgrader"]["grade_id"] for cell in cells if not cell["metadata"].get("editable", True)]
    assert locked == ["setup", "mean-check", "largest-check"]


def test_a_notebook_says_what_it_is(desk: Desk) -> None:
    from kicourse import __version__

    build()
    metadata = notebook(desk, "exercises", "de")["metadata"]
    assert metadata["kicourse"] == {"unit": "averages", "lang": "de", "version": __version__}
    assert metadata["kernelspec"]["name"] == "python3"


def test_tags_stay(desk: Desk) -> None:
    build()
    tagged = [source(cell) for cell in notebook(desk, "exercises")["cells"] if cell["metadata"].get("tags") == ["demo"]]
    assert tagged == ['pressure = [1.0, 2.0]\nprint(text("bar"), sum(pressure))']


def test_the_readme_lists_what_is_finished(desk: Desk) -> None:
    build()
    readme = (desk.root / "exercises" / "de" / "README.md").read_text(encoding="utf-8")
    assert "[Averages of pumps](averages.ipynb) | 20 |" in readme
    assert "Something later" not in readme


def test_check_finds_an_edited_notebook_and_writes_nothing(desk: Desk) -> None:
    build()
    edited = desk.root / "exercises" / "de" / "averages.ipynb"
    edited.write_text("{}", encoding="utf-8")
    assert build(check=True) == [edited]
    assert edited.read_text(encoding="utf-8") == "{}"


def test_notebooks_of_units_that_are_gone_are_found_and_removed(desk: Desk) -> None:
    build()
    gone = desk.root / "solutions" / "en" / "gone.ipynb"
    gone.write_text("{}", encoding="utf-8")
    assert build(check=True) == [gone]
    assert build() == [gone]
    assert not gone.exists()


def test_a_unit_that_does_not_exist(desk: Desk) -> None:
    with pytest.raises(UnknownUnitError, match="Did you mean 'averages'"):
        build(["average"])
    with pytest.raises(UnknownUnitError, match="not written yet"):
        build(["later"])
    desk.source.unlink()
    with pytest.raises(UsageError, match=r"write course/averages\.py first"):
        build(["averages"])


REFUSED = {
    "a check cell for no task": ('# %% task="mean"\n', "# %%\n", "no task 'mean' to check"),
    "a task without a check": (
        '# %% check="mean"\ncheck.mean(mean)',
        "# %%",
        "averages.py:28: the task 'mean' has no check cell",
    ),
    "a check that the module lacks": ("largest", "biggest", "has no check 'biggest'"),
    "a check that the unit leaves out": ("largest", "biggest", "the check 'largest' .* has no task"),
    "no solution": ("    ### BEGIN SOLUTION\n", "", "must take turns"),
    "no markers": ("### ", "# ", "alone on their lines"),
    "markers outside of a task": ('print("done")', "### BEGIN SOLUTION", "belong into a cell with task"),
    "another first cell": ('kicourse.start("averages")', 'kicourse.start("mean")', "the first code cell must be"),
    "points": ('manual="memo"', 'manual="memo" points=1', "must sum to 10, and are mean 6, largest 4, memo 1"),
    "a name from a demonstration": (
        'print("done")',
        "def peak():\n    return max(pressure)",
        "uses 'pressure', which only the demo cell at course/averages.py:24 defines",
    ),
    "a name from a demonstration, counted on": ('print("done")', "pressure += [3.0]", "uses 'pressure'"),
    "a name from a demonstration, made anew of itself": ('print("done")', "pressure = pressure[1:]", "uses 'pressure'"),
    "a name from a demonstration, above it": (
        "import math\n",
        "import math\n\n\ndef peak():\n    return max(pressure)\n",
        "averages.py:21: uses 'pressure'",
    ),
    "an unknown option": ('# %% task="mean"', '# %% taks="mean"', "averages.py:28: a cell cannot have 'taks'"),
    "broken code": ("import math", "import math as", "averages.py:21: this cell is not Python"),
    "a check cell that does more": ("check.mean(mean)", "check.mean(mean)\nmean = 1", "a check cell is one call"),
    "two roles": ('task="mean"', 'task="mean" tags=["demo"]', "a cell is one of task, check, manual and demo"),
    "an untranslated paragraph": (
        "Now the largest ones.",
        "Now the greatest ones.",
        "1 not translated.*Now the greatest",
    ),
    "a label that is computed": ('text("bar")', 'text("b" + "ar")', 'write text\\("..."\\) with a plain string'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_unit_with_a_fault_is_refused(desk: Desk, name: str) -> None:
    old, new, message = REFUSED[name]
    desk.replace(desk.source, old, new)
    with pytest.raises(RefusedError, match=message):
        build()


def test_a_name_of_a_demonstration_that_another_cell_defines_too(desk: Desk) -> None:
    desk.replace(desk.source, 'print("done")', "pressure = [3.0]\nprint(max(pressure))")
    assert build()


def test_every_problem_is_named_at_once(desk: Desk) -> None:
    desk.replace(desk.source, 'manual="memo"', 'manual="memo" points=1')
    desk.replace(desk.source, "check.mean(mean)", "check.mean")
    with pytest.raises(RefusedError) as refused:
        build()
    assert len(refused.value.problems) == 2


def test_an_unfinished_unit_is_built_without_its_translation(desk: Desk) -> None:
    desk.replace(desk.root / "course" / "syllabus.toml", "finished = true", "finished = false")
    desk.catalogue.unlink()
    build(["averages"])
    assert source(notebook(desk, "exercises", "de")["cells"][0]).startswith("# Averages")


def test_the_command_says_what_it_did(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert "built exercises/de/averages.ipynb\n" in capsys.readouterr().out
    assert run(check=True) == 0
    assert capsys.readouterr().out == ""


def test_the_command_fails_where_something_is_out_of_date(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    desk.replace(desk.source, 'print("done")', 'print("ready")')
    capsys.readouterr()
    assert run(check=True) == 1
    assert capsys.readouterr().out.splitlines()[:2] == [
        "out of date: solutions/en/averages.ipynb",
        "out of date: exercises/en/averages.ipynb",
    ]


def test_the_command_extracts_first(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.replace(desk.source, "# Now the largest ones.", "# Now the largest ones.\n#\n# Quite another matter.")
    with pytest.raises(RefusedError, match=r"1 not translated.*: Quite another matter"):
        run(["averages"], extract=True)
    assert capsys.readouterr().out == "updated course/locale/de/averages.po\n"
    with pytest.raises(UsageError, match="use one of them"):
        run(check=True, extract=True)
