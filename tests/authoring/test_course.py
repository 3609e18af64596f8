"""The course as it is committed: built from its sources, and complete in every language."""

import pytest

from kicourse.authoring import catalogues
from kicourse.authoring.build import build
from kicourse.syllabus import course


def test_the_committed_notebooks_are_what_their_sources_build() -> None:
    assert build(check=True) == []


@pytest.mark.parametrize("domain", [*catalogues.SHARED, *(unit.slug for unit in course().finished)])
def test_every_message_is_translated_and_none_is_stale(domain: str) -> None:
    assert list(catalogues.problems(domain)) == []
