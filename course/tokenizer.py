# %% [markdown]
# # From bytes to tokens
#
# The first bill for the service desk's assistant is here, and the head of service has two questions. "Why does a German ticket cost nearly twice as much as an English one? And why can a machine that writes whole paragraphs not copy a serial number?" Both answers begin before the model: in the **tokenizer**, the part that cuts text into the pieces that a model reads.
#
# In this unit you build one, from the first byte to the bill: you learn the pieces from text, cut text with them, put it together again, and measure what it costs in two languages. It is the method of nearly every large language model (byte-pair encoding on bytes), and it takes about thirty lines.

# %%
import kicourse
from kicourse.checks import tokenizer as check

text = kicourse.start("tokenizer")

# %%
import re
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise

from kicourse import plots

# %% [markdown]
# ## What you will have at the end
#
# Below is one text in two languages, cut by four tokenizers. SmolLM2 is the embedded model's own, learned from huge amounts of mostly English text; the other three you will train yourself, in less than a minute, on English, on German, and on both. A bar says how many tokens a word takes, and tokens are what you pay for. (Your own numbers may differ in the second decimal place: where two pairs are equally frequent, either may be taken.)

# %% tags=["demo"]
RESULTS = {
    "SmolLM2": (1.24, 2.36),
    "trained on English": (2.38, 4.19),
    "trained on German": (3.70, 2.89),
    "trained on both": (2.61, 3.10),
}

figure = plots.figure(height=3.4)
axes = figure.subplots()
names = [text("SmolLM2"), text("trained on English"), text("trained on German"), text("trained on both")]
for shift, language, color in ((-0.2, text("English"), plots.BLUE), (0.2, text("German"), plots.ORANGE)):
    values = [pair[shift > 0] for pair in RESULTS.values()]
    bars = axes.bar([place + shift for place in range(4)], values, width=0.38, color=color, label=language)
    axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=9)
axes.set_xticks(range(4), names)
axes.set_ylabel(text("tokens per word"))
axes.set_ylim(0, 4.8)
axes.grid(visible=False, axis="x")
axes.legend(ncols=2, loc="upper left")
plots.show(
    figure,
    alt=text(
        "Tokens per word for English and German: SmolLM2 1.24 and 2.36, trained on English 2.38 and 4.19, trained on German 3.70 and 2.89, trained on both 2.61 and 3.10."
    ),
)

# %% [markdown]
# Look at the middle two. German is not expensive by nature: to a tokenizer that grew up on German, English is the foreign language. Who chooses the text that a tokenizer learns from decides who pays.

# %% [markdown]
# ## Text is bytes
#
# A model calculates with numbers, so text has to become numbers first. Which ones? Whole words would be short, but there is no end of them: every typing error, every part number and every German compound would be unknown. Characters have an end, but a far one: Unicode has some 150,000 of them, and an emoji can be several. **Bytes** are few: 256, and every text there is can be written with them. In UTF-8, the encoding of nearly everything, a plain letter is one byte, an umlaut two, most emoji are four.
#
# Three tools are all you need: `text.encode()` gives the bytes of a text, `list(...)` turns them into numbers, and `bytes(numbers).decode()` turns those back into text.

# %% tags=["demo"]
for sample in ("pump", "Größe", "5 °C", "🔧", "u\u0308", "a\u200bb"):
    row = text("characters: {count}, bytes: {bytes}").format(count=len(sample), bytes=list(sample.encode()))
    print(f"{sample!r:12} {row}")
print(bytes([71, 114, 195, 182, 195, 159, 101]).decode())

# %% [markdown]
# (The last but one is an `ü` in two parts, a `u` and a mark that is put above it; it looks like the one-part `ü` and is a different text. The last has a *zero-width space* in the middle, which copied text is full of; it cannot be seen, so `!r` prints its number in Unicode, `\u200b`.)
#
# > **Predict.** How many bytes does `Kühlwasserpumpe 🔧` have?
#
# <details><summary>Answer</summary>21: fifteen letters, of which the “ü” takes two bytes, a space, and four bytes of the emoji.</details>
#
# The drawback of bytes is length. A model reads only so many tokens at a time, and it works for each of them. This sentence has ten words, but more than fifty bytes. So we start with bytes, and join what often stands together.

