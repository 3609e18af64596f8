"""Checks of the unit bert: word pieces, attention, pooling, similarity, labels described in words."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import lazy_loader

from kicourse.checks import Check, Handle, Trial, _, as_tuple

np = lazy_loader.load("numpy")

UNIT = "bert"

Array = Any  # a NumPy array; importing a checks module imports no NumPy


# ---------------------------------------------------------------- wordpiece

wordpiece = Check(
    UNIT,
    "wordpiece",
    title=_("Cut words into pieces"),
    hints=(
        _("Take one word. Where does its first piece begin, and which end do you try first? What is different about "
          "every later piece?"),
        _("For each word of `words(text)` keep a `start`. Try the ends from the end of the word down to `start + 1` "
          "and take the first one that the vocabulary knows, with `##` before it if `start` is not 0. Go on where it "
          "ends. If no end fits, forget what you found of this word: it is one `[UNK]`, as is a word of more than 100 "
          "characters."),
        _("Inside `while start < len(word)`: `mark = \"##\" if start else \"\"`; `for end in range(len(word), start, "
          "-1): if mark + word[start:end] in vocabulary: ...; break`. An `else` after the `for` runs when nothing was "
          "found."),
    ),
)  # fmt: skip

UNKNOWN = "[UNK]"
LONGEST_WORD = 100


def _library(vocabulary: list[str]) -> Any:
    """Return BERT's own tokenizer over another vocabulary: the oracle."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    numbers = {piece: number for number, piece in enumerate([UNKNOWN, *vocabulary])}
    library = Tokenizer(models.WordPiece(numbers, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD))
    library.normalizer = normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return library


def _split(text: str) -> list[str]:
    """Return the words of a text as BERT sees them."""
    library = _library([])
    normal = library.normalizer.normalize_str(text)
    return [word for word, _place in library.pre_tokenizer.pre_tokenize_str(normal)]


def _pieces(text: str, vocabulary: list[str]) -> list[str]:
    tokens: list[str] = _library(vocabulary).encode(text).tokens
    return tokens


def _made_up(rng: Any, syllables: int = 3) -> str:
    """Make up a word that no vocabulary has."""
    return "".join("bdfgklmnprst"[rng.integers(12)] + "aeiou"[rng.integers(5)] for _ in range(syllables))


def _ab(rng: Any, length: int) -> str:
    return "".join("ab"[letter] for letter in rng.integers(2, size=length))


def _require_pieces(trial: Trial, answer: Handle, text: str, vocabulary: list[str], message: str) -> None:
    got = answer(text, set(vocabulary))
    trial.is_a(got, list)
    trial.equal(got, _pieces(text, vocabulary), message, unknown=UNKNOWN)


@wordpiece.criterion(
    _("a word that the vocabulary knows is one piece, an unknown one is `[UNK]`"),
    points=0.5,
    why=_("Frequent words have a number of their own. For what it does not know at all, BERT has one number only."),
)
def whole_words(trial: Trial, answer: Handle) -> None:
    for count in (1, 3, 5):
        known = [_made_up(trial.rng) for _number in range(count)]
        said = [*(known[place] for place in trial.rng.permutation(count)), "x", known[0]]
        message = _("Each of these words is in the vocabulary, apart from `x`, which becomes {unknown}.")
        _require_pieces(trial, answer, " ".join(said), known, message)


@wordpiece.criterion(
    _("each piece is the longest that fits, from left to right"),
    points=0.5,
    why=_("A vocabulary allows many ways to cut a word. The model was trained on one of them, and knows no other."),
)
def longest_first(trial: Trial, answer: Handle) -> None:
    message = _("Even if ## is left aside, these are not the pieces. At each place the longest that fits is taken.")

    def draw(rng: Any, size: int) -> tuple[str, list[str]]:
        longer = {_ab(rng, int(length)) for length in rng.integers(2, 5, size=10)}
        # Every piece may begin a word or continue it: the mark is another criterion's affair.
        return _ab(rng, 1 + size), ["a", "b", "##a", "##b", *longer, *(f"##{piece}" for piece in longer)]

    for word, vocabulary in trial.cases(draw, 12):
        got = answer(word, set(vocabulary))
        trial.is_a(got, list)
        wanted = _pieces(word, vocabulary)
        trial.equal([_unmarked(piece) for piece in got], [_unmarked(piece) for piece in wanted], message)


def _unmarked(piece: Any) -> Any:
    return piece.removeprefix("##") if isinstance(piece, str) else piece


@wordpiece.criterion(
    _("pieces inside a word are marked with `##`, and are looked up with the mark"),
    points=0.5,
    why=_("`pump` at the beginning of a word and `##pump` inside one are two entries with two numbers, and one of them "
          "may be missing."),
)  # fmt: skip
def marked(trial: Trial, answer: Handle) -> None:
    for _number in range(4):
        one, other, third = (_made_up(trial.rng, 2) for _word in range(3))
        while other[0] in third:  # or a shorter piece would fit as well, and that is another criterion's affair
            other = _made_up(trial.rng, 2)
        vocabulary = [one, other, f"##{other}", third, *(f"##{letter}" for letter in sorted(set(third)))]
        message = _("The vocabulary has some pieces only for the beginning of a word, others only for the inside.")
        for word in (one + other, other + other, one + third, third + other + third):
            _require_pieces(trial, answer, word, vocabulary, message)


@wordpiece.criterion(
    _("a word that cannot be cut to its end is one `[UNK]`"),
    points=0.5,
    why=_(
        "Half a word and a gap would be another word. With one `[UNK]` the model at least knows that it does not know."
    ),
)
def unknown(trial: Trial, answer: Handle) -> None:
    message = _("A word with a part that no piece fits is one {unknown}; the other words stay as they are.")
    one, other = (_made_up(trial.rng, 2) for _word in range(2))
    vocabulary = [one, f"##{one}", other, f"##{other}"]
    for word in (f"{one}x{other}", f"{one}x", f"x{one}", f"{one}{other}🔧", f"{one}{one[:2]}"):
        _require_pieces(trial, answer, f"{other} {word} {one}", vocabulary, message)
    message = _("The longest piece that fits is taken. Where no piece fits after it, the word is one {unknown}, and "
                "nobody looks whether it could have been cut otherwise.")  # fmt: skip
    a, b, c, d, e, f = (str(letter) for letter in trial.rng.permutation(list("bdfgklmnprst"))[:6])
    # Whoever takes the shortest piece, or begins at the end, gets stuck as well: that is another criterion's affair.
    vocabulary = [a + b, a + b + c, f"##{c}", f"##{c}{d}{e}{f}", f"##{b}{c}{d}{e}{f}"]
    _require_pieces(trial, answer, a + b + c + d + e + f, vocabulary, message)


