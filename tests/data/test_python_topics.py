from kicourse.data import python_topics
from kicourse.data.questions import Question


def test_the_manual_is_there_with_its_code_between_fences() -> None:
    documents = python_topics.documents()
    names = [document.name for document in documents]
    assert len(names) == len(set(names)) > 60
    assert 300_000 < sum(len(document.text) for document in documents) < 520_000
    for document in documents:
        assert document.text.splitlines().count(python_topics.FENCE) % 2 == 0
    loops = next(document.text for document in documents if document.name == "for")
    assert "```\nfor i in range(10):\n    print(i)\n" in loops


def test_no_block_is_there_twice() -> None:
    blocks = [
        block for document in python_topics.documents() for block in document.text.replace("```", "").split("\n\n")
    ]
    long = [" ".join(block.split()) for block in blocks if len(block) > 200]
    assert len(long) > 500
    assert len(long) - len(set(long)) < 5


def test_every_question_is_answered_by_some_documents_and_not_by_many() -> None:
    questions = python_topics.questions()
    assert len(questions) == len({question.text for question in questions}) > 40
    for question in questions:
        found = [document.name for document in python_topics.documents() if question.answered_by(document.text)]
        assert 1 <= len(found) <= 3, question


def test_an_answer_is_found_across_lines_and_quotation_marks() -> None:
    question = Question("?", ('the "finally" clause runs',))
    assert question.answered_by("And then\n   the “finally”\n   clause  runs.")
    assert not question.answered_by("the final clause runs")