# %% [markdown]
# ## One merge
#
# **Byte-pair encoding** (BPE) needs one operation: take a pair of tokens, and wherever they stand side by side, put one new token in their place. Tokens 0 to 255 are the bytes; the first new token is 256, the next 257, and so on. Here are two merges by hand:
#
# ```text
# pumpenpumpe              p   u   m   p   e   n   p   u   m   p   e
#                        112 117 109 112 101 110 112 117 109 112 101
# merge (112, 117): pu       256 109 112 101 110     256 109 112 101
# merge (256, 109): pum          257 112 101 110         257 112 101
# ```
#
# One case needs care. In `aaa` the pair `aa` can be seen twice, but the letter in the middle can belong to one of the two only. The rule is: from left to right, so `aaa` becomes `aa` and `a`, and `aaaa` becomes two times `aa`.

# %% [markdown]
# ### Task: merge a pair (2 points)
#
# Write `merge_pair`. It returns a new list; the one that it is given should stay as it is, since other code may still need it. (The check tells you if it does not, and takes no points off.)

# %%
Pair = tuple[int, int]  # two tokens, side by side


# %% task="merge_pair"
def merge_pair(tokens: list[int], pair: Pair, new: int) -> list[int]:
    """Return the tokens with `new` wherever the pair stood, found from left to right."""
    ### BEGIN SOLUTION
    result = []
    place = 0
    while place < len(tokens):
        if tuple(tokens[place : place + 2]) == pair:
            result.append(new)
            place += 2
        else:
            result.append(tokens[place])
            place += 1
    return result
    ### END SOLUTION


# %% check="merge_pair"
check.merge_pair(merge_pair)

# %% [markdown]
# ## Training
#
# Which pair is merged? The most frequent one, because it usually saves the most. Then the pairs are counted anew (there are new neighbours now), the most frequent is merged, and so on, as often as you like. This is all that "training a tokenizer" means: no gradient, no model, only counting. The result is the list of merges, in the order in which they were made.
#
# Two things make it practical.
#
# **Pieces.** Text is cut into words and the like first, and merges stay inside. Otherwise frequent neighbours such as `of the` would use up the list, and every number would stick to the word before it. The space before a word belongs to the word: ` pump` inside a sentence is one piece.
#
# **Counts.** Most words repeat. So training does not look at the text but at a table: each different piece with the number of times it occurs.
#
# The cutting is done by a regular expression with five alternatives (the last line below holds two), tried from the first to the last. You need not be able to write it, but you can learn to read it: a space and `?` mean "a space, or none"; `\d` is a digit, `\s` white space, `\w` a letter, a digit or `_`, and the capital letter means the opposite. `[^...]` is any character that is *not* in the brackets, so `[^\W\d_]` are the letters. `(?:...|...)` holds two alternatives together, `+` repeats, and `(?!\S)` means "if the next character is white space, or the text ends here".


# %%
PIECES = re.compile(
    r" ?[^\W\d_]+"  # letters, with the space before them
    r"| ?\d+"  # digits
    r"| ?(?:[^\w\s]|_)+"  # everything that is neither, nor white space
    r"|\s+(?!\S)|\s+"  # white space; the last space before a word is left to the word
)


def split(text: str) -> list[str]:
    """Cut a text into pieces that merges stay inside of; together they are the text."""
    return PIECES.findall(text)


# %% tags=["demo"]
print(split("The seal of pump HP-40321 is leaking,  please help! 🔧"))
print(Counter(split("a pump and a seal and a pump")))

# %% [markdown]
# A refresher for the counting: `Counter()` is a dictionary in which everything starts at 0, so `counter[key] += 3` just works. `pairwise([1, 2, 3])` yields (1, 2) and (2, 3), and from bytes it yields pairs of their numbers (`b"banana"` is short for `"banana".encode()`). `max(counter, key=counter.get)` returns the key with the largest count, and raises a ValueError if there is none.

# %% tags=["demo"]
counter = Counter()
for pair in pairwise(b"banana"):
    counter[pair] += 10  # as if the word occurred ten times
print(counter)
print(max(counter, key=counter.get))

# %% [markdown]
# > **Predict.** `(97, 110)` and `(110, 97)` both occur 20 times here. Which of them should be merged?
#
# <details><summary>Answer</summary>Either. Nothing decides a tie, so two programs that are both right can learn different lists. The check accepts any most frequent pair.</details>

