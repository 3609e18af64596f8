"""What a judge lets through of what a player claims to have shown."""

from typing import Any

import pytest

from kicourse.grading.harmless import harmless

ROOM = 12_000  # characters: 2,000 and those for errors


@pytest.mark.parametrize(
    "outputs",
    [
        [{"output_type": "stream", "name": "stdout", "text": "x" * 5_000}] * 100,
        [{"output_type": "display_data", "data": {"text/plain": "x" * 50_000}}] * 3,
        [{"output_type": "error", "ename": "x" * 9_000, "evalue": "x" * 9_000, "traceback": ["x" * 9_000] * 30}],
    ],
)
def test_texts_are_cut_together_not_each(outputs: list[Any]) -> None:
    assert str(harmless(outputs, 2_000)).count("x") in range(ROOM, ROOM + 200)  # "text" has one of its own


def test_only_text_and_pictures_that_can_be_drawn_are_left() -> None:
    bundle = {"text/plain": "2.5", "text/html": "<b>10</b>", "image/png": "bm8gcGljdHVyZQ==", "image/svg+xml": "<svg/>"}
    shown = harmless([{"output_type": "execute_result", "data": bundle}], 100)
    assert shown == [{"output_type": "display_data", "data": {"text/plain": "2.5"}, "metadata": {}}]


@pytest.mark.parametrize("outputs", [None, 7, "text", {"output_type": "stream"}, [None, 3, {}, {"output_type": "new"}]])
def test_what_is_no_output_is_dropped(outputs: Any) -> None:
    assert harmless(outputs, 100) == []
