import re
import shutil
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbgrader.api import Gradebook

from kicourse.errors import UserError
from kicourse.grading.feedback import FeedbackWriter
from kicourse.grading.gradebook import GradebookWriter
from tests.grading.stock import ANSWERS, UNIT, Stock, configuration, dump, outcome, stock, url

# What `stock` makes takes seconds: once for all files that look at it.
pytestmark = pytest.mark.xdist_group("stock")


MATHJAX = re.compile("<!-- Load mathjax -->.*?<!-- End of mathjax configuration -->", re.DOTALL)
POLICY = (
    "<meta content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:\" "
    'http-equiv="Content-Security-Policy"/>'
)


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    """What stock nbgrader did."""
    return stock(tmp_path_factory.getbasetemp())


def test_pages_are_nbgraders_own(graded: Stock) -> None:
    before = dump(graded.second)
    with FeedbackWriter(url(graded.second), configuration(graded.folder)) as writer:
        # What is prepared beforehand changes nothing, and the second turn finds everything in its caches.
        writer.prepare(nbformat.reads(graded.second_round["ada"].decode(), as_version=4))
        for student in [*ANSWERS, *ANSWERS]:
            page = writer.page(student, UNIT, graded.second_round[student])
            stock_page = (graded.folder / "feedback" / student / UNIT / f"{UNIT}.html").read_text(encoding="utf-8")
            without_scripts, count = MATHJAX.subn(POLICY, stock_page)
            assert count == 1
            # nbconvert parses a page and writes it anew, for the same content.
            assert str(BeautifulSoup(page, features="html.parser")) == without_scripts, student
    assert dump(graded.second) == before


def test_a_page_shows_what_the_gradebook_holds(graded: Stock, tmp_path: Path) -> None:
    gradebook = Path(shutil.copy(graded.second, tmp_path / "gradebook.db"))
    with FeedbackWriter(url(gradebook), configuration(graded.folder)) as writer:
        page = writer.page("ada", UNIT, graded.second_round["ada"])
        # By hand 3 for the essay and 2 + 0.5 in place of 2.5, beside 7.5 of a check.
        assert f"{UNIT} (Score: 13.0 / 21.0)" in page
        assert "Nice &amp; <em>short</em>." in page
        assert "<p>7.5 points &amp; a <em>reason</em></p>" in page, "the verdict itself is what a student reads"
        with Gradebook(url(gradebook), "class") as book:
            book.find_grade("sketch", UNIT, UNIT, "ada").manual_score = 4
            book.find_submission_notebook(UNIT, UNIT, "ada").late_submission_penalty = 1.5
            book.db.commit()
        page = writer.page("ada", UNIT, graded.second_round["ada"])
        assert f"{UNIT} (Score: 15.5 / 21.0)" in page
        assert "Late submission penalty (Score: -1.5)" in page


def test_a_picture_without_a_text_says_so(graded: Stock) -> None:
    notebook = nbformat.reads(graded.second_round["ada"].decode(), as_version=4)
    picture = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.outputs.append(nbformat.v4.new_output("display_data", picture))
    with FeedbackWriter(url(graded.second)) as writer:
        page = BeautifulSoup(writer.page("ada", UNIT, nbformat.writes(notebook).encode()), features="html.parser")
    images = page.find_all("img", src=re.compile("iVBORw0KGgo="))
    assert [image["alt"] for image in images] == ["No description has been provided for this image"]


def test_formulas_are_drawn_without_scripts(graded: Stock) -> None:
    notebook = nbformat.reads(graded.second_round["ada"].decode(), as_version=4)
    shown = r"Inline $\frac{a}{b}$, in code `$c$`. $$\sum_i x_i$$ And $\frac{$ is none."
    notebook.cells.append(nbformat.v4.new_markdown_cell(shown))
    with FeedbackWriter(url(graded.second)) as writer:
        page = writer.page("ada", UNIT, nbformat.writes(notebook).encode())
    formulas = BeautifulSoup(page, features="html.parser").find_all("math")
    assert [(one["display"], one.get_text()) for one in formulas] == [("inline", "ab"), ("block", "∑ixi")]
    assert "<code>$c$</code>" in page
    assert r"$\frac{$ is none" in page
    assert "<script" not in page


def test_a_student_who_has_no_marks_has_no_page(graded: Stock) -> None:
    with FeedbackWriter(url(graded.second)) as writer:
        for student, unit in (("dora", UNIT), ("ada", "tokens")):
            with pytest.raises(UserError, match=f"no marks of '{student}' for '{unit}'"):
                writer.page(student, unit, graded.second_round["ada"])


def test_a_cell_that_the_gradebook_does_not_know_is_told(graded: Stock) -> None:
    notebook = graded.second_round["ada"].replace(b'"grade_id": "sketch"', b'"grade_id": "scribble"')
    with FeedbackWriter(url(graded.second)) as writer, pytest.raises(UserError, match="not know the cell 'scribble'"):
        writer.page("ada", UNIT, notebook)


def test_marks_written_here_and_their_page_fit_together(graded: Stock, tmp_path: Path) -> None:
    gradebook = Path(shutil.copy(graded.before, tmp_path / "gradebook.db"))
    with GradebookWriter(url(gradebook), "class") as marks, FeedbackWriter(url(gradebook)) as writer:
        for double, total in ((5, 7.5), (7.5, 10.0)):
            marks.write(outcome("cy", graded.first_round["cy"], double, 2.5), None)
            assert f"(Score: {total} / 21.0)" in writer.page("cy", UNIT, graded.first_round["cy"])