@wordpiece.criterion(
    _("a word of more than 100 characters is one `[UNK]`"),
    points=0.25,
    why=_("The work of the search grows with the square of a word's length, and somebody will send you a megabyte "
          "without a space."),
)  # fmt: skip
def too_long(trial: Trial, answer: Handle) -> None:
    message = _("100 characters are cut, 101 are one {unknown}.")
    one, longest = _made_up(trial.rng, 2), _made_up(trial.rng, LONGEST_WORD // 2)
    for more in (1, 0, 99 * LONGEST_WORD):
        word = longest + "y" * more
        _require_pieces(trial, answer, f"{one} {word} {one}", [one, longest, "##y"], message)


_FRAGMENTS = (
    "Die PUMPE", "drückt", "Öl,", "Größe", "12 m³/min", "5€", "HP-2041!", "naïve", "a\u200bb", "u\u0308ber", "„Lärm“",
    "valve_7", "(3,8", "20°C)", "don't", "🔧", "so…fort", "Weiß\u00adblech", "x\u00a0y", "\t", "Straße;", "C#", "50%",
)  # fmt: skip


@wordpiece.criterion(
    _("the text is normalised and split as BERT does it"),
    points=0.25,
    why=_("The vocabulary was made from text in this form. `Öl` is not in it, and `ol` is: a tokenizer that forgets a "
          "step finds `[UNK]` where the model has a word."),
)  # fmt: skip
def normalised(trial: Trial, answer: Handle) -> None:
    chosen = ["Die PUMPE", "drückt", "Öl,", "HP-2041!", *trial.rng.permutation(_FRAGMENTS)]
    many = ", ".join(trial.rng.permutation(list("abcdefghij")))  # 19 words, in less than 100 characters
    for text in [*(" ".join(chosen[place : place + 4]) for place in range(0, len(chosen), 4)), many]:
        message = _("Every word of this text is in the vocabulary, in the form in which `words` gives it.")
        _require_pieces(trial, answer, text, sorted(set(_split(text))), message)
    for blank in ("", "\u200b \t"):
        _require_pieces(trial, answer, blank, [], _("A text without a word has no pieces: an empty list."))


def _cut(word: str, vocabulary: Any, longest: int = LONGEST_WORD) -> list[str]:
    """Cut one word rightly."""
    found: list[str] = []
    start = 0
    while start < len(word):
        mark = "##" if start else ""
        end = next((end for end in range(len(word), start, -1) if mark + word[start:end] in vocabulary), None)
        if end is None or len(word) > longest:
            return [UNKNOWN]
        found.append(mark + word[start:end])
        start = end
    return found


def _by_words(text: str, vocabulary: Any, cut: Callable[[str, Any], list[str]], split: Any = _split) -> list[str]:
    return [piece for word in split(text) for piece in cut(word, vocabulary)]


@wordpiece.misconception(_("pieces of a word that ends in [UNK], where the whole word is one [UNK]"))
def partial_pieces(text: str, vocabulary: Any) -> list[str]:
    def cut(word: str, vocabulary: Any) -> list[str]:
        if len(word) > LONGEST_WORD:
            return [UNKNOWN]
        for end in range(len(word), 0, -1):
            head = _cut(word[:end], vocabulary)
            if head != [UNKNOWN]:
                return head + [UNKNOWN] * (end < len(word))
        return [UNKNOWN]

    return _by_words(text, vocabulary, cut)


@wordpiece.misconception(
    _("a `while` that never ends: after a hit `start` must move to `end`, and where no end fits, the loop must be left")
)
def never_ends(text: str, vocabulary: Any) -> list[str]:
    while any(_cut(word, vocabulary, 10**9) == [UNKNOWN] for word in _split(text)):
        time.sleep(0.01)
    return _by_words(text, vocabulary, _cut)


@wordpiece.misconception(_("pieces between [CLS] and [SEP], which are not added here"))
def with_special(text: str, vocabulary: Any) -> list[str]:
    return ["[CLS]", *_by_words(text, vocabulary, _cut), "[SEP]"]


@wordpiece.misconception(_("a list for each word, where one list of all pieces is wanted (`extend` for `append`)"))
def nested(text: str, vocabulary: Any) -> Any:
    return [_cut(word, vocabulary) for word in _split(text)]


@wordpiece.misconception(_("an [UNK] for each character that no piece fits"))
def unknown_characters(text: str, vocabulary: Any) -> list[str]:
    def cut(word: str, vocabulary: Any) -> list[str]:
        found: list[str] = []
        start = 0
        while start < len(word) <= LONGEST_WORD:
            mark = "##" if start else ""
            end = next((end for end in range(len(word), start, -1) if mark + word[start:end] in vocabulary), None)
            found.append(UNKNOWN if end is None else mark + word[start:end])
            start = end or start + 1
        return found or [UNKNOWN]

    return _by_words(text, vocabulary, cut)


@wordpiece.misconception(_("pieces inside a word without their ##"))
def marks_missing(text: str, vocabulary: Any) -> list[str]:
    return [_unmarked(piece) for piece in _by_words(text, vocabulary, _cut)]


@wordpiece.misconception(_("pieces inside a word that are looked up without ##, and get it afterwards"))
def marked_afterwards(text: str, vocabulary: Any) -> list[str]:
    def cut(word: str, vocabulary: Any) -> list[str]:
        unmarked = {piece for piece in vocabulary if not piece.startswith("##")}
        found = _cut(word, unmarked | {f"##{piece}" for piece in unmarked})
        return found

    return _by_words(text, vocabulary, cut)


@wordpiece.misconception(_("the shortest piece that fits, where it should be the longest"))
def shortest_first(text: str, vocabulary: Any) -> list[str]:
    def cut(word: str, vocabulary: Any) -> list[str]:
        found: list[str] = []
        if len(word) > LONGEST_WORD:
            return [UNKNOWN]
        start = 0
        while start < len(word):
            mark = "##" if start else ""
            ends = range(start + 1, len(word) + 1)
            end = next((end for end in ends if mark + word[start:end] in vocabulary), None)
            if end is None:
                return [UNKNOWN]
            found.append(mark + word[start:end])
            start = end
        return found

    return _by_words(text, vocabulary, cut)


@wordpiece.misconception(_("pieces that are looked for from the end of the word"))
def from_the_end(text: str, vocabulary: Any) -> list[str]:
    def cut(word: str, vocabulary: Any) -> list[str]:
        found: list[str] = []
        end = len(word)
        while end > 0 and len(word) <= LONGEST_WORD:
            begins = range(end)
            start = next((s for s in begins if ("##" if s else "") + word[s:end] in vocabulary), None)
            if start is None:
                return [UNKNOWN]
            found.insert(0, ("##" if start else "") + word[start:end])
            end = start
        return found or [UNKNOWN]

    return _by_words(text, vocabulary, cut)


@wordpiece.misconception(_("no limit on the length of a word"))
def no_limit(text: str, vocabulary: Any) -> list[str]:
    return _by_words(text, vocabulary, partial(_cut, longest=10**9))


@wordpiece.misconception(_("a word of exactly 100 characters taken for one that is too long (`>=` for `>`)"))
def too_long_at_hundred(text: str, vocabulary: Any) -> list[str]:
    return _by_words(text, vocabulary, partial(_cut, longest=LONGEST_WORD - 1))


@wordpiece.misconception(_("the limit of 100 characters applied to the whole text, not to each word"))
def text_too_long(text: str, vocabulary: Any) -> list[str]:
    return [UNKNOWN] if len(text) > LONGEST_WORD else _by_words(text, vocabulary, _cut)


@wordpiece.misconception(_("whole words only: a word that the vocabulary does not have is not cut"))
def never_cut(text: str, vocabulary: Any) -> list[str]:
    return _by_words(text, vocabulary, lambda word, vocabulary: [word if word in vocabulary else UNKNOWN])


@wordpiece.misconception(
    _("ends that stop one too early, so that no piece has a single character: the last end is `start + 1`")
)
def never_one_character(text: str, vocabulary: Any) -> list[str]:
    return _by_words(text, {piece for piece in vocabulary if len(_unmarked(piece)) > 1}, _cut)


@wordpiece.misconception(_("`text.split()` in place of `words(text)`"))
def plainly_split(text: str, vocabulary: Any) -> list[str]:
    return _by_words(text, vocabulary, _cut, str.split)


@wordpiece.misconception(_("a text that is split at white space only, so that commas and hyphens stick to the words"))
def white_space_only(text: str, vocabulary: Any) -> list[str]:
    def split(text: str) -> list[str]:
        normal: str = _library([]).normalizer.normalize_str(text)
        return normal.split()

    return _by_words(text, vocabulary, _cut, split)


@wordpiece.misconception(_("a text whose capitals and accents are left as they are"))
def not_normalised(text: str, vocabulary: Any) -> list[str]:
    def split(text: str) -> list[str]:
        return [word for word, _place in _library([]).pre_tokenizer.pre_tokenize_str(text)]

    return _by_words(text, vocabulary, _cut, split)


@wordpiece.misconception(_("a text in small letters that keeps its accents and umlauts"))
def lower_only(text: str, vocabulary: Any) -> list[str]:
    def split(text: str) -> list[str]:
        return [word for word, _place in _library([]).pre_tokenizer.pre_tokenize_str(text.lower())]

    return _by_words(text, vocabulary, _cut, split)


# ---------------------------------------------------------------- attention

attention = Check(
    UNIT,
    "attention",
    title=_("Attention with a mask"),
    hints=(
        _("Three steps: scores, weights, weighted mean. The mask belongs between the first two: a piece that must not "
          "be looked at needs a score so low that the softmax gives it nothing."),
        _("The mask says which *keys* may be looked at, so it belongs to the last axis of the scores: `mask[:, None, "
          "None, :]` has the shape [texts, 1, 1, pieces]. Subtract the largest score of each row before `np.exp`."),
        _("`scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])`; `scores = np.where(mask[:, None, "
          "None, :] == 1, scores, -np.inf)`; `powers = np.exp(scores - scores.max(axis=-1, keepdims=True))`. What "
          "makes each row of `powers` sum to one? The mean of the values with these weights is a product of matrices."),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class _Heads:
    """What attention is given: [texts, heads, tokens, head width], and the mask [texts, tokens]."""

    query: Array
    key: Array
    value: Array
    mask: Array

    @property
    def arguments(self) -> tuple[Array, Array, Array, Array]:
        return self.query, self.key, self.value, self.mask


def _draw_heads(
    rng: Any, texts: int, heads: int, tokens: int, width: int, *, spread: float = 1.0, lengths: Any = None
) -> _Heads:
    """Draw queries, keys and values; `lengths` says how many tokens of each text are no padding."""
    query, key, value = (rng.normal(size=(texts, heads, tokens, width)).astype(np.float32) for _ in range(3))
    counts = np.full(texts, tokens) if lengths is None else np.asarray(lengths)
    return _Heads(query * np.float32(spread), key, value, (np.arange(tokens) < counts[:, None]).astype(np.int64))


def _softmax(scores: Array, axis: int = -1) -> Array:
    with np.errstate(invalid="ignore"):  # a misconception may have a row of -inf
        powers = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def _scores(heads: _Heads, divisor: float | None = None) -> Array:
    width = heads.query.shape[-1]
    product = heads.query.astype(np.float64) @ heads.key.astype(np.float64).swapaxes(-1, -2)
    return product / (math.sqrt(width) if divisor is None else divisor)


def _on_keys(mask: Array) -> Array:
    return mask[:, None, None, :] == 1


def _attended(heads: _Heads) -> tuple[Array, Array]:
    """The oracle: return what attention hands on, and the weights. tests/course holds it against BERT's own layers."""
    weights = _softmax(np.where(_on_keys(heads.mask), _scores(heads), -np.inf))
    return weights @ heads.value, weights


def _require_attention(
    trial: Trial, answer: Handle, heads: _Heads, message: str, *, atol: float = 1e-4, finite: bool = True
) -> None:
    """Fail unless output and weights are right for the tokens that are no padding.

    Where they need not be `finite`, NaN is another criterion's affair.
    """
    got = as_tuple(answer.allowing_nonfinite()(*heads.arguments))
    trial.require(isinstance(got, tuple | list) and len(got) == 2, _("Return two arrays: the output and the weights."))
    real = heads.mask[:, None, :, None] == 1
    infinite = _("Among the {name} there is NaN or an infinity.")
    wrong = _("{about} The {name} are not right.")
    for name, found, wanted in zip((_("weights"), _("outputs")), got[::-1], _attended(heads)[::-1], strict=True):
        named = trial.text(name)
        trial.array(found, wanted.shape)
        trial.require(found.dtype.kind in "fiu", _("The {name} must be numbers."), name=named)
        if not np.isfinite(found).all():
            trial.require(not finite, infinite, name=named)
            return
        # What comes out at the place of padding is nobody's concern.
        one, other = (np.where(real, values, 0.0) for values in (found, wanted))
        trial.close(one, other, wrong, rtol=1e-3, atol=atol, name=named, about=trial.text(message))


@attention.criterion(
    _("each piece gets the mean of the values, weighted by the softmax of its scores"),
    points=0.5,
    why=_("This is attention: who fits better has more to say. The weights of a piece sum to one."),
)
def weighs(trial: Trial, answer: Handle) -> None:
    message = _("One text, one head, no padding; heads are one number wide, so scores are divided by 1.")
    for tokens in (2, 3, 6):
        _require_attention(trial, answer, _draw_heads(trial.rng, 1, 1, tokens, 1), message)


@attention.criterion(
    _("scores are divided by the square root of the head's width, in each text and head by itself"),
    points=0.5,
    why=_("A product of two vectors of d numbers grows with the square root of d. Not divided, the weights become too "
          "sharp; divided by the root of the whole model's width, too even."),
)  # fmt: skip
def scales(trial: Trial, answer: Handle) -> None:
    message = _("Several texts and heads, no padding.")
    # So that a mask whose axes are wrong fits as well: it is the next criterion's affair.
    for texts, heads, tokens, width in ((1, 2, 4, 9), (1, 3, 5, 4), (3, 3, 3, 16)):
        _require_attention(trial, answer, _draw_heads(trial.rng, texts, heads, tokens, width, spread=2.0), message)


@attention.criterion(
    _("padding gets no weight, and the other weights sum to one"),
    points=1,
    why=_("Padding is there so that texts of different length fit into one array. If it has a say, a text means "
          "something else beside a longer one."),
)  # fmt: skip
def hides_padding(trial: Trial, answer: Handle) -> None:
    message = _("Texts of different length: a piece must not look at padding, and looks at all else.")
    for texts, tokens in ((2, 2), (5, 6)):  # the first small enough to be read in a verdict
        heads = _draw_heads(trial.rng, texts, 1, tokens, 1, lengths=_lengths(trial.rng, texts, tokens))
        if texts > 2:  # padding may be anywhere
            heads = replace(heads, mask=trial.rng.permuted(heads.mask, axis=1))
        _require_attention(trial, answer, heads, message)
    # Now a score of -10, or 10 less than it was, would be the largest of all, and beside padding's all others vanish.
    message = _("The scores of real pieces are about −50 here, those of padding about 80, and still it gets no weight.")
    key = np.where(heads.mask[:, None, :, None] == 1, 0.1 * heads.key - 10, 16).astype(np.float32)
    low = replace(heads, query=np.full_like(heads.query, 5), key=key)
    _require_attention(trial, answer, low, message)
    message = _("The scores of real pieces are about −1,000 here, those of padding about 1,000, and still it gets no "
                "weight.")  # fmt: skip
    key = np.where(heads.mask[:, None, :, None] == 1, 0.1 * heads.key - 200, 200).astype(np.float32)
    _require_attention(trial, answer, replace(low, key=key), message, finite=False)
    # In double precision plain exponentials are finite here: what is NaN has its largest score from before the mask.
    message = _("The scores of real pieces are about −400 here, those of padding about 400, and still it gets no "
                "weight.")  # fmt: skip
    key = np.where(heads.mask[:, None, :, None] == 1, 0.1 * heads.key - 80, 80).astype(np.float64)
    double = _Heads(low.query.astype(np.float64), key, low.value.astype(np.float64), low.mask)
    _require_attention(trial, answer, double, message)
    # All scores are 0 here: by what they are divided is another criterion's affair.
    message = _("In every head, a piece must not look at padding.")
    several = _draw_heads(trial.rng, 3, 3, 4, 2, spread=0.0, lengths=_lengths(trial.rng, 3, 4))
    _require_attention(trial, answer, several, message)


def _lengths(rng: Any, texts: int, tokens: int) -> list[int]:
    """Draw how many tokens of each text are no padding: all of the first, not all of the others."""
    return [tokens, *(int(length) for length in rng.integers(1, tokens, size=texts - 1))]


@attention.criterion(
    _("large scores give no NaN"),
    points=0.5,
    why=_("`np.exp(1000)` is infinity, and infinity divided by infinity is NaN, from which no later layer recovers. "
          "Subtract the largest score of a row first: that changes no weight."),
)  # fmt: skip
def stays_finite(trial: Trial, answer: Handle) -> None:
    message = _("Scores from some −1,000 to some 1,000.")
    for tokens in (4, 6):
        drawn = _draw_heads(trial.rng, 1, 1, tokens, 1)
        # In some rows all scores are large, in others all are small: the sum of exponentials is infinite, or zero.
        query = np.where(np.arange(tokens) % 2, -1, 1) * trial.rng.uniform(800, 1200, size=tokens)
        key = trial.rng.permuted(np.linspace(0.6, 1.0, tokens))
        query, key = (values.reshape(drawn.key.shape).astype(np.float32) for values in (query, key))
        _require_attention(trial, answer, replace(drawn, query=query, key=key), message, atol=2e-3)


def _attending(
    query: Array,
    key: Array,
    value: Array,
    mask: Array,
    *,
    scores: Callable[[_Heads], Array] = _scores,
    weights: Callable[[Array, Array], Array] = lambda scores, mask: _softmax(np.where(_on_keys(mask), scores, -np.inf)),
) -> tuple[Array, Array]:
    """Attend rightly, apart from what a misconception changes."""
    found = weights(scores(_Heads(query, key, value, mask)), mask)
    return found @ value, found


@attention.misconception(
    _("scores divided by the square root of the whole model's width, not of one head's"), factory=True
)
def model_width() -> Any:
    return partial(
        _attending, scores=lambda heads: _scores(heads, math.sqrt(heads.query.shape[1] * heads.query.shape[-1]))
    )


@attention.misconception(_("scores that are not divided at all"), factory=True)
def not_scaled() -> Any:
    return partial(_attending, scores=lambda heads: _scores(heads, 1.0))


@attention.misconception(_("scores divided by the width, not by its square root"), factory=True)
def width_itself() -> Any:
    return partial(_attending, scores=lambda heads: _scores(heads, heads.query.shape[-1]))


@attention.misconception(_("scores divided by the square root of the number of pieces"), factory=True)
def token_count() -> Any:
    return partial(_attending, scores=lambda heads: _scores(heads, math.sqrt(heads.query.shape[-2])))


@attention.misconception(
    _("the square root of 32, where the width of the heads that come in is wanted (`query.shape[-1]`)"), factory=True
)
def width_written_down() -> Any:
    return partial(_attending, scores=lambda heads: _scores(heads, math.sqrt(32)))


@attention.misconception(
    _("keys whose wrong axes are swapped (`.T` turns all of them round): the last two are wanted"), factory=True
)
def turned_round() -> Any:
    return partial(
        _attending, scores=lambda heads: heads.query @ heads.key.T / np.float32(math.sqrt(heads.query.shape[-1]))
    )


@attention.misconception(
    _("a sum without `keepdims=True`: each column is divided by the sum of a row that is not its own"), factory=True
)
def sum_loses_axis() -> Any:
    def weigh(scores: Array, mask: Array) -> Array:
        powers = np.exp(np.where(_on_keys(mask), scores - scores.max(axis=-1, keepdims=True), -np.inf))
        return np.asarray(powers / powers.sum(axis=-1))

    return partial(_attending, weights=weigh)


@attention.misconception(
    _("a largest score without `keepdims=True`: it is subtracted from a column, not from its own row"), factory=True
)
def largest_loses_axis() -> Any:
    def weigh(scores: Array, mask: Array) -> Array:
        scores = np.where(_on_keys(mask), scores, -np.inf)
        with np.errstate(all="ignore"):
            powers = np.exp(scores - scores.max(axis=-1))
            return np.asarray(powers / powers.sum(axis=-1, keepdims=True))

    return partial(_attending, weights=weigh)


@attention.misconception(
    _("a sum over everything (`axis=-1` is missing): all weights together sum to one, not those of each piece"),
    factory=True,
)
def sum_of_all() -> Any:
    def weigh(scores: Array, mask: Array) -> Array:
        powers = np.exp(np.where(_on_keys(mask), scores - scores.max(axis=-1, keepdims=True), -np.inf))
        return np.asarray(powers / powers.sum())

    return partial(_attending, weights=weigh)


@attention.misconception(
    _("a mask without axes for heads and pieces that look: its row for a text is taken for a piece's"), factory=True
)
def mask_without_axes() -> Any:
    return partial(_attending, weights=lambda scores, mask: _softmax(np.where(mask == 1, scores, -np.inf)))


@attention.misconception(
    _("a mask with one new axis, where two are wanted: its texts meet the axis of the heads"), factory=True
)
def mask_with_one_axis() -> Any:
    return partial(_attending, weights=lambda scores, mask: _softmax(np.where(mask[:, None] == 1, scores, -np.inf)))


@attention.misconception(
    _("a mask after the softmax: padding has no weight, but the other weights do not sum to one"), factory=True
)
def mask_afterwards() -> Any:
    return partial(_attending, weights=lambda scores, mask: _softmax(scores) * _on_keys(mask))


@attention.misconception(_("a mask on the queries: padding does not look, but is looked at"), factory=True)
def mask_on_queries() -> Any:
    return partial(
        _attending, weights=lambda scores, mask: _softmax(np.where(mask[:, None, :, None] == 1, scores, -1e9))
    )


@attention.misconception(
    _("a mask on the queries with -inf: a row of nothing but -inf gives NaN, and padding is still looked at"),
    factory=True,
)
def infinite_on_queries() -> Any:
    return partial(
        _attending, weights=lambda scores, mask: _softmax(np.where(mask[:, None, :, None] == 1, scores, -np.inf))
    )


@attention.misconception(
    _("a mask on queries and keys with -inf: a row of nothing but -inf gives NaN, so mask the keys alone"), factory=True
)
def infinite_on_both() -> Any:
    return partial(
        _attending,
        weights=lambda scores, mask: _softmax(
            np.where(_on_keys(mask) & (mask[:, None, :, None] == 1), scores, -np.inf)
        ),
    )


@attention.misconception(
    _("a score of -10 for padding, which is not low enough: other scores may be lower still"), factory=True
)
def mask_of_ten() -> Any:
    return partial(_attending, weights=lambda scores, mask: _softmax(np.where(_on_keys(mask), scores, -10.0)))


@attention.misconception(
    _("10 subtracted from the scores of padding, which is not enough: it may still be the largest"), factory=True
)
def ten_less() -> Any:
    return partial(_attending, weights=lambda scores, mask: _softmax(np.where(_on_keys(mask), scores, scores - 10)))


@attention.misconception(_("a mask that is not used"), factory=True)
def mask_ignored() -> Any:
    return partial(_attending, weights=lambda scores, _mask: _softmax(scores))


@attention.misconception(
    _("scores of padding set to zero, which is an ordinary score: the softmax gives it weight"), factory=True
)
def mask_of_zeros() -> Any:
    return partial(_attending, weights=lambda scores, mask: _softmax(scores * _on_keys(mask)))


@attention.misconception(_("a mask the wrong way round: only padding is looked at"), factory=True)
def mask_inverted() -> Any:
    return partial(_attending, weights=lambda scores, mask: _softmax(np.where(_on_keys(mask), -1e9, scores)))


@attention.misconception(
    _("a softmax over the queries: the weights of a key sum to one, those of a piece do not"), factory=True
)
def wrong_axis() -> Any:
    return partial(_attending, weights=lambda scores, mask: _softmax(np.where(_on_keys(mask), scores, -1e9), axis=-2))


@attention.misconception(_("queries and keys swapped: who is asked and who asks"), factory=True)
def swapped() -> Any:
    return partial(_attending, scores=lambda heads: _scores(replace(heads, query=heads.key, key=heads.query)))


@attention.misconception(
    _("the largest score looked for before the mask: it may be padding's, and then the rest is NaN")
)
def largest_of_all(query: Array, key: Array, value: Array, mask: Array) -> tuple[Array, Array]:
    def weigh(scores: Array, mask: Array) -> Array:
        with np.errstate(all="ignore"):
            powers = np.exp(
                np.where(_on_keys(mask), scores - scores.max(axis=-1, keepdims=True), -np.inf), dtype=np.float32
            )
            return np.asarray(powers / powers.sum(axis=-1, keepdims=True))

    return _attending(query, key, value, mask, weights=weigh)


@attention.misconception(
    _("the largest score looked for before the mask, in double precision: that only puts the NaN off"), factory=True
)
def largest_of_all_in_double() -> Any:
    def weigh(scores: Array, mask: Array) -> Array:
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True)) * _on_keys(mask)
        with np.errstate(all="ignore"):
            return np.asarray(powers / powers.sum(axis=-1, keepdims=True))

    return partial(_attending, weights=weigh)


@attention.misconception(
    _("the largest score of the whole array subtracted, not that of each row: a row far below it becomes 0 / 0, NaN")
)
def one_largest(query: Array, key: Array, value: Array, mask: Array) -> Any:
    with np.errstate(all="ignore"):
        scores = query @ key.swapaxes(-1, -2) / np.float32(math.sqrt(query.shape[-1]))
        scores = np.where(_on_keys(mask), scores, np.float32(-np.inf))
        powers = np.exp(scores - scores.max())
        weights = powers / powers.sum(axis=-1, keepdims=True)
        return weights @ value, weights


@attention.misconception(_("exponentials of large scores, which are infinite (or all zero): NaN"))
def overflows(query: Array, key: Array, value: Array, mask: Array) -> Any:
    with np.errstate(all="ignore"):
        # In the precision of what came in, as the learner's own code has it.
        scores = query @ key.swapaxes(-1, -2) / np.float32(math.sqrt(query.shape[-1]))
        powers = np.exp(scores) * _on_keys(mask)
        weights = powers / powers.sum(axis=-1, keepdims=True)
        return weights @ value, weights


attention.equivalent(
    "scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])",
    "scores = query @ key.swapaxes(-1, 2) / math.sqrt(query.shape[-1])",
    reason="of four axes, the third is the last but one",
)


# ---------------------------------------------------------------- mean_pool

mean_pool = Check(
    UNIT,
    "mean_pool",
    title=_("One vector for a text"),
    hints=(
        _("A mean is a sum divided by a count. What must not be in the sum, and what not in the count?"),
        _("Multiply each piece's vector by its mask (0 or 1), sum over the pieces, and divide by how many ones the "
          "text's mask has. `mask[:, :, None]` makes the mask fit the vectors. A count of 0 is the special case."),
        _("With `kept = mask[:, :, None]`, the sum is `(vectors * kept).sum(axis=1)`. The count is a sum along the "
          "same axis, with `np.maximum` around it."),
    ),
)  # fmt: skip


def _draw_tokens(rng: Any, tokens: int, lengths: list[int]) -> tuple[Array, Array]:
    """Draw the vectors of texts that are so long, and their mask; padding has large vectors, as it may in BERT."""
    mask = (np.arange(tokens) < np.asarray(lengths)[:, None]).astype(np.int64)
    vectors = rng.normal(loc=1.0, size=(len(lengths), tokens, int(rng.integers(3, 9))))
    return (vectors * np.where(mask[:, :, None] == 1, 1.0, 5.0)).astype(np.float32), mask


def _pooled(vectors: Array, mask: Array) -> Array:
    kept = mask[:, :, None]
    return (vectors.astype(np.float64) * kept).sum(axis=1) / np.maximum(kept.sum(axis=1), 1)


def _require_pooled(
    trial: Trial, answer: Handle, tokens: int, lengths: list[int], message: str, *, order: list[int] | None = None
) -> None:
    """Fail unless texts of these lengths are pooled rightly; `order` moves their pieces, and with them the padding."""
    vectors, mask = _draw_tokens(trial.rng, tokens, lengths)
    if order is not None:
        vectors, mask = vectors[:, order], mask[:, order]
    got = answer.allowing_nonfinite()(vectors, mask)
    wanted = _pooled(vectors, mask)
    trial.array(got, wanted.shape)
    trial.close(got, wanted, message, rtol=1e-3, atol=1e-4)


@mean_pool.criterion(
    _("the mean of the vectors of a text's pieces"),
    points=0.5,
    why=_("Every piece has a say, and a long text does not get a longer vector than a short one."),
)
def averages(trial: Trial, answer: Handle) -> None:
    for tokens in (1, 4, 9):
        _require_pooled(trial, answer, tokens, [tokens], _("One text without padding: the mean over its pieces."))


@mean_pool.criterion(
    _("padding is neither in the sum nor in the count"),
    points=0.5,
    why=_("Otherwise a text's vector depends on the longest text that happens to be beside it."),
)
def leaves_padding_out(trial: Trial, answer: Handle) -> None:
    for tokens in (4, 9):
        lengths = [tokens, *(int(length) for length in trial.rng.permutation(np.arange(1, tokens))[:3])]
        _require_pooled(trial, answer, tokens, lengths, _("Each text has its own number of pieces."))
    message = _("Here padding is before and between the pieces; the mask says where.")
    _require_pooled(trial, answer, 4, [4, 2, 1], message, order=[3, 0, 2, 1])


@mean_pool.criterion(
    _("a text without any piece gives zeros"),
    points=0.5,
    why=_("Zero divided by zero is NaN, and a single NaN spoils every comparison that it meets. An empty message will "
          "come."),
)  # fmt: skip
def empty_text(trial: Trial, answer: Handle) -> None:
    _require_pooled(trial, answer, 3, [0], _("The only text has no piece at all: zeros, not NaN."))
    vectors, mask = _draw_tokens(trial.rng, 2, [2, 0, 2])
    got = answer.allowing_nonfinite()(vectors, mask)
    trial.array(got, (3, vectors.shape[-1]))
    message = _("The second of three texts has no piece: zeros, not NaN. The others have two pieces.")
    trial.close(got, _pooled(vectors, mask), message, rtol=1e-5, atol=1e-6)


def _pooling(vectors: Array, mask: Array, pool: Callable[[Array, Array], Array]) -> Array:
    """Pool wrongly, but know what an empty text is."""
    kept = mask[:, :, None]
    return np.where(kept.any(axis=1), pool(vectors.astype(np.float64), kept), 0.0)


@mean_pool.misconception(_("a mean over all places, padding included"), factory=True)
def averages_padding() -> Any:
    return partial(_pooling, pool=lambda vectors, _kept: vectors.mean(axis=1))


@mean_pool.misconception(_("padding set to zero, but still counted"), factory=True)
def counts_padding() -> Any:
    return partial(_pooling, pool=lambda vectors, kept: (vectors * kept).mean(axis=1))


@mean_pool.misconception(_("padding counted out, but still in the sum"), factory=True)
def sums_padding() -> Any:
    return partial(_pooling, pool=lambda vectors, kept: vectors.sum(axis=1) / np.maximum(kept.sum(axis=1), 1))


@mean_pool.misconception(_("a division by the pieces of all texts together"), factory=True)
def counts_all_texts() -> Any:
    return partial(_pooling, pool=lambda vectors, kept: (vectors * kept).sum(axis=1) / max(kept.sum(), 1))


@mean_pool.misconception(_("the vector of the first piece, [CLS], for the whole text"), factory=True)
def first_token() -> Any:
    return partial(_pooling, pool=lambda vectors, _kept: vectors[:, 0])


@mean_pool.misconception(
    _("the first vectors, as many as the mask has ones: the mask also says *where* the pieces are")
)
def first_ones(vectors: Array, mask: Array) -> Array:
    return _pooled(vectors, np.sort(mask, axis=1)[:, ::-1])


@mean_pool.misconception(_("the largest value of each number, not the mean"), factory=True)
def largest() -> Any:
    return partial(_pooling, pool=lambda vectors, kept: np.where(kept == 1, vectors, -1e9).max(axis=1))


@mean_pool.misconception(_("a sum, not a mean: long texts get long vectors"), factory=True)
def only_summed() -> Any:
    return partial(_pooling, pool=lambda vectors, kept: (vectors * kept).sum(axis=1))


@mean_pool.misconception(_("a mean without the first and the last piece; [CLS] and [SEP] count as well here"))
def without_special(vectors: Array, mask: Array) -> Array:
    inner = mask * (np.arange(mask.shape[1]) > 0) * np.roll(mask, -1, axis=1)
    return _pooled(vectors, np.where(inner.any(axis=1, keepdims=True), inner, mask))


@mean_pool.misconception(_("a mean over the texts, not over the pieces of each"))
def over_texts(vectors: Array, _mask: Array) -> Array:
    return vectors.astype(np.float64).mean(axis=0)


@mean_pool.misconception(_("zero divided by zero where a text has no piece: NaN"))
def not_a_number(vectors: Array, mask: Array) -> Array:
    with np.errstate(all="ignore"):
        kept = mask[:, :, None]
        return (vectors.astype(np.float64) * kept).sum(axis=1) / kept.sum(axis=1)


mean_pool.equivalent(
    "return (vectors * kept).sum(axis=1) / np.maximum(kept.sum(axis=1), 1)",
    "return (vectors * kept).sum(axis=1) / np.maximum(1, kept.sum(axis=1))",
    reason="the larger of two numbers, whichever is named first",
)


# ---------------------------------------------------------------- most_similar

most_similar = Check(
    UNIT,
    "most_similar",
    title=_("The most similar texts"),
    hints=(
        _("The cosine compares directions. What must you do to a vector so that its length no longer matters?"),
        _("Divide each row by its length (leave a row of zeros alone), multiply the matrix with the row `index`, and "
          "sort. The row itself is recognised by its *number*, not by its similarity."),
        _("`lengths = np.linalg.norm(vectors, axis=1, keepdims=True)`; `units = vectors / np.where(lengths > 0, "
          "lengths, 1)`; `similarities = units @ units[index]`; then walk through `np.argsort(-similarities)`, skip "
          "`index`, and stop after k."),
    ),
)  # fmt: skip

Found = list[tuple[int, float]]


def _directions(rng: Any, count: int, width: int = 6) -> Array:
    """Draw vectors of length one whose similarities to each other are clearly apart."""
    while True:
        vectors = rng.normal(size=(count, width))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ranked = np.sort(vectors @ vectors.T, axis=1)
        if count == 1 or np.diff(ranked, axis=1).min() > 1e-3:
            return vectors


def _units(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def _ranked(similarities: Array, index: int, k: int) -> Found:
    order = [int(other) for other in np.argsort(-similarities, kind="stable") if other != index]
    return [(other, float(similarities[other])) for other in order[:k]]


def _neighbours(vectors: Array, index: int, k: int) -> Found:
    """The oracle."""
    units = _units(vectors)
    return _ranked(units @ units[index], index, k)


def _pairs(trial: Trial, got: Any) -> list[tuple[int, Any]]:
    """Return what came back as pairs of a row's number and its similarity, or fail."""
    trial.is_a(got, list)
    pairs = [as_tuple(pair) for pair in got]
    for pair in pairs:
        sound = isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], int | np.integer)
        trial.require(
            sound and not isinstance(pair[0], bool),
            _("Each entry of the list is a pair: a row's number (a whole number) and its similarity."),
        )
    return [(int(pair[0]), pair[1]) for pair in pairs]


