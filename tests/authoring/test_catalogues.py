"""Catalogues: what translators get, what they keep, and what is found missing."""

import pytest

from kicourse.authoring import catalogues, prose
from kicourse.authoring.source import RefusedError

from .conftest import Desk


def test_a_complete_catalogue_has_no_problems(desk: Desk) -> None:
    assert list(catalogues.problems("averages")) == []


def test_extracting_again_changes_nothing(desk: Desk) -> None:
    before = desk.catalogue.read_bytes()
    assert catalogues.extract("averages") == []
    assert desk.catalogue.read_bytes() == before


def test_a_new_paragraph_comes_in_untranslated(desk: Desk) -> None:
    desk.replace(desk.source, "# Now the largest ones.", "# Now the largest ones.\n#\n# Quite another matter.")
    assert catalogues.untranslated("averages") == ["Quite another matter."]
    assert catalogues.extract("averages") == [desk.catalogue]
    assert catalogues.load("averages", "de")["Now the largest ones."] == "Nun die größten."
    assert catalogues.untranslated("averages") == ["Quite another matter."]


def test_a_changed_paragraph_keeps_its_translation_as_a_suggestion(desk: Desk) -> None:
    desk.replace(desk.source, "reports its pressure every second", "reports its pressure every minute")
    catalogues.extract("averages")
    assert "#, fuzzy" in desk.catalogue.read_text(encoding="utf-8")
    assert "Eine Pumpe meldet jede Sekunde ihren Druck." in desk.catalogue.read_text(encoding="utf-8")
    assert catalogues.untranslated("averages") == ["A pump reports its pressure every minute."]
    assert catalogues.extract("averages") == []


def test_what_is_gone_is_stale_until_it_is_extracted(desk: Desk) -> None:
    desk.replace(desk.source, "# Now the largest ones.", "#")
    assert catalogues.stale("averages") == ["Now the largest ones."]
    catalogues.extract("averages")
    assert catalogues.stale("averages") == []
    assert "größten" not in desk.catalogue.read_text(encoding="utf-8")


def test_placeholders_must_be_the_same(desk: Desk) -> None:
    desk.replace(desk.catalogue, "{count} Zahlen", "{zahl} Zahlen")
    assert catalogues.mismatched("averages") == ["{count} numbers have another mean"]
    assert list(catalogues.problems("averages")) == [
        "course/locale/de/averages.po: 1 translated with other {placeholders}; "
        "the first: {count} numbers have another mean"
    ]


def test_a_catalogue_holds_no_dates_and_no_line_numbers(desk: Desk) -> None:
    text = desk.catalogue.read_text(encoding="utf-8")
    assert "Date" not in text
    places = {line for line in text.splitlines() if line.startswith("#:")}
    assert places == {"#: course/averages.py", "#: checks/averages.py"}


def test_a_broken_catalogue_is_named_with_its_line(desk: Desk) -> None:
    desk.replace(desk.catalogue, 'msgstr "Bar"', "Bar")
    with pytest.raises(
        RefusedError, match=r"course/locale/de/averages\.po: this is not a gettext catalogue: .* on \d+"
    ):
        catalogues.extract("averages")


def test_titles_are_the_syllabus_domain(desk: Desk) -> None:
    titles = ["A small course", "Engineer", "Numbers", "Averages of pumps", "Something later"]
    assert [phrase.text for phrase in catalogues.phrases("syllabus")] == titles


def test_the_words_that_units_share_leave_the_units_out() -> None:
    phrases = catalogues.phrases("kicourse")
    assert "The numbers differ." in {phrase.text for phrase in phrases}
    assert all(phrase.place.startswith("src/kicourse/") for phrase in phrases)


@pytest.mark.parametrize(
    ("markdown", "blocks"),
    [
        ("# One\ntext\nmore\n\nlast", ["# One", "text\nmore", "last"]),
        ("```\na\n\nb\n```\n\nc", ["```\na\n\nb\n```", "c"]),
        ("~~~~\n```\n\n~~~\n\n~~~~\nc", ["~~~~\n```\n\n~~~\n\n~~~~\nc"]),
        ("$$\na\n\nb\n$$\n\nc", ["$$\na\n\nb\n$$", "c"]),
        ("$$a$$\n\nb", ["$$a$$", "b"]),
        ("```text```\n\nb", ["```text```", "b"]),
        ("- a\n- b\n\n\n\n- c", ["- a\n- b", "- c"]),
        ("```\n# a comment, no heading\n```", ["```\n# a comment, no heading\n```"]),
    ],
)
def test_markdown_falls_into_blocks(markdown: str, blocks: list[str]) -> None:
    assert prose.blocks(markdown) == blocks
