"""Every attack of the corpus, handed in beside honest work, and graded with it by `kicourse grade`.

No attack may earn a point, upset an honest submission, reach what is not its own, or get onto an instructor's page.
"""

import re
import sqlite3
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import pytest

from kicourse.grading import sandbox
from kicourse.syllabus import course_root
from tests.hostile.classroom import HONEST, Afterwards, Graded, afterwards, beside
from tests.hostile.corpus import ATTACKS

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(sandbox.unavailable()), reason=sandbox.unavailable()),
    pytest.mark.xdist_group("hostile"),  # they share a class that takes minutes to grade
]

_BUGS = (
    "SyntaxError",
    "NameError",
    "ImportError",
    "ModuleNotFoundError",
    "AttributeError",
    "TypeError",
    "IndentationError",
)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Afterwards:
    return afterwards(tmp_path_factory.mktemp("hostile"))


def test_the_corpus_is_as_large_as_is_said() -> None:
    for page in ("README.md", "docs/instructors.md"):
        assert f"tries {len(ATTACKS)} attacks" in (course_root() / page).read_text(encoding="utf-8"), page
    assert all(entry.tries for entry in ATTACKS.values())


def test_everybody_gets_a_mark(done: Afterwards) -> None:
    assert done.together.status == 0, done.together.printed[-3000:]
    expected = {(student, entry.unit) for name, entry in ATTACKS.items() for student in (name, beside(name)[0])}
    assert set(done.together.outcomes) == expected | set(HONEST.items())
    assert [place for place, one in done.together.outcomes.items() if one["status"] == "error"] == []


def test_no_attack_earns_a_point(done: Afterwards) -> None:
    earned = {name: done.together.outcomes[name, entry.unit]["score"] for name, entry in ATTACKS.items()}
    assert {name: score for name, score in earned.items() if score != 0} == {}


def test_the_gradebook_says_the_same(done: Afterwards) -> None:
    with sqlite3.connect(done.together.folder / "gradebook.db") as book:
        rows = book.execute(
            "select s.student_id, sum(coalesce(g.auto_score, 0)), sum(coalesce(g.manual_score, 0)), "
            "sum(coalesce(g.extra_credit, 0)) from grade g join submitted_notebook n on n.id = g.notebook_id "
            "join submitted_assignment s on s.id = n.assignment_id group by s.student_id"
        ).fetchall()
    scores = {student: (automatic, manual, extra) for student, automatic, manual, extra in rows}
    assert set(scores) == {student for student, _ in done.together.outcomes}
    assert {name: scores[name] for name in ATTACKS if scores[name] != (0, 0, 0)} == {}
    honest = {place: one["score"] for place, one in done.together.outcomes.items() if place[0] not in ATTACKS}
    assert {(student, unit): scores[student][0] for student, unit in honest} == honest


def test_honest_work_is_graded_as_if_alone(done: Afterwards) -> None:
    assert done.alone.status == 0, done.alone.printed[-3000:]
    for place in HONEST.items():
        alone, together = (one.outcomes[place] for one in (done.alone, done.together))
        assert (place, together["score"], together["tasks"]) == (place, alone["score"], alone["tasks"])
    scores = {student: done.alone.outcomes[student, unit]["score"] for student, unit in HONEST.items()}
    assert scores["ada"] == 10
    assert scores["cem"] == 0
    assert all(0 < scores[student] < 10 for student in ("ben", "emil", "fay"))


def test_who_sits_beside_an_attacker_is_graded_as_if_alone(done: Afterwards) -> None:
    upset = {}
    for name, entry in ATTACKS.items():
        student, alike = beside(name)
        if (got := _marks(done.together, student, entry.unit)) != _marks(done.alone, alike, entry.unit):
            upset[name] = got
    assert upset == {}


def test_nothing_is_reached_that_is_not_their_own(done: Afterwards) -> None:
    said = {
        name: lines
        for name, entry in ATTACKS.items()
        if (lines := re.findall("REACHED .*", _shown(done.together.notebook(name, entry.unit))))
    }
    assert said == {}


def test_attacks_do_what_they_say(done: Afterwards) -> None:
    """An attack that stumbles over its own mistake proves nothing."""
    stumbled = {}
    for name, entry in ATTACKS.items():
        cells = done.together.notebook(name, entry.unit)["cells"]
        errors = [
            f"{output['ename']}: {output['evalue']}"
            for cell in cells
            if cell["cell_type"] == "code" and str(cell.get("id", "")).startswith("extra-")
            for output in cell["outputs"]
            if output["output_type"] == "error" and output["ename"] in _BUGS
        ]
        if errors and not entry.fails:
            stumbled[name] = errors
    assert stumbled == {}


def test_nothing_is_changed(done: Afterwards) -> None:
    assert done.changed == []


def test_nothing_is_left_behind(done: Afterwards) -> None:
    assert done.left == []


def test_no_process_is_left(done: Afterwards) -> None:
    assert done.processes == []


