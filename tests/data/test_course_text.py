import re

from kicourse.data import course_text


def test_the_text_says_the_same_in_both_languages_and_holds_no_code() -> None:
    units = course_text.load()
    assert list(units) == list(course_text.UNITS)
    for unit, pairs in units.items():
        assert len(pairs) > 80, unit
        english, german = sum(len(pair.english) for pair in pairs), sum(len(pair.german) for pair in pairs)
        assert 1.0 < german / english < 1.3
        assert not [pair for pair in pairs if re.search(r"[`$*]|^#", pair.english + pair.german)]