# %% [markdown]
# ### Task: train byte-pair encoding (3 points)
#
# Write `train_bpe`. `counts` says how often each piece occurs, for example `{" pump": 12, " seal": 3}`. Each piece starts as its bytes.
#
# * Every place where two tokens stand side by side counts, so `aaa` holds the pair `aa` twice (even if only one of them can be merged), and a piece that occurs 12 times counts 12 times.
# * Take a most frequent pair, whichever, and merge it in all pieces: the first merge makes token 256, the second 257, and so on.
# * Go on until there are `merges` of them, or no piece has two tokens left. Then return the pairs, as tuples, in the order of merging.
# * The table may be empty, and a piece in it may be the empty text: neither holds a pair.


# %% task="train_bpe"
def train_bpe(counts: dict[str, int], merges: int) -> list[Pair]:
    """Learn up to that many merges from pieces of text (some may be empty) and how often each of them occurs."""
    ### BEGIN SOLUTION
    pieces = [(list(piece.encode()), count) for piece, count in counts.items()]
    learned = []
    for new in range(256, 256 + merges):
        pairs = Counter()
        for tokens, count in pieces:
            for pair in pairwise(tokens):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=pairs.get)
        learned.append(best)
        pieces = [(merge_pair(tokens, best, new), count) for tokens, count in pieces]
    return learned
    ### END SOLUTION


# %% check="train_bpe"
check.train_bpe(train_bpe)

# %% [markdown]
# ### See it learn
#
# Now the real thing. We need text that says the same in English and in German and that is on every machine which runs this notebook. You have been reading it: this course. Its units exist in both languages, paragraph by paragraph. We take the prose of three units (no code, no formulas), learn from *Talk to a GPT* and *Predict failure before it happens*, and measure on *Train your own GPT*, which does not occur in training. That is a small corpus, some 26,000 characters of English and 29,000 of German to learn from, but one on which a comparison is fair. Training three tokenizers takes less than a minute.

# %% tags=["demo"]
from kicourse.data import course_text

MERGES = 300

units = course_text.load()
training = units["first_call"] + units["maintenance"]
held_out = units["mini_gpt"]
corpora = {
    "English": [pair.english for pair in training],
    "German": [pair.german for pair in training],
    "both": [paragraph for pair in training for paragraph in (pair.english, pair.german)],
}
labels = {"English": text("English"), "German": text("German"), "both": text("both")}


def learn(name: str) -> list[Pair]:
    """Train on a corpus, and say what that took."""
    counts = Counter(piece for paragraph in corpora[name] for piece in split(paragraph))
    start = time.perf_counter()
    merges = train_bpe(dict(counts), MERGES)
    seconds = time.perf_counter() - start
    row = text("{count} pieces, {different} of them different; training takes {seconds:.1f} s")
    print(f"{labels[name]:9}", row.format(count=counts.total(), different=len(counts), seconds=seconds))
    return merges


learned = {name: learn(name) for name in corpora}

# %% [markdown]
# What has the tokenizer learned? A list of pairs of numbers. Where both are plain letters, `bytes(pair)` makes them readable at once; the others hold tokens of earlier merges, and you will read them as soon as you have written `decode`. Compare the two languages: what stands side by side most often? (`·` is a space.)

# %% tags=["demo"]
for name in ("English", "German"):
    letters = [bytes(pair).decode().replace(" ", "·") for pair in learned[name] if max(pair) < 128]
    print(labels[name])
    print("   ", text("the first merges:"), *learned[name][:6])
    print("   ", text("of two letters:"), *letters[:24])

# %% [markdown]
# ## Encoding
#
# Training is over, and a new text comes in. Which tokens does it have? It is tempting to search for the longest token that fits, again and again from the left. But that is *another* cut than the one that training made, and the model has learned from text that was cut by training. **Encoding repeats training**: first bytes, then the merges in the order in which they were learned. An early merge was made because it was frequent, and it goes first. The place of a merge in the list is called its **rank**.
#
# ```text
# merges: (y z) first, (x y) second          text: xyz
#
# by rank                 x  yz              the first merge fits, the second then finds no x y any more
# longest from the left   xy  z              a token that training would not have made here
# ```
#
# > **Think.** Could a merge that was made once become possible again, after a later one? Then the order of the list would not be enough.
#
# <details><summary>Answer</summary>No. A later merge makes a token with a higher number than all before it, and an earlier merge joins only tokens that were there when it was learned. One walk through the list is enough.</details>