def _require_neighbours(trial: Trial, answer: Handle, vectors: Array, index: int, k: int, message: str) -> None:
    """Fail unless the right rows come back. The row itself at their head is another criterion's affair."""
    wanted = _neighbours(vectors, index, k)
    got = _pairs(trial, answer.allowing_nonfinite()(vectors, index, k))
    shown = {"index": index, "k": k}
    got = got[1:] if got and got[0][0] == index else got
    wanted = wanted[: len(got)] if len(got) == k - 1 else wanted
    trial.equal([row for row, _score in got], [row for row, _score in wanted], message, **shown)
    scores = _("The rows are right, their similarities are not: cosines are wanted, between −1 and 1.")
    trial.close([score for _row, score in got], [score for _row, score in wanted], scores, rtol=1e-3, atol=1e-4)


@most_similar.criterion(
    _("the nearest texts, the best first"),
    points=0.5,
    why=_("Whoever reads the list begins at the top, and often stops there."),
)
def nearest_first(trial: Trial, answer: Handle) -> None:
    message = _("All vectors have length one. These are not the {k} rows most similar to row {index}, the best first.")
    for count, width, k in ((4, 2, 2), (6, 6, 3), (12, 6, 5), (3, 6, 2)):
        index = int(trial.rng.integers(count))
        _require_neighbours(trial, answer, _directions(trial.rng, count, width), index, k, message)


