"""What is special about search: oracles against libraries, the real manual, and the demonstrations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kicourse.checks import search as check
from kicourse.data import python_topics
from kicourse.data.questions import Question
from tests.course.alternatives import search as honest
from tests.course.demonstrations import demonstrated


def failed(verdict: Any) -> list[str]:
    return [result.name for result in verdict.criteria if result.status != "passed"]


@pytest.mark.usefixtures("undiagnosed")
def test_a_mistake_costs_its_own_criterion_only() -> None:
    expected = {
        "offsets_after_stripping": "right_offsets",
        "offsets_after_lstrip": "right_offsets",
        "line_ends_stripped": "right_offsets",
        "offsets_by_find": "right_offsets",
        "offsets_in_bytes": "right_offsets",
        "joined_anew": "right_offsets",
        "code_needs_space": "whole_code",
        "bare_fence_ends": "whole_code",
        "indented_fences": "whole_code",
        "unclosed_dropped": "whole_code",
        "paragraph_runs_on": "whole_code",
        "overlap_one_short": "right_overlap",
        "large_cut": "keeps_all",
        "empty_chunk": "keeps_all",
        "negative_idf": "right_idf",
        "empty_not_counted": "right_idf",
        "length_of_set": "right_part",
        "without_numerator": "right_idf",
        "not_saturated": "right_part",
        "length_ignored": "right_part",
        "fixed_k1": "right_part",
        "fixed_b": "right_part",
        "average_without_empty": "right_part",
        "repeated_words": "adds_up",
        "crashes_on_unseen": "finds_nothing",
        "stops_at_unknown": "finds_nothing",
        "crashes_on_empty": "finds_nothing",
        "rank_within_k": "right_rank",
        "all_ranks": "right_rank",
        "zero_for_nothing": "refuses",
        "nothing_guarded": "refuses",
        "no_questions_unguarded": "refuses",
        "empty_pairs_left_out": "refuses",
        "crashes_on_large_k": "any_size",
        "dot_product": "is_cosine",
        "zero_is_nan": "zero_vectors",
        "takes_nan": "refuses_nan",
        "fixed_k": "right_scores",
        "cut_at_k": "right_scores",
        "ranks_from_zero": "right_scores",
        "crashes_on_missing": "keeps_missing",
        "in_all_lists": "keeps_missing",
        "two_lists_only": "any_lists",
    }
    for task in (check.chunk, check.bm25, check.measure, check.vector_index, check.reciprocal_rank_fusion):
        for wrong in task.misconceptions:
            if wrong.name in expected:
                assert failed(task.run(wrong.build())) == [expected.pop(wrong.name)], wrong.name
    assert not expected


def code_never_again(document: str, size: int, overlap: int) -> Any:
    def again(current: list[tuple[int, int]], _size: int) -> int:
        kept = current
        for place, (start, _end) in enumerate(current):
            if document.startswith("```", start):
                kept = current[place + 1 :]
        while sum(len(document[start:end].split()) for start, end in kept) > overlap:
            kept = kept[1:]
        return len(kept)

    return check._chunked(document, check._packed(document, check._blocks(document), size, overlap, again=again))


@pytest.mark.usefixtures("undiagnosed")
def test_code_comes_again_like_any_other_block() -> None:
    for seed in range(10):
        assert failed(check.chunk.run(code_never_again, seed=seed)) == ["right_overlap"]


def test_a_query_of_zeros_finds_as_many_as_any_other() -> None:
    class Nothing(check._VectorIndex):
        def search(self, query: np.ndarray, k: int) -> Any:
            return super().search(query, k) if query.any() else []

    for seed in range(10):
        verdict = check.vector_index.run(Nothing, seed=seed)
        assert failed(verdict) == ["zero_vectors"]
        assert "Passage 0 is missing" in verdict.criteria[3].message


def test_the_manual_is_cut_without_loss_and_never_inside_code() -> None:
    documents = python_topics.documents()
    for document in documents:
        chunks = honest.chunk(document.text, 150, 40)
        covered = np.zeros(len(document.text), dtype=bool)
        for one in chunks:
            assert one.text == document.text[one.start : one.end]
            assert [line.startswith("```") for line in one.text.split("\n")].count(True) % 2 == 0
            covered[one.start : one.end] = True
        assert not "".join(np.array(list(document.text))[~covered]).strip()
    passages = [one.text for document in documents for one in honest.chunk(document.text, 150, 40)]
    for question in python_topics.questions():
        assert any(question.answered_by(passage) for passage in passages), question.text


def test_the_oracle_of_vectors_is_faiss() -> None:
    import faiss

    rng = np.random.default_rng(0)
    vectors, query = rng.normal(size=(500, 12)).astype(np.float32), rng.normal(size=12).astype(np.float32)
    cosines = check._cosines(vectors, query)
    faiss.normalize_L2(vectors)
    index = faiss.IndexFlatIP(12)
    index.add(vectors)
    similarities, numbers = index.search((query / np.linalg.norm(query))[None], 20)
    assert numbers[0].tolist() == [number for number, _score in check._best(cosines, 20)]
    assert similarities[0] == pytest.approx([score for _number, score in check._best(cosines, 20)], abs=1e-5)


def test_bm25_by_hand() -> None:
    index = check._BM25([["oil", "oil", "seal"], ["seal"]])
    # idf = ln(1 + 1.5 / 1.5); f = 2, length 3, average 2
    [(number, score)] = index.search(["oil", "gasket"], 5)
    assert number == 0
    assert score == pytest.approx(np.log(2) * 2 * 2.5 / (2 + 1.5 * (0.25 + 0.75 * 1.5)))


def test_numbers_of_numpy_and_any_order_of_equal_ones_are_right() -> None:
    class Index(honest.vector_index):
        def search(self, query: np.ndarray, k: int) -> Any:
            hits = super().search(query, k)
            return [(np.int64(number), np.float32(score)) for number, score in hits]

    assert check.vector_index.run(Index).status == "passed"

    def backwards(results: Any, k: int = 60) -> Any:
        return sorted(honest.reciprocal_rank_fusion(results, k), key=lambda hit: (-round(hit[1], 12), -hit[0]))

    assert check.reciprocal_rank_fusion.run(backwards).status == "passed"


def test_what_is_no_chunk_is_said_so() -> None:
    verdict = check.chunk.run(lambda document, size, overlap: [document])
    assert verdict.points == 0
    assert "A chunk is a `Chunk` with text, start and end" in verdict.criteria[0].message
    verdict = check.bm25.run(lambda passages, k1=1.5, b=0.75: passages)
    assert verdict.points == 0
    assert "search" in verdict.criteria[0].message


def test_an_index_that_changes_its_vectors_is_told_so() -> None:
    class InPlace(honest.vector_index):
        def __init__(self, vectors: np.ndarray) -> None:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            super().__init__(vectors)
            vectors /= np.where(lengths == 0, 1, lengths)

    verdict = check.vector_index.run(InPlace)
    assert verdict.status == "passed"
    assert "`vectors`" in verdict.notes[0]


def test_unsorted_neighbours_are_told_so() -> None:
    class Unsorted(honest.vector_index):
        def search(self, query: np.ndarray, k: int) -> Any:
            return super().search(query, k)[1:] + super().search(query, k)[:1]

    verdict = check.vector_index.run(Unsorted)
    assert "right passages" in verdict.criteria[0].message


def test_an_answer_is_a_quotation() -> None:
    question = Question("?", ("nearest enclosing loop",))
    assert question.answered_by('It terminates the *nearest\n   enclosing* "loop".')


@pytest.mark.long
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_demonstration_runs(language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = demonstrated("search", language, tmp_path, monkeypatch)
    assert len(shown.figures) == 6
    assert shown.figures[0].startswith("Ein Ablauf") == (language == "de")
