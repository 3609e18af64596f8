"""What is special about search: oracles against libraries, the real manual, and the demonstrations."""

import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from kicourse.checks import search as check
from kicourse.checks.help import reference_source
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


def changed(task: str, before: str, after: str) -> Any:
    """Build the unit's own solution with one change."""
    source = reference_source("search", task, "en")
    assert source.count(before) == 1
    namespace: dict[str, Any] = {"__name__": "notebook", "np": np, "math": math, "Counter": Counter, "Hit": check.Hit}
    namespace |= {"Chunk": check._Chunk, "Quality": check._Quality}
    exec(f"from collections.abc import *\n{source.replace(before, after)}", namespace)
    return namespace[{"bm25": "BM25", "vector_index": "VectorIndex"}.get(task, task)]


SPANS = "spans = [(chosen[0][0], chosen[-1][1]) for chosen in chunks]"
CHUNKS = "[Chunk(document[start:end], start, end) for start, end in spans]"
HAS_CODE = 'if "```" in document[start:end] else Chunk(document[start:end], start, end) for start, end in spans'
FOUND = "document.find(document[start:end])"
STRIPPED = "'\\n'.join(line.rstrip() for line in document[start:end].split('\\n'))"


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    ("task", "before", "after", "criterion"),
    [
        ("chunk", CHUNKS, f"[Chunk(document[start:end], 0, 0) {HAS_CODE}]", "right_offsets"),
        ("chunk", CHUNKS, f"[Chunk(document[start:end], {FOUND}, {FOUND} + end - start) {HAS_CODE}]", "right_offsets"),
        ("chunk", CHUNKS, f"[Chunk({STRIPPED}, start, end) {HAS_CODE}]", "right_offsets"),
        (
            "chunk",
            SPANS,
            f"{SPANS}\n    if in_code: spans[-1] = (spans[-1][0], len(document.rstrip()))",
            "right_offsets",
        ),
        ("measure", "enumerate(ranking, start=1)", "enumerate(ranking[:10], start=1)", "right_rank"),
        ("measure", "enumerate(ranking, start=1)", "enumerate(ranking[:30], start=1)", "right_rank"),
        ("measure", "if places else 0.0", "if places and ranking[places[0] - 1] else 0.0", "right_rank"),
        ("vector_index", "np.where(lengths > 0, lengths, 1)", "np.maximum(lengths, 0.05)", "is_cosine"),
        ("reciprocal_rank_fusion", "enumerate(hits, start=1)", "enumerate(hits[:10], start=1)", "keeps_missing"),
        ("reciprocal_rank_fusion", "for hits in results", "for hits in results[:3]", "any_lists"),
        (
            "reciprocal_rank_fusion",
            "enumerate(hits, start=1)",
            "enumerate([hit for hit in hits if hit[1]], start=1)",
            "ranks_only",
        ),
    ],
)
def test_a_branch_that_goes_wrong_costs_its_own_criterion_only(
    task: str, before: str, after: str, criterion: str
) -> None:
    for seed in range(5):
        assert failed(getattr(check, task).run(changed(task, before, after), seed=seed)) == [criterion]


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    "words",
    [
        lambda words: [word.lower() for word in words],
        lambda words: [word.rstrip(".,!?") for word in words],
        lambda words: [word for word in words if word not in ("the", "a", "of")],
        lambda words: [word for word in words if not word.isdigit()],
        lambda words: [word for word in words if word],
    ],
    ids=["lower", "punctuation", "stop words", "digits", "empty"],
)
def test_the_caller_decides_what_a_word_is(words: Any) -> None:
    class Decides(honest.bm25):
        def __init__(self, passages: Any, k1: float = 1.5, b: float = 0.75) -> None:
            super().__init__([words(passage) for passage in passages], k1, b)

        def search(self, query: Any, k: int) -> Any:
            return super().search(words(query), k)

    for seed in range(5):
        assert failed(check.bm25.run(Decides, seed=seed)) == ["adds_up"]


class Found(NamedTuple):
    number: int
    score: float


def test_hits_may_be_named_tuples_and_offsets_numbers_of_numpy() -> None:
    def named(hits: Any) -> Any:
        return [Found(*hit) for hit in hits]

    class Words(honest.bm25):
        def search(self, query: Any, k: int) -> Any:
            return named(super().search(query, k))

    class Vectors(honest.vector_index):
        def search(self, query: Any, k: int) -> Any:
            return named(super().search(query, k))

    def fuse(results: Any, k: int = 60) -> Any:
        return named(honest.reciprocal_rank_fusion(results, k))

    def chunk(document: str, size: int, overlap: int) -> Any:
        chunks = honest.chunk(document, size, overlap)
        return [honest.Chunk(one.text, np.int64(one.start), np.int64(one.end)) for one in chunks]  # type: ignore[arg-type]

    assert check.bm25.run(Words).status == "passed"
    assert check.vector_index.run(Vectors).status == "passed"
    assert check.reciprocal_rank_fusion.run(fuse).status == "passed"
    assert check.chunk.run(chunk).status == "passed"


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
