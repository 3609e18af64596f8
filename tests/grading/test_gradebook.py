import csv
import gc
import json
import pickle
import re
import shutil
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from nbgrader import utils
from nbgrader.api import Gradebook

from kicourse.errors import UserError
from kicourse.grading.gradebook import GradebookWriter
from kicourse.grading.job import Outcome
from kicourse.grading.report import TaskReport
from tests.grading.stock import (
    ANSWERS,
    STAMPS,
    UNIT,
    Stock,
    configuration,
    dump,
    earned,
    outcome,
    released,
    stock,
    unhurried_disk,
    url,
)
from tests.grading.test_class_folder import nbgrader

# What `stock` makes takes seconds: once for all files that look at it.
pytestmark = pytest.mark.xdist_group("stock")


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    """What stock nbgrader did."""
    return stock(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def _unhurried() -> Iterator[None]:
    with unhurried_disk():
        yield


@pytest.fixture
def gradebook(graded: Stock, tmp_path: Path) -> Path:
    """A gradebook that knows the toy unit, and no student."""
    return Path(shutil.copy(graded.before, tmp_path / "gradebook.db"))


@pytest.fixture
def notebook(graded: Stock) -> bytes:
    """A graded notebook in which everything is answered."""
    return graded.first_round["ada"]


def write(gradebook: Path, *outcomes: Outcome, timestamp: datetime | None = None, config: Any = None) -> None:
    with GradebookWriter(url(gradebook), "class", config, busy_seconds=0.2) as writer:
        for each in outcomes:
            writer.write(each, timestamp)


def replay(gradebook: Path, notebooks: Mapping[str, bytes], config: Any) -> None:
    """Write what nbgrader found in these notebooks."""
    for student, notebook in notebooks.items():
        sources = {
            cell["metadata"].get("nbgrader", {}).get("grade_id"): "".join(cell["source"])
            for cell in json.loads(notebook)["cells"]
        }
        points = earned(sources["double"])
        done = outcome(student, notebook, points["double-check"], points["shout-check"])
        write(gradebook, done, timestamp=utils.parse_utc(STAMPS.get(student)), config=config)


def grades(gradebook: Path, student: str) -> dict[str, tuple[float | None, float | None, bool]]:
    """By cell: what was given automatically and by hand, and whether a person has to look."""
    with Gradebook(url(gradebook), "class") as book:
        rows = book.find_submission_notebook(UNIT, UNIT, student).grades
        return {row.name: (row.auto_score, row.manual_score, row.needs_manual_grade) for row in rows}


def comments(gradebook: Path, student: str) -> dict[str, str | None]:
    with Gradebook(url(gradebook), "class") as book:
        return {row.name: row.comment for row in book.find_submission_notebook(UNIT, UNIT, student).comments}


def test_a_new_class_gets_the_rows_that_nbgrader_writes(graded: Stock, gradebook: Path) -> None:
    replay(gradebook, graded.first_round, configuration(graded.folder))
    assert dump(gradebook) == dump(graded.first)


def test_grading_again_leaves_the_rows_that_nbgrader_leaves(graded: Stock, gradebook: Path) -> None:
    shutil.copy(graded.between, gradebook)
    replay(gradebook, graded.second_round, configuration(graded.folder))
    assert dump(gradebook) == dump(graded.second)


def test_the_comparison_is_of_marks_that_differ_in_every_way(graded: Stock) -> None:
    assert grades(graded.first, "ada") == {
        "double-check": (7.5, None, False),
        "shout-check": (2.5, None, False),
        "essay": (None, None, True),
        "sketch": (None, None, True),
        "project": (None, None, True),
    }
    assert grades(graded.first, "bob")["essay"] == (0, None, False)
    assert grades(graded.second, "ada")["shout-check"] == (2.5, 2, True)
    assert grades(graded.second, "bob")["project"] == (None, None, False)
    assert comments(graded.first, "bob")["double"] == "No response."
    assert comments(graded.second, "bob")["double"] is None
    assert comments(graded.second, "ada")["essay"] == "Nice & *short*."
    penalties = [
        {row["late_submission_penalty"] for row in dump(gradebook)["submitted_notebook"]}
        for gradebook in (graded.first, graded.second)
    ]
    assert penalties == [{None, 7.5}, {None}], "cy was late until there was an extension"


@pytest.mark.parametrize("status", ["unreadable", "error"])
def test_what_cannot_be_graded_has_zeros_but_what_a_person_gave(graded: Stock, gradebook: Path, status: str) -> None:
    shutil.copy(graded.second, gradebook)
    write(gradebook, *(outcome(student, b"", status=status, tasks=()) for student in ("ada", "dora")))
    assert grades(gradebook, "ada") == {
        "double-check": (0, None, False),
        "shout-check": (0, 2, True),
        "essay": (0, 3, True),
        "sketch": (0, None, False),
        "project": (0, None, False),
    }, "a person has another look at what a person gave"
    assert set(grades(gradebook, "dora").values()) == {(0, None, False)}
    assert comments(gradebook, "ada")["essay"] == "Nice & *short*."


def test_a_comment_on_an_earlier_submission_does_not_stay(graded: Stock, gradebook: Path) -> None:
    write(gradebook, outcome("ada", released(graded.folder, {})))
    assert comments(gradebook, "ada")["double"] == "No response."
    write(gradebook, outcome("ada", b"", status="error", tasks=()))
    assert set(comments(gradebook, "ada").values()) == {None}
    write(gradebook, outcome("ada", b"not a notebook", status="unreadable", tasks=()))
    assert comments(gradebook, "ada")["double"] == "No response.", "as nbgrader says of the release"


def test_points_are_the_outcomes_whatever_the_notebook_says(gradebook: Path, notebook: bytes) -> None:
    assert b'"7.5"' in notebook
    write(gradebook, outcome("ada", notebook, 1.25, 2.5 + 1e-12))
    given = grades(gradebook, "ada")
    assert given["double-check"] == (1.25, None, False)
    assert given["shout-check"] == (2.5, None, False), "a rounding error of a sum is no extra credit"


@pytest.mark.parametrize("points", [float("nan"), float("inf"), -1, 7.6])
def test_points_that_cannot_be_are_refused(gradebook: Path, notebook: bytes, points: float) -> None:
    before = dump(gradebook)
    with pytest.raises(UserError, match=r"disagree about the points of 'double-check'"):
        write(gradebook, outcome("ada", notebook, points))
    assert dump(gradebook) == before


def test_a_release_of_another_version_is_refused(gradebook: Path, notebook: bytes) -> None:
    tasks = outcome("ada", notebook).tasks
    with pytest.raises(UserError, match="disagree about the cell 'whisper-check'"):
        write(gradebook, outcome("ada", notebook, tasks=(*tasks, TaskReport("whisper", 1, 1, "passed"))))
    with pytest.raises(UserError, match="disagree about the cell 'shout-check', which no check decides"):
        write(gradebook, outcome("ada", notebook, tasks=tasks[:1]))
    with pytest.raises(UserError, match=r"the unit 'tokens'\. Run `nbgrader generate_assignment tokens --force`"):
        write(gradebook, Outcome("ada", "tokens", "graded", (), notebook))
    assert not dump(gradebook)["student"]


def test_a_cell_that_was_added_since_is_graded(gradebook: Path, notebook: bytes) -> None:
    write(gradebook, outcome("ada", notebook, 7.5, 2.5))
    with Gradebook(url(gradebook), "class") as book:
        book.add_grade_cell("whisper-check", UNIT, UNIT, max_score=1, cell_type="code")
    whole = outcome("ada", notebook, 7.5, 2.5)
    more = outcome("ada", notebook, tasks=(*whole.tasks, TaskReport("whisper", 1, 1, "passed")))
    write(gradebook, more, more)
    assert grades(gradebook, "ada")["whisper-check"] == (1, None, False)
    assert len(grades(gradebook, "ada")) == 6


@pytest.mark.parametrize("student", ["o'neil; --", "日本 Ω 🎓", "%s :x ?", "  ", "a/../b"])
def test_a_student_may_be_called_anything(gradebook: Path, notebook: bytes, student: str) -> None:
    write(gradebook, outcome("ada", notebook), outcome(student, notebook, 5, 2.5))
    assert grades(gradebook, student)["double-check"] == (5, None, False)
    assert grades(gradebook, "ada")["double-check"] == (0, None, False)


def test_a_name_that_is_no_text_is_a_users_error(gradebook: Path, notebook: bytes) -> None:
    with pytest.raises(UserError, match="surrogates not allowed"):
        write(gradebook, outcome("\udcff", notebook))
    assert not dump(gradebook)["student"]


def test_times_are_stored_as_utc_and_stay_without_a_new_one(gradebook: Path, notebook: bytes) -> None:
    evening = datetime(2026, 3, 1, 23, 30, tzinfo=timezone(timedelta(hours=-2)))
    write(gradebook, outcome("ada", notebook), timestamp=evening)
    write(gradebook, outcome("ada", notebook))
    with Gradebook(url(gradebook), "class") as book:
        assert book.find_submission(UNIT, "ada").timestamp == datetime(2026, 3, 2, 1, 30)


def test_late_submissions_cost_nothing_unless_the_class_says_so(graded: Stock, gradebook: Path) -> None:
    late, half = datetime(2027, 1, 1, tzinfo=UTC), outcome("cy", graded.first_round["cy"], 5, 2.5)
    for config, penalty in ((None, None), (configuration(graded.folder), 7.5)):
        write(gradebook, half, timestamp=late, config=config)
        assert [row["late_submission_penalty"] for row in dump(gradebook)["submitted_notebook"]] == [penalty]


def test_nbgrader_exports_the_marks(graded: Stock, gradebook: Path, tmp_path: Path) -> None:
    folder = tmp_path / "class"
    folder.mkdir()
    shutil.copy(graded.folder / "nbgrader_config.py", folder)
    shutil.copytree(graded.folder / ".kicourse", folder / ".kicourse")
    write(gradebook, *(outcome(student, graded.first_round[student], 5, 2.5) for student in ANSWERS))
    shutil.copy(gradebook, folder)
    nbgrader(folder, "export", "--to=grades.csv")
    with (folder / "grades.csv").open() as file:
        rows = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    assert rows == dict.fromkeys(ANSWERS, (7.5, 21))


def test_a_gradebook_of_another_nbgrader_is_left_alone(gradebook: Path, notebook: bytes) -> None:
    with sqlite3.connect(gradebook) as database:
        database.execute("UPDATE alembic_version SET version_num = '50a4d84c131a'")
    content = gradebook.read_bytes()
    with pytest.raises(UserError, match=r"50a4d84c131a.*Back it up, then run `nbgrader db upgrade --db"):
        write(gradebook, outcome("ada", notebook))
    assert gradebook.read_bytes() == content


def test_a_gradebook_of_a_newer_nbgrader_is_not_told_to_be_upgraded(gradebook: Path, notebook: bytes) -> None:
    with sqlite3.connect(gradebook) as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffff00000000'")
    with pytest.raises(UserError, match=r"ffff00000000.*made with a newer one: install that") as caught:
        write(gradebook, outcome("ada", notebook))
    assert "upgrade" not in str(caught.value)


def test_extra_credit_is_a_mark_by_hand(gradebook: Path, notebook: bytes) -> None:
    write(gradebook, outcome("ada", notebook))
    with GradebookWriter(url(gradebook), "class") as writer:
        assert writer.marked_by_hand([UNIT]) == 0
        with Gradebook(url(gradebook)) as opened:
            opened.find_grade("double-check", UNIT, UNIT, "ada").extra_credit = 1.5
            opened.db.commit()
        assert writer.marked_by_hand([UNIT]) == 1


@pytest.mark.parametrize("table", ["task_cells", "alembic_version"])
def test_a_gradebook_that_lacks_a_table_is_left_alone(gradebook: Path, notebook: bytes, table: str) -> None:
    with sqlite3.connect(gradebook) as database:
        database.execute(f"DROP TABLE {table}")
    content = gradebook.read_bytes()
    with pytest.raises(UserError, match=f"lacks the table {table}.*`nbgrader db upgrade --db"):
        write(gradebook, outcome("ada", notebook))
    assert gradebook.read_bytes() == content


def test_no_gradebook_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no gradebook"):
        GradebookWriter(url(tmp_path / "gradebook.db"), "class")
    assert not list(tmp_path.iterdir())


def test_advice_names_a_gradebook_for_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(f"--db sqlite:///{tmp_path / 'other.db'}` in the class folder")):
        GradebookWriter("sqlite:///other.db", "class")


