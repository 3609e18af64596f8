"""From a submission comes source, and nothing else: whatever it holds, the rest of what is graded is the release's."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbconvert.filters import markdown2html
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell
from nbgrader.utils import compute_checksum

from kicourse.grading import rebuild as module
from kicourse.grading.rebuild import harmless_markdown, rebuild
from kicourse.grading.submitted import UnreadableSubmissionError
from tests.grading.notebooks import SOLVED, UNTOUCHED, code, unit

ROOT = Path(__file__).parents[2]
EXERCISES = sorted((ROOT / "exercises" / "en").glob("*.ipynb"))
many = settings(max_examples=200)


def released(answers: dict[str, str] = UNTOUCHED) -> NotebookNode:
    """Return the toy unit with every kind of cell that a release has, or the same with other answers."""
    essay = new_markdown_cell(answers.get("essay", "Your summary here."))
    essay.metadata.nbgrader = {"grade": True, "solution": True, "locked": False, "points": 1, "grade_id": "essay"}
    demo, helper = code("print('demo')", "demo"), code("size = 3")
    tasks = {task: answers.get(task, UNTOUCHED[task]) for task in UNTOUCHED}
    made = unit(tasks, demo, helper, new_markdown_cell("# Explained"))
    made.cells.append(essay)
    for number, cell in enumerate(made.cells):
        cell.id = cell.metadata.get("nbgrader", {}).get("grade_id", f"plain-{number}")
        if "nbgrader" in cell.metadata:
            cell.metadata.nbgrader.checksum = compute_checksum(cell)
    return made


RELEASE = released()
PLACES = {cell.id: place for place, cell in enumerate(RELEASE.cells)}


def handed_in(notebook: Any) -> bytes:
    return json.dumps(notebook).encode()


def of_cells(*cells: Any) -> bytes:
    return handed_in({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": list(cells)})


def with_extra(after: int, *extras: NotebookNode) -> NotebookNode:
    made = released()
    made.cells[after + 1 : after + 1] = extras
    return made


def sources(notebook: NotebookNode) -> dict[str, str]:
    return {cell.id: cell.source for cell in notebook.cells}


def submitted(source: Any, **more: Any) -> dict[str, Any]:
    """Return the cell of the task `double` as a submission may hold it."""
    metadata = {"nbgrader": {"grade_id": "double"}}
    return {"cell_type": "code", "id": "x", "metadata": metadata, "source": source, "outputs": []} | more


def assert_is_release(rebuilt: NotebookNode, release: NotebookNode = RELEASE) -> None:
    """Check that everything is the release's but the solutions' source and clean extra cells."""
    nbformat.validate(deepcopy(rebuilt))
    ours = {cell.id for cell in release.cells}
    assert {**rebuilt, "cells": ()} == {**release, "cells": ()}
    kept = [deepcopy(cell) for cell in rebuilt.cells if cell.id in ours]
    for cell, original in zip(kept, release.cells, strict=True):
        if original.metadata.get("nbgrader", {}).get("solution"):
            cell.source = original.source
    assert kept == release.cells
    extras = [cell for cell in rebuilt.cells if cell.id not in ours]
    assert [cell.id for cell in extras] == [f"extra-{number + 1}" for number in range(len(extras))]
    for cell in extras:
        make = {"code": new_code_cell, "markdown": new_markdown_cell}[cell.cell_type]
        assert cell == make(cell.source, id=cell.id)
        assert cell.cell_type == "code" or cell.source == "" or cell.source.startswith("```")


# What comes from where


@pytest.mark.parametrize("path", EXERCISES, ids=lambda path: str(path.stem))
def test_a_solved_unit_brings_its_solutions_into_the_release(path: Path) -> None:
    release = nbformat.read(path, as_version=4)
    solved = ROOT / "solutions" / "en" / path.name
    rebuilt = rebuild(release, solved.read_bytes())
    expected = sources(nbformat.read(solved, as_version=4))
    assert_is_release(rebuilt, release)
    tasks = [cell for cell in rebuilt.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    assert len(tasks) >= 4
    for cell in tasks:
        source = expected[cell.id]
        assert cell.source == (source if cell.cell_type == "code" else harmless_markdown(source))


@pytest.mark.parametrize("path", EXERCISES, ids=lambda path: str(path.stem))
def test_an_untouched_unit_stays_the_release_to_the_byte(path: Path) -> None:
    release = nbformat.read(path, as_version=4)
    rebuilt = rebuild(release, path.read_bytes())
    assert nbformat.writes(rebuilt) == nbformat.writes(release)
    graded = [cell for cell in rebuilt.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    assert all(compute_checksum(cell) == cell.metadata.nbgrader.checksum for cell in graded)


def test_the_release_itself_is_left_as_it_is() -> None:
    release = released()
    rebuilt = rebuild(release, handed_in(released(SOLVED)))
    rebuilt.cells[0].metadata.nbgrader.grade_id = "changed"
    assert release == RELEASE


def test_only_solution_cells_take_what_was_edited() -> None:
    edited = released()
    for cell in edited.cells:
        cell.source = f"edited_{cell.id.replace('-', '_')} = 1"
    rebuilt = rebuild(RELEASE, handed_in(edited))
    assert_is_release(rebuilt)
    changed = {name for name, source in sources(rebuilt).items() if source != sources(RELEASE)[name]}
    assert changed == {"double", "shout", "essay"}
    assert sources(rebuilt)["double"] == "edited_double = 1"


def test_a_solution_cell_that_the_release_locks_keeps_its_source() -> None:
    release = released()
    release.cells[PLACES["double"]].metadata.nbgrader.locked = True
    assert sources(rebuild(release, handed_in(released(SOLVED)))) == sources(RELEASE) | {"shout": SOLVED["shout"]}


def test_tags_metadata_and_outputs_of_a_submission_do_not_count() -> None:
    tampered = released(SOLVED)
    tampered.metadata = {"kicourse": {"unit": "mini_gpt"}, "kernelspec": {"name": "bash", "display_name": "bash"}}
    for cell in tampered.cells:
        cell.metadata.tags = ["skip-execution"]
        cell.metadata.setdefault("nbgrader", {}).update(points=100, schema_version=99, locked=False, checksum="0")
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [{"output_type": "stream", "name": "stdout", "text": "10"}], 3
    rebuilt = rebuild(RELEASE, handed_in(tampered))
    assert_is_release(rebuilt)
    assert sources(rebuilt) == sources(RELEASE) | SOLVED


def test_the_cells_keep_the_order_of_the_release() -> None:
    moved = released(SOLVED)
    moved.cells.reverse()
    rebuilt = rebuild(RELEASE, handed_in(moved))
    assert_is_release(rebuilt)
    assert sources(rebuilt) == sources(RELEASE) | SOLVED


def test_a_missing_solution_keeps_its_stub_and_the_others_count() -> None:
    partly = released(SOLVED)
    del partly.cells[PLACES["double"]]
    assert sources(rebuild(RELEASE, handed_in(partly))) == sources(RELEASE) | {"shout": SOLVED["shout"]}


def test_the_first_of_two_cells_of_one_task_counts_and_the_second_stays_where_it_stood() -> None:
    between = {"cell_type": "code", "id": "check", "metadata": {"nbgrader": {"grade_id": "double-check"}}, "source": ""}
    rebuilt = rebuild(RELEASE, of_cells(submitted("first = 1"), between, submitted("second = 2", id="other")))
    assert sources(rebuilt) == sources(RELEASE) | {"double": "first = 1", "extra-1": "second = 2"}


def test_cells_of_one_task_run_in_their_order_with_what_stands_between() -> None:
    own = new_code_cell("between = 1")
    rebuilt = rebuild(RELEASE, of_cells(submitted("first = 1"), own, submitted("second = 2", id="other")))
    place = PLACES["double"]
    assert [cell.source for cell in rebuilt.cells[place : place + 3]] == ["first = 1", "between = 1", "second = 2"]
    for copied in (place, PLACES["plain-3"]):
        copy = submitted(RELEASE.cells[copied].source, id="copy")
        assert sources(rebuild(RELEASE, of_cells(submitted("first = 1"), own, copy))) == sources(RELEASE) | {
            "double": "first = 1",
            "extra-1": "between = 1",
        }


def test_a_task_that_was_split_is_whole_again() -> None:
    halves = submitted("def double(x):"), submitted("    return 2 * x", id="half")
    rebuilt = rebuild(RELEASE, of_cells(*halves))
    assert sources(rebuilt) == sources(RELEASE) | {"double": "def double(x):\n    return 2 * x"}


def test_a_task_is_known_by_its_id_when_its_grade_id_is_lost() -> None:
    lost = submitted("mine = 1", id="double", metadata={})
    assert sources(rebuild(RELEASE, of_cells(lost)))["double"] == "mine = 1"
    named = submitted("named = 1")
    assert sources(rebuild(RELEASE, of_cells(lost, named)))["double"] == "named = 1"
    elsewhere = submitted("named = 1", id="shout")
    assert sources(rebuild(RELEASE, of_cells(elsewhere))) == sources(RELEASE) | {"double": "named = 1"}


def test_the_cell_type_is_that_of_the_release() -> None:
    rebuilt = rebuild(RELEASE, of_cells(submitted("x = 1", cell_type="markdown"), submitted("y", cell_type=[])))
    assert_is_release(rebuilt)
    assert sources(rebuilt)["double"] == "x = 1"


# The learner's own cells


def test_own_cells_follow_the_release_cell_that_they_followed() -> None:
    own = [new_code_cell("a = 1"), new_code_cell("b = 2")]
    for after in range(-1, len(RELEASE.cells)):
        rebuilt = rebuild(RELEASE, handed_in(with_extra(after, *own)))
        assert_is_release(rebuilt)
        assert [cell.source for cell in rebuilt.cells[after + 1 : after + 3]] == ["a = 1", "b = 2"]


def test_own_cells_come_without_anything_but_their_source() -> None:
    own = new_code_cell("a = 1", id="mine", execution_count=4)
    own.metadata = {"tags": ["demo"], "nbgrader": {"grade_id": "mine", "grade": True, "points": 90}}
    own.outputs = [{"output_type": "stream", "name": "stdout", "text": "10"}]
    picture = new_markdown_cell("text", attachments={"a.svg": {"image/svg+xml": "<svg onload='x'/>"}})
    rebuilt = rebuild(RELEASE, handed_in(with_extra(2, own, picture)))
    assert_is_release(rebuilt)
    assert sources(rebuilt) == sources(RELEASE) | {"extra-1": "a = 1", "extra-2": "```\ntext\n```"}


def test_own_text_and_raw_cells_become_harmless_text() -> None:
    evil = "<script>alert(1)</script>"
    rebuilt = rebuild(RELEASE, handed_in(with_extra(0, new_markdown_cell(evil), new_raw_cell(evil))))
    assert [cell.cell_type for cell in rebuilt.cells[1:3]] == ["markdown", "markdown"]
    assert [cell.source for cell in rebuilt.cells[1:3]] == [f"```\n{evil}\n```"] * 2


def test_own_ids_keep_clear_of_the_release() -> None:
    release = released()
    release.cells[1].id = "extra-1"
    rebuilt = rebuild(release, of_cells(new_code_cell("a = 1"), new_code_cell("b = 2")))
    assert [cell.id for cell in rebuilt.cells[:2]] == ["extra-2", "extra-3"]
    nbformat.validate(rebuilt)


def test_an_unchanged_copy_of_a_release_cell_is_nothing_and_moves_nothing() -> None:
    copies = [deepcopy(RELEASE.cells[place]) for place in (PLACES["setup"], PLACES["double"])]
    for copy in copies:
        copy.id, copy.metadata = "copy", {}
    rebuilt = rebuild(RELEASE, handed_in(with_extra(PLACES["shout"], *copies, new_code_cell("mine = 1"))))
    assert len(rebuilt.cells) == len(RELEASE.cells) + 1
    assert rebuilt.cells[PLACES["shout"] + 1].source == "mine = 1"


def test_cells_that_lost_their_ids_are_known_by_their_source() -> None:
    stripped = with_extra(PLACES["plain-3"], new_code_cell("mine = 1"))
    for cell in stripped.cells:
        del cell["id"]
    rebuilt = rebuild(RELEASE, handed_in(stripped))
    assert_is_release(rebuilt)
    assert rebuilt.cells[PLACES["plain-3"] + 1].source == "mine = 1"
    assert len(rebuilt.cells) == len(RELEASE.cells) + 1


# Markdown


def test_a_written_answer_is_harmless_and_an_unchanged_one_unchanged() -> None:
    written = rebuild(RELEASE, handed_in(released({"essay": "<img src=x onerror=alert(1)>"})))
    assert sources(written)["essay"] == "```\n<img src=x onerror=alert(1)>\n```"
    assert sources(rebuild(RELEASE, handed_in(released({"essay": ""}))))["essay"] == ""
    unchanged = rebuild(RELEASE, handed_in(released())).cells[PLACES["essay"]]
    assert unchanged.source == "Your summary here."
    assert compute_checksum(unchanged) == unchanged.metadata.nbgrader.checksum


@pytest.mark.parametrize("fence", ["```", "````", "~~~", "$$", "\\begin{x}", "a\r```\r", "    ```", "> ```", "\x0c```"])
def test_nothing_closes_the_fence(fence: str) -> None:
    page = markdown2html(harmless_markdown(f"{fence}\n<script>alert(1)</script>\n{fence}\n<b>x</b>"))
    assert "<script" not in page
    assert "<b>" not in page
    assert page.startswith("<pre><code>")
    assert page.rstrip().endswith("</code></pre>")


@many
@given(st.text(st.sampled_from("`~<b>$\n\r \\{[(!)]}\t|#*&;x\x0b\x0c\x85\u2028")))
def test_harmless_markdown_is_one_block_of_code(text: str) -> None:
    harmless = harmless_markdown(text)
    page = markdown2html(harmless).strip()
    assert not text or (page.startswith("<pre><code>") and page.endswith("</code></pre>"))
    assert page.count("<") == (4 if text else 0)


# Odd and hostile files


def test_source_is_cleaned() -> None:
    rebuilt = rebuild(RELEASE, of_cells(submitted(["a = '\0\ud800", "\udc00ü'"])))
    assert sources(rebuilt)["double"] == "a = '\ufffd\ufffdü'"
    nbformat.writes(rebuilt).encode()


@pytest.mark.parametrize("source", [None, 3, {"a": "b"}, ["a", 3], [["a"]], True])
def test_a_cell_of_odd_source_is_skipped(source: Any) -> None:
    odd = submitted(source)
    assert rebuild(RELEASE, of_cells(odd, {"cell_type": "code", "source": source})) == RELEASE
    assert sources(rebuild(RELEASE, of_cells(odd, submitted("x = 1"))))["double"] == "x = 1"


@pytest.mark.parametrize(
    "odd",
    [
        None,
        3,
        "cell",
        [],
        {},
        {"source": "x"},
        {"cell_type": "heading", "source": "x"},
        {"cell_type": {}, "source": "x"},
    ],
)
def test_an_odd_cell_is_skipped(odd: Any) -> None:
    assert sources(rebuild(RELEASE, of_cells(odd, submitted("x = 1"), odd))) == sources(RELEASE) | {"double": "x = 1"}


@pytest.mark.parametrize(
    "metadata", [None, [], "x", {"nbgrader": "x"}, {"nbgrader": []}, {"nbgrader": {"grade_id": ["double"]}}]
)
def test_odd_metadata_are_none(metadata: Any) -> None:
    rebuilt = rebuild(RELEASE, of_cells(submitted("x = 1", metadata=metadata, id={})))
    assert_is_release(rebuilt)
    assert rebuilt.cells[0].source == "x = 1"


def test_numbers_that_json_or_python_do_not_know_spoil_nothing() -> None:
    text = of_cells(submitted("x = 1", outputs="MARK")).decode()
    for number in ("NaN", "-Infinity", "1e999", "9" * 10_000, "-" + "9" * 10_000):
        rebuilt = rebuild(RELEASE, text.replace('"MARK"', number).encode())
        assert sources(rebuilt)["double"] == "x = 1"


def test_of_keys_that_occur_twice_the_last_counts_as_in_jupyter() -> None:
    text = of_cells(submitted("last = 1")).decode().replace('"source"', '"source": "first = 1", "source"')
    assert sources(rebuild(RELEASE, text.encode()))["double"] == "last = 1"


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert sources(rebuild(RELEASE, b"\xef\xbb\xbf" + of_cells(submitted("x = 1"))))["double"] == "x = 1"


def unreadable() -> dict[str, tuple[bytes, str]]:
    three = {"nbformat": 3, "metadata": {}, "worksheets": []}
    return {
        "empty": (b"", "the file is empty"),
        "no JSON": (b"print(1)", "its content is not JSON"),
        "cut off": (of_cells(submitted("x"))[:-1], "its content is not JSON"),
        "conflict": (b"{\n<<<<<<< HEAD\n", "line 2 is a merge conflict"),
        "deep": (b"[" * 200_000, "its content is not JSON"),
        "bytes": (b"\xff\xfe{\0}\0", "not text"),
        "list": (b"[]", "not a notebook"),
        "no format": (handed_in({"cells": []}), "not a notebook"),
        "format of a kind": (handed_in({"cells": [], "nbformat": "4"}), "not a notebook"),
        "format true": (handed_in({"cells": [], "nbformat": True}), "not a notebook"),
        "format 4.0": (handed_in({"cells": [], "nbformat": 4.0}), "not a notebook"),
        "endless format": (b'{"nbformat": ' + b"4" * 10_000 + b"}", "not a notebook"),
        "format 3": (handed_in(three), "jupyter nbconvert --to notebook --inplace maintenance.ipynb"),
        "format 5": (handed_in({"cells": [], "nbformat": 5}), "Save it in format 4"),
        "no cells": (handed_in({"nbformat": 4}), "no list of cells"),
        "cells": (handed_in({"nbformat": 4, "cells": {"0": submitted("x")}}), "no list of cells"),
        "brackets": (of_cells([[]] * 500_000), "Clear its outputs"),
    }


@pytest.mark.parametrize("name", unreadable())
def test_what_is_no_notebook_is_told_in_a_sentence(name: str) -> None:
    data, expected = unreadable()[name]
    with pytest.raises(UnreadableSubmissionError) as caught:
        rebuild(RELEASE, data)
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message
    assert len(message) < 250


def test_a_source_has_bounds_where_it_is_taken() -> None:
    longest, longer = "x" * module.LONGEST_SOURCE, "x" * (module.LONGEST_SOURCE + 1)
    assert sources(rebuild(RELEASE, of_cells(submitted(longest))))["double"] == longest
    for cell in (submitted(longer), new_code_cell(longer), new_markdown_cell(longer)):
        with pytest.raises(UnreadableSubmissionError, match="more than 1 million characters"):
            rebuild(RELEASE, of_cells(cell))
    edited = released()
    edited.cells[PLACES["setup"]].source = longer
    assert rebuild(RELEASE, handed_in(edited)) == RELEASE


def test_the_pieces_of_a_cell_count_together_however_many_there_are() -> None:
    pieces = [submitted(f"#{'x' * (number % 7)}\n") for number in range(100_000)]
    with pytest.raises(UnreadableSubmissionError, match="characters"):
        rebuild(RELEASE, of_cells(*pieces, submitted("#" * module.LONGEST_SOURCE)))


def test_so_many_own_cells_are_taken_and_no_more() -> None:
    own = [{"cell_type": "code", "source": f"x = {number}"} for number in range(module.MOST_EXTRAS + 1)]
    rebuilt = rebuild(RELEASE, of_cells(*own, submitted("def double(x): return 2 * x")))
    assert len(rebuilt.cells) == len(RELEASE.cells) + module.MOST_EXTRAS
    assert rebuilt.cells[module.MOST_EXTRAS - 1].source == f"x = {module.MOST_EXTRAS - 1}"
    assert sources(rebuilt)["double"] == "def double(x): return 2 * x", "however many there are before it"


def test_a_copy_of_a_demonstration_is_run() -> None:
    rebuilt = rebuild(RELEASE, handed_in(with_extra(len(RELEASE.cells), new_code_cell("print('demo')"))))
    assert rebuilt.cells[:-1] == RELEASE.cells
    assert (rebuilt.cells[-1].source, rebuilt.cells[-1].metadata) == ("print('demo')", {})


# Anything

texts = st.text(max_size=12) | st.sampled_from(
    ["double", "shout", "essay", "setup", "extra-1", "plain-1", "\ud800", "`"]
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
kinds = st.sampled_from(["code", "markdown", "raw"]) | junk
graded = st.fixed_dictionaries(
    {}, optional={"grade_id": texts | junk, "solution": junk, "locked": junk, "points": junk}
)
metadata = st.fixed_dictionaries({}, optional={"nbgrader": graded | junk, "tags": junk}) | junk
loose = st.fixed_dictionaries(
    {"cell_type": kinds, "source": texts | st.lists(texts, max_size=3) | junk},
    optional={"id": texts | junk, "metadata": metadata, "outputs": junk, "attachments": junk},
)
mangled = st.builds(
    lambda cell, changes: {**deepcopy(cell), **changes},
    st.sampled_from(RELEASE.cells),
    st.fixed_dictionaries(
        {}, optional={"source": texts | junk, "metadata": metadata, "id": texts | junk, "cell_type": kinds}
    ),
)
notebooks = st.fixed_dictionaries(
    {"cells": st.lists(loose | mangled | junk, max_size=12), "nbformat": st.just(4)},
    optional={"metadata": junk, "nbformat_minor": junk},
)


@many
@given(notebooks)
def test_any_mangled_notebook_gives_the_release(notebook: Any) -> None:
    assert_is_release(rebuild(RELEASE, handed_in(notebook)))


@many
@given(junk | st.fixed_dictionaries({"nbformat": st.just(4), "cells": junk}))
def test_any_json_is_refused_or_gives_the_release(content: Any) -> None:
    is_notebook = isinstance(content, dict) and content.get("nbformat") == 4 and isinstance(content.get("cells"), list)
    if is_notebook:
        assert_is_release(rebuild(RELEASE, handed_in(content)))
    else:
        with pytest.raises(UnreadableSubmissionError):
            rebuild(RELEASE, handed_in(content))


@many
@given(st.binary(max_size=200), st.integers(0, 5_000), st.integers(0, 200))
def test_any_bytes_are_refused_or_give_the_release(noise: bytes, start: int, length: int) -> None:
    whole = handed_in(released(SOLVED))
    for data in (noise, whole[:start] + noise + whole[start + length :]):
        try:
            rebuilt = rebuild(RELEASE, data)
        except UnreadableSubmissionError:
            continue
        assert_is_release(rebuilt)


code_cells = st.builds(lambda cell: {**cell, "cell_type": "code"}, loose | mangled)


@many
@given(st.lists(code_cells, max_size=12))
def test_rebuilding_code_again_changes_nothing(cells: list[Any]) -> None:
    release = new_notebook(cells=[cell for cell in RELEASE.cells if cell.id != "essay"], metadata=RELEASE.metadata)
    once = rebuild(release, of_cells(*cells))
    assert rebuild(release, handed_in(once)) == once