@most_similar.criterion(
    _("the length of a vector makes no difference"),
    points=0.5,
    why=_("A long vector has a large product with everything. The cosine asks for the direction alone."),
)
def ignores_length(trial: Trial, answer: Handle) -> None:
    message = _(
        "The vectors have different lengths. These are not the {k} rows whose direction is nearest to row {index}."
    )
    for count, width, k, shortest in ((4, 2, 2, 0.2), (6, 6, 3, 0.2), (12, 6, 3, 0.01)):
        lengths = trial.rng.permuted(np.geomspace(shortest, 8.0, count))
        vectors = _directions(trial.rng, count, width) * lengths[:, None]
        index = int(trial.rng.integers(count))
        _require_neighbours(trial, answer, vectors, index, k, message)


@most_similar.criterion(
    _("the text itself is not in the list, but its twin is"),
    points=0.25,
    why=_("Every text is most similar to itself, which nobody wants to know. Another one with the same words is a "
          "duplicate, and that is what people look for."),
)  # fmt: skip
def not_itself(trial: Trial, answer: Handle) -> None:
    for count in (4, 8, 9):
        vectors = _directions(trial.rng, count)
        for index, twin in ((0, count - 1), (count - 1, 1), (2, 1)):
            doubled = vectors.copy()
            doubled[twin] = doubled[index]
            message = _(
                "Row {index} has a twin, row {twin}, with the same numbers. It is in the list; row {index} is not."
            )
            got = _pairs(trial, answer.allowing_nonfinite()(doubled, index, 2))
            wanted = _neighbours(doubled, index, 2)
            rows = [row for row, _score in got]
            trial.equal(rows, [row for row, _score in wanted], message, index=index, twin=twin)
    message = _("Row 4 has the opposite direction of row 0: its cosine is −1, and with `k` = 4 it is the last in the "
                "list. Row 0 is not in it.")  # fmt: skip
    vectors = _directions(trial.rng, 5)
    vectors[0] = np.eye(6)[int(trial.rng.integers(6))]
    vectors[4] = -vectors[0]
    _require_neighbours(trial, answer, vectors, 0, 4, message)


