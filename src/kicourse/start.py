"""The first cell of every notebook."""

from collections.abc import Callable
from functools import partial

from kicourse.language import translate
from kicourse.syllabus import course


def start(slug: str) -> Callable[[str], str]:
    """Make a notebook ready to work: an `OpenAI()` that answers, where the unit needs one, and its labels.

    Returns the function that gives a figure's labels in the reader's language. Raises UnknownUnitError if there is
    no such unit.
    """
    unit = course().unit(slug)
    if unit.gpt:
        from kicourse.models import gpt

        gpt.ensure()
    return partial(translate, slug)