@pytest.mark.parametrize("password", ["p@ss", "se/cr@t:x"])
def test_a_password_that_must_be_written_otherwise_is_not_shown(password: str) -> None:
    with pytest.raises(UserError, match="write @ as %40") as caught:
        GradebookWriter(f"postgresql://nb:{password}@localhost/grades", "class")
    assert password.rpartition("@")[2] + "@" not in str(caught.value)


def test_another_file_or_database_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "thesis.db").write_text("all of it " * 1000)
    with pytest.raises(UserError, match="file is not a database"):
        GradebookWriter(url(tmp_path / "thesis.db"), "class")
    with pytest.raises(UserError) as caught:
        GradebookWriter("unheardof://me:secret@host/grades", "class")
    assert "secret" not in str(caught.value)


def test_a_gradebook_that_another_program_holds_is_a_users_error(gradebook: Path, notebook: bytes) -> None:
    write(gradebook, outcome("ada", notebook, 5, 2.5))
    before = dump(gradebook)
    other = sqlite3.connect(gradebook, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UserError, match="database is locked"):
        write(gradebook, outcome("ada", notebook))
    other.execute("ROLLBACK")
    other.close()
    assert dump(gradebook) == before
    write(gradebook, outcome("ada", notebook))
    assert grades(gradebook, "ada")["double-check"] == (0, None, False)


