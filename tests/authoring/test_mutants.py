"""Mutants: one small change each, inside the solution, and still Python."""

import pytest

from kicourse.authoring.mutants import mutants

TASK = """import os

def task(a, b=1):
    {}
    ### BEGIN SOLUTION
    {}
    ### END SOLUTION
"""


def changes(line: str) -> set[str]:
    """What a line of a solution is changed into."""
    found = mutants(TASK.format('"""Do it."""', line))
    for mutant in found:
        compile(mutant.source, "<mutant>", "exec")
        assert mutant.before == line
    return {mutant.after for mutant in found}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x = a < b", {"x = a <= b", "x = a > b", "pass"}),
        ("x = a not in b", {"x = a in b", "pass"}),
        ("x = a and b", {"x = a or b", "pass"}),
        ("x = not a", {"x = a", "pass"}),
        ("x = -a", {"x = a", "pass"}),
        ("x = a - b", {"x = a + b", "pass"}),
        ("x += a", {"x -= a", "pass"}),
        ("x = 3", {"x = 4", "x = 2", "x = 0", "x = 1", "pass"}),
        ("x = 1_000", {"x = 2000", "x = 500", "x = 0", "x = 1", "pass"}),
        ("x = 0.5", {"x = 1.5", "x = 0.0", "pass"}),
        ("x = True", {"x = False", "pass"}),
        ('x = "word"', {'x = ""', "pass"}),
        ('x = f"{a}"', {'x = ""', "pass"}),
        ("f(a, b)", {"f(b, a)", "pass"}),
        ("a.transpose(b, c)", {"pass"}),
        ("zip(a, b, strict=True)", {"zip(b, a, strict=True)", "pass"}),
        ("f(a, axis=b)", {"f(a)", "pass"}),
        ("f(axis=a, dim=b)", {"f(dim=b)", "f(axis=a)", "pass"}),
        ("return a", {"return None"}),
        ("return None", set()),
        ("return", {"pass"}),
        ("yield a", {"yield None", "pass"}),
        ("x = a[b:]", {"x = a[b + 1:]", "x = a[b - 1:]", "pass"}),
        ("x = a[:2]", {"x = a[:3]", "x = a[:1]", "x = a[:0]", "pass"}),
        ("x = a if b else c", {"x = c if b else a", "pass"}),
        ("x = [c for c in a if c]", {"x = [c for c in a if True]", "pass"}),
        ("x: list[int] = a", {"pass"}),
        ('raise ValueError("no")', {"pass"}),
        ("import math", set()),
        ("pass", set()),
    ],
)
def test_a_line_is_changed(line: str, expected: set[str]) -> None:
    assert changes(line) == expected


def test_conditions_and_loops() -> None:
    afters = {mutant.after for mutant in mutants(TASK.format("", "for c in a:\n        if c: break"))}
    assert afters == {"pass", "if True: break", "if False: break", "if c: continue"}


def test_nothing_outside_of_the_markers_is_changed() -> None:
    task = TASK.format("x = a + 1", "return b") + "\n\nvalue = 1 + 1\n"
    assert {(mutant.before, mutant.after) for mutant in mutants(task)} == {("return b", "return None")}


def test_several_regions() -> None:
    task = TASK.format("", "return a") + TASK.format("", "return b")
    assert [mutant.before for mutant in mutants(task)] == ["return a", "return b"]


def test_a_survivor_is_shown_as_a_diff() -> None:
    task = TASK.format("", "return a + b")
    found = next(mutant for mutant in mutants(task) if mutant.after == "return a - b")
    lines = found.diff(task).splitlines()
    assert lines[0].startswith("@@")
    assert [line for line in lines[1:] if line[0] in "+-"] == ["-    return a + b", "+    return a - b"]
