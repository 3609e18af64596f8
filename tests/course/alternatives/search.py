"""Second solutions of search's tasks, in other styles: a regular expression, matrices, heaps, running sums."""

import heapq
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

Hit = tuple[int, float]


@dataclass
class Chunk:
    text: str
    start: int
    end: int


_CODE = r"^```.*(?:\n(?!```).*)*(?:\n```.*)?"
_PARAGRAPH = r"^(?!```)[ \t]*\S.*(?:\n(?!```)[ \t]*\S.*)*"
_BLOCK = re.compile(f"{_CODE}|{_PARAGRAPH}", flags=re.MULTILINE)


def chunk(document: str, size: int, overlap: int) -> list[Chunk]:
    """Find blocks with a regular expression, and move two ends over them."""
    blocks = [match.span() for match in _BLOCK.finditer(document)]
    if blocks and document.endswith("\n") and blocks[-1][1] == len(document):
        blocks[-1] = (blocks[-1][0], len(document) - 1)
    sizes = [len(document[start:end].split()) for start, end in blocks]
    chunks: list[Chunk] = []
    first = last = 0
    while last < len(blocks):
        last += 1
        while last < len(blocks) and sum(sizes[first : last + 1]) <= size:
            last += 1
        start, end = blocks[first][0], blocks[last - 1][1]
        chunks.append(Chunk(document[start:end], start, end))
        if last < len(blocks):
            again = (
                number
                for number in range(first, last + 1)
                if sum(sizes[number:last]) <= overlap and sum(sizes[number : last + 1]) <= size
            )
            first = next(again, last)
    return chunks


class bm25:  # noqa: N801
    """A matrix of counts, a column for each word."""

    def __init__(self, passages: Sequence[Sequence[str]], k1: float = 1.5, b: float = 0.75) -> None:
        self.column = {word: place for place, word in enumerate(sorted({w for p in passages for w in p}))}
        counts = np.zeros((len(passages), len(self.column)))
        for row, passage in enumerate(passages):
            for word in passage:
                counts[row, self.column[word]] += 1
        lengths = counts.sum(axis=1, keepdims=True)
        mean = lengths.mean() if lengths.sum() else 1.0
        having = (counts > 0).sum(axis=0)
        idf = np.log1p((len(passages) - having + 0.5) / (having + 0.5))
        self.gains = idf * counts * (k1 + 1) / (counts + k1 * (1 - b + b * lengths / mean) + (counts == 0))

    def search(self, query: Sequence[str], k: int) -> list[Hit]:
        columns = sorted({self.column[word] for word in query if word in self.column})
        scores = self.gains[:, columns].sum(axis=1)
        order = np.argsort(-scores, kind="stable")
        return [(int(row), float(scores[row])) for row in order if scores[row] > 0][:k]


@dataclass
class Quality:
    recall: float
    mean_reciprocal_rank: float


# The mean is worked out exactly, and rounded once.
def measure(rankings: Sequence[Sequence[int]], relevant: Sequence[set[int]], k: int) -> Quality:
    if len(relevant) == 0:
        raise ValueError("no questions")
    recall = reciprocal = Fraction(0)
    for ranking, wanted in zip(rankings, relevant, strict=True):
        if not wanted:
            raise ValueError("nothing is relevant")
        recall += Fraction(sum(number in wanted for number in ranking[:k]), len(wanted))
        for place, number in enumerate(ranking):
            if number in wanted:
                reciprocal += Fraction(1, place + 1)
                break
    return Quality(float(recall / len(relevant)), float(reciprocal / len(relevant)))


class vector_index:  # noqa: N801
    """Single precision, a heap, and lengths that are divided by at the end."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = self._checked(vectors)
        self.lengths = np.sqrt((self.vectors**2).sum(axis=1))

    @staticmethod
    def _checked(vectors: np.ndarray) -> np.ndarray:
        if np.isnan(vectors.sum()) or np.isinf(vectors).any():
            raise ValueError("NaN or infinity")
        return vectors.astype(np.float32)

    def search(self, query: np.ndarray, k: int) -> list[Hit]:
        query = self._checked(query)
        length = float(np.sqrt((query**2).sum()))
        dots = (self.vectors * query).sum(axis=1)
        cosines = [
            float(dot / (own * length)) if own and length else 0.0
            for dot, own in zip(dots.tolist(), self.lengths.tolist(), strict=True)
        ]
        return heapq.nlargest(k, enumerate(cosines), key=lambda hit: hit[1])


def reciprocal_rank_fusion(results: Sequence[Sequence[Hit]], k: int = 60) -> list[tuple[int, float]]:
    sums: dict[int, float] = defaultdict(float)
    longest = max(map(len, results), default=0)
    for place in range(longest):
        for hits in results:
            if place < len(hits):
                sums[hits[place][0]] += (k + place + 1) ** -1
    return [(number, sums[number]) for number in sorted(sums, key=lambda n: (-sums[n], -n))]