def test_a_gradebook_that_is_read_only_is_a_users_error(gradebook: Path, notebook: bytes) -> None:
    address = f"sqlite:///file:{gradebook}?mode=ro&uri=true"
    with GradebookWriter(address, "class") as writer, pytest.raises(UserError, match="readonly database"):
        writer.write(outcome("ada", notebook), None)


def test_a_failure_half_way_leaves_the_old_marks(gradebook: Path, notebook: bytes) -> None:
    write(gradebook, outcome("ada", notebook, 5, 2.5))
    with sqlite3.connect(gradebook) as database:
        database.execute("CREATE TRIGGER stop BEFORE UPDATE ON comment BEGIN SELECT RAISE(ABORT, 'stopped'); END")
    before = dump(gradebook)
    with pytest.raises(UserError, match="stopped"):
        write(gradebook, outcome("ada", notebook, 1, 1))
    with pytest.raises(UserError, match="stopped"):
        write(gradebook, outcome("bob", notebook, 1, 1))
    assert dump(gradebook) == before


FULL_DISK = """
import pickle, resource, sys
from pathlib import Path
from dataclasses import replace
from kicourse.errors import UserError
from kicourse.grading.gradebook import GradebookWriter

gradebook, done = Path(sys.argv[1]), pickle.load(sys.stdin.buffer)
size = gradebook.stat().st_size + 20_000
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
with GradebookWriter(f"sqlite:///{gradebook}", "class") as writer:
    for number in range(1000):
        try:
            writer.write(replace(done, student=f"student {number}"), None)
        except UserError as error:
            print(number, error)
            break
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_a_full_disk_leaves_whole_submissions(gradebook: Path, notebook: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(gradebook)],
        input=pickle.dumps(outcome("", notebook, 5, 2.5)),
        stdout=subprocess.PIPE,
        check=True,
    )
    number, message = done.stdout.decode().split(" ", 1)
    assert "cannot be used: d" in message, "disk I/O error, or database or disk is full"
    assert "What was there is intact" in message
    with sqlite3.connect(gradebook) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    students = [row["id"] for row in dump(gradebook)["student"]]
    assert sorted(students) == sorted(f"student {one}" for one in range(int(number)))
    assert len(students) > 1
    for student in students:
        assert grades(gradebook, student)["double-check"] == (5, None, False)
    write(gradebook, outcome("ada", notebook, 5, 2.5))


def test_memory_does_not_grow_with_the_class(gradebook: Path, notebook: bytes) -> None:
    with GradebookWriter(url(gradebook), "class") as writer:
        for number in range(5):
            writer.write(outcome(f"early {number}", notebook), None)
        tracemalloc.start()
        for number in range(40):
            writer.write(outcome(f"late {number}", notebook), None)
        gc.collect()  # what only waits for the collector is not kept
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept < 100_000, "bytes for 40 submissions of 10,000"
