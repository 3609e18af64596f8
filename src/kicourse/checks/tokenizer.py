"""Checks of the unit tokenizer: merging a pair, training, encoding, decoding, counting tokens a word."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import pairwise
from numbers import Integral
from typing import Any

from kicourse.checks import Check, Handle, Trial, _, as_tuple

UNIT = "tokenizer"
BYTES = 256
"""Tokens 0 to 255 are the bytes; merge number n makes token 256 + n."""

Pair = tuple[int, int]


# What the checks themselves know of byte-pair encoding. tests/course holds it against the library `tokenizers`.


def merged(tokens: list[int], pair: Pair, new: int) -> list[int]:
    """Put `new` in the place of every `pair`, from left to right."""
    result: list[int] = []
    place = 0
    while place < len(tokens):
        if tuple(tokens[place : place + 2]) == pair:
            result.append(new)
            place += 2
        else:
            result.append(tokens[place])
            place += 1
    return result


def neighbours(pieces: list[tuple[list[int], int]]) -> Counter[Pair]:
    """Count the pairs of neighbours in pieces that come with how often they occur."""
    pairs: Counter[Pair] = Counter()
    for tokens, count in pieces:
        for pair in pairwise(tokens):
            pairs[pair] += count
    return pairs


def trained(rng: Any, counts: Mapping[str, int], merges: int) -> list[Pair]:
    """Learn merges; which of several most frequent pairs is taken is left to chance."""
    pieces = [(list(piece.encode()), count) for piece, count in counts.items()]
    learned: list[Pair] = []
    while len(learned) < merges and (pairs := neighbours(pieces)):
        best = [pair for pair, count in pairs.items() if count == max(pairs.values())]
        learned.append(best[int(rng.integers(len(best)))])
        pieces = [(merged(tokens, learned[-1], BYTES + len(learned) - 1), count) for tokens, count in pieces]
    return learned


def encoded(text: str, merges: list[Pair]) -> list[int]:
    """Return the tokens of a text."""
    tokens = list(text.encode())
    for new, pair in enumerate(merges, start=BYTES):
        tokens = merged(tokens, pair, new)
    return tokens


def spelled(merges: list[Pair]) -> list[bytes]:
    """Return the bytes that each token stands for."""
    vocabulary = [bytes([byte]) for byte in range(BYTES)]
    for left, right in merges:
        vocabulary.append(vocabulary[left] + vocabulary[right])
    return vocabulary


# What trials are made of


def _word(rng: Any, letters: str = "bdgklmnprst", vowels: str = "aeiou") -> str:
    """Make up a word of two to eight letters, so that nobody has seen it."""
    syllables = int(rng.integers(1, 5))
    return "".join(letters[rng.integers(len(letters))] + vowels[rng.integers(len(vowels))] for _ in range(syllables))


def _sentence(rng: Any, words: list[str], length: int) -> str:
    return " ".join(words[rng.integers(len(words))] for _ in range(length))


def _language(rng: Any, merges: int = 24, extra: str = "") -> tuple[list[str], list[Pair]]:
    """Make up words, and learn merges from them; each of `extra` is a word too, and a frequent one."""
    words = [*extra.split(), *(_word(rng) for _ in range(8))]
    counts = {" " + word: int(rng.integers(2, 20)) + 30 * (word in extra.split()) for word in words}
    return words, trained(rng, counts, merges)


def _any_merges(rng: Any, letters: str, count: int) -> list[Pair]:
    """Draw merges that no frequency explains, in any order that is possible: each uses tokens that are there."""
    known = list(letters.encode())
    drawn: list[Pair] = []
    while len(drawn) < count:
        pair = known[rng.integers(len(known))], known[rng.integers(len(known))]
        if pair not in drawn:
            drawn.append(pair)
            known.append(BYTES + len(drawn) - 1)
    return drawn


def _letters(rng: Any, letters: str, length: int) -> str:
    return "".join(letters[rng.integers(len(letters))] for _ in range(length))


def _letters_apart(rng: Any, count: int) -> list[str]:
    return [str(letter) for letter in rng.permutation(list("abcdefghijklmnopqrstuvwxyz"))[:count]]


def _side_by_side(rng: Any, count: int = 4) -> tuple[list[str], str, list[Pair]]:
    """Return words of two letters, letters that are in none, and a merge for each word: the order does not matter."""
    letters = "".join(_letters_apart(rng, 2 * count + 8))
    words = [letters[place : place + 2] for place in range(0, 2 * count, 2)]
    return words, letters[2 * count :], [(ord(word[0]), ord(word[1])) for word in words]


def _without_runs(rng: Any, letters: str, length: int) -> str:
    """Draw letters in which nothing stands three times in a row, so that no pair ever overlaps with itself."""
    drawn = ""
    for letter in _letters(rng, letters, 4 * length):
        if len(drawn) < length and not re.search(r"(.+)\1\1$", drawn + letter):
            drawn += letter
    return drawn


# merge_pair

merge_pair = Check(
    UNIT,
    "merge_pair",
    title=_("Merge a pair"),
    hints=(
        _(
            "Walk through the tokens from left to right. At each place there are two possibilities: the pair begins "
            "here, or it does not. How far do you go on in either case?"
        ),
        _(
            "A `for` loop always goes on by one; use `while` with a place of your own. `tokens[place : place + 2]` are "
            "the two tokens here, and at the end just one, where `tokens[place + 1]` would raise an IndexError. That "
            "slice is a list and `pair` is a tuple: to compare them, make a tuple of it."
        ),
        _(
            "Inside the loop: `if tuple(tokens[place : place + 2]) == pair: result.append(new); place += 2`, "
            "`else: result.append(tokens[place]); place += 1`."
        ),
    ),
)


def _require_merged(trial: Trial, answer: Handle, tokens: list[int], pair: Pair, new: int, message: str) -> None:
    trial.equal(answer(tokens, pair, new), merged(tokens, pair, new), message)


@merge_pair.criterion(
    _("the new token stands where the pair stood"),
    points=0.5,
    why=_("This is the whole of byte-pair encoding: two neighbours become one, and the text gets shorter."),
)
def merges(trial: Trial, answer: Handle) -> None:
    for between in (1, 2, 4):
        left, right, *others = (int(token) for token in trial.rng.permutation(BYTES)[: 2 + 3 * between])
        tokens = [*others[:between], left, right, *others[between : 2 * between], left, right, *others[2 * between :]]
        message = _("Every place where the two tokens of the pair follow each other becomes `new`.")
        _require_merged(trial, answer, tokens, (left, right), BYTES + between, message)


@merge_pair.criterion(
    _("everything else stays, in its order"),
    points=0.75,
    why=_("A token that gets lost here is a letter that the model never sees."),
)
def keeps_the_rest(trial: Trial, answer: Handle) -> None:
    message = _("What is not the pair, in this order, stays where it is: half a pair, the pair turned round, the ends.")

    def draw(rng: Any, size: int) -> tuple[list[int], Pair]:
        left, right = (int(token) for token in rng.permutation(10)[:2])
        # Their last or first digits are those of the pair: no matter to numbers, but to whoever searches in text.
        alphabet = [left, right, left, right, 10 + left, right * 10 + 5, 300 + size]
        return [alphabet[rng.integers(len(alphabet))] for _ in range(size - 1)], (left, right)

    for tokens, pair in trial.cases(draw, 16):
        _require_merged(trial, answer, tokens, pair, BYTES + int(trial.rng.integers(1_000)), message)
    for tokens in ([0, 1], [1, 0], [0], [0, 0, 1, 1], [1, 0, 1]):
        _require_merged(trial, answer, tokens, (0, 1), BYTES, message)
    left, right = (BYTES + int(token) for token in trial.rng.permutation(1_000)[:2])
    message = _("A pair may hold tokens that were merged before: any two numbers, those above 255 as well.")
    _require_merged(trial, answer, [left, right, left, left, right], (left, right), BYTES + 1_000, message)


@merge_pair.criterion(
    _("a token is merged once only, from left to right"),
    points=0.75,
    why=_("In `aaa` the pair `aa` can be seen twice, but the `a` in the middle can belong to one of the two only."),
)
def merges_once(trial: Trial, answer: Handle) -> None:
    message = _("Of equal tokens in a row, the first two become one, then the next two; one that is left over stays.")
    token = int(trial.rng.integers(BYTES))
    for length in (3, 2, 4, 5, 8):
        _require_merged(trial, answer, [token] * length, (token, token), BYTES, message)
    for length in (6, 12):
        tokens = [token + int(step) for step in trial.rng.random(length) < 0.3]
        _require_merged(trial, answer, tokens, (token, token), BYTES + 1, message)


@merge_pair.misconception(_("a merge that sees the pair twice in `aaa`, and uses the middle token for both"))
def overlapping(tokens: list[int], pair: Pair, new: int) -> list[int]:
    result: list[int] = []
    for place, token in enumerate(tokens):
        if tuple(tokens[place : place + 2]) == pair:
            result.append(new)
        elif place == 0 or tuple(tokens[place - 1 : place + 1]) != pair:
            result.append(token)
    return result


@merge_pair.misconception(_("a merge that begins at the right, where runs of equal tokens end otherwise"))
def from_the_right(tokens: list[int], pair: Pair, new: int) -> list[int]:
    return merged(tokens[::-1], pair[::-1], new)[::-1]


def _is_pair(tokens: list[int], place: int, pair: Pair) -> bool:
    return (tokens[place], tokens[place + 1]) == pair


def _walking(
    tokens: list[int],
    pair: Pair,
    new: int,
    *,
    left_out: int = 0,
    found: Callable[[list[int], int, Pair], bool] = _is_pair,
) -> list[int]:
    """Go from place to place, without a thought for the last token."""
    result: list[int] = []
    place = 0
    while place < len(tokens) - left_out:
        is_pair = found(tokens, place, pair)
        result.append(new if is_pair else tokens[place])
        place += 2 if is_pair else 1
    return result


@merge_pair.misconception(_("a merge that stops at the last token but one, and so may lose the last"))
def last_token_lost(tokens: list[int], pair: Pair, new: int) -> list[int]:
    return _walking(tokens, pair, new, left_out=1)


@merge_pair.misconception(_("a merge that asks the last token for its right neighbour, and it has none"))
def past_the_end(tokens: list[int], pair: Pair, new: int) -> list[int]:
    return _walking(tokens, pair, new)


@merge_pair.misconception(_("a merge that asks the last token for its right neighbour, and it has none"))
def past_the_end_after_half_a_pair(tokens: list[int], pair: Pair, new: int) -> list[int]:
    def found(tokens: list[int], place: int, pair: Pair) -> bool:
        return tokens[place] == pair[0] and tokens[place + 1] == pair[1]

    return _walking(tokens, pair, new, found=found)


@merge_pair.misconception(_("a merge of the first place only"))
def first_place_only(tokens: list[int], pair: Pair, new: int) -> list[int]:
    for place in range(len(tokens) - 1):
        if (tokens[place], tokens[place + 1]) == pair:
            return [*tokens[:place], new, *tokens[place + 2 :]]
    return list(tokens)


@merge_pair.misconception(_("a merge of the two tokens in either order"))
def either_order(tokens: list[int], pair: Pair, new: int) -> list[int]:
    result: list[int] = []
    place = 0
    while place < len(tokens):
        found = tuple(tokens[place : place + 2]) in (pair, pair[::-1])
        result.append(new if found else tokens[place])
        place += 2 if found else 1
    return result


@merge_pair.misconception(_("a merge that puts the new token in place of the first and keeps the second"))
def second_token_kept(tokens: list[int], pair: Pair, new: int) -> list[int]:
    places = range(len(tokens))
    return [new if tuple(tokens[place : place + 2]) == pair else tokens[place] for place in places]


@merge_pair.misconception(
    _("a merge that looks at every place but the last: the second token of a pair stays, and the last token is lost"),
)
def every_place_but_the_last(tokens: list[int], pair: Pair, new: int) -> list[int]:
    return [new if one == pair else one[0] for one in pairwise(tokens)]


@merge_pair.misconception(_("a merge that puts the new token in front of the pair and keeps both of its tokens"))
def both_tokens_kept(tokens: list[int], pair: Pair, new: int) -> list[int]:
    result: list[int] = []
    for place, token in enumerate(tokens):
        result += [new, token] if tuple(tokens[place : place + 2]) == pair else [token]
    return result


@merge_pair.misconception(
    _("a merge that never finds the pair, as where a slice (a list) is compared with the pair (a tuple): no list "
      "equals a tuple"),
)  # fmt: skip
def list_against_tuple(tokens: list[int], pair: Pair, new: int) -> list[int]:
    return list(tokens)


@merge_pair.misconception(_("a merge in the text of the list, where the pair 1, 2 is also found in 11, 2"))
def replaced_in_text(tokens: list[int], pair: Pair, new: int) -> list[int]:
    written = " ".join(str(token) for token in tokens).replace(f"{pair[0]} {pair[1]}", str(new))
    return [int(number) for number in written.split()]


# train_bpe

train_bpe = Check(
    UNIT,
    "train_bpe",
    title=_("Train byte-pair encoding"),
    hints=(
        _(
            "Keep each piece as a list of tokens beside its count; at the start the tokens are its bytes. One merge: "
            "count pairs, take the most frequent, merge it in every piece."
        ),
        _(
            "Count with a `Counter`: in each piece, every pair of neighbours (`pairwise(tokens)`) counts as often as "
            "the piece occurs. Count anew after each merge, and stop when there is nothing to count."
        ),
        _(
            "`pairs[pair] += count` inside two loops; `best = max(pairs, key=pairs.get)`; append it to the merges, and "
            "replace each piece's tokens by `merge_pair(tokens, best, 256 + number)`."
        ),
    ),
)


def _replay(trial: Trial, answer: Handle, counts: dict[str, int], wanted: int, reason: str = "", **values: Any) -> None:
    """Let the answer train, and follow its merges: each must be a most frequent pair when its turn comes.

    `reason`, with `values` filled in, completes what is said about a pair that is not.
    """
    reason = trial.text(reason, **values) if reason else ""
    got = answer(counts, wanted)
    trial.is_a(got, list)
    pieces = [(list(piece.encode()), count) for piece, count in counts.items()]
    for number, merge in enumerate((_as_pair(trial, merge) for merge in got), start=1):
        pairs = neighbours(pieces)
        trial.require(number <= wanted, _("You returned more merges than were asked for ({wanted})."), wanted=wanted)
        message = _(
            "When it comes to merge number {number}, no pair {pair} is there. Tokens so far: 0 to {last} (the first "
            "merge makes token 256)."
        )
        trial.require(pairs[merge], message, number=number, pair=merge, last=BYTES - 2 + number)
        _require_most_frequent(trial, pairs, merge, number, reason)
        pieces = [(merged(tokens, merge, BYTES - 1 + number), count) for tokens, count in pieces]
    message = _(
        "You returned fewer merges than were asked for ({found}, not {wanted}), and there are pairs left to merge."
    )
    trial.require(len(got) == wanted or not neighbours(pieces), message, found=len(got), wanted=wanted, expected=wanted)


def _as_pair(trial: Trial, merge: Any) -> Pair:
    """Return a merge as a tuple of two numbers; a named tuple is one, and NumPy's whole numbers are as good."""
    message = _(
        "A merge is a tuple of two token numbers; {found} is a list. No list equals a tuple, so whoever compares "
        "pairs, such as `merge_pair`, will never find it."
    )
    trial.require(type(merge) is not list, message, expected="list[tuple[int, int]]", found=merge)
    message = _("A merge is a pair of token numbers such as (97, 98); you returned {found}.")
    pair = as_tuple(merge)
    is_pair = type(pair) is tuple and len(pair) == 2 and all(_is_whole(token) for token in pair)
    trial.require(is_pair, message, expected="list[tuple[int, int]]", found=merge)
    return int(pair[0]), int(pair[1])


