"""The shell reads a cell as IPython does, though it looks for IPython's own syntax only where there may be some."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TokenTransformBase, TransformerManager

from kicourse.grading.shell import Transformer

LAYOUT = ["\\\n", "\n", "\n    ", "\f", "\v", "\u2028", " ", "\t", "(", ")", '"""', "'", "# note"]
SIGNS = ["%", "%%", "!", "!!", "?", "??", "/", ",", ";", "=", " = ", "In [1]: "]
CODE = ["x", "ls", "time", "x = 1", "if x:", "f(x)", "a % b", "x != y", "1 // 2"]


@given(st.lists(st.sampled_from([*LAYOUT, *SIGNS, *CODE]), max_size=12).map("".join))
@example("%matplotlib inline\nx = 1\n")
@example("if x:\n    !echo {x}\n")
@example("files = !ls\nseconds = \\\n  %time f()\n")
@example("x = 1\nlen?\n")
@example("/f x\n")
@example("(1\n / 2)\n")
def test_a_cell_becomes_the_same_python(source: str) -> None:
    try:
        expected = TransformerManager().transform_cell(source)
    except Exception as error:  # what it stumbles over itself, or refuses before Python does
        with pytest.raises((type(error), SyntaxError)):
            compile(Transformer().transform_cell(source), "cell", "exec")
    else:
        assert Transformer().transform_cell(source) == expected


def test_what_a_cell_adds_is_used() -> None:
    class Shouting(TokenTransformBase):
        @classmethod
        def find(cls, tokens_by_line: list[Any]) -> "Shouting | None":
            return cls((1, 0)) if "quiet" in str(tokens_by_line) else None

        def transform(self, lines: list[str]) -> list[str]:
            return [line.replace("quiet", "LOUD") for line in lines]

    transformer = Transformer()
    transformer.token_transformers.append(Shouting)
    assert transformer.transform_cell("quiet") == "LOUD\n"
