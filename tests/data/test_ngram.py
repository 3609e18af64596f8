import numpy as np
import pytest

from kicourse.data.ngram import NGram


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_of_all_tokens_sum_to_one_after_seen_and_unseen_contexts(order: int) -> None:
    rng = np.random.default_rng(1)
    model = NGram.fit(rng.integers(0, 6, size=300), order, vocabulary=7)  # token 6 is never seen
    for _ in range(20):
        context = rng.integers(0, 7, size=order - 1)
        total = sum(model.probabilities(np.append(context, token))[0] for token in range(7))
        assert total == pytest.approx(1)


def test_a_bigram_is_interpolated_kneser_ney_computed_by_hand() -> None:
    # 0 1 0 1 0 2: after 0 come 1 (twice) and 2 (once); as a second token 0, 1 and 2 were each seen in one place.
    model = NGram.fit(np.array([0, 1, 0, 1, 0, 2]), order=2, vocabulary=3)
    unigram = (1 - 0.75 + 0.75 * 3 / 3) / 3
    bigram = (2 - 0.75 + 0.75 * 2 * unigram) / 3
    assert model.probabilities(np.array([0, 1])) == pytest.approx([bigram])


def test_longer_contexts_are_worth_their_while_where_the_past_decides() -> None:
    tokens = np.tile([0, 1, 2, 0, 2, 1], 1_000)  # one token leaves two that may follow; two tokens leave one
    bits = [NGram.fit(tokens[:5_000], order, 3).bits(tokens[5_000:]).mean() for order in (1, 2, 3)]
    assert bits[0] > bits[1] + 0.3 > bits[2] + 0.6
    assert bits[2] < 0.1


def test_every_token_but_the_first_ones_is_scored() -> None:
    tokens = np.arange(10) % 4
    assert [len(NGram.fit(tokens, order, 4).bits(tokens)) for order in (1, 3)] == [10, 8]


@pytest.mark.parametrize(("order", "vocabulary", "count"), [(0, 8, 9), (7, 1024, 9), (3, 8, 2)])
def test_what_cannot_be_counted_is_refused(order: int, vocabulary: int, count: int) -> None:
    with pytest.raises(ValueError, match=r"gram"):
        NGram.fit(np.zeros(count, dtype=np.int64), order, vocabulary)
