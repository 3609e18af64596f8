"""What a judge lets through of what a player claims to have shown."""

import base64
import io
import random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kicourse.grading.harmless import Harmless, plain

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
    assert str(Harmless(2_000).outputs(outputs)).count("x") in range(ROOM, ROOM + 200)  # "text" has one of its own


def test_only_text_and_pictures_that_can_be_drawn_are_left() -> None:
    bundle = {"text/plain": "2.5", "text/html": "<b>10</b>", "image/png": "bm8gcGljdHVyZQ==", "image/svg+xml": "<svg/>"}
    shown = Harmless(100).outputs([{"output_type": "execute_result", "data": bundle}])
    assert shown == [{"output_type": "display_data", "data": {"text/plain": "2.5"}, "metadata": {}}]


@pytest.mark.parametrize("outputs", [None, 7, "text", {"output_type": "stream"}, [None, 3, {}, {"output_type": "new"}]])
def test_what_is_no_output_is_dropped(outputs: Any) -> None:
    assert Harmless(100).outputs(outputs) == []


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[38m", ""),  # which nbconvert fails at
        ("a\x1b]52;c;ZXZpbA==\x07b\x1b]0;title\x1b\\c", "abc"),
        ("\x1b]0;it never ends", ""),
        ("\x9b2J\x07\x00", "2J"),
        ("tab\tline\nreturn\r", "tab\tline\nreturn\r"),
    ],
)
def test_a_text_commands_no_terminal(said: str, left: str) -> None:
    assert plain(said) == left


def test_all_cells_together_are_bounded() -> None:
    cells = Harmless(100)
    text = [{"output_type": "stream", "name": "stdout", "text": "x" * 100}]
    assert sum(str(cells.outputs(text)).count("x" * 100) for _ in range(50)) == 20
    nothing = [{"output_type": "display_data", "data": {}}] * 100
    assert sum(len(cells.outputs(nothing)) for _ in range(50)) < 1_000


def test_pictures_of_all_cells_are_bounded() -> None:
    buffer, cells = io.BytesIO(), Harmless(100)
    Image.frombytes("RGB", (1_000, 1_000), random.Random(0).randbytes(3_000_000)).save(buffer, "PNG")
    shown = [{"output_type": "display_data", "data": {"image/png": base64.b64encode(buffer.getvalue()).decode()}}]
    assert ["image/png" in cells.outputs(shown)[0]["data"] for _ in range(4)] == [True, True, False, False]


def test_any_part_may_be_of_any_type() -> None:
    names = np.array(["stream", "stderr"])
    odd: list[Any] = [
        {"output_type": names, "name": names, "text": names},
        {"output_type": "stream", "name": names, "text": names},
        {"output_type": "error", "ename": names, "evalue": {}, "traceback": [names]},
        {"output_type": "execute_result", "data": names},
        {"output_type": "display_data", "data": {"text/plain": names, "image/png": names}},
    ]
    everything: list[Any] = [odd, names, 7, [[[]]], {"0": 1}]
    for shown in everything:
        for output in Harmless(1_000).outputs(shown):
            assert not any(output.get(name) for name in ("text", "ename", "evalue"))