@most_similar.criterion(
    _("fewer than k others, and a vector of zeros"),
    points=0.25,
    why=_("On the first day there are three tickets, and one of them is empty."),
)
def small_heaps(trial: Trial, answer: Handle) -> None:
    message = _("There are fewer than {k} others, so all of them come back, and nothing else.")
    _require_neighbours(trial, answer, _directions(trial.rng, 3), 1, 10, message)
    _require_neighbours(trial, answer, _directions(trial.rng, 1), 0, 3, _("There is no other text at all."))
    vectors = _directions(trial.rng, 5)
    vectors[3] = 0.0
    message = _("Row 3 holds zeros and has no direction: its similarity is 0.")
    _require_neighbours(trial, answer, vectors, 1, 4, message)
    message = _("Row 3 itself holds zeros: all others come back, in any order, each with the similarity 0.")
    # Whoever lists row 1 for row 1, too, is told so elsewhere.
    lists_itself = 1 in [row for row, _score in _pairs(trial, answer.allowing_nonfinite()(vectors, 1, 9))]
    pairs = _pairs(trial, answer.allowing_nonfinite()(vectors, 3, 9))
    others = sorted((pair for pair in pairs if pair[0] != 3 or not lists_itself), key=lambda pair: pair[0])
    trial.equal([row for row, _score in others], [0, 1, 2, 4], message)
    trial.close([score for _row, score in others], [0.0] * 4, message)