def test_nobody_is_bothered(done: Afterwards) -> None:
    assert done.contacts == []


def test_the_terminal_shows_no_escape_sequences_of_theirs(done: Afterwards) -> None:
    assert "\x1b" not in done.together.printed
    assert "\x07" not in done.together.printed


def test_feedback_has_no_active_content_of_theirs(done: Afterwards) -> None:
    usual = _active(done.together.feedback("ada", "first_call"))
    for unit in ("maintenance", "mini_gpt"):
        usual |= _active(done.together.feedback(next(n for n, e in ATTACKS.items() if e.unit == unit), unit))
    added = {
        name: list(more)
        for name, entry in ATTACKS.items()
        if (more := _active(done.together.feedback(name, entry.unit)) - usual)
    }
    assert added == {}
    pages = {name: done.together.feedback(name, entry.unit) for name, entry in ATTACKS.items()}
    assert [name for name, page in pages.items() if "<script" in page.lower()] == [], "not even nbconvert's own"


def test_feedback_shows_what_they_wrote_as_text(done: Afterwards) -> None:
    for name, entry in ATTACKS.items():
        if entry.theme == "injection":
            page = done.together.feedback(name, entry.unit)
            shown = "&lt;script&gt;" in page or "script</span>" in page or "&lt;&#47;script" in page
            assert shown or name in ("scripts_in_cells", "scripts_in_outputs"), name


def test_what_is_written_stays_small(done: Afterwards) -> None:
    large = {
        name: size
        for name, entry in ATTACKS.items()
        for room, end in (("autograded", "ipynb"), ("feedback", "html"))
        if (size := (done.together.folder / room / name / entry.unit / f"{entry.unit}.{end}").stat().st_size)
        > 40 * 2**20
    }
    assert large == {}


def test_graded_notebooks_carry_no_active_outputs_of_theirs(done: Afterwards) -> None:
    for name, entry in ATTACKS.items():
        for cell in done.together.notebook(name, entry.unit)["cells"]:
            for output in cell.get("outputs", ()):
                kinds = set(output.get("data", ()))
                is_verdict = output["output_type"] == "execute_result"
                assert kinds <= {"text/plain", "image/png", *(("text/html",) * is_verdict)}, (name, kinds)
                assert not is_verdict or cell["metadata"]["nbgrader"]["grade"], name


def _marks(graded: Graded, student: str, unit: str) -> list[tuple[str, str, float]]:
    """Return what does not depend on the numbers that a student's trials are made of."""
    tasks = graded.outcomes[student, unit]["tasks"]
    return [(task["task"], task["status"], task["points"]) for task in tasks]


def _shown(notebook: dict[str, Any]) -> str:
    """Return all text among a notebook's outputs."""
    texts = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            texts += ["".join(output.get("text", "")), output.get("evalue", ""), *output.get("traceback", ())]
            texts += ["".join(value) for value in output.get("data", {}).values()]
    return "\n".join(texts)


class _Active(HTMLParser):
    """Collects whatever in a page could do something, apart from the content of its text."""

    # fmt: off
    TAGS = frozenset((
        "script", "iframe", "object", "embed", "form", "input", "button", "meta", "base", "link", "style", "svg",
        "math", "frame", "applet", "audio", "video", "template",
    ))
    ADDRESSES = frozenset((
        "href", "src", "action", "formaction", "data", "srcdoc", "srcset", "poster", "background", "xlink:href",
    ))
    # fmt: on
    QUIET = frozenset(("pre", "code", "script", "style", "textarea"))

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: Counter[str] = Counter()
        self.stack: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in self.TAGS:
            self.found[f"<{tag}> {sorted(attributes)}"[:400]] += 1
        for name, value in attributes:
            address = re.sub(r"[\s\0-\x20]", "", value or "").lower()
            harmless = address.startswith(("data:image/png;base64,", "#", "http"))
            if name.startswith("on") or (name in self.ADDRESSES and ":" in address and not harmless):
                self.found[f"{tag} {name}={value}"[:400]] += 1
            if name == "style" and re.search(r"url\(|expression|@import|position", address):
                self.found[f"{tag} style={value}"[:400]] += 1
        left_alone = "mathjax_ignore" in (dict(attributes).get("class") or "").split()
        if tag in self.QUIET or left_alone or self.stack[-1:] == [tag]:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.stack and self.stack[-1] == tag:
            self.stack.pop()

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] in ("script", "style"):
            self.found[f"{self.stack[-1]}: {data}"] += 1
        elif not self.stack and re.search(r"\\(href|unicode|require)\b", data):  # MathJax leaves code alone
            self.found[f"TeX: {data}"[:400]] += 1

    def handle_comment(self, data: str) -> None:
        if data.lstrip().startswith("[if"):
            self.found[f"comment: {data}"[:200]] += 1


def _active(page: str) -> Counter[str]:
    parser = _Active()
    parser.feed(page)
    parser.close()
    return parser.found