def _is_whole(number: Any) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def _require_most_frequent(trial: Trial, pairs: Counter[Pair], pair: Pair, number: int, reason: str) -> None:
    best = max(pairs, key=lambda one: pairs[one])
    message = _("Merge number {number} is {pair}, whose count is {found} at that point; the count of {best} is {most}.")
    values = {"number": number, "pair": pair, "found": pairs[pair], "best": best, "most": pairs[best]}
    trial.require(pairs[pair] == pairs[best], "{text}", text=f"{trial.text(message, **values)} {reason}".rstrip())


@train_bpe.criterion(
    _("the most frequent pair comes first"),
    points=0.5,
    why=_("The pair that is seen most often usually saves the most tokens."),
)
def finds_the_first(trial: Trial, answer: Handle) -> None:
    for pieces in (1, 3):
        letters = sorted(_letters_apart(trial.rng, 2 + 4 * pieces))
        left, right = letters.pop(len(letters) // 2), letters.pop(0)  # neither the first nor the last of all pairs
        others = [str(letter) for letter in trial.rng.permutation(letters)]
        counts = {
            "".join([*others[place : place + 2], left, right, *others[place + 2 : place + 4], left, right]): pieces
            for place in range(0, 4 * pieces, 4)
        }
        _replay(trial, answer, counts, 1)
    a, b, c, d, e, f, g = _letters_apart(trial.rng, 7)  # three times in one piece is more than once in each of two
    _replay(trial, answer, {f"{a}{b}{c}{a}{b}{d}{a}{b}": 1, f"{e}{f}": 1, f"{e}{f}{g}": 1}, 1)


@train_bpe.criterion(
    _("each merge is a most frequent pair of what the earlier ones left"),
    points=1,
    why=_("A merge changes who stands beside whom: pairs disappear, and pairs with the new token appear."),
)
def follows_the_counts(trial: Trial, answer: Handle) -> None:
    def draw(rng: Any, size: int) -> tuple[dict[str, int], int]:
        letters, wanted = "".join(_letters_apart(rng, 26)), 1 + size // 2
        # The text is there twice, and its last letters occur nowhere else: every merge wanted finds a pair twice.
        half = _without_runs(rng, letters[: 2 + size % 3], 2 * size) + letters[-1 - wanted :]
        return {half + letters[5] + half: 1}, wanted

    for counts, wanted in trial.cases(draw, 12):
        _replay(trial, answer, counts, wanted)
    often, between = _letters_apart(trial.rng, 2)
    _replay(trial, answer, {3 * often + between + 3 * often: 1}, 2)
    words = {f" {one}{two}{_word(trial.rng)[:2]}": 1 for one in "bdfgk" for two in "aeiou"}
    _replay(trial, answer, words, 8)


@train_bpe.criterion(
    _("every place counts, as often as its piece occurs"),
    points=0.5,
    why=_("`counts` stands for the whole text, and each place in it where two tokens stand side by side counts."),
)
def weighs_pieces(trial: Trial, answer: Handle) -> None:
    for many in (4, 9):
        x, y, a, u, v, b, *ends, others = _some_letters(trial.rng, 8, many)
        counts = {other + "".join(ends): 1 for other in others}
        counts |= {x + y + a + x + y: 2 * many, u + v + b + u + v: many + many // 2}
        _replay(trial, answer, counts, 2, _("A piece that occurs {count} times counts {count} times."), count=2 * many)
    run, one, two = _letters_apart(trial.rng, 3)
    reason = _("In three equal tokens in a row, their pair stands twice: both places count.")
    _replay(trial, answer, {one + two: 4, 3 * run: 3}, 1, reason)


def _some_letters(rng: Any, count: int, more: int) -> list[Any]:
    """Return `count` letters, and a list of `more` others."""
    letters = _letters_apart(rng, count + more)
    return [*letters[:count], letters[count:]]


@train_bpe.criterion(
    _("merges are made in every piece, and none reaches from one piece into the next"),
    points=0.5,
    why=_("Pieces are words. A token across two of them would be learned from who stands beside whom by chance."),
)
def stays_inside_pieces(trial: Trial, answer: Handle) -> None:
    for many in (20, 50):
        single, *others = _letters_apart(trial.rng, 8)
        _replay(trial, answer, {single: many, "".join(others[:3]): 3, "".join(others[3:]): 3}, 1)
    end, start, others = _some_letters(trial.rng, 2, 8)
    _replay(trial, answer, {other + end if number % 2 else start + other: 2 for number, other in enumerate(others)}, 1)
    x, y, z, u, v, others = _some_letters(trial.rng, 5, 10)
    # Where x y is merged in its first piece only, y z still seems to be more frequent than u v.
    rows = 3 * [x + y] + 2 * [x + y + z] + 2 * [y + z] + 3 * [u + v]
    counts = {other + row: 1 for other, row in zip(others, rows, strict=True)}
    _replay(trial, answer, counts, 2, _("A merge is made in every piece that holds the pair."))


@train_bpe.criterion(
    _("umlauts, emoji and zero-width characters are bytes too"),
    points=0.25,
    why=_("There are 150,000 characters and 256 bytes. With bytes as its first tokens nothing is ever unknown."),
)
def works_on_bytes(trial: Trial, answer: Handle) -> None:
    for special in (_UMLAUTS, _EMOJI, _ZERO_WIDTH):
        for character in trial.rng.permutation(list(special))[:2]:
            _replay(trial, answer, {letter + str(character): 1 for letter in _letters_apart(trial.rng, 3)}, 1)
    one, other, *letters = _letters_apart(trial.rng, 5)
    _replay(trial, answer, {letter + "u\u0308": 1 for letter in letters}, 1)  # an umlaut in two parts
    _replay(trial, answer, {f"{one}{other}".upper(): 2}, 1)


@train_bpe.criterion(
    _("ends when nothing is left to merge, and not before"),
    points=0.25,
    why=_("A small text has only so many pairs. Training on it must end with fewer merges, not with an exception."),
)
def ends(trial: Trial, answer: Handle) -> None:
    a, b, c, d, e, f = _letters_apart(trial.rng, 6)
    cases: list[tuple[dict[str, int], int]] = [({a + b: 1}, 5), ({a: 1}, 2), ({}, 3), ({"": 1, a + b: 1}, 4)]
    for counts, wanted in [*cases, ({a + b: 1, c + d: 1, e + f: 1}, 99), ({a + b: 1}, 0)]:
        _replay(trial, answer, counts, wanted)


_UMLAUTS = "äöüÄÖÜßéñ"
_EMOJI = "🔧🚰🙂💧🚚🥶"
_ZERO_WIDTH = "\u200b\u200d\u2060\ufeff\u00ad"


def _training(
    counts: Mapping[str, int],
    merges: int,
    *,
    units: Callable[[str], list[int]] = lambda piece: list(piece.encode()),
    merge: Callable[[list[int], Pair, int], list[int]] = merged,
    count_pairs: Callable[[list[tuple[list[int], int]]], Mapping[Pair, int]] = neighbours,
    first: int = BYTES,
    best: Callable[[Mapping[Pair, int]], Pair] = lambda pairs: max(pairs, key=lambda pair: pairs[pair]),
    least: int = 1,
    crashes: bool = False,
) -> list[Pair]:
    """Training with faults on demand."""
    pieces = [(units(piece), count) for piece, count in counts.items()]
    learned: list[Pair] = []
    for number in range(merges):
        pairs = count_pairs(pieces)
        if not crashes and (not pairs or max(pairs.values()) < least):
            break
        learned.append(best(pairs))
        pieces = [(merge(tokens, learned[-1], first + number), count) for tokens, count in pieces]
    return learned


@train_bpe.misconception(_("training in which `aaa` is merged twice, so that the middle token is used for both"))
def trains_overlapping(counts: dict[str, int], merges: int) -> list[Pair]:
    return _training(counts, merges, merge=overlapping)


@train_bpe.misconception(_("training that counts every different piece once, however often it occurs"))
def counts_ignored(counts: dict[str, int], merges: int) -> list[Pair]:
    return _training(dict.fromkeys(counts, 1), merges)


@train_bpe.misconception(_("training on all pieces in one row, so that merges reach from one piece into the next"))
def pieces_joined(counts: dict[str, int], merges: int) -> list[Pair]:
    return _training({"".join(piece * count for piece, count in counts.items()): 1}, merges)


@train_bpe.misconception(_("training on characters instead of on the bytes of UTF-8"))
def characters_for_bytes(counts: dict[str, int], merges: int) -> list[Pair]:
    return _training(counts, merges, units=lambda piece: [ord(character) for character in piece])


@train_bpe.misconception(_("training that counts once, at the start, and takes all merges from that count"))
def counted_once(counts: dict[str, int], merges: int) -> list[Pair]:
    pairs = neighbours([(list(piece.encode()), count) for piece, count in counts.items()])
    return [pair for pair, _count in pairs.most_common(merges)]


@train_bpe.misconception(
    _("training that makes no merge in its pieces, as where the list that `merge_pair` returns is not kept")
)
def pieces_never_merged(counts: dict[str, int], merges: int) -> list[Pair]:
    return _training(counts, merges, merge=lambda tokens, _pair, _new: tokens)


@train_bpe.misconception(
    _("training that counts a pair once in each piece (`set(pairwise(tokens))`), even where it stands there twice")
)
def once_in_each_piece(counts: dict[str, int], merges: int) -> list[Pair]:
    def count_pairs(pieces: list[tuple[list[int], int]]) -> Counter[Pair]:
        pairs: Counter[Pair] = Counter()
        for tokens, count in pieces:
            for pair in set(pairwise(tokens)):  # in the order of a set, which decides ties
                pairs[pair] += count
        return pairs

    return _training(counts, merges, count_pairs=count_pairs)


@train_bpe.misconception(_("training whose first new token is 257, although the bytes end at 255"))
def numbered_from_257(counts: dict[str, int], merges: int) -> list[Pair]:
    return _training(counts, merges, first=BYTES + 1)


@train_bpe.misconception(_("training whose first new token is 255, which is a byte already"))
def numbered_from_255(counts: dict[str, int], merges: int) -> list[Pair]:
    return _training(counts, merges, first=BYTES - 1)


@train_bpe.misconception(_("training that takes the largest pair: `max` without `key` compares pairs, not counts"))
def largest_pair(counts: dict[str, int], merges: int) -> list[Pair]:
    return _training(counts, merges, best=max)


@train_bpe.misconception(_("training that sees `aa` only once in `aaa`; every place where the two stand counts"))
def counted_without_overlap(counts: dict[str, int], merges: int) -> list[Pair]:
    def count_pairs(pieces: list[tuple[list[int], int]]) -> dict[Pair, int]:
        pairs = neighbours(pieces)
        return {pair: sum(count * merged(tokens, pair, -1).count(-1) for tokens, count in pieces) for pair in pairs}

    return _training(counts, merges, count_pairs=count_pairs)


@train_bpe.misconception(_("training that gives up on pairs that occur only once, although there are merges to make"))
def rare_pairs_left(counts: dict[str, int], merges: int) -> list[Pair]:
    return _training(counts, merges, least=2)


@train_bpe.misconception(_("training that asks for the most frequent of no pairs when everything is merged"))
def crashes_at_the_end(counts: dict[str, int], merges: int) -> list[Pair]:
    return _training(counts, merges, crashes=True)


train_bpe.equivalent(
    "break",
    "continue",
    reason="where no pair is left there will be none in the next rounds either: they do nothing",
)


# encode

encode = Check(
    UNIT,
    "encode",
    title=_("Encode a text"),
    hints=(
        _(
            "Encoding repeats what training did, on a new text: first there are bytes, and then the merges are made in "
            "the order in which they were learned."
        ),
        _(
            "You have both tools: *Text is bytes* turned a text into numbers, and each merge is one call of "
            "`merge_pair`. Which token does merge number n (from 0) make?"
        ),
        _(
            "`tokens = list(text.encode())`, and one loop: `for new, pair in enumerate(merges, start=256): "
            "tokens = merge_pair(tokens, pair, new)`"
        ),
    ),
)


def _require_encoded(trial: Trial, answer: Handle, text: str, merges: list[Pair], message: str) -> None:
    trial.equal(answer(text, merges), encoded(text, merges), message)


@encode.criterion(
    _("bytes first, then the merges that were learned"),
    points=0.5,
    why=_("A model knows its tokens by their numbers: one token that is cut otherwise is a different text to it."),
)
def encodes(trial: Trial, answer: Handle) -> None:
    message = _("Start from the bytes. Merge number n (from 0) makes token 256 + n, wherever its pair stands.")
    for one, two, other in ((1, 3, 0), (0, 2, 1), (3, 2, 3)):
        words, rest, merges = _side_by_side(trial.rng)
        text = f"{rest[0]}{words[one]}{rest[1:3]} {words[two]}{rest[3]}{words[other]}{words[two]}"
        _require_encoded(trial, answer, text, merges, message)


@encode.criterion(
    _("the merge that was learned first goes first, not the longest token"),
    points=0.5,
    why=_("Training has cut its text in this order. Encoding in another order gives tokens the model has rarely seen."),
)
def keeps_the_rank(trial: Trial, answer: Handle) -> None:
    message = _("Merges go in the order of the list: an earlier one is made wherever it fits, before any later one.")
    x, y, z = (ord(letter) for letter in _letters_apart(trial.rng, 3))
    # In this text, each wrong order gives tokens of its own: the first try tells which it was.
    telling = [(y, z), (z, y), (y, BYTES + 1), (z, BYTES)]
    _require_encoded(trial, answer, bytes([z, y, z, z, y, y, y, z, y, x]).decode(), telling, message)
    _require_encoded(trial, answer, bytes([x, y, z]).decode(), [(y, z), (x, y)], message)
    planted = [(x, y), (z, x), (BYTES, z), (y, z), (BYTES + 2, x)]
    for written in ([z, x, y, z], [x, y, z, x, y], [y, z, x, y, z, x]):
        _require_encoded(trial, answer, bytes(written).decode(), planted, message)
    _require_encoded(trial, answer, bytes([x, x, x, x, x, y]).decode(), [(x, x), (x, y)], message)

    def draw(rng: Any, size: int) -> tuple[str, list[Pair]]:
        letters = "".join(_letters_apart(rng, 2 + size % 3))
        return _letters(rng, letters, 2 + 2 * size), _any_merges(rng, letters, 1 + size)

    for text, merges in trial.cases(draw, 16):
        _require_encoded(trial, answer, text, merges, message)
    words, merges = _language(trial.rng, merges=40)
    _require_encoded(trial, answer, _sentence(trial.rng, words, 6), merges, message)


@encode.criterion(
    _("umlauts: composed or in two parts, they are bytes like any other"),
    points=0.25,
    why=_("An `ü` is two bytes, or a `u` and a mark of two more. A tokenizer must give them back as they were."),
)
def encodes_umlauts(trial: Trial, answer: Handle) -> None:
    one, other = (str(letter) for letter in trial.rng.permutation(list("äöü"))[:2])
    (word, *_words), _rest, merges = _side_by_side(trial.rng)
    # The bytes of one umlaut, and those of the mark that stands above the letter where it has two parts.
    merges += [_bytes_of(one), _bytes_of("\u0308")]
    text = f"{one} f{one}r {other}ß {word}{other}ß{one}{one}"
    for written in (text, unicodedata.normalize("NFD", text), f"{word}{word.upper()}{one.upper()}"):
        _require_encoded(trial, answer, written, merges, _("Take the text's bytes in UTF-8, just as they are."))


@encode.criterion(
    _("emoji"),
    points=0.25,
    why=_("An emoji is four bytes or more, and some are several characters: no list of characters has them all."),
)
def encodes_emoji(trial: Trial, answer: Handle) -> None:
    one, other, rare = (str(emoji) for emoji in trial.rng.permutation(list(_EMOJI))[:3])
    (word, *_words), _rest, merges = _side_by_side(trial.rng)
    merges += [_bytes_of(one), (other.encode()[2], other.encode()[3])]
    for written in (one, f"{other}{one} {word}{rare}", f"{one}{one}{other}👍🏽"):
        _require_encoded(trial, answer, written, merges, _("Take the text's bytes in UTF-8, just as they are."))


@encode.criterion(
    _("zero-width characters"),
    points=0.25,
    why=_("They are invisible, come with copied text, and a model reads them. Dropping them hides them from you only."),
)
def encodes_zero_width(trial: Trial, answer: Handle) -> None:
    one, other = (str(character) for character in trial.rng.permutation(list(_ZERO_WIDTH))[:2])
    (word, *_words), _rest, merges = _side_by_side(trial.rng)
    merges.append(_bytes_of(one))
    for written in (f"{word}{one}", f"{one}\u00a0{word[0]}{other}{word[1]}", other):
        _require_encoded(trial, answer, written, merges, _("Characters that cannot be seen have bytes all the same."))


@encode.criterion(
    _("the empty text, spaces at the ends, no merges"),
    points=0.25,
    why=_("Empty fields and stray line breaks are part of every real table of messages."),
)
def encodes_the_ends(trial: Trial, answer: Handle) -> None:
    words, _rest, merges = _side_by_side(trial.rng)
    for written, known in (("", merges), (f"\r\n  {words[0]} \n", merges), (words[1], []), ("", []), ("\x00", merges)):
        _require_encoded(trial, answer, written, known, _("Nothing is taken from the text, and nothing is added."))


def _bytes_of(character: str) -> Pair:
    """Return a character's first two bytes."""
    return character.encode()[0], character.encode()[1]


def _encoded_longest(text: str, merges: list[Pair]) -> list[int]:
    """Cut the longest known token from the left, again and again."""
    numbers = {spelling: token for token, spelling in reversed(list(enumerate(spelled(merges))))}
    data, tokens = text.encode(), []
    while data:
        size = next(size for size in range(len(data), 0, -1) if data[:size] in numbers)
        tokens.append(numbers[data[:size]])
        data = data[size:]
    return tokens


@encode.misconception(_("a search for the longest token at each place, instead of the merges in their order"))
def longest_match(text: str, merges: list[Pair]) -> list[int]:
    return _encoded_longest(text, merges)


@encode.misconception(_("merges that are made from the last to the first"))
def last_merge_first(text: str, merges: list[Pair]) -> list[int]:
    tokens = list(text.encode())
    for new, pair in reversed(list(enumerate(merges, start=BYTES))):
        tokens = merged(tokens, pair, new)
    return tokens


@encode.misconception(_("merges from left to right, whichever fits next, without a look at their rank"))
def leftmost_merge_first(text: str, merges: list[Pair]) -> list[int]:
    ranks = {pair: new for new, pair in enumerate(merges, start=BYTES)}
    tokens = list(text.encode())
    while fitting := [place for place, pair in enumerate(pairwise(tokens)) if pair in ranks]:
        place = fitting[0]
        tokens[place : place + 2] = [ranks[tokens[place], tokens[place + 1]]]
    return tokens


@encode.misconception(_("a choice of the merge whose pair is most frequent in the text, without a look at its rank"))
def most_frequent_first(text: str, merges: list[Pair]) -> list[int]:
    ranks = {pair: new for new, pair in enumerate(merges, start=BYTES)}
    tokens = list(text.encode())
    while fitting := Counter(pair for pair in pairwise(tokens) if pair in ranks):
        best = max(fitting, key=lambda pair: fitting[pair])
        tokens = merged(tokens, best, ranks[best])
    return tokens


@encode.misconception(
    _("encoding that makes no merge at all, as where the list that `merge_pair` returns is not kept: "
      "`tokens = merge_pair(...)`"),
)  # fmt: skip
def result_dropped(text: str, merges: list[Pair]) -> list[int]:
    return list(text.encode())


@encode.misconception(_("tokens for merges that are numbered from 0, although 0 to 255 are the bytes"))
def numbered_from_0(text: str, merges: list[Pair]) -> list[int]:
    tokens = list(text.encode())
    for new, pair in enumerate(merges):
        tokens = merged(tokens, pair, new)
    return tokens


@encode.misconception(_("characters' code points in place of the bytes of UTF-8"))
def code_points(text: str, merges: list[Pair]) -> list[int]:
    tokens = [ord(character) for character in text]
    for new, pair in enumerate(merges, start=BYTES):
        tokens = merged(tokens, pair, new)
    return tokens


@encode.misconception(_("each merge made in one place only, the first"))
def merged_in_one_place(text: str, merges: list[Pair]) -> list[int]:
    tokens = list(text.encode())
    for new, pair in enumerate(merges, start=BYTES):
        tokens = first_place_only(tokens, pair, new)
    return tokens


@encode.misconception(_("merges that are made twice in `aaa`, with the middle token used for both"))
def encodes_overlapping(text: str, merges: list[Pair]) -> list[int]:
    tokens = list(text.encode())
    for new, pair in enumerate(merges, start=BYTES):
        tokens = overlapping(tokens, pair, new)
    return tokens


@encode.misconception(_("encoding that stops at the first merge that does not occur in the text"))
def stops_early(text: str, merges: list[Pair]) -> list[int]:
    tokens = list(text.encode())
    for new, pair in enumerate(merges, start=BYTES):
        if pair not in pairwise(tokens):
            break
        tokens = merged(tokens, pair, new)
    return tokens


@encode.misconception(_("encoding of a text that was normalised before, so that two spellings of `ü` become one"))
def normalised(text: str, merges: list[Pair]) -> list[int]:
    return encoded(unicodedata.normalize("NFC", text), merges)


@encode.misconception(_("encoding of a text that has lost its invisible characters"))
def invisible_dropped(text: str, merges: list[Pair]) -> list[int]:
    return encoded("".join(one for one in text if unicodedata.category(one) != "Cf"), merges)


@encode.misconception(_("encoding of a text whose spaces at the ends were stripped"))
def stripped(text: str, merges: list[Pair]) -> list[int]:
    return encoded(text.strip(), merges)


# decode

decode = Check(
    UNIT,
    "decode",
    title=_("Decode tokens"),
    hints=(
        _("Which bytes does token 256 stand for? And token 300, if its pair holds tokens above 255 too?"),
        _(
            "Build a list of what each token stands for: 256 single bytes, then, for each merge, the bytes of its two "
            "tokens side by side. Turn bytes into text once, at the end."
        ),
        _(
            "`vocabulary = [bytes([byte]) for byte in range(256)]`, then "
            '`vocabulary.append(vocabulary[left] + vocabulary[right])` for each merge, and `b"".join(...)` followed by '
            '`.decode(errors="replace")`.'
        ),
    ),
)


def _require_decoded(trial: Trial, answer: Handle, tokens: list[int], merges: list[Pair], message: str) -> None:
    vocabulary = spelled(merges)
    wanted = b"".join(vocabulary[token] for token in tokens).decode(errors="replace")
    trial.equal(answer(tokens, merges), wanted, message)


@decode.criterion(
    _("the text comes back"),
    points=0.25,
    why=_("What a model writes are tokens. Somebody has to turn them into text again."),
)
def decodes(trial: Trial, answer: Handle) -> None:
    for length in (1, 2, 6):
        words, rest, merges = _side_by_side(trial.rng)
        tokens = encoded(_sentence(trial.rng, [words[0], *words, rest], length), merges)
        _require_decoded(trial, answer, tokens, merges, _("These tokens stand for another text."))


@decode.criterion(
    _("tokens that are made of tokens that are made of tokens"),
    points=0.5,
    why=_("Late merges join what early ones have made; a token can go back over many steps to its bytes."),
)
def decodes_nested(trial: Trial, answer: Handle) -> None:
    def draw(rng: Any, size: int) -> tuple[list[int], list[Pair]]:
        merges = _any_merges(rng, "".join(_letters_apart(rng, 3)), size)
        return [BYTES + int(rng.integers(size)) for _ in range(1 + size % 3)], merges

    for tokens, merges in trial.cases(draw, 8):
        message = _("A token stands for the bytes of both its parts, in order, and a part may have parts itself.")
        _require_decoded(trial, answer, tokens, merges, message)
    words, merges = _language(trial.rng, merges=40)
    tokens = encoded(_sentence(trial.rng, words, 6), merges)
    _require_decoded(trial, answer, tokens, merges, _("These tokens stand for another text."))


@decode.criterion(
    _("characters whose bytes lie in several tokens"),
    points=0.25,
    why=_("Half an `ü` is no character. Put the bytes together first, then read them as text."),
)
def decodes_split_characters(trial: Trial, answer: Handle) -> None:
    umlauts, emoji = (list(map(str, trial.rng.permutation(list(some))[:3])) for some in (_UMLAUTS, _EMOJI))
    for characters in (umlauts, emoji, [*umlauts, *emoji]):
        data = "".join(characters).encode()
        # A merge across the border of two characters: neither of its halves nor itself is text.
        border = len(characters[0].encode())
        for merges in ([], [(data[border - 1], data[border])]):
            tokens = encoded("".join(characters), merges)
            _require_decoded(trial, answer, tokens, merges, _("Bytes of one character may lie in different tokens."))


@decode.criterion(
    _("zero-width characters, spaces at the ends, and nothing at all"),
    points=0.25,
    why=_("A tokenizer gives back what it got, to the byte. Only then can a program rely on it."),
)
def decodes_the_ends(trial: Trial, answer: Handle) -> None:
    words, _rest, merges = _side_by_side(trial.rng)
    zero_width = "".join(str(character) for character in trial.rng.permutation(list(_ZERO_WIDTH))[:2])
    for text in (
        f" {words[0]}{zero_width}", f"\n {words[1]}  \r\n", zero_width, f"\ufeff{words[2]}", "u\u0308", "\x00", "",
    ):  # fmt: skip
        _require_decoded(trial, answer, encoded(text, merges), merges, _("Give back every character, and no other."))


@decode.criterion(
    _("bytes that are no text become �, and nothing else is lost"),
    points=0.25,
    why=_("A reply that is cut off after so many tokens can end inside a character. That is no reason to crash."),
)
def decodes_broken_bytes(trial: Trial, answer: Handle) -> None:
    words, _rest, merges = _side_by_side(trial.rng)
    message = _('What is no valid UTF-8 becomes the replacement character, as with `errors="replace"`.')
    for text, kept in ((f"{words[0]} 🔧", -1), (f"{words[1]} ü", -1), ("🚰", 1), ("ß", 1)):
        tokens = encoded(text, merges)
        cut = tokens[:kept] if kept < 0 else tokens[kept:]
        _require_decoded(trial, answer, cut, merges, message)
    for size in (1, 3, 30):
        tokens = [int(token) for token in trial.rng.integers(BYTES + len(merges), size=size)]
        _require_decoded(trial, answer, [ord("<"), *tokens, ord(">")], merges, message)
    _require_decoded(trial, answer, list(range(BYTES)), [], message)


def _joined(tokens: list[int], merges: list[Pair]) -> bytes:
    vocabulary = spelled(merges)
    return b"".join(vocabulary[token] for token in tokens)


@decode.misconception(_("decoding token by token, which breaks characters whose bytes lie in several tokens"))
def token_by_token(tokens: list[int], merges: list[Pair]) -> str:
    return "".join(spelled(merges)[token].decode(errors="replace") for token in tokens)


@decode.misconception(_("decoding that raises an exception at bytes that are no text"))
def strict(tokens: list[int], merges: list[Pair]) -> str:
    return _joined(tokens, merges).decode()


@decode.misconception(_("decoding that silently drops bytes that are no text"))
def dropping(tokens: list[int], merges: list[Pair]) -> str:
    return _joined(tokens, merges).decode(errors="ignore")


@decode.misconception(_("one character for each byte, as if the text were Latin-1 and not UTF-8"))
def latin_1(tokens: list[int], merges: list[Pair]) -> str:
    return _joined(tokens, merges).decode("latin-1")


@decode.misconception(
    _("tokens that are taken apart once, and whose parts are left out where they are tokens above 255")
)
def taken_apart_once(tokens: list[int], merges: list[Pair]) -> str:
    parts = [part for token in tokens for part in (merges[token - BYTES] if token >= BYTES else [token])]
    return bytes(part for part in parts if part < BYTES).decode(errors="replace")


@decode.misconception(
    _("tokens that are taken apart once, so that their parts may still be tokens above 255, which are no bytes"),
)
def one_level_only(tokens: list[int], merges: list[Pair]) -> str:
    parts = [part for token in tokens for part in (merges[token - BYTES] if token >= BYTES else [token])]
    return bytes(parts).decode(errors="replace")


@decode.misconception(_("a token whose two parts are put together in the wrong order"))
def parts_swapped(tokens: list[int], merges: list[Pair]) -> str:
    return _joined(tokens, [(right, left) for left, right in merges]).decode(errors="replace")


@decode.misconception(_("decoding of a text whose spaces at the ends were stripped"))
def decodes_stripped(tokens: list[int], merges: list[Pair]) -> str:
    return _joined(tokens, merges).decode(errors="replace").strip()


# tokens_per_word

tokens_per_word = Check(
    UNIT,
    "tokens_per_word",
    title=_("Tokens per word, and what they cost"),
    hints=(
        _("Three numbers are enough: how many tokens, how many words, and what a token costs."),
        _(
            "Count the tokens of each message as a whole, and add up over all messages before you divide. Words are "
            "what `str.split()` returns. The price is for a million tokens."
        ),
        _(
            "`tokens = sum(len(encode(message)) for message in messages)`, the words likewise with "
            "`len(message.split())`; `tokens * price / 1_000_000` is a `Decimal` already."
        ),
    ),
)

_MILLION = 1_000_000


def _measured(trial: Trial, answer: Handle, messages: list[str], merges: list[Pair], price: Decimal) -> tuple[Any, Any]:
    with trial.comparing(_with_float_ratio):
        got = answer(messages, lambda text: encoded(str(text), merges), price)
    trial.is_a(got, (tuple, list))
    message = _("Return two things: the tokens per word, and the cost.")
    trial.require(len(got) == 2, message, expected="tuple[float, Decimal]")
    return got[0], got[1]


def _with_float_ratio(outcome: Any) -> Any:
    """Return what came back with a float where the ratio is an integer (0, say), which is the same mistake or none."""
    if type(outcome) is tuple and len(outcome) == 2 and type(outcome[0]) is int:
        return float(outcome[0]), outcome[1]
    return outcome


def _require_ratio(
    trial: Trial,
    answer: Handle,
    messages: list[str],
    merges: list[Pair],
    message: str,
    *,
    price: Decimal | None = None,
) -> Any:
    """Fail unless the tokens per word are right; return the cost, which is another criterion's matter."""
    ratio, cost = _measured(trial, answer, messages, merges, price or _price(trial.rng))
    tokens = sum(len(encoded(text, merges)) for text in messages)
    words = sum(len(text.split()) for text in messages)
    trial.close(ratio, tokens / words if words else 0.0, message)
    return cost


def _price(rng: Any) -> Decimal:
    return Decimal(int(rng.integers(5, 400))) / 100


@tokens_per_word.criterion(
    _("how many tokens a word takes"),
    points=0.5,
    why=_("This number says how well a tokenizer fits a language: the nearer to one, the better."),
)
def measures(trial: Trial, answer: Handle) -> None:
    for length in (1, 3, 9):
        words, merges = _language(trial.rng)
        message = _("Divide the number of tokens by the number of words.")
        _require_ratio(trial, answer, [_sentence(trial.rng, words, length)], merges, message)


def _counted_apart(rng: Any, count: int) -> tuple[list[str], list[Pair], int]:
    """Draw messages, merges and their number of tokens: joined by spaces, they have another, run together the same."""
    while True:
        words, merges = _language(rng)
        messages = [_sentence(rng, words, 3 + count) for _ in range(count)]
        tokens = sum(len(encoded(text, merges)) for text in messages)
        spaced, together = (len(encoded(glue.join(messages), merges)) for glue in (" ", ""))
        if together == tokens and (spaced != tokens or count == 1):
            return messages, merges, tokens


@tokens_per_word.criterion(
    _("what the messages cost, to the last digit"),
    points=0.25,
    why=_("Prices are for a million tokens. A `Decimal` keeps what a `float` would round."),
)
def costs(trial: Trial, answer: Handle) -> None:
    # A price such as 0.075, and one that was converted from another currency: no float has all of its digits.
    short, long = (int(trial.rng.integers(least, 4 * least)) | 1 for least in (1_000, 10**18))
    for length, price in ((1, Decimal(short) / 1_000), (4, Decimal(long) / 10**18)):
        messages, merges, tokens = _counted_apart(trial.rng, length)
        _ratio, cost = _measured(trial, answer, messages, merges, price)
        exact = tokens * price / _MILLION
        trial.is_a(cost, Decimal)
        message = _("{tokens} tokens at {price} dollars a million cost something else.")
        if cost.is_finite() and abs(cost - exact) < exact / 10**9:
            message = _(
                "That is right but for the last digits: somewhere a float came in. Calculate with `price` itself."
            )
        trial.equal(cost, exact, message, tokens=tokens, price=str(price))


@tokens_per_word.criterion(
    _("long messages weigh more than short ones"),
    points=0.25,
    why=_("The bill is for all tokens together: each weighs the same, whatever message it stands in."),
)
def weighs_messages(trial: Trial, answer: Handle) -> None:
    for count in (2, 5):
        words, merges = _language(trial.rng)
        short = [_word(trial.rng, "xyzvw") for _ in range(count)]
        messages = [*short, _sentence(trial.rng, words, 15), *short]  # the same message again counts again
        message = _("Add up the tokens of all messages and the words of all messages, and divide once.")
        _require_ratio(trial, answer, messages, merges, message)


@tokens_per_word.criterion(
    _("messages are encoded as they are, each by itself"),
    points=0.25,
    why=_("A word and the space before it are often one token. Cut at the spaces, a text has other tokens."),
)
def encodes_whole_messages(trial: Trial, answer: Handle) -> None:
    for count in (1, 3):
        words, merges = _language(trial.rng, merges=40)
        # Merges that reach from the end of one message to the start of the next, if somebody joins them.
        first, last = (str(letter) for letter in trial.rng.permutation(list("cfhjqvwxyz"))[:2])  # in no word
        starts = [f"{first}{_sentence(trial.rng, words, 5)}{last}" for _ in range(count)]
        ends = [(ord(last), ord(first)), (ord(" "), ord(words[0][0])), (ord("\n"), ord(words[0][0]))]
        gaps = [f" {start}\n{words[0]}  {words[1]}\t{words[2]}" for start in starts]
        message = _("Hand each message to `encode` whole, as it is sent; words are what `str.split()` returns.")
        for messages in (starts, gaps):
            _require_ratio(trial, answer, messages, [*ends, *_shifted(merges, len(ends))], message)


def _shifted(merges: list[Pair], by: int) -> list[Pair]:
    """Move merges back by some places, so that others can go before them."""
    left_right = [tuple(token + by if token >= BYTES else token for token in pair) for pair in merges]
    return [(left, right) for left, right in left_right]


@tokens_per_word.criterion(
    _("umlauts, emoji, zero-width characters, and messages without a word"),
    points=0.25,
    why=_("Real messages hold all of them, and an empty one must not stop the monthly report."),
)
def measures_anything(trial: Trial, answer: Handle) -> None:
    one = str(trial.rng.permutation(list("äöü"))[0])
    words, merges = _language(trial.rng, extra=f"f{one}r gr{one}ß 🔧")
    emoji = str(trial.rng.permutation(list(_EMOJI))[0])
    message = _("Umlauts and emoji belong to words, a zero-width character parts none, a non-breaking space does.")
    for written in (f"f{one}r {words[-1]}{emoji} {emoji}", f"gr{one}ß\u200b{one}", f"5\u00a0kW {words[-1]}"):
        _require_ratio(trial, answer, [written], merges, message)
    # At this price a token costs two cents, and who rounds has another criterion to fail, as has who gets the price
    # of a token wrong: it only has to be the same where there is no word.
    price = Decimal(20_000)
    message = _("A message without a word has no share in the words.")
    own = _require_ratio(trial, answer, ["", words[-2]], merges, message, price=price)
    count = len(encoded(words[-2], merges))
    for messages in ([], [""], ["", " \n"]):
        message = _("Without a single word, tokens per word are 0.0.")
        cost = _require_ratio(trial, answer, messages, merges, message, price=price)
        tokens = sum(len(encoded(text, merges)) for text in messages)
        message = _("Every token is paid for, at the same price where there is no word; no tokens cost nothing.")
        same = bool(cost) == bool(tokens) and _are_as(cost, own, tokens, count)
        trial.require(same, message, expected=(0.0, tokens * price / _MILLION))


def _are_as(one: Any, other: Any, first: int, second: int) -> bool:
    """Return whether two costs are as `first` to `second`, whether they are decimals or not."""
    numbers = all(isinstance(cost, (int, float, Decimal)) for cost in (one, other))
    return numbers and math.isclose(float(one) * second, float(other) * first)


def _counting(
    messages: list[str],
    encode: Callable[[str], list[int]],
    price: Decimal,
    *,
    split: Callable[[str], list[str]] = str.split,
    per: Any = _MILLION,
) -> tuple[float, Any]:
    """The measure with faults on demand."""
    tokens = sum(len(encode(message)) for message in messages)
    words = sum(len(split(message)) for message in messages)
    return (tokens / words if words else 0.0), tokens * price / per


@tokens_per_word.misconception(_("counting word by word, which loses the spaces and changes the tokens"))
def word_by_word(messages: list[str], encode: Callable[[str], list[int]], price: Decimal) -> tuple[float, Decimal]:
    words = [word for message in messages for word in message.split()]
    tokens = sum(len(encode(word)) for word in words)
    return (tokens / len(words) if words else 0.0), tokens * price / _MILLION


@tokens_per_word.misconception(_("a mean over messages, in which a short message weighs as much as a long one"))
def mean_of_means(messages: list[str], encode: Callable[[str], list[int]], price: Decimal) -> tuple[float, Decimal]:
    encoded_messages = [(len(encode(message)), len(message.split())) for message in messages]
    ratios = [tokens / words for tokens, words in encoded_messages if words]
    cost = sum(tokens for tokens, _words in encoded_messages) * price / _MILLION
    return (sum(ratios) / len(ratios) if ratios else 0.0), cost


@tokens_per_word.misconception(_("a mean over messages, in which a short message weighs as much as a long one"))
def mean_then_tokens(messages: list[str], encode: Callable[[str], list[int]], price: Decimal) -> tuple[float, Decimal]:
    ratios = [len(encode(message)) / len(message.split()) for message in messages]
    return sum(ratios) / len(ratios), sum(len(encode(message)) for message in messages) * price / _MILLION


@tokens_per_word.misconception(_("a cost of nothing where there is no word, although there are tokens"))
def wordless_for_free(messages: list[str], encode: Callable[[str], list[int]], price: Decimal) -> tuple[float, Decimal]:
    ratio, cost = _counting(messages, encode, price)
    return ratio, cost if ratio else Decimal(0)


@tokens_per_word.misconception(_("words cut at every single space, so that two spaces in a row make an empty word"))
def cut_at_single_spaces(
    messages: list[str], encode: Callable[[str], list[int]], price: Decimal
) -> tuple[float, Decimal]:
    return _counting(messages, encode, price, split=lambda message: message.split(" "))


@tokens_per_word.misconception(_("all messages joined into one text before they are encoded"))
def messages_joined(messages: list[str], encode: Callable[[str], list[int]], price: Decimal) -> tuple[float, Decimal]:
    return _counting([" ".join(messages)], encode, price)


@tokens_per_word.misconception(_("all messages joined into one text before they are encoded"))
def messages_on_lines(messages: list[str], encode: Callable[[str], list[int]], price: Decimal) -> tuple[float, Decimal]:
    return _counting(["\n".join(messages)], encode, price)


@tokens_per_word.misconception(_("all messages joined into one text before they are encoded"))
def messages_run_together(
    messages: list[str], encode: Callable[[str], list[int]], price: Decimal
) -> tuple[float, Decimal]:
    words = [word for message in messages for word in message.split()]
    return _counting(["".join(messages)], encode, price, split=lambda _text: words)


@tokens_per_word.misconception(_("all messages joined into one text before they are encoded"))
def messages_and_words_run_together(
    messages: list[str], encode: Callable[[str], list[int]], price: Decimal
) -> tuple[float, Decimal]:
    return _counting(["".join(messages)], encode, price)


@tokens_per_word.misconception(_("words per token instead of tokens per word"))
def upside_down(messages: list[str], encode: Callable[[str], list[int]], price: Decimal) -> tuple[float, Decimal]:
    ratio, cost = _counting(messages, encode, price)
    return (1 / ratio if ratio else 0.0), cost


@tokens_per_word.misconception(_("characters counted in place of tokens"))
def characters_counted(
    messages: list[str], encode: Callable[[str], list[int]], price: Decimal
) -> tuple[float, Decimal]:
    return _counting(messages, lambda message: [ord(character) for character in message], price)


@tokens_per_word.misconception(_("a price for a thousand tokens; it is for a million"))
def for_a_thousand(messages: list[str], encode: Callable[[str], list[int]], price: Decimal) -> tuple[float, Decimal]:
    return _counting(messages, encode, price, per=1_000)


@tokens_per_word.misconception(_("the price of a million tokens for each single token"))
def for_each(messages: list[str], encode: Callable[[str], list[int]], price: Decimal) -> tuple[float, Decimal]:
    return _counting(messages, encode, price, per=1)


@tokens_per_word.misconception(
    _("a calculation that mixes a `Decimal` with a float such as `1e6`: Python refuses that")
)
def decimal_by_float(messages: list[str], encode: Callable[[str], list[int]], price: Decimal) -> tuple[float, Decimal]:
    return _counting(messages, encode, price, per=1e6)


@tokens_per_word.misconception(_("a `Decimal` made of a float, which brings the float's rounding with it"))
def float_in_between(messages: list[str], encode: Callable[[str], list[int]], price: Decimal) -> tuple[float, Decimal]:
    ratio, cost = _counting(messages, encode, price)
    return ratio, Decimal(float(cost))


@tokens_per_word.misconception(_("a cost that is rounded to cents; a message costs much less than one"))
def cost_rounded(messages: list[str], encode: Callable[[str], list[int]], price: Decimal) -> tuple[float, Decimal]:
    ratio, cost = _counting(messages, encode, price)
    return ratio, round(cost, 2)


@tokens_per_word.misconception(_("tokens per word that are rounded to two digits"))
def ratio_rounded(messages: list[str], encode: Callable[[str], list[int]], price: Decimal) -> tuple[float, Decimal]:
    ratio, cost = _counting(messages, encode, price)
    return round(ratio, 2), cost


@tokens_per_word.misconception(_("a cost that is a float; money needs exact decimals"))
def float_cost(messages: list[str], encode: Callable[[str], list[int]], price: Decimal) -> tuple[float, float]:
    ratio, cost = _counting(messages, encode, price)
    return ratio, float(cost)


@tokens_per_word.misconception(_("a division by the number of words, even where there is none"))
def divided_by_nothing(
    messages: list[str], encode: Callable[[str], list[int]], price: Decimal
) -> tuple[float, Decimal]:
    tokens = sum(len(encode(message)) for message in messages)
    return tokens / sum(len(message.split()) for message in messages), tokens * price / _MILLION


@tokens_per_word.misconception(_("a division by the number of words, even where there is none"))
def guarded_by_the_list_alone(
    messages: list[str], encode: Callable[[str], list[int]], price: Decimal
) -> tuple[float, Decimal]:
    return divided_by_nothing(messages, encode, price) if messages else (0.0, Decimal(0))