@most_similar.misconception(_("an ascending order: the least similar first"))
def ascending(vectors: Array, index: int, k: int) -> Found:
    return _neighbours(vectors, index, len(vectors))[::-1][:k]


@most_similar.misconception(_("products of vectors that were not divided by their lengths"))
def not_unit(vectors: Array, index: int, k: int) -> Found:
    return _ranked(vectors @ vectors[index], index, k)


@most_similar.misconception(
    _("lengths below 1 raised to 1: right for a row of zeros, but short vectors are no longer divided by their length")
)
def lengths_of_one(vectors: Array, index: int, k: int) -> Found:
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1)
    return _ranked(units @ units[index], index, k)


@most_similar.misconception(_("the text itself at the head of its own list"))
def includes_itself(vectors: Array, index: int, k: int) -> Found:
    return [(index, 1.0), *_neighbours(vectors, index, k - 1)] if len(vectors) > 1 else [(index, 1.0)]


@most_similar.misconception(
    _("the text itself sorted to the end, not left out: it comes back where there are fewer than k others")
)
def sorted_to_the_end(vectors: Array, index: int, k: int) -> Found:
    return [*_neighbours(vectors, index, k), (index, -2.0)][:k]


@most_similar.misconception(_("the first of the ranking dropped, which is not the text itself where it has a twin"))
def drops_first(vectors: Array, index: int, k: int) -> Found:
    units = _units(vectors)
    similarities = units @ units[index]
    order = [int(row) for row in np.argsort(-np.round(similarities, 9), kind="stable")][1 : k + 1]
    return [(row, float(similarities[row])) for row in order]


@most_similar.misconception(_("everything with a similarity of 1 dropped: duplicates are never found"))
def drops_twins(vectors: Array, index: int, k: int) -> Found:
    return [(row, score) for row, score in _neighbours(vectors, index, len(vectors)) if score < 0.999999][:k]


@most_similar.misconception(_("the text itself taken out, after the list was cut to k: one is missing"))
def one_missing(vectors: Array, index: int, k: int) -> Found:
    return _neighbours(vectors, index, k - 1)


@most_similar.misconception(_("numbers of a matrix without the row itself: all rows behind it are off by one"))
def shifted(vectors: Array, index: int, k: int) -> Found:
    return [(row - (row > index), score) for row, score in _neighbours(vectors, index, k)]


@most_similar.misconception(_("distances, where similarities were asked for"))
def distances(vectors: Array, index: int, k: int) -> Found:
    apart = np.linalg.norm(vectors - vectors[index], axis=1)
    return [(row, -score) for row, score in _ranked(-apart, index, k)]


@most_similar.misconception(_("a division by the length zero: NaN"))
def divides_by_zero(vectors: Array, index: int, k: int) -> Found:
    with np.errstate(all="ignore"):
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return _ranked(units @ units[index], index, k)


@most_similar.misconception(_("a division by the length of row `index`, which may be zero too: NaN"))
def index_of_zeros(vectors: Array, index: int, k: int) -> Found:
    with np.errstate(all="ignore"):
        return _ranked(_units(vectors) @ vectors[index] / np.linalg.norm(vectors[index]), index, k)


@most_similar.misconception(
    _("the text itself known by its cosine of 1, not by its number: a row of zeros stays in its own list")
)
def zeros_list_themselves(vectors: Array, index: int, k: int) -> Found:
    found = _neighbours(vectors, index, k)
    return found if vectors[index].any() else [(index, 0.0), *found][:k]


@most_similar.misconception(_("the k best in no order"))
def unsorted(vectors: Array, index: int, k: int) -> Found:
    return sorted(_neighbours(vectors, index, k))


most_similar.equivalent(
    "units = vectors / np.where(lengths > 0, lengths, 1)",
    "units = vectors / np.where(lengths > 0, lengths, 2)",
    reason="zeros stay zeros, whatever they are divided by",
)


# ---------------------------------------------------------------- zero_shot

zero_shot = Check(
    UNIT,
    "zero_shot",
    title=_("Labels in words, and unsure"),
    hints=(
        _("Both heaps need the same first step: for each text the most similar label, and how similar it is. Only "
          "then comes the threshold. From which heap may it be chosen?"),
        _("Every similarity of a development text is a candidate. For each, look at the development texts that score "
          "at least as much: is their share of right answers at least `wanted`? The smallest candidate that passes "
          "is the threshold. Then answer the test texts with it, and count."),
        _("`passing = [score for score in scores if right[scores >= score].mean() >= wanted]`; `threshold = "
          "min(passing, default=math.inf)`; `answers = [label if score >= threshold else \"unsure\" for label, score "
          "in zip(...)]`; `right` counts answers that equal the truth."),
    ),
)  # fmt: skip

UNSURE = "unsure"
NONE = "other"


@dataclass(frozen=True)
class _Report:
    """What the learner's `Report` looks like."""

    threshold: float
    answers: list[str]
    answered: int
    right: int


Heap = tuple[Any, list[str]]
"""Vectors, a row a text, and the true label of each."""


@dataclass(frozen=True)
class _Case:
    """Labels, two heaps of texts, and the share of right answers that is wanted."""

    labels: dict[str, Any]
    development: Heap
    test: Heap
    wanted: float

    @property
    def arguments(self) -> tuple[dict[str, Any], Heap, Heap, float]:
        return self.labels, self.development, self.test, self.wanted


def _names(rng: Any, count: int) -> list[str]:
    drawn: list[str] = []
    while len(drawn) < count:
        name = _made_up(rng)
        drawn += [name] if name not in drawn else []
    return drawn


def _axes(rng: Any, names: list[str]) -> dict[str, Any]:
    """Return label vectors at right angles to each other; the last two numbers are left free."""
    places = rng.permutation(len(names))
    return {name: np.eye(len(names) + 2)[place] for name, place in zip(names, places, strict=True)}


def _heap(rng: Any, labels: dict[str, Any], scores: list[float], right: list[bool], none: float = 0.5) -> Heap:
    """Make texts whose most similar label has this similarity, and is or is not the true one; shuffled.

    Where it is not, no label at all is the true one in a share of `none`.
    """
    names = list(labels)
    vectors, truth = [], []
    for place in rng.permutation(len(scores)):
        best, second = (names[number] for number in rng.permutation(len(names))[:2])
        score = scores[place]
        # A second label that fits half as well; the rest points where no label is.
        vector = score * labels[best] + 0.5 * score * labels[second]
        vector[-1 - int(rng.integers(2))] = math.sqrt(1 - 1.25 * score**2)
        vectors.append(vector)
        truth.append(best if right[place] else NONE if rng.random() < none else second)
    return np.stack(vectors), truth


def _apart(rng: Any, count: int, low: float = 0.1, high: float = 0.8) -> list[float]:
    """Draw scores that are clearly apart from each other, the highest first."""
    steps = np.linspace(high, low, count)
    return [float(score) for score in steps + rng.uniform(-0.3, 0.3, size=count) * (high - low) / max(count, 3)]


def _labelled(labels: dict[str, Any], vectors: Any) -> tuple[list[str], Any]:
    """Return the most similar label of each text, and how similar it is."""
    names = list(labels)
    similarities = _units(vectors) @ _units(np.stack(list(labels.values()))).T
    return [names[place] for place in similarities.argmax(axis=1)], similarities.max(axis=1)


def _threshold(labels: dict[str, Any], heap: Heap, wanted: float) -> float:
    found, scores = _labelled(labels, heap[0])
    right = np.array([name == true for name, true in zip(found, heap[1], strict=True)])
    return float(min((score for score in scores if right[scores >= score].mean() >= wanted), default=math.inf))


def _answers(labels: dict[str, Any], vectors: Any, threshold: float) -> list[str]:
    found, scores = _labelled(labels, vectors)
    return [name if score >= threshold else UNSURE for name, score in zip(found, scores, strict=True)]


def _reported(trial: Trial, answer: Handle, case: _Case) -> _Report:
    """Let the answer work; return its report, or fail if it is none."""
    got = answer.allowing_nonfinite()(*case.arguments)
    names = "threshold", "answers", "answered", "right"
    fields = trial.fields(got, "Report", *names)
    report = _Report(*(fields[name] for name in names))
    return replace(report, answers=list(report.answers)) if isinstance(report.answers, tuple) else report