# %% [markdown]
# ### Task: encode (2 points)
#
# Write `encode`: from a text to its tokens, for any list of merges. Nothing is taken from the text and nothing is added: an umlaut in two parts stays in two parts, and spaces at the ends and invisible characters stay too. (You need not cut pieces here: merges that were learned inside pieces hardly ever fit across them.)


# %% task="encode"
def encode(text: str, merges: list[Pair]) -> list[int]:
    """Return the tokens of a text: its bytes, joined by the merges in their order."""
    ### BEGIN SOLUTION
    tokens = list(text.encode())
    for new, pair in enumerate(merges, start=256):
        tokens = merge_pair(tokens, pair, new)
    return tokens
    ### END SOLUTION


# %% check="encode"
check.encode(encode)

# %% [markdown]
# How many merges should there be? Your `encode` can tell. The figure shows how many tokens the text that does not occur in training takes, after so many merges; `merges[:count]` are the first `count` of them. (The cell encodes that text nine times, which takes some seconds.)

# %% tags=["demo"]
steps = [0, MERGES // 30, MERGES // 12, MERGES // 6, *range(MERGES // 3, MERGES + 1, MERGES // 6)]


def tokens_after(steps: list[int], paragraphs: list[str]) -> list[float]:
    """Return how many thousand tokens the paragraphs take after so many merges."""
    merges = learned["both"]
    return [sum(len(encode(one, merges[:count])) for one in paragraphs) / 1_000 for count in steps]


figure = plots.figure(height=3.4)
axes = figure.subplots()
for label, paragraphs, color in (
    (text("English"), [pair.english for pair in held_out], plots.BLUE),
    (text("German"), [pair.german for pair in held_out], plots.ORANGE),
):
    curve = tokens_after(steps, paragraphs)
    axes.plot(steps, curve, "o-", markersize=4, color=color)
    axes.text(1.01 * MERGES + 2, curve[-1], f"{label} {curve[-1]:.1f}", va="center", color=color)
axes.set_xlim(0, 1.22 * MERGES)
axes.set_xticks(range(0, MERGES + 1, MERGES // 6))
axes.set_ylim(bottom=0)
axes.set_xlabel(text("merges, learned from both languages"))
axes.set_ylabel(text("thousand tokens"))
plots.show(
    figure,
    alt=text(
        "Thousands of tokens of the same text against the number of merges. English falls from 15.8 and German from 18.3, steeply in the first 50 merges and then ever more slowly, to 7.7 and 8.9 after 300."
    ),
)

# %% [markdown]
# Each merge takes what is most frequent *now*, so the first save much and the later ones less and less. SmolLM2 has 49,152 tokens, one reason why an English word takes it only 1.24, and large models have up to some 250,000. Beyond that, the tables that belong to the tokens (a vector for each at the entrance, a score for each at the exit) cost more than the shorter texts save.
#
# Look at the start, too. Before any merge every token is a byte, and the same text has 15.5 percent more bytes in German: that much is the language. We come back to it.

# %% [markdown]
# ## Decoding
#
# The way back is easier, with one trap. A token stands for bytes: 65 for one of them, 256 for the two of its pair, 300 perhaps for five, because its parts have parts. Put the bytes of all tokens together (`b"".join(parts)` does with bytes what `"".join(parts)` does with text), and read them as UTF-8.
#
# The trap is the order of these two steps. The bytes of one character can lie in two tokens, and half a character is no text. Here is what SmolLM2 makes of an emoji. (If you have not used its files on this machine yet, they are unpacked now, which takes about half a minute.)

# %% tags=["demo"]
from kicourse.models import gpt
from tokenizers import Tokenizer

smollm = Tokenizer.from_file(str(gpt.torch_path() / "tokenizer.json"))

tokens = smollm.encode("A wrench: 🔧").ids
print(tokens)
print(text("one by one:"), [smollm.decode([token]) for token in tokens])
print(text("together:"), smollm.decode(tokens))
print(text("cut off:"), smollm.decode(tokens[:-1]))

# %% [markdown]
# The sign `�` (U+FFFD, the *replacement character*) stands for bytes that are no text. It is right where a reply was cut off inside a character, and a bug where somebody decoded token by token. Whoever streams a model's answer meets it: the first bytes of an emoji arrive before the last. Python puts it in with `data.decode(errors="replace")`, where plain `data.decode()` would raise an exception.

# %% [markdown]
# ### Task: decode (1.5 points)
#
# Write `decode`, the way back from tokens to text, for any tokens and merges. What was encoded comes back exactly; bytes that are no text become `�`, as `errors="replace"` does it.


# %% task="decode"
def decode(tokens: list[int], merges: list[Pair]) -> str:
    """Return the text that tokens stand for; bytes that are no valid UTF-8 become the replacement character."""
    ### BEGIN SOLUTION
    vocabulary = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        vocabulary.append(vocabulary[left] + vocabulary[right])
    return b"".join(vocabulary[token] for token in tokens).decode(errors="replace")
    ### END SOLUTION


# %% check="decode"
check.decode(decode)

# %% [markdown]
# A tokenizer is a promise: `decode(encode(text)) == text`, for every text in the world. It was made of English and German, so try it on what it has never seen.

# %% tags=["demo"]
for sample in ("Ärger mit Bertha?", "水泵漏水", "насос", "👩‍🔧", "a\u200bb", "u\u0308", "", "\x00\n"):
    tokens = encode(sample, learned["both"])
    assert decode(tokens, learned["both"]) == sample
    print(text("{count:2} characters, {tokens:2} tokens").format(count=len(sample), tokens=len(tokens)), f" {sample!r}")

# %% [markdown]
# Everything comes back, and nothing is unknown. But look at the counts: what the tokenizer has not met in training stays in bytes, several tokens a character. This is what a language pays that was forgotten when the text was chosen.

# %% [markdown]
# Now your tokenizer can say what it has learned: `decode([token], merges)` is the spelling of one token. The first are word endings, articles and the beginnings of words; whole words come later. Compare the two languages.


# %% tags=["demo"]
def spellings(merges: list[Pair]) -> list[str]:
    """Return what each learned token stands for."""
    return [decode([token], merges) for token in range(256, 256 + len(merges))]


for name in ("English", "German"):
    shown = [spelling.replace(" ", "·") for spelling in spellings(learned[name])]
    print(labels[name])
    print("   ", text("first:"), *shown[:24])
    print("   ", text("last:"), *shown[-16:])

# %% [markdown]
# Watch a long word being put together, merge by merge, by the tokenizer that knows German (its 300 merges make about ten tokens of 21 bytes):


# %% tags=["demo"]
def show_merges(word: str, merges: list[Pair]) -> None:
    """Print a word in bytes, and after each merge that changes it."""
    before: list[int] = []
    for count in range(len(merges) + 1):
        tokens = encode(word, merges[:count])
        if tokens != before:
            pieces = "|".join(decode([token], merges) for token in tokens)
            print(f"{text('after merge')} {count:4}   {pieces.replace(' ', '·')}")
        before = tokens


show_merges(" Wahrscheinlichkeiten", learned["German"])

# %% [markdown]
# ### For comparison: the library
#
# At work nobody trains with thirty lines of Python. The library `tokenizers` does the same in Rust. Its parts have names that you know by now: a *pre-tokenizer* cuts the pieces, a *model* holds the merges, a *trainer* learns them, a *decoder* turns tokens into text again. `ByteLevel` shows each byte as a visible letter (a space becomes `Ġ`), so that a list of tokens can be printed.

# %% tags=["demo"]
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers


def library_tokenizer(model: models.BPE) -> Tokenizer:
    """Put a BPE model between our way of cutting pieces and a decoder for bytes."""
    library = Tokenizer(model)
    cut = pre_tokenizers.Split(Regex(PIECES.pattern), behavior="isolated")
    show_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([cut, show_bytes])
    library.decoder = decoders.ByteLevel()
    return library


start = time.perf_counter()
library = library_tokenizer(models.BPE())
library.train_from_iterator(
    corpora["both"],
    trainers.BpeTrainer(
        vocab_size=256 + MERGES, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    ),
)
print(text("the library needs {seconds:.2f} s").format(seconds=time.perf_counter() - start))
theirs = {library.decode([token]) for token in range(256, library.get_vocab_size())}
ours = set(spellings(learned["both"]))
print(text("{count} of {all} tokens are the same").format(count=len(ours & theirs), all=len(ours)))
print(sorted(ours - theirs), sorted(theirs - ours))

# %% [markdown]
# Nearly all tokens are the same. What differs are ties and what follows from them. The library is faster because it does not count everything anew after each merge: it keeps the counts, and brings those up to date that a merge has changed.

# %% [markdown]
# Is your tokenizer right? The library is the judge: we hand it *your* merges, and it must give the same tokens as your `encode` on all the text that does not occur in training.


# %% tags=["demo"]
def byte_letters() -> list[str]:
    """Return the letter by which the library shows each byte: itself where it can be seen, else one from 256 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte if byte in visible else next(hidden)) for byte in range(256)]


def in_library(merges: list[Pair]) -> Tokenizer:
    """Give our merges to the library."""
    letters = byte_letters()
    for left, right in merges:
        letters.append(letters[left] + letters[right])
    vocabulary = {letter: token for token, letter in enumerate(letters)}
    return library_tokenizer(models.BPE(vocabulary, [(letters[left], letters[right]) for left, right in merges]))


library = in_library(learned["both"])
paragraphs = [paragraph for pair in held_out for paragraph in (pair.english, pair.german)]
same = sum(library.encode(paragraph).ids == encode(paragraph, learned["both"]) for paragraph in paragraphs)
print(text("{same} of {count} paragraphs have the same tokens").format(same=same, count=len(paragraphs)))

# %% [markdown]
# ## What a language costs
#
# Now the first question of the head of service. Providers charge by the token, but we think in words. The number between them, **tokens per word**, says how well a tokenizer fits a language (researchers call it *fertility*).
#
# Three decisions have to be made, and reported with the number. What is a word? Here it is what `str.split()` returns: everything between white space. (A German compound is then one word, and no wonder that it takes more tokens; we come back to that.) What is averaged? The tokens of all messages over the words of all messages: a mean over messages would let a "thanks!" weigh as much as a page. And what is encoded? Each message as it is sent, with its spaces, for ` pump` and `pump` are different tokens.

# %% [markdown]
# ### Task: tokens per word, and what they cost (1.5 points)
#
# Write `tokens_per_word`. `encode` is any tokenizer, not only yours: a function that is given a text and returns its tokens. The annotation `Callable[[str], list[int]]` says just that: callable with a `str`, and what comes back is a `list[int]`. `price` is what a million tokens cost, in dollars, as a `Decimal` (as in *Talk to a GPT*: calculate with it exactly, and do not round). If there is no word at all, tokens per word are 0.0; tokens are paid for all the same. (The list may even be empty: then nothing is paid.)


# %% task="tokens_per_word"
def tokens_per_word(messages: list[str], encode: Callable[[str], list[int]], price: Decimal) -> tuple[float, Decimal]:
    """Return how many tokens a word of these messages takes, and the dollars that all the messages cost."""
    ### BEGIN SOLUTION
    tokens = sum(len(encode(message)) for message in messages)
    words = sum(len(message.split()) for message in messages)
    return (tokens / words if words else 0.0), tokens * price / 1_000_000
    ### END SOLUTION


# %% check="tokens_per_word"
check.tokens_per_word(tokens_per_word)

# %% [markdown]
# The numbers of the figure from the beginning, this time measured by you. The text is *Train your own GPT* in both languages, which says the same twice. The price is an example, of the order that providers charge. (In the code, `lambda message, merges=merges: ...` is a small function for each tokenizer; the default value keeps this tokenizer's merges for it, where otherwise all would use the last.)

# %% tags=["demo"]
PRICE = Decimal("0.50")  # dollars for a million tokens

texts = {"English": [pair.english for pair in held_out], "German": [pair.german for pair in held_out]}
encoders = {"SmolLM2": lambda message: smollm.encode(message).ids} | {
    name: lambda message, merges=merges: encode(message, merges) for name, merges in learned.items()
}
headings = (text("English"), text("German"), text("English"), text("German"))
print(f"{'':10}{text('tokens per word'):>22}{text('cost in US cents'):>22}{text('German : English'):>20}")
print(f"{'':10}" + "".join(f"{heading:>11}" for heading in headings))
for name, encoder in encoders.items():
    (english, english_cost), (german, german_cost) = (
        tokens_per_word(messages, encoder, PRICE) for messages in texts.values()
    )
    cents = f"{100 * english_cost:11.3f}{100 * german_cost:11.3f}"
    print(f"{labels.get(name, name):10}{english:11.2f}{german:11.2f}{cents}{german_cost / english_cost:20.2f}")

# %% [markdown]
# With SmolLM2 the same text costs 1.8 times as much in German. How much of that is the language? The last column compares whole texts that say the same. Before any merge, the German one has 15.5 percent more bytes; trained on the same paragraphs in both languages, it takes about 15 percent more tokens; and trained on German, it is the cheaper one. So the language explains some 15 percent, which is what is left where the tokenizer favours neither; the rest is what it was made from.
#
# Tokens per word are harder to compare across languages, because German words are longer: with the space, 6.4 bytes each against 5.4. (There are hardly fewer of them, 2,860 against 2,952.) And that even the tokenizer trained on German takes nearly three tokens for a word is mostly due to its only 300 merges: with 2,000 it would be about two.
#
# The bill comes three times:
#
# * **Money.** Each token is charged.
# * **Time.** A model writes one token after the other; a German answer takes longer, at the same speed.
# * **Room.** The context window counts tokens. What fits into it in English may not in German.

# %% tags=["demo"]
WINDOW = 8_192  # tokens that SmolLM2 can read at a time

rooms = {}
for language, messages in texts.items():
    per_word, _cost = tokens_per_word(messages, encoders["SmolLM2"], PRICE)
    characters_per_word = sum(map(len, messages)) / sum(len(message.split()) for message in messages)
    rooms[language] = WINDOW / per_word * characters_per_word / 1_800  # characters on a standard page

figure = plots.figure(height=2.2)
axes = figure.subplots()
bars = axes.barh([text("English"), text("German")], list(rooms.values()), color=[plots.BLUE, plots.ORANGE])
axes.bar_label(bars, fmt="%.1f", padding=4)
axes.invert_yaxis()
axes.grid(visible=False, axis="y")
axes.set_xlabel(text("pages of 1,800 characters that fit into SmolLM2's window"))
plots.show(
    figure,
    alt=text("Pages that fit into a window of 8,192 tokens: {english:.1f} in English, {german:.1f} in German.").format(
        english=rooms["English"], german=rooms["German"]
    ),
)

# %% [markdown]
# > **Change it.** What happens to the ratio in the row "both" with `MERGES = 600`? And with 300 again, if two of three training paragraphs are German: `(pair.english, pair.german, pair.german)` where `corpora["both"]` is made? Write down your guess first. Then run two cells again: the one that trains (with 600 merges it takes one to two minutes) and the one that prints the table.
#
# <details><summary>Answer</summary>With 600 merges both languages get shorter (about 2.29 and 2.72 tokens per word), and the ratio stays at about 1.15. With two thirds of German it falls to about 1.05 (2.76 and 2.98): English pays for what German saves. What goes into the training text decides, not how long you train.</details>

# %% [markdown]
# ## Why models stumble over letters
#
# A model never sees the letters of its tokens. It sees numbers, and what it knows about a token is what it has read *around* it. Here is what arrives:

# %% tags=["demo"]
for sample in (" strawberry", "strawberry", " Strawberry", " STRAWBERRY", " straw\u200bberry"):
    encoding = smollm.encode(sample)
    print(f"{sample!r:22} {encoding.ids}  {[smollm.decode([token]) for token in encoding.ids]}")

# %% [markdown]
# With a space before it the word is a single number. How many times does the letter "r" occur in it? The number does not say; the model can only know it by heart, or spell the word out first, token by token. And five ways of writing one word have little in common (three of them share the token `berry`): that they mean the same is one more thing that a model has to learn. Printed normally, the last looks like the first: an invisible character is enough to make other tokens of a word. Filters for forbidden words have been fooled like that.

# %% [markdown]
# ## And over digits
#
# Numbers fare worse. BPE merges digits that are frequent neighbours, and those are years, round numbers and whatever the corpus happened to hold. Below, a vocabulary of 8,192 tokens is learned from the source of Python's standard library (four million characters, on your machine anyway). Each rectangle is a number from 0 to 999; its colour says how it is cut.

# %% tags=["demo"]
from kicourse.data import python_source
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

by_chance = library_tokenizer(models.BPE())
by_chance.train_from_iterator(
    python_source.load().training.values(),
    trainers.BpeTrainer(vocab_size=8_192, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
)
CUTS = {
    text("one token"): "#d6e4f2",
    text("cut after the first digit"): plots.BLUE,
    text("cut after the second digit"): plots.ORANGE,
    text("every digit by itself"): plots.INK,
}


def cut_of(number: int, encoder: Tokenizer) -> int:
    """Return which of CUTS a number meets."""
    lengths = [len(token) for token in encoder.encode(str(number)).tokens]
    if len(lengths) == 1:
        return 0
    return 3 if max(lengths) == 1 else lengths[0]


figure = plots.figure(width=9, height=3.4)
panels = ((text("learned from Python's source"), by_chance), (text("SmolLM2"), smollm))
for axes, (title, encoder) in zip(figure.subplots(1, 2), panels, strict=True):
    rows = [[cut_of(start + offset, encoder) for offset in range(50)] for start in range(0, 1_000, 50)]
    axes.pcolormesh(rows, cmap=ListedColormap(list(CUTS.values())), vmin=-0.5, vmax=3.5)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(text("+ 0 to 49"))
    axes.set_yticks([0.5, 4.5, 8.5, 12.5, 16.5], [0, 200, 400, 600, 800])
    axes.invert_yaxis()
    axes.grid(visible=False)
patches = [Patch(color=color, label=label) for label, color in CUTS.items()]
figure.legend(handles=patches, ncols=4, loc="outside lower center", fontsize=9)
plots.show(
    figure,
    alt=text(
        "Two maps of the numbers 0 to 999, coloured by how each is cut. On the left, learned from Python's source, cuts after the first and after the second digit change from one number to the next; most numbers below 100 are one token, and so are a few others such as 256 and 512. On the right, SmolLM2's, every number is cut into its digits."
    ),
)
for number in (256, 257, 512, 513, 40321, 40322):
    print(number, by_chance.encode(str(number)).tokens, smollm.encode(str(number)).tokens)

# %% [markdown]
# On the left, neighbouring numbers are cut in different ways. To add two of them, a model would have to know by heart what each token means and where its digits stand. This is why makers of models step in: SmolLM2 gives every digit a token of its own (on the right), others take digits in groups of three. One by one, a digit is the same token wherever it stands, and arithmetic becomes easier to learn.
#
# That does not help the serial number. It is rare text that has no token of its own, however digits are cut: with SmolLM2, `HP-40321-7` takes nine tokens. And where the beginning of a word tells how it goes on, here each token has to be copied for itself. A model that copies a token correctly in 99 of 100 cases would get all nine right in only 91. The tokenizer does not make the slips, but it makes room for them. So the answer to the second question is: let programs carry serial numbers past the model, or check afterwards that each number in the answer stood in the question.

# %% [markdown]
# ## Where you stand now
#
# You can now
#
# * say what a model reads: bytes, joined by merges that were learned by counting;
# * train a tokenizer, encode and decode, and check your own against the library;
# * measure what a text costs in a language, and say how much of it is the tokenizer's doing;
# * explain why a model that writes essays miscounts letters and miscopies numbers.
#
# And the head of service gets an answer: the German tickets cost more because the tokenizer was made from English. What we will pay is tokens times price, so we count the tokens of *our* tickets with each provider's tokenizer before we sign anything; a price for a million tokens alone says nothing yet.

# %% [markdown]
# ## Where it breaks in production
#
# * **The wrong tokenizer.** A model understands the numbers of its own tokenizer only. With another one nothing crashes: the answers are just nonsense. Save and load both together.
# * **Counting with the wrong one.** A budget that is counted by one model's tokenizer does not hold for another's. Leave room, or ask the provider's own counter.
# * **Special tokens.** Chat formats mark turns by tokens such as `<|im_end|>`. If a user types that text, it must be encoded as plain text, or the user writes the system's messages. Libraries have a switch for it; look where yours stands.
# * **Prompts that end in a space.** The space usually belongs to the next word's token. A prompt that ends with one takes the model to a place that it has hardly ever seen.
# * **Speed.** Your `encode` tries every merge on every text. Libraries cut pieces, keep each piece's tokens in a cache, and look up only the ranks of pairs that are there.
# * **Token limits** can cut a character in two. Cut text, not tokens, or decode all of it at once.

# %% [markdown]
# ## What to read next
#
# * Sennrich, Haddow and Birch, *Neural Machine Translation of Rare Words with Subword Units* (2016): how a method for compressing files came to language models.
# * Radford and others, *Language Models are Unsupervised Multitask Learners* (2019): byte-level BPE in GPT-2.
# * Petrov and others, *Language Model Tokenizers Introduce Unfairness Between Languages* (2023): the bill for many more languages.
# * Andrej Karpathy, *minbpe* and the lecture *Let's build the GPT Tokenizer* (2024).
# * The next unit, *Train your own GPT*: what a model does with the tokens.
