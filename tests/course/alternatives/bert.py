"""The tasks of bert, solved in another style: recursion and `re`, einsum and SciPy, loops, sorting, plain Python."""

import heapq
import re
import unicodedata
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cosine
from scipy.special import softmax

Array = Any


def wordpiece(text: str, vocabulary: set[str]) -> list[str]:
    pieces: list[str] = []
    for word in _words(text):
        found = _rest(word, "", vocabulary) if len(word) <= 100 else None
        pieces.extend(found or ["[UNK]"])
    return pieces


def _rest(word: str, mark: str, vocabulary: set[str]) -> list[str] | None:
    """Cut what is left of a word; None if that cannot be done."""
    if not word:
        return []
    fitting = (piece for piece in vocabulary if (mark + word).startswith(piece) and len(piece) > len(mark))
    longest = max(fitting, key=len, default=None)
    if longest is None:
        return None
    rest = _rest(word[len(longest) - len(mark) :], "##", vocabulary)
    return None if rest is None else [longest, *rest]


def _words(text: str) -> list[str]:
    plain = []
    for character in unicodedata.normalize("NFD", text).lower():
        kind = unicodedata.category(character)
        if character.isspace():
            plain.append(" ")
        elif kind[0] == "P" or (kind[0] == "S" and character.isascii()):
            plain.append(f"\n{character}\n")
        elif kind != "Mn" and kind[0] != "C":
            plain.append(character)
    return re.split(r"\s+", "".join(plain).strip()) if "".join(plain).strip() else []


def attention(query: Array, key: Array, value: Array, mask: Array) -> list[Array]:
    """Add a large negative number where there is padding, as BERT itself does."""
    scores = np.einsum("thqd,thkd->thqk", query, key) * query.shape[3] ** -0.5
    scores = scores + (1.0 - mask.astype(scores.dtype))[:, np.newaxis, np.newaxis] * -1e9
    weights = softmax(scores, axis=3)
    return [np.einsum("thqk,thkd->thqd", weights, value), weights]


def mean_pool(vectors: Array, mask: Array) -> Array:
    pooled = np.zeros((vectors.shape[0], vectors.shape[2]))
    for number, (rows, real) in enumerate(zip(vectors, mask.astype(bool), strict=True)):
        if real.any():
            pooled[number] = rows[real].mean(axis=0)
    return pooled


def most_similar(vectors: Array, index: int, k: int) -> list[list[Any]]:
    def similarity(row: int) -> float:
        if not vectors[row].any() or not vectors[index].any():
            return 0.0
        return 1 - float(cosine(vectors[row], vectors[index]))

    candidates = ((similarity(row), row) for row in range(len(vectors)) if row != index)
    return [[np.int64(row), score] for score, row in heapq.nlargest(k, candidates)]


class Report(NamedTuple):
    answered: int
    right: int
    answers: list[str]
    threshold: float


def zero_shot(labels: dict[str, Array], development: Any, test: Any, wanted: float) -> Report:
    def best(vector: Array) -> tuple[float, str]:
        lengths = {name: np.sqrt((label**2).sum() * (vector**2).sum()) for name, label in labels.items()}
        return max((float((label * vector).sum() / lengths[name]), name) for name, label in labels.items())

    ranked = sorted(((*best(vector), true) for vector, true in zip(*development, strict=True)), reverse=True)
    threshold, hits = float("inf"), 0
    for count, (score, name, true) in enumerate(ranked, start=1):
        hits += name == true
        together = count < len(ranked) and ranked[count][0] == score  # the next one has the same score
        if hits >= wanted * count and not together:
            threshold = score
    answers = [name if score >= threshold else "unsure" for score, name in map(best, test[0])]
    given = [(name, true) for name, true in zip(answers, test[1], strict=True) if name != "unsure"]
    return Report(len(given), sum(name == true for name, true in given), answers, threshold)