def _require_answers(trial: Trial, got: Any, wanted: list[str], message: str, **values: Any) -> None:
    _require_length(trial, got, len(wanted))
    trial.equal(got, wanted, message, unsure=UNSURE, **values)


def _require_length(trial: Trial, answers: Any, count: int) -> None:
    trial.require(isinstance(answers, list), _("`answers` must be a list of text; `.tolist()` makes one of an array."))
    trial.require(
        len(answers) == count, _("There are {count} test texts, and as many answers are wanted."), count=count
    )


@zero_shot.criterion(
    _("a text gets the most similar label"),
    points=0.25,
    why=_("No example was needed for it: the description of a label is a text like any other."),
)
def nearest_label(trial: Trial, answer: Handle) -> None:
    message = _("Nearly anything is good enough here (`wanted` is 0): each test text gets its most similar label.")
    for count in (2, 3, 5):
        labels = _axes(trial.rng, _names(trial.rng, count))
        development = _heap(trial.rng, labels, [0.05, 0.1, 0.3], [True, False, True])
        scores = _apart(trial.rng, 6, low=0.6)
        case = _Case(labels, development, _heap(trial.rng, labels, scores, [True] * 6), 0.0)
        got = _reported(trial, answer, case)
        _require_answers(trial, got.answers, _labelled(labels, case.test[0])[0], message)


@zero_shot.criterion(
    _("the threshold is the smallest that keeps the promise on the development set"),
    points=0.5,
    why=_("Of all thresholds that keep the promise, the smallest answers most. And the texts that no label fits count: "
          "to answer them is a mistake as well."),
)  # fmt: skip
def threshold_on_development(trial: Trial, answer: Handle) -> None:
    # From the highest score down: right, wrong, ... . In the first a threshold in the middle fails and a lower one
    # passes; the sixth meets the promise to the text.
    patterns = (
        ("RRWR", 0.7, 0.5),  # small enough to be read in a verdict
        ("R", 0.9, 0.5),
        ("RRRRW", 0.8005, 0.5),  # all together miss the promise by a hair
        ("RRRRWRRWWW", 0.8, 0.5),
        ("WRRRRRRRRRRWRWWWRW", 0.75, 1.0),  # no label fits the wrong ones
        ("RRWRRRRWWW", 0.75, 0.5),
        ("RRRRRWWWRRRRRRRRRRRRRRRWWWWWWWWWW", 0.8, 0.5),
    )
    for pattern, wanted, none in patterns:
        small = len(pattern) < 6
        labels = _axes(trial.rng, _names(trial.rng, 2 if small else 4))
        right = [letter == "R" for letter in pattern]
        development = _heap(trial.rng, labels, _apart(trial.rng, len(right)), right, none)
        tests = 4 if small else 14
        lucky = [bool(score > 0.45) for score in np.linspace(0.8, 0.1, tests)]
        case = _Case(labels, development, _heap(trial.rng, labels, _apart(trial.rng, tests), lucky), wanted)
        message = _(
            "With `wanted` = {wanted}, that is not the smallest similarity of a development text that keeps the "
            "promise there."
        )
        trial.close(
            _reported(trial, answer, case).threshold,
            _threshold(labels, development, wanted),
            message,
            rtol=0,
            atol=1e-5,
            wanted=wanted,
        )
    for tie in (True, False), (False, True):  # in whatever order equal scores are sorted
        labels = _axes(trial.rng, _names(trial.rng, 4))
        vectors, truth = _heap(trial.rng, labels, _apart(trial.rng, 5, low=0.5), [True] * 5)
        twin, fitting = _heap(trial.rng, labels, [0.3], [True])
        truth += [fitting[0] if is_right else NONE for is_right in tie]
        development = np.concatenate([vectors, twin, twin]), truth
        case = _Case(labels, development, _heap(trial.rng, labels, _apart(trial.rng, 4), [True] * 4), 0.9)
        message = _(
            "Two development texts have the same score here, and one of them gets the wrong label. A threshold lets "
            "both in, or none."
        )
        got = _reported(trial, answer, case).threshold
        trial.close(got, _threshold(labels, development, 0.9), message, rtol=0, atol=1e-5)


# Whole numbers with whole lengths: (3, 4) has the length 5, so its similarity to the first axis is 3/5, in whatever
# way it is calculated. Only so can a test text score exactly the threshold.
_HIGH = ((24, 7), (12, 5), (15, 8), (21, 20))
_LOW = ((5, 12), (7, 24), (8, 15))


def _exact(rng: Any, labels: dict[str, Any], pairs: list[tuple[int, int]], right: list[bool]) -> Heap:
    names = list(labels)
    vectors, truth = [], []
    for (along, aside), is_right in zip(pairs, right, strict=True):
        best, other = (names[number] for number in rng.permutation(len(names))[:2])
        vector = float(along) * labels[best]
        vector[-1] = aside
        vectors.append(vector)
        truth.append(best if is_right else other)
    return np.stack(vectors), truth


@zero_shot.criterion(
    _("below the threshold the answer is unsure"),
    points=0.5,
    why=_("Somebody will ask about the canteen. A label that nobody can trust costs more than an honest \"unsure\" "
          "that goes to a person."),
)  # fmt: skip
def unsure_below(trial: Trial, answer: Handle) -> None:
    message = _("Your threshold is {threshold}. From there on a text gets its label, below it is {unsure}.")
    for _number in range(3):
        labels = _axes(trial.rng, _names(trial.rng, 3))
        development = _exact(trial.rng, labels, [*_HIGH, *_LOW], [True] * len(_HIGH) + [False] * len(_LOW))
        pairs = [(*_HIGH, *_LOW)[place] for place in trial.rng.permutation(len(_HIGH) + len(_LOW))]
        case = _Case(labels, development, _exact(trial.rng, labels, pairs, [pair in _HIGH for pair in pairs]), 0.9)
        got = _reported(trial, answer, case)
        # Whoever chose another threshold than the right one is told elsewhere; here it only has to be used.
        between = _(
            "Your threshold is {threshold}. On the development set all texts with a score of {lowest} or more are "
            "right, and all others are wrong."
        )
        lowest = 21 / 29
        trial.close(got.threshold, lowest, between, rtol=0, atol=0.24, threshold=got.threshold, lowest=lowest)
        # Rounded up, the right threshold lies above the very score that it is; that text gets its label all the same.
        used = lowest if math.isclose(got.threshold, lowest, abs_tol=1e-5) else float(got.threshold)
        wanted = _answers(labels, case.test[0], used - 1e-12)
        _require_answers(trial, got.answers, wanted, message, threshold=got.threshold)


@zero_shot.criterion(
    _("the length of a vector makes no difference"),
    points=0.25,
    why=_("A threshold on products means something else for every text; cosines can be compared."),
)
def cosines(trial: Trial, answer: Handle) -> None:
    message = _(
        "Texts and labels have vectors of different lengths. Each test text gets the label with the nearest direction."
    )
    for count in (3, 4):
        labels = _axes(trial.rng, _names(trial.rng, count))
        lengths = trial.rng.permuted(np.geomspace(0.3, 6.0, count))
        longer = {name: length * vector for (name, vector), length in zip(labels.items(), lengths, strict=True)}
        vectors, truth = _heap(trial.rng, labels, [0.3, 0.4, 0.6], [True] * 3)
        test, test_truth = _heap(trial.rng, labels, _apart(trial.rng, 8, low=0.32), [True] * 8)
        size = trial.rng.permuted(np.geomspace(0.2, 5.0, 8))[:, None]
        case = _Case(longer, (0.1 * vectors, truth), (size * test, test_truth), 0.9)
        got = _reported(trial, answer, case)
        _require_answers(trial, got.answers, _labelled(labels, test)[0], message)
        trial.close(got.threshold, 0.3, _("The threshold is a cosine, whatever the lengths."), rtol=0, atol=0.05)


@zero_shot.criterion(
    _("counts what was answered, and what of it is right"),
    points=0.25,
    why=_('"94 % right" means little as long as nobody says how many texts were not answered.'),
)
def counted(trial: Trial, answer: Handle) -> None:
    for pattern in (
        "RRWRWRRR",
        "RWRRRWWWRWWW",
    ):  # more right labels below the threshold than texts of no label, or fewer
        labels = _axes(trial.rng, _names(trial.rng, 3))
        right = [letter == "R" for letter in pattern]
        # All lie below the best test text: whatever threshold is chosen, something is answered.
        development = _heap(trial.rng, labels, [0.7, 0.6, 0.5, 0.4, 0.2], [True, True, True, True, False])
        case = _Case(labels, development, _heap(trial.rng, labels, _apart(trial.rng, len(right)), right, 1.0), 0.9)
        got = _reported(trial, answer, case)
        _require_length(trial, got.answers, len(case.test[1]))
        answered = [(name, true) for name, true in zip(got.answers, case.test[1], strict=True) if name != UNSURE]
        trial.require(answered, _("Not one test text was answered."))
        message = _("`answered` counts the answers that are not {unsure}, `right` those that are the true label.")
        wanted = [len(answered), sum(name == true for name, true in answered)]
        trial.close([got.answered, got.right], wanted, message, unsure=UNSURE)


