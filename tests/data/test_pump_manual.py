import pytest

from kicourse.data import pump_manual


@pytest.mark.parametrize("language", ["de", "en"])
def test_every_question_has_exactly_one_passage_that_answers_it(language: pump_manual.Language) -> None:
    passages = pump_manual.passages(language)
    for question in pump_manual.questions(language):
        assert sum(question.answered_by(passage.text) for passage in passages) == 1, question.text


def test_both_languages_say_the_same_in_the_same_order() -> None:
    assert [p.name for p in pump_manual.passages("de")] == [p.name for p in pump_manual.passages("en")]
    pairs = zip(pump_manual.questions("de"), pump_manual.questions("en"), strict=True)
    for german, english in pairs:
        [(_number, in_german)] = [
            (n, p.name) for n, p in enumerate(pump_manual.passages("de")) if german.answered_by(p.text)
        ]
        [in_english] = [p.name for p in pump_manual.passages("en") if english.answered_by(p.text)]
        assert in_german == in_english


def test_the_german_manual_has_compounds_umlauts_and_a_soft_hyphen() -> None:
    text = " ".join(passage.text for passage in pump_manual.passages("de"))
    assert {"Gleitringdichtung", "Entlüftungsschraube"} <= set(text.replace(",", " ").split())
    assert "\u00ad" in text
