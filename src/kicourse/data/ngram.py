"""N-gram language models: what counting alone can do, and so what a trained model has to beat.

    model = NGram.fit(training_tokens, order=3, vocabulary=1024)
    bits = model.bits(held_out_tokens).sum() / characters

A trigram predicts a token from the two before it. The counts are smoothed by interpolated Kneser-Ney: some count is
taken from every n-gram that was seen and given to the model that is one token shorter, which counts in how many
different places a token was seen and not how often.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DISCOUNT = 0.75

Tokens = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Table:
    """How often n-grams were seen. An n-gram is one whole number: its tokens are the digits in base `vocabulary`."""

    grams: Tokens
    counts: Tokens
    contexts: Tokens
    context_counts: Tokens
    continuations: Tokens


@dataclass(frozen=True)
class NGram:
    """A smoothed n-gram model over token ids from 0 to `vocabulary` - 1."""

    order: int
    vocabulary: int
    tables: tuple[_Table, ...]

    @classmethod
    def fit(cls, tokens: Tokens, order: int, vocabulary: int) -> "NGram":
        """Count `tokens`. Raises ValueError if n-grams of that order do not fit into 63 bits, or no token is given."""
        if order < 1 or vocabulary**order >= 2**63:
            raise ValueError(f"{order}-grams over {vocabulary} tokens cannot be counted in 63 bits.")
        if len(tokens) < order:
            raise ValueError(f"{len(tokens)} tokens hold no {order}-gram.")
        grams, counts = np.unique(_windows(tokens, order, vocabulary), return_counts=True)
        tables = [_table(grams, counts, vocabulary)]
        for length in range(order - 1, 0, -1):
            grams, counts = np.unique(grams % vocabulary**length, return_counts=True)
            tables.insert(0, _table(grams, counts, vocabulary))
        return cls(order, vocabulary, tuple(tables))

    def probabilities(self, tokens: Tokens) -> Probabilities:
        """Return the probability of each token but the first `order` - 1, given the ones before it."""
        result = np.full(len(tokens) - self.order + 1, 1 / self.vocabulary)
        for length, table in enumerate(self.tables, start=1):
            grams = _windows(tokens[self.order - length :], length, self.vocabulary)
            result = _interpolate(table, grams, self.vocabulary, result)
        return result

    def bits(self, tokens: Tokens) -> Probabilities:
        """Return how many bits each token but the first `order` - 1 costs."""
        return -np.log2(self.probabilities(tokens))


def _windows(tokens: Tokens, length: int, vocabulary: int) -> Tokens:
    tokens = np.asarray(tokens, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(tokens, length)
    digits: Tokens = vocabulary ** np.arange(length - 1, -1, -1, dtype=np.int64)
    return windows @ digits


def _table(grams: Tokens, counts: Tokens, vocabulary: int) -> _Table:
    contexts, first, continuations = np.unique(grams // vocabulary, return_index=True, return_counts=True)
    return _Table(grams, counts, contexts, np.add.reduceat(counts, first), continuations)


def _interpolate(table: _Table, grams: Tokens, vocabulary: int, shorter: Probabilities) -> Probabilities:
    """Discount what was seen, and hand the rest to the shorter model; an unseen context hands over everything."""
    count = _look_up(table.grams, table.counts, grams)
    total = _look_up(table.contexts, table.context_counts, grams // vocabulary)
    kinds = _look_up(table.contexts, table.continuations, grams // vocabulary)
    seen = np.maximum(total, 1)
    smoothed: Probabilities = (np.maximum(count - DISCOUNT, 0) + DISCOUNT * kinds * shorter) / seen
    return np.where(total > 0, smoothed, shorter)


def _look_up(keys: Tokens, values: Tokens, wanted: Tokens) -> Tokens:
    """Return the value of each wanted key, 0 where there is none; `keys` are sorted."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found: Tokens = np.where(keys[places] == wanted, values[places], 0)
    return found