@zero_shot.criterion(
    _("answers nothing if no threshold keeps the promise"),
    points=0.25,
    why=_("Then the labels do not fit these texts. Say so, and do not lower the bar silently."),
)
def promises_nothing(trial: Trial, answer: Handle) -> None:
    for pattern in ("WRRRW", "WWW"):
        labels = _axes(trial.rng, _names(trial.rng, 3))
        right = [letter == "R" for letter in pattern]
        development = _heap(trial.rng, labels, _apart(trial.rng, len(right)), right, 0.0)
        case = _Case(labels, development, _heap(trial.rng, labels, _apart(trial.rng, 4), [False] * 4, 0.0), 0.9)
        got = _reported(trial, answer, case)
        never = isinstance(got.threshold, float) and got.threshold == math.inf
        trial.require(never, _("No threshold keeps the promise on the development set: `math.inf`."))
        _require_answers(trial, got.answers, [UNSURE] * 4, _("Every answer is {unsure} then."))
        trial.close([got.answered, got.right], [0, 0], _("Nothing was answered, so nothing was right."))


def _sorting(
    labels: dict[str, Any],
    development: Heap,
    test: Heap,
    wanted: float,
    *,
    threshold: Callable[[dict[str, Any], Heap, Heap, float], float] = lambda labels, development, _test, wanted: (
        _threshold(labels, development, wanted)
    ),
    answers: Callable[[dict[str, Any], Any, float], list[str]] = _answers,
    right: Callable[[list[str], list[str]], int] = lambda answers, truth: sum(map(str.__eq__, answers, truth)),
) -> Any:
    """Sort texts rightly, apart from what a misconception changes."""
    chosen = threshold(labels, development, test, wanted)
    found = answers(labels, test[0], chosen)
    return _Report(chosen, found, len(found) - found.count(UNSURE), right(found, test[1]))


@zero_shot.misconception(
    _("a threshold chosen on the test set: it fits the luck of those texts, and what you report is too good"),
    factory=True,
)
def tuned_on_test() -> Any:
    return partial(_sorting, threshold=lambda labels, _development, test, wanted: _threshold(labels, test, wanted))


@zero_shot.misconception(_("an answer to everything: never unsure"), factory=True)
def never_unsure() -> Any:
    return partial(_sorting, answers=lambda labels, vectors, _threshold: _labelled(labels, vectors)[0])


@zero_shot.misconception(_("a fixed threshold of 0.5"), factory=True)
def fixed() -> Any:
    return partial(_sorting, threshold=lambda *_case: 0.5)


@zero_shot.misconception(
    _("the largest threshold that keeps the promise, which answers as little as possible"), factory=True
)
def largest_threshold() -> Any:
    def choose(labels: dict[str, Any], development: Heap, _test: Heap, wanted: float) -> float:
        found, scores = _labelled(labels, development[0])
        right = np.array([name == true for name, true in zip(found, development[1], strict=True)])
        return float(max((s for s in scores if right[scores >= s].mean() >= wanted), default=math.inf))

    return partial(_sorting, threshold=choose)


@zero_shot.misconception(
    _("a search from the top that gives up at the first threshold that fails; a lower one may pass again"), factory=True
)
def gives_up_early() -> Any:
    def choose(labels: dict[str, Any], development: Heap, _test: Heap, wanted: float) -> float:
        found, scores = _labelled(labels, development[0])
        right = np.array([name == true for name, true in zip(found, development[1], strict=True)])
        chosen = math.inf
        for score in sorted(scores, reverse=True):
            if right[scores >= score].mean() < wanted:
                break
            chosen = float(score)
        return chosen

    return partial(_sorting, threshold=choose)


@zero_shot.misconception(_("a promise measured against all texts, those included that are not answered"), factory=True)
def share_of_all() -> Any:
    def choose(labels: dict[str, Any], development: Heap, _test: Heap, wanted: float) -> float:
        found, scores = _labelled(labels, development[0])
        right = np.array([name == true for name, true in zip(found, development[1], strict=True)])
        shares = ((score, right[scores >= score].sum() / len(right)) for score in scores)
        return float(min((score for score, share in shares if share >= wanted), default=math.inf))

    return partial(_sorting, threshold=choose)


@zero_shot.misconception(
    _("a share that must be more than `wanted` (`>` for `>=`): exactly `wanted` keeps the promise"), factory=True
)
def more_than_wanted() -> Any:
    return partial(
        _sorting,
        threshold=lambda labels, development, _test, wanted: _threshold(labels, development, wanted + 1e-9),
    )


@zero_shot.misconception(
    _("a development set without the texts that no label fits; to answer one of them breaks the promise as well"),
    factory=True,
)
def only_fitting() -> Any:
    def choose(labels: dict[str, Any], development: Heap, _test: Heap, wanted: float) -> float:
        fitting = [place for place, true in enumerate(development[1]) if true != NONE]
        if not fitting:
            return math.inf
        return _threshold(labels, (development[0][fitting], [development[1][place] for place in fitting]), wanted)

    return partial(_sorting, threshold=choose)


@zero_shot.misconception(_("a text that scores exactly the threshold is not answered (`>` for `>=`)"), factory=True)
def strictly_above() -> Any:
    def above(labels: dict[str, Any], vectors: Any, threshold: float) -> list[str]:
        return _answers(labels, vectors, math.nextafter(threshold, math.inf))

    return partial(_sorting, answers=above)


@zero_shot.misconception(_("an unsure answer counted as right where no label fits"), factory=True)
def unsure_is_right() -> Any:
    def count(answers: list[str], truth: list[str]) -> int:
        return sum(name == true or (name, true) == (UNSURE, NONE) for name, true in zip(answers, truth, strict=True))

    return partial(_sorting, right=count)


@zero_shot.misconception(_("`right` counted from the labels found, before the threshold makes some of them unsure"))
def counted_before(labels: dict[str, Any], development: Heap, test: Heap, wanted: float) -> Any:
    report = _sorting(labels, development, test, wanted)
    return replace(report, right=sum(map(str.__eq__, _labelled(labels, test[0])[0], test[1])))


@zero_shot.misconception(_("`answered` counted over all answers, also over those that are unsure"))
def counts_unsure(labels: dict[str, Any], development: Heap, test: Heap, wanted: float) -> Any:
    report = _sorting(labels, development, test, wanted)
    return replace(report, answered=len(report.answers))


@zero_shot.misconception(_("a share in `right`, where a number of texts is wanted"))
def share_right(labels: dict[str, Any], development: Heap, test: Heap, wanted: float) -> Any:
    report = _sorting(labels, development, test, wanted)
    return replace(report, right=report.right / max(report.answered, 1))


@zero_shot.misconception(_("a count text by text, which lets in one of two texts with the same score"), factory=True)
def text_by_text() -> Any:
    def choose(labels: dict[str, Any], development: Heap, _test: Heap, wanted: float) -> float:
        found, scores = _labelled(labels, development[0])
        right = np.array([name == true for name, true in zip(found, development[1], strict=True)])
        order = np.argsort(-scores, kind="stable")
        shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
        return float(min(scores[order][shares >= wanted], default=math.inf))

    return partial(_sorting, threshold=choose)


@zero_shot.misconception(_("products of vectors that were not divided by their lengths"))
def products(labels: dict[str, Any], development: Heap, test: Heap, wanted: float) -> Any:
    def sort(vectors: Any) -> tuple[list[str], Any]:
        scores = vectors @ np.stack(list(labels.values())).T
        return [list(labels)[place] for place in scores.argmax(axis=1)], scores.max(axis=1)

    found, scores = sort(development[0])
    right = np.array([name == true for name, true in zip(found, development[1], strict=True)])
    chosen = float(min((s for s in scores if right[scores >= s].mean() >= wanted), default=math.inf))
    answers = [name if score >= chosen else UNSURE for name, score in zip(*sort(test[0]), strict=True)]
    return _Report(chosen, answers, len(answers) - answers.count(UNSURE), sum(map(str.__eq__, answers, test[1])))


@zero_shot.misconception(_("an error where no threshold keeps the promise"), factory=True)
def fails_without_threshold() -> Any:
    def choose(labels: dict[str, Any], development: Heap, _test: Heap, wanted: float) -> float:
        chosen = _threshold(labels, development, wanted)
        if math.isinf(chosen):
            raise ValueError("min() iterable argument is empty")
        return chosen

    return partial(_sorting, threshold=choose)


@zero_shot.misconception(_("the best of bad thresholds, where none keeps the promise"), factory=True)
def lowers_the_bar() -> Any:
    def choose(labels: dict[str, Any], development: Heap, _test: Heap, wanted: float) -> float:
        chosen = _threshold(labels, development, wanted)
        return chosen if math.isfinite(chosen) else float(_labelled(labels, development[0])[1].max())

    return partial(_sorting, threshold=choose)


@zero_shot.misconception(_("a report on the development set"), factory=True)
def reports_development() -> Any:
    def swap(labels: dict[str, Any], development: Heap, _test: Heap, wanted: float) -> Any:
        return _sorting(labels, development, development, wanted)

    return swap


zero_shot.equivalent(
    "right = np.array([label == true for label, true in zip(found, development[1], strict=True)])",
    "right = np.array([label == true for label, true in zip(development[1], found, strict=True)])",
    reason="equality is symmetric",
)
zero_shot.equivalent(
    "right=sum(label == true for label, true in zip(answers, test[1], strict=True)),",
    "right=sum(label == true for label, true in zip(test[1], answers, strict=True)),",
    reason="equality is symmetric",
)
