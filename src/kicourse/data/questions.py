"""Questions about documents, with answers that are stored as quoted text.

A quotation stays true when the text is cut otherwise, or when a new version of it adds a paragraph above; a position or
a score would not.
"""

from dataclasses import dataclass
from functools import lru_cache

_MARKS = str.maketrans("", "", "\"'`*“”‘’„\u00ad")
"""Quotation marks and emphasis, which one version sets otherwise than the next, and soft hyphens."""


@dataclass(frozen=True)
class Document:
    """A text with a name. Its paragraphs are apart by blank lines, its code stands between lines of three backticks."""

    name: str
    text: str


@dataclass(frozen=True)
class Question:
    """A question in a user's words, and the quotations any of which answers it."""

    text: str
    answers: tuple[str, ...]

    def answered_by(self, passage: str) -> bool:
        """Whether a passage contains an answer; line breaks, quotation marks and case are no matter."""
        plain = _plain(passage)
        return any(_plain(answer) in plain for answer in self.answers)


@lru_cache(maxsize=10_000)  # the same passage is looked at for every question
def _plain(text: str) -> str:
    return " ".join(text.translate(_MARKS).casefold().split())
