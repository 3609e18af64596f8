"""The same text in English and in German, on every learner's machine: the prose of this very course.

    pairs = course_text.load()
    pairs["mini_gpt"][0].english, pairs["mini_gpt"][0].german

A paragraph and its translation say the same, so whatever differs between them is the language's doing.
"""

import re
from dataclasses import dataclass

from kicourse.language import catalogue

UNITS = ("first_call", "maintenance", "mini_gpt")
"""Whose text is taken: a fixed list, so that what is measured on it does not change with every new unit."""

_NOT_PROSE = re.compile(r"[`|${}<>\\]|\w_\w|https?:")
_MARKS = re.compile(r"^(#+|>|\*|\d+\.) |\*\*?", flags=re.MULTILINE)
_SHORTEST = 40


@dataclass(frozen=True)
class Pair:
    """A paragraph and its translation."""

    english: str
    german: str


def load() -> dict[str, list[Pair]]:
    """Return paragraphs by unit, without markup; those that hold code, formulas or tables are left out."""
    return {
        unit: [
            Pair(_MARKS.sub("", english), _MARKS.sub("", german))
            for english, german in catalogue("de", unit).items()
            if len(english) >= _SHORTEST and not _NOT_PROSE.search(english + german)
        ]
        for unit in UNITS
    }
