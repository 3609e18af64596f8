"""Second solutions of tokenizer's tasks, in other styles: reduce, counts kept up to date, ranks, recursion."""

from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from functools import cache, reduce
from typing import Any

Pair = tuple[int, int]


def merge_pair(tokens: list[int], pair: Pair, new: int) -> list[int]:
    def add(done: tuple[list[int], bool], token: int) -> tuple[list[int], bool]:
        result, open_pair = done
        if open_pair and token == pair[1]:
            return [*result[:-1], new], False
        return [*result, token], token == pair[0]

    start: tuple[list[int], bool] = ([], False)
    return reduce(add, tokens, start)[0]


def train_bpe(counts: dict[str, int], merges: int) -> list[Pair]:
    """Correct the counts of the pieces that change, as libraries do, and take the last of several best pairs."""
    words = [list(bytes(piece, "utf-8")) for piece in counts]
    often = list(counts.values())
    pairs: dict[Pair, int] = defaultdict(int)
    where: dict[Pair, set[int]] = defaultdict(set)

    def account(number: int, sign: int) -> None:
        word = words[number]
        for place in range(1, len(word)):
            pair = word[place - 1], word[place]
            pairs[pair] += sign * often[number]
            where[pair].add(number)

    for number in range(len(words)):
        account(number, 1)
    learned: list[Pair] = []
    while len(learned) < merges:
        best = max(sorted(pairs, reverse=True), key=lambda pair: pairs[pair], default=None)
        if best is None or pairs[best] == 0:
            break
        for number in where.pop(best):
            account(number, -1)
            words[number] = merge_pair(words[number], best, 256 + len(learned))
            account(number, 1)
        learned.append(best)
    return learned


def encode(text: str, merges: list[Pair]) -> list[int]:
    """Merge the pair of lowest rank, one place at a time, until none is left."""
    ranks = dict(zip(merges, range(256, 256 + len(merges)), strict=True))
    tokens = [*text.encode("utf-8")]
    while len(tokens) > 1:
        rank, place = min((ranks.get((tokens[i], tokens[i + 1]), 10**9), i) for i in range(len(tokens) - 1))
        if rank == 10**9:
            break
        tokens[place : place + 2] = [rank]
    return tokens


def decode(tokens: list[int], merges: list[Pair]) -> str:
    @cache
    def spell(token: int) -> bytes:
        if token < 256:
            return token.to_bytes(1)
        left, right = merges[token - 256]
        return spell(left) + spell(right)

    return str(b"".join(map(spell, tokens)), "utf-8", "replace")


def tokens_per_word(messages: list[str], encode: Callable[[str], list[int]], price: Decimal) -> tuple[Any, Decimal]:
    words = tokens = 0
    for message in messages:
        words += len(message.split())
        tokens += len(list(encode(message)))
    return tokens / max(words, 1) if words else 0, price / Decimal(10**6) * Decimal(tokens)
