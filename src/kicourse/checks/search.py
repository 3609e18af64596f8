"""The checks of `search`: chunks, search by words and by meaning, both together, and how good it is."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import lazy_loader

from kicourse.checks import Check, Failed, Handle, Record, Trial, _, as_tuple
from kicourse.checks.show import show

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_loader.load("numpy")

UNIT = "search"
_FENCE = "```"

Hit = tuple[int, float]
Span = tuple[int, int]


# ---------------------------------------------------------------- chunk

chunk = Check(
    UNIT,
    "chunk",
    title=_("Cut a document into chunks"),
    hints=(
        _(
            "Two jobs, one after the other: find where the blocks are, then put blocks into chunks. Keep of each block "
            "where it starts and ends, and read its text from the document."
        ),
        _(
            "For the first job walk over `document.splitlines(keepends=True)` and add up the lengths: so you always "
            "know where a line starts. Inside a code block only a line with a fence matters. For the second keep a "
            "list of the current chunk's blocks. Does the next block still fit? If not, the chunk is done, and you "
            "drop blocks at the front until what is left is small enough and the next block fits."
        ),
        _(
            "For the blocks, each line is one of four cases. In a code block it belongs to the block, and a fence ends "
            "it. A fence outside begins a block, right after a paragraph too. An empty line ends the paragraph. Any "
            "other line continues the paragraph, or begins one. For the chunks, with `size_of(blocks)` for the words "
            "in a list of blocks, for each block: if `current and size_of([*current, block]) > size`, then "
            "`chunks.append(current)`, and still in this case `while current and (size_of(current) > overlap or "
            "size_of([*current, block]) > size): current = current[1:]`. Then, in every case, `current = [*current, "
            "block]`. After the loop comes the last chunk."
        ),
    ),
    seconds=3,
)


def _blocks(document: str) -> list[Span]:
    """Return where the paragraphs and the code blocks of a document are."""
    spans: list[Span] = []
    place = 0
    in_code = in_paragraph = False
    for line in document.removesuffix("\n").split("\n"):
        end = place + len(line)
        fence = line.startswith(_FENCE)
        if in_code or (in_paragraph and line.strip() and not fence):
            spans[-1] = (spans[-1][0], end)
        elif line.strip():
            spans.append((place, end))
        in_paragraph = bool(line.strip()) and not in_code and not fence
        in_code = in_code != fence
        place = end + 1
    return spans


def _packed(
    document: str,
    blocks: list[Span],
    size: int,
    overlap: int,
    *,
    count: Callable[[str], int] = lambda text: len(text.split()),
    again: Callable[[list[Span], int], int] | None = None,
    leaves_room: bool = True,
    empty_first: bool = False,
    last: bool = True,
) -> list[list[Span]]:
    """Put blocks into chunks; `again` says how many of the last blocks begin the next chunk."""

    def words(chosen: list[Span]) -> int:
        return sum(count(document[start:end]) for start, end in chosen)

    chunks: list[list[Span]] = []
    current: list[Span] = []
    for block in blocks:
        if (current or empty_first) and words([*current, block]) > size:
            chunks.append(current)
            if again is not None:
                current = current[len(current) - again(current, size) :]
            while current and (
                (again is None and words(current) > overlap) or (leaves_room and words([*current, block]) > size)
            ):
                current = current[1:]
        current = [*current, block]
    return [*chunks, current] if last and current else chunks


@dataclass(frozen=True)
class _Chunk:
    text: str
    start: int
    end: int


def _chunked(document: str, chunks: Sequence[Sequence[Span]]) -> list[Any]:
    """Read chunks of blocks from their document."""
    found = []
    for blocks in chunks:
        start, end = (blocks[0][0], blocks[-1][1]) if blocks else (0, 0)
        found.append(_Chunk(document[start:end], start, end))
    return found


def _oracle(document: str, size: int, overlap: int) -> list[_Chunk]:
    return _chunked(document, _packed(document, _blocks(document), size, overlap))


# fmt: off
_WORDS = (
    "pump", "seal", "valve", "motor", "bearing", "shaft", "pressure", "flow", "filter", "gasket", "check", "replace",
    "open", "close", "turn", "clean", "before", "after", "twice", "slowly", "the", "a", "and", "with", "under", "above",
)
# fmt: on
_ODD_WORDS = ("Größe", "Öl", "🔧", "300 °C", "Wel\u00adle", "zero\u200bwidth", "é", "naïve")


def _words(rng: "np.random.Generator", count: int) -> list[str]:
    return [str(word) for word in rng.choice(_WORDS, size=count)]


def _paragraph(rng: "np.random.Generator", words: int) -> str:
    """Return a paragraph of so many words; its first word is a number, so that no two are the same by chance."""
    text = [str(rng.integers(1_000, 1_000_000)), *_words(rng, words - 1)]
    return "\n".join(" ".join(text[start : start + 6]) for start in range(0, words, 6))


def _code(rng: "np.random.Generator", lines: int, opening: str = _FENCE) -> str:
    """Return a code block with an empty line in it; every line has three words."""
    code = [f"{rng.choice(_WORDS)} = {rng.integers(1_000)}" for _line in range(lines)]
    return "\n".join([opening, *code[: lines // 2], "", *code[lines // 2 :], _FENCE])


def _listing(rng: "np.random.Generator", words: int) -> str:
    """Return a code block of so many words, its fences included; without an empty line, it is one block to anybody."""
    return f"{_FENCE}\n{_paragraph(rng, words - 2)}\n{_FENCE}"


def _document(paragraphs: Sequence[str]) -> str:
    return "\n\n".join(paragraphs) + "\n"


def _chunks_of(trial: Trial, answer: Handle, document: str, size: int, overlap: int) -> list[tuple[str, int, int]]:
    """Let the answer cut a document; return text, start and end of each chunk."""
    with trial.trying(f"chunk({_whole(document)}, {size}, {overlap})"):
        got = answer(document, size, overlap)
    trial.is_a(got, list)
    chunks = []
    for one in got:
        fields = one.fields if isinstance(one, Record) else {}
        values: list[Any] = [fields.get(name) for name in ("text", "start", "end")]
        text, start, end = values
        right = type(text) is str and _is_number(start, whole=True) and _is_number(end, whole=True)
        trial.require(right, _("A chunk is a `Chunk` with text, start and end; you returned {found}."), found=show(one))
        chunks.append((text, int(start), int(end)))
    return chunks


def _whole(text: str) -> str:
    """Return a short text to the letter, so that it can be copied; a long one is shortened."""
    return repr(text) if len(text) <= 300 else show(text)


def _piece(text: str, start: int, end: int) -> str:
    return f"Chunk(text={_whole(text)}, start={show(start)}, end={show(end)})"


def _require_chunks(
    trial: Trial, answer: Handle, document: str, size: int, overlap: int, message: str, *, exactly: bool = False
) -> None:
    """Fail unless the answer cuts a document as it should.

    One criterion looks `exactly`, at offsets and every space; to the others only the lines that one sees matter.
    """
    got = _chunks_of(trial, answer, document, size, overlap)
    wanted = [(c.text, c.start, c.end) for c in _oracle(document, size, overlap)]
    for number, (chunk, expected) in enumerate(zip(got, wanted, strict=False)):
        if not (chunk == expected if exactly else _visible(chunk[0]) == _visible(expected[0])):
            about = trial.text(_("Chunk {number} (counted from 0) is not the expected one."), number=number)
            raise Failed(f"{trial.text(message)} {about}", _piece(*expected), _piece(*chunk))
    if len(got) != len(wanted):
        counted = trial.text(_("Number of chunks: {found}, expected: {wanted}."), found=len(got), wanted=len(wanted))
        texts = [[text for text, _start, _end in chunks] for chunks in (wanted, got)]
        raise Failed(f"{trial.text(message)} {counted}", show(texts[0]), show(texts[1]))


def _visible(text: str) -> list[str]:
    return [line.rstrip() for line in text.split("\n") if line.strip()]


@chunk.criterion(
    _("paragraphs are put together, as many as fit"),
    points=0.5,
    why=_("A chunk of one line says too little to be found, and one of ten pages says too much at once."),
)
def packs(trial: Trial, answer: Handle) -> None:
    message = _("A chunk takes paragraph after paragraph, as long as it then still has at most `size` words.")
    one, two, three, four = (str(letter) for letter in trial.rng.permutation(list("abcdef"))[:4])
    for size in (3, 4):
        _require_chunks(trial, answer, _document([one, two, f"{three} {four}"]), size, 0, message)
    short = _document([_paragraph(trial.rng, 1) for _number in range(9)])
    letters = _document([" ".join(trial.rng.permutation(list("abcd"))[: 1 + number % 4]) for number in range(9)])
    for document in (short, letters):
        _require_chunks(trial, answer, document, 20, 0, message)
    _require_chunks(trial, answer, letters, 7, 0, message)
    for size in (6, 12, 30):
        exact = [_paragraph(trial.rng, size // 2) for _number in range(4)]
        _require_chunks(trial, answer, _document(exact), size, 0, message)

    def draw(rng: "np.random.Generator", count: int) -> tuple[str, int]:
        size = int(rng.integers(8, 25))
        return _document([_paragraph(rng, int(rng.integers(1, size))) for _number in range(count)]), size

    for document, size in trial.cases(draw, 10):
        _require_chunks(trial, answer, document, size, 0, message)


@chunk.criterion(
    _("start and end are those of the document, whatever is around them"),
    points=0.5,
    why=_("Whoever clicks on a source wants to see it marked in the document. Offsets into some other text, a stripped "
          "one or one in bytes, mark the wrong words."),
)  # fmt: skip
def right_offsets(trial: Trial, answer: Handle) -> None:
    message = _(
        "A chunk is the document's text from `start` to `end`: with indentation, empty lines and the spaces at the "
        "end of a line, without the last line break."
    )
    rng = trial.rng
    for before in ("\n\n  \n", "\n", ""):
        odd = [f"{rng.choice(_ODD_WORDS)} {_paragraph(rng, 5)}" for _number in range(3)]
        indented = "\n".join(f"   {line}" for line in _paragraph(rng, 9).splitlines())
        code = f"{_FENCE}\n{_paragraph(rng, 6)}  \n{_FENCE}"  # without an empty line, it is one block to anybody
        # One of them thrice, and the code twice: a search finds the first.
        blocks = [odd[0], code, indented, odd[1], odd[0], code, odd[2], odd[0]]
        gaps = [*rng.permutation(["\n\n", "\n\n", "\n\n", "\n\n\n", "\n \t\n", "  \n\n", " \n\n"]), "  \n\n"]
        document = before + "".join(block + gap for block, gap in zip(blocks, gaps, strict=True))
        for size in (10, 20):  # each block alone, and two or three of them
            _require_chunks(trial, answer, document, size, 0, message, exactly=True)
    message = _("A code block that no line ends goes on to the last line of the document, even if that one is empty.")
    for last_lines in ("\n \n", "\n\n"):
        unclosed = f"{_paragraph(rng, 4)}\n\n{_FENCE}\n{_paragraph(rng, 5)}\n{last_lines}"
        texts = [text for text, _start, _end in _chunks_of(trial, answer, unclosed, 8, 0)]
        # Whether such a block is there at all, the next criterion says.
        if [*map(_visible, texts)] == [_visible(one.text) for one in _oracle(unclosed, 8, 0)]:
            _require_chunks(trial, answer, unclosed, 8, 0, message, exactly=True)


@chunk.criterion(
    _("a code block stays whole, with its empty lines"),
    points=0.5,
    why=_("Half an example does not run, and the half without the first line does not even say what it is about."),
)
def whole_code(trial: Trial, answer: Handle) -> None:
    message = _("From a line that starts with ``` to the next one, everything is one block.")
    rng = trial.rng
    for opening in (_FENCE, _FENCE + "python", _FENCE + "c++", _FENCE + "`"):
        code = [_code(rng, int(rng.integers(2, 6)), opening) for _number in range(2)]
        text = [_paragraph(rng, int(rng.integers(4, 9))) for _number in range(3)]
        apart = _document([text[0], code[0], text[1], code[1], text[2]])
        close = "\n".join([text[0], code[0], text[1], code[1], code[0], text[2]]) + "\n"
        unclosed = _document([text[0], text[1], code[0].removesuffix(_FENCE) + "\n" + text[2]])
        ends = _(
            "A code block ends the paragraph before it, and the block after it begins at once: no empty line is needed."
        )
        for document, told in ((apart, message), (close, ends), (unclosed, message)):
            for size in (26, 31, 40):  # the largest block, the one without an end, has 25 words at most
                _require_chunks(trial, answer, document, size, 0, told)
    before, after, other = (_paragraph(rng, 20) for _number in range(3))  # no two blocks go into 26 words
    message = _("Every line that starts with ``` ends an open code block, whatever follows the backticks.")
    named = _code(rng, 3) + "end"
    _require_chunks(trial, answer, _document([before, named, after, _code(rng, 3), other]), 26, 0, message)
    message = _("Only at the very start of a line do three backticks count: after spaces they are text.")
    lines = _code(rng, 4).split("\n")
    inside = "\n".join([*lines[:2], f"   {_FENCE}", *lines[2:]])
    outside = "\n".join([_paragraph(rng, 9), f"   {_FENCE}", _paragraph(rng, 9)])
    for odd in (inside, outside):
        _require_chunks(trial, answer, _document([before, odd, after]), 26, 0, message)
    message = _("One or two backticks at the start of a line are text: a code block begins and ends with three.")
    for quoted in ("`pump`", "``seal``"):
        _require_chunks(trial, answer, _document([before, f"{quoted} {other}", after]), 26, 0, message)


@chunk.criterion(
    _("the next chunk begins with the last blocks of the one before"),
    points=0.5,
    why=_("An answer may need the sentence before it. With an overlap, both are together in one of two chunks."),
)
def right_overlap(trial: Trial, answer: Handle) -> None:
    message = _("The overlap is whole blocks, as many as have at most `overlap` words and leave room for the next one.")

    def draw(rng: "np.random.Generator", count: int) -> tuple[str, int, int]:
        size = int(rng.integers(12, 30))
        lengths = [int(rng.integers(1, 1 + size // 2)) for _number in range(2 + count)]
        kinds = [_listing if length > 2 and rng.random() < 0.3 else _paragraph for length in lengths]
        blocks = [block(rng, length) for block, length in zip(kinds, lengths, strict=True)]
        return _document(blocks), size, int(rng.integers(4, size))

    letters = [str(letter) for letter in trial.rng.permutation(list("abcdefgh"))[:6]]
    small = _document([*letters[:3], " ".join(letters[3:5]), letters[5]])
    _require_chunks(trial, answer, small, 4, 3, message)  # every known mistake cuts this in a way of its own
    three = _document([_paragraph(trial.rng, 4) for _number in range(6)])
    short = _document([_paragraph(trial.rng, 1) for _number in range(14)])  # many blocks come again
    _require_chunks(trial, answer, short, 10, 8, message)
    kinds = (_listing, _paragraph, _listing, _paragraph, _listing)  # code comes again as well
    mixed = _document([block(trial.rng, 4) for block in kinds])
    for document in (three, mixed):
        for size, overlap in ((8, 4), (12, 4), (12, 8), (12, 7)):
            _require_chunks(trial, answer, document, size, overlap, message)
    for document, size, overlap in trial.cases(draw, 10):
        _require_chunks(trial, answer, document, size, overlap, message)


@chunk.criterion(
    _("it ends, even with an overlap as large as a chunk"),
    points=0.25,
    why=_("Every chunk has to bring at least one new block. Otherwise the same chunk comes forever."),
)
def ends(trial: Trial, answer: Handle) -> None:
    message = _("However large the overlap is, the next block must fit: drop blocks at the front until it does.")
    for extra in (0, 1, 30):
        size = int(trial.rng.integers(10, 20))
        lengths = [int(trial.rng.integers(3, 8)) for _number in range(8)]
        document = _document([_paragraph(trial.rng, length) for length in lengths])
        _require_chunks(trial, answer, document, size, size + extra, message)


@chunk.criterion(
    _("nothing is lost or made up: large blocks, and empty documents"),
    points=0.25,
    why=_("What is in no chunk can never be found, and nobody notices. An empty chunk is found by accident."),
)
def keeps_all(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    for document in ("", "\n", " \n\n\t\n"):
        _require_chunks(trial, answer, document, 10, 0, _("A document without blocks gives an empty list."))
    message = _("A block of more than `size` words is a chunk of its own, whole.")
    alone = _("A block of more than `size` words is a chunk of its own: no block comes again in front of it.")
    small, other = _paragraph(rng, 3), _paragraph(rng, 4)
    for large in (_paragraph(rng, 30), _code(rng, 12)):
        for blocks in ([large, small, other], [small, large, other], [small, other, large], [large]):
            _require_chunks(trial, answer, _document(blocks), 10, 0, message)
            _require_chunks(trial, answer, _document(blocks).rstrip("\n"), 10, 4, alone)


@chunk.misconception(_("offsets in the stripped document: they are wrong as soon as it begins with an empty line"))
def offsets_after_stripping(document: str, size: int, overlap: int) -> Any:
    return _oracle(document.strip(), size, overlap)


@chunk.misconception(_("offsets after `lstrip`: they are wrong as soon as the document begins with an empty line"))
def offsets_after_lstrip(document: str, size: int, overlap: int) -> Any:
    return _oracle(document.lstrip(), size, overlap)


@chunk.misconception(_("lines without the spaces at their end: only the line break does not belong to a block"))
def line_ends_stripped(document: str, size: int, overlap: int) -> Any:
    found = [(c.text.rstrip(), c.start) for c in _oracle(document, size, overlap)]
    return [_Chunk(text, start, start + len(text)) for text, start in found]


@chunk.misconception(_("offsets searched for with `find`, which returns the first place that has the same text"))
def offsets_by_find(document: str, size: int, overlap: int) -> Any:
    found = [(c.text, document.find(c.text)) for c in _oracle(document, size, overlap)]
    return [_Chunk(text, start, start + len(text)) for text, start in found]


@chunk.misconception(_("offsets in bytes: after the first umlaut they are too large"))
def offsets_in_bytes(document: str, size: int, overlap: int) -> Any:
    def place(offset: int) -> int:
        return len(document[:offset].encode())

    return [_Chunk(c.text, place(c.start), place(c.end)) for c in _oracle(document, size, overlap)]


@chunk.misconception(
    _("a text that is joined anew from its blocks: empty lines and indentation are not the document's")
)
def joined_anew(document: str, size: int, overlap: int) -> Any:
    chunks = _packed(document, _blocks(document), size, overlap)
    return [_Chunk("\n\n".join(document[a:b].strip() for a, b in spans), spans[0][0], spans[-1][1]) for spans in chunks]


def _paragraphs(document: str) -> list[Span]:
    """Return where the blocks are if nobody knows of code."""
    return _blocks(document.replace(_FENCE, "'''"))


@chunk.misconception(_("a cut at every empty line, those inside a code block too"))
def code_cut(document: str, size: int, overlap: int) -> Any:
    return _chunked(document, _packed(document, _paragraphs(document), size, overlap))


@chunk.misconception(_("a code block that only begins after an empty line, and ends before one"))
def code_needs_space(document: str, size: int, overlap: int) -> Any:
    spans: list[Span] = []
    for start, end in _paragraphs(document):
        open_code = bool(spans) and document[slice(*spans[-1])].count("\n" + _FENCE) % 2 == int(
            not document[slice(*spans[-1])].startswith(_FENCE)
        )
        if open_code:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    if document.count(f"\n{_FENCE}") % 2:
        spans[-1] = (spans[-1][0], len(document.removesuffix("\n")))
    return _chunked(document, _packed(document, spans, size, overlap))


@chunk.misconception(_("a paragraph that runs on into the code block right after it: only an empty line ends it"))
def paragraph_runs_on(document: str, size: int, overlap: int) -> Any:
    spans: list[Span] = []
    after_paragraph = False
    for start, end in _blocks(document):
        code = document.startswith(_FENCE, start)
        if code and after_paragraph and spans[-1][1] + 1 == start:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
        after_paragraph = not code
    return _chunked(document, _packed(document, spans, size, overlap))


def _code_by(
    document: str, size: int, overlap: int, opens: Callable[[str], bool], closes: Callable[[str], bool]
) -> Any:
    """Cut a document with another idea of which lines begin and end a code block; the other fences are text."""
    lines, in_code = [], False
    for line in document.split("\n"):
        fence = closes(line) if in_code else opens(line)
        in_code = in_code != fence
        # A mark of the same length, so that the offsets stay.
        lines.append(_FENCE + "x" * (len(line) - 3) if fence else line.replace(_FENCE, "xxx"))
    cut = "\n".join(lines)
    chunks = _packed(cut, _blocks(cut), size, overlap)
    return _chunked(document, chunks)


@chunk.misconception(_("a code block that only a line of nothing but three backticks ends"))
def bare_fence_ends(document: str, size: int, overlap: int) -> Any:
    return _code_by(document, size, overlap, lambda line: line.startswith(_FENCE), lambda line: line.strip() == _FENCE)


@chunk.misconception(
    _("a language behind the backticks that has letters only: a code block that begins with ```c++ is text")
)
def named_in_letters(document: str, size: int, overlap: int) -> Any:
    def fence(line: str) -> bool:
        return line.startswith(_FENCE) and (line.strip() == _FENCE or line.strip()[3:].isalpha())

    return _code_by(document, size, overlap, fence, fence)


@chunk.misconception(_("three backticks behind spaces taken for the beginning or the end of a code block"))
def indented_fences(document: str, size: int, overlap: int) -> Any:
    def fence(line: str) -> bool:
        return line.lstrip().startswith(_FENCE)

    return _code_by(document, size, overlap, fence, fence)


@chunk.misconception(_("a code block without an end that is dropped"))
def unclosed_dropped(document: str, size: int, overlap: int) -> Any:
    blocks = _blocks(document)
    texts = [document[slice(*span)] for span in blocks]
    closed = [t.count(_FENCE) != 1 or not t.startswith(_FENCE) for t in texts]
    kept = [block for block, keep in zip(blocks, closed, strict=True) if keep]
    return _chunked(document, _packed(document, kept, size, overlap))


@chunk.misconception(_("a loop that appends a chunk only when the next one begins: the tail is lost"))
def tail_lost(document: str, size: int, overlap: int) -> Any:
    return _chunked(document, _packed(document, _blocks(document), size, overlap, last=False))


@chunk.misconception(_("an overlap that is taken back again and again: with a large one it never ends"))
def never_ends(document: str, size: int, overlap: int) -> Any:
    while overlap >= size:
        time.sleep(0.01)
    return _oracle(document, size, overlap)


@chunk.misconception(
    _("an overlap that does not look whether the next block fits: a chunk that brings no new block comes forever")
)
def same_chunk_again(document: str, size: int, overlap: int) -> Any:
    blocks = _blocks(document)
    chunks = _packed(document, blocks, size, overlap)
    while _packed(document, blocks, size, overlap, leaves_room=False) != chunks:
        time.sleep(0.01)
    return _chunked(document, chunks)


@chunk.misconception(_("no overlap"))
def no_overlap(document: str, size: int, overlap: int) -> Any:
    return _oracle(document, size, 0)


@chunk.misconception(_("an overlap one word too small: exactly `overlap` words are allowed as well"))
def overlap_one_short(document: str, size: int, overlap: int) -> Any:
    return _oracle(document, size, max(overlap - 1, 0))


@chunk.misconception(_("an overlap that comes on top: the chunk gets more than `size` words"))
def overlap_on_top(document: str, size: int, overlap: int) -> Any:
    return _chunked(document, _packed(document, _blocks(document), size, overlap, leaves_room=False))


@chunk.misconception(_("an overlap of exactly one block, however long it is"))
def one_block_again(document: str, size: int, overlap: int) -> Any:
    chunks = _packed(document, _blocks(document), size, overlap, again=lambda _c, _s: int(overlap > 0))
    return _chunked(document, chunks)


@chunk.misconception(_("blocks larger than a chunk are cut into pieces of `size` words"))
def large_cut(document: str, size: int, overlap: int) -> Any:
    found = []
    for c in _oracle(document, size, overlap):
        words = c.text.split()
        if len(words) <= size:
            found.append(c)
            continue
        for first in range(0, len(words), size):
            text = " ".join(words[first : first + size])
            found.append(_Chunk(text, c.start, c.start + len(text)))
    return found


@chunk.misconception(_("blocks larger than a chunk are left out"))
def large_left_out(document: str, size: int, overlap: int) -> Any:
    small = [span for span in _blocks(document) if len(document[slice(*span)].split()) <= size]
    return _chunked(document, _packed(document, small, size, overlap))


@chunk.misconception(_("an empty chunk where the first block is too large"))
def empty_chunk(document: str, size: int, overlap: int) -> Any:
    return _chunked(document, _packed(document, _blocks(document), size, overlap, empty_first=True))


@chunk.misconception(_("a size in characters instead of words"))
def size_in_characters(document: str, size: int, overlap: int) -> Any:
    return _chunked(document, _packed(document, _blocks(document), size, overlap, count=len))


@chunk.misconception(_("a chunk for every block, nothing put together"))
def one_for_each(document: str, size: int, overlap: int) -> Any:
    return _chunked(document, [[block] for block in _blocks(document)])


@chunk.misconception(_("windows of `size` words, which cut paragraphs wherever they end"))
def windows(document: str, size: int, overlap: int) -> Any:
    import re

    words = [match.span() for match in re.finditer(r"\S+", document)]
    step = max(size - overlap, 1)
    return _chunked(document, [words[first : first + size] for first in range(0, len(words), step)])


chunk.equivalent(
    "return sum(len(document[start:end].split()) for start, end in chosen)",
    "return sum(len(document[start:end + 1].split()) for start, end in chosen)",
    reason="behind a block is a line break or nothing: no word more",
)


# ---------------------------------------------------------------- what both searches return


def _hits(trial: Trial, got: Any) -> list[Hit]:
    """Return what a search returned: pairs of a passage's number and a score. NumPy's numbers are numbers too."""
    trial.is_a(got, list)
    hits: list[Hit] = []
    for one in got:
        one = as_tuple(one)
        pair = tuple(one) if type(one) in (tuple, list) else ()
        right = len(pair) == 2 and _is_number(pair[0], whole=True) and _is_number(pair[1])
        message = _("A hit is a pair of a passage's number and its score, (3, 1.25); you returned {found}.")
        trial.require(right, message, expected="list[tuple[int, float]]", found=show(one))
        hits.append((int(pair[0]), float(pair[1])))
    return hits


def _is_number(value: Any, whole: bool = False) -> bool:
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()
    return type(value) is int or (type(value) is float and not whole)


def _best(scores: Mapping[int, float], k: int) -> list[Hit]:
    return sorted(scores.items(), key=lambda hit: -hit[1])[:k]


# ---------------------------------------------------------------- bm25

bm25 = Check(
    UNIT,
    "bm25",
    title=_("Keyword search with BM25"),
    hints=(
        _(
            "What can be computed once, when the passages come in? How often each word occurs in each passage, how "
            "long each passage is, and in how many passages a word occurs."
        ),
        _(
            "A `Counter` for each passage gives f, and 0 for words that it does not have. A second `Counter`, fed with "
            "`set(passage)`, gives n. In `search`, go over the different words of the query, skip those with n = 0, "
            "and add to the score of each passage that has the word."
        ),
        _(
            "`idf = math.log(1 + (N - n + 0.5) / (n + 0.5))`; `scores[i] += idf * f * (k1 + 1) / (f + k1 * (1 - b + b "
            "* length / average))`; then `sorted(scores.items(), key=lambda hit: hit[1], reverse=True)[:k]`."
        ),
    ),
)

Passages = list[list[str]]


def _idf(passages: int, having: int) -> float:
    return math.log(1 + (passages - having + 0.5) / (having + 0.5))


class _BM25:
    """The formula, of which each misconception changes a part."""

    def __init__(self, passages: Sequence[Sequence[str]], k1: float = 1.5, b: float = 0.75) -> None:
        self.passages, self.k1, self.b = passages, k1, b
        self.counts = [Counter(passage) for passage in passages]
        self.having = Counter(word for count in self.counts for word in count)
        self.lengths = [self.length(passage) for passage in passages]
        self.average = sum(self.lengths) / len(passages) if passages else 0.0

    def length(self, passage: Sequence[str]) -> float:
        return len(passage)

    def idf(self, word: str) -> float:
        return _idf(len(self.passages), self.having[word])

    def words(self, query: Sequence[str]) -> Sequence[str]:
        return [word for word in dict.fromkeys(query) if word in self.having]

    def part(self, count: int, length: float) -> float:
        return count * (self.k1 + 1) / (count + self.k1 * (1 - self.b + self.b * length / self.average))

    def scores(self, query: Sequence[str]) -> dict[int, float]:
        scores: dict[int, float] = {}
        for word in self.words(query):
            for number, counts in enumerate(self.counts):
                if counts[word]:
                    gain = self.idf(word) * self.part(counts[word], self.lengths[number])
                    scores[number] = scores.get(number, 0.0) + gain
        return scores

    def search(self, query: Sequence[str], k: int) -> list[Hit]:
        return _best(self.scores(query), k)


def _search(trial: Trial, answer: Handle, passages: Passages, query: list[str], k: int, **settings: float) -> Any:
    made = [repr(passages), *(f"{name}={value}" for name, value in settings.items())]
    shown = ", ".join(made) if len(made[0]) <= 400 else "…"
    with trial.trying(f"BM25({shown}).search({query}, {k})"):
        return answer.make(passages, **settings).attribute("search")(query, k)


def _others(rng: "np.random.Generator", count: int) -> list[str]:
    """Return words that no query has."""
    numbers = rng.integers(100, size=count)
    return [f"{word}{number}" for word, number in zip(_words(rng, count), numbers, strict=True)]


def _passage(rng: "np.random.Generator", words: Mapping[str, int], length: int) -> list[str]:
    """Return a passage of this length in which these words occur so often, in any order."""
    chosen = [word for word, count in words.items() for _time in range(count)]
    mixed = [*chosen, *_others(rng, length - len(chosen))]
    return [str(word) for word in rng.permutation(mixed)]


@bm25.criterion(
    _("finds the passages that have the word, best first"),
    points=0.5,
    why=_("A search that returns what does not even have the word, or the worst first, is worse than scrolling."),
)
def finds(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    for size, length, counts in ((5, 3, [1, 2]), (9, 9, [1, 2, 4]), (12, 9, [1, 2, 4]), (20, 9, [1, 2, 4])):
        often = [int(count) for count in rng.permutation(counts)]
        places = [int(place) for place in rng.permutation(size)[: len(counts)]]
        passages = [_passage(rng, {}, length) for _number in range(size)]
        for place, count in zip(places, often, strict=True):
            passages[place] = _passage(rng, {"gasket": count}, length)
        best_first = [place for _count, place in sorted(zip(often, places, strict=True), reverse=True)]
        for k in (1, 2, 3, size + 1):
            hits = _hits(trial, _search(trial, answer, passages, ["gasket"], k))
            _require_found(trial, [number for number, _score in hits], best_first, k)


def _require_found(trial: Trial, found: list[int], best_first: list[int], k: int) -> None:
    """Fail unless these are the first `k`, and say what is wrong with them."""
    wanted = best_first[:k]
    if found == wanted:
        return
    without = [number for number in found if number not in best_first]
    missing = [number for number in wanted if number not in found]
    if found == [number + 1 for number in wanted]:
        told = trial.text(_("All numbers are one too large: passages are counted from 0."))
    elif without:
        told = trial.text(_("Passages that do not have the word are no hits: {numbers}."), numbers=without)
    elif len(found) > k:
        told = trial.text(
            _("`search` returns at most `k` hits: you return {count}, and k is {k}."), count=len(found), k=k
        )
    elif missing and len(found) < len(wanted):
        told = trial.text(_("Passages that have the word are missing: {numbers}."), numbers=missing)
    else:
        told = trial.text(
            _("The best passage comes first: of equally long ones, that in which the word occurs most often.")
        )
    raise Failed(told, show(wanted), show(found))


@bm25.criterion(
    _("rare words weigh more, and no word weighs less than nothing"),
    points=0.5,
    why=_("A word in every second passage says little. In a formula without the one, it would push passages down that "
          "have it, below those that have nothing."),
)  # fmt: skip
def right_idf(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    message = _("In passages of equal length that have the word once, the score is the word's idf.")
    for size in (4, 9, 15):
        for having in sorted({1, size // 2, size - 1, size}):
            passages = [["pump", *_even_words(rng, 7)] for _number in range(having)]
            passages += [_even_words(rng, 8) for _number in range(size - having)]
            wanted = dict.fromkeys(range(having), _idf(size, having))
            _require_scores(trial, _hits(trial, _search(trial, answer, passages, ["pump"], size)), wanted, message)
    message = _("n counts passages, not occurrences: of ten passages, three have the word, one of them four times.")
    often = [word for number in range(100, 109) for word in [f"x{number}"] * 4]  # each passage has five different words
    passages = [[*often[:4], "pump", *_even_words(rng, 3)], ["pump"] * 4 + _even_words(rng, 4)]
    passages += [[*often[4:8], "pump", *_even_words(rng, 3)]]
    passages += [often[first : first + 4] + _even_words(rng, 4) for first in range(8, 36, 4)]
    found = dict(_hits(trial, _search(trial, answer, passages, ["pump"], 10)))
    once = {number: found[number] for number in (0, 2) if number in found}
    _require_scores(trial, list(once.items()), dict.fromkeys((0, 2), _idf(10, 3)), message)
    message = _(
        "N counts all passages, empty ones too. The numbers are the score of a rare word divided by that of a common "
        "one, in a passage that has both once: the ratio of their idf."
    )
    passages = [["pump", "seal"], [], ["seal"], [], [], *([_others(rng, 2)] * 2)]
    rare, common = (dict(_hits(trial, _search(trial, answer, passages, [w], 9))).get(0, 0.0) for w in ("pump", "seal"))
    trial.require(common > 0, _("The passages with the word are {wanted}."), wanted=[0, 2])
    trial.close(rare / common, _idf(7, 1) / _idf(7, 2), message, rtol=1e-6)


def _even_words(rng: "np.random.Generator", count: int) -> list[str]:
    """Return different words of four letters, so that a length in letters is the same as well."""
    first = int(rng.integers(100, 1000 - count))
    return [f"w{number}" for number in range(first, first + count)]


def _require_scores(trial: Trial, hits: list[Hit], wanted: Mapping[int, float], message: str) -> None:
    """Fail unless exactly these passages are found, with these scores."""
    right = len(hits) == len(wanted) and all(
        number in wanted and math.isclose(score, wanted[number], rel_tol=1e-6, abs_tol=1e-9) for number, score in hits
    )
    if not right:
        raise Failed(trial.text(message), show(_best(wanted, len(wanted))), show(hits))


@bm25.criterion(
    _("more occurrences add less and less, and long passages count less"),
    points=0.5,
    why=_("Otherwise the longest passage wins every search, since it has the most words of every kind."),
)
def right_part(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    message = _(
        "The ratio of two passages' scores for one word, in which idf cancels, is not that of the formula with "
        "k1 = {k1} and b = {b}."
    )
    drawn = round(float(rng.uniform(0.5, 3)), 2), round(float(rng.uniform(0.1, 0.9)), 2)
    for k1, b in ((1.5, 0.75), drawn, (1.2, 0.0)):
        counts = [1, 2, 5, 1, 2, 5]
        lengths = [int(length) for length in rng.integers(6, 12, size=3)] + [int(rng.integers(20, 60)) for _ in "abc"]
        passages = [_passage(rng, {"valve": c}, n) for c, n in zip(counts, lengths, strict=True)]
        passages += [_passage(rng, {}, int(rng.integers(4, 90))) for _number in range(8)]
        passages += [[], []]  # the average is over all passages
        settings = {} if (k1, b) == (1.5, 0.75) else {"k1": k1, "b": b}
        hits = dict(_hits(trial, _search(trial, answer, passages, ["valve"], len(passages), **settings)))
        wanted = _BM25(passages, k1, b).scores(["valve"])
        trial.require(set(hits) == set(wanted), _("The passages with the word are {wanted}."), wanted=sorted(wanted))
        for number in range(1, 6):
            trial.require(hits[0] > 0, message, k1=k1, b=b)
            trial.close(hits[number] / hits[0], wanted[number] / wanted[0], message, rtol=1e-6, k1=k1, b=b)
    single = [_passage(rng, {"valve": 1, "seal": 4}, int(rng.integers(6, 20)))]
    scores = [dict(_hits(trial, _search(trial, answer, single, [word], 1))).get(0, 0.0) for word in ("valve", "seal")]
    wanted_scores = [_BM25(single).scores([word])[0] for word in ("valve", "seal")]
    message = _(
        "In an index of a single passage its length is the average. The numbers are the score of a word that occurs "
        "four times divided by that of a word that occurs once."
    )
    if scores[0]:  # where the idf is zero, nothing can be compared: that is another criterion's matter
        trial.close(scores[1] / scores[0], wanted_scores[1] / wanted_scores[0], message, rtol=1e-6)


@bm25.criterion(
    _("several words add up, each different one once"),
    points=0.25,
    why=_("Customers write whole sentences, and some words twice. What is asked for twice is not twice as important."),
)
def adds_up(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    words = ["pump", "öl", "💧"]
    for size in (5, 12):
        passages = [
            _passage(rng, {w: int(rng.integers(0, 3)) for w in words}, int(n)) for n in rng.integers(7, 15, size)
        ]
        passages[0], passages[1] = _passage(rng, {words[0]: 1}, 8), _passage(rng, {words[0]: 1, words[1]: 1}, 9)
        passages[2] = _passage(rng, {words[2]: 1}, 5)
        index = answer.make(passages)
        total = _word_by_word(trial, index, words)
        for query in (words, [words[0], *words, words[0], words[1]]):
            hits = _hits(trial, index.attribute("search")(query, size))
            message = _("The score of a query is the sum of the scores of its different words.")
            _require_scores(trial, hits, total, message)
            _require_falling(trial, hits, total)
    nearly_equal = [["gasket"] * count + ["filter"] * (50 - count) for count in range(40, 46)]
    hits = _hits(trial, _search(trial, answer, [*nearly_equal, *[["filter"]] * 9], ["gasket"], 6))
    _require_falling(trial, hits, dict(hits))
    one, other = words[:2]  # the best for each of them is not the best for both
    index = answer.make([[one] * 3, [one, one, "seal"], [one, other], [other] * 3])
    total = _word_by_word(trial, index, [one, other])
    best = [score for _number, score in _hits(trial, index.attribute("search")([one, other], 1))]
    message = _("`k` cuts the list at the very end, when the scores of all words are added up.")
    trial.close(best, [score for _number, score in _best(total, 1)], message)
    message = _("After another index was made, this one gives other hits: each has its own data, in `self`.")
    answer.make([[other], ["valve"]])
    _require_scores(trial, _hits(trial, index.attribute("search")([one, other], 9)), total, message)
    word = str(rng.choice(_WORDS[:20]))
    alike = [word, word.capitalize(), f"{word}.", "the", str(rng.integers(10, 100)), ""]
    passages = [[alike[place]] for place in rng.permutation(len(alike))]
    for query in ([word], alike):
        found = sorted(number for number, _score in _hits(trial, _search(trial, answer, passages, query, 9)))
        wanted = [number for number, passage in enumerate(passages) if passage[0] in query]
        trial.equal(found, wanted, _("The caller decides what a word is: every text in a list is one, just as it is."))


def _require_falling(trial: Trial, hits: list[Hit], scores: Mapping[int, float]) -> None:
    falling = all(one >= other for (_a, one), (_b, other) in pairwise(hits))
    trial.require(falling, _("The best passage comes first."), expected=show(_best(scores, len(scores))))


def _word_by_word(trial: Trial, index: Handle, words: Sequence[str]) -> dict[int, float]:
    """Search for one word after the other, and add the scores up."""
    total: dict[int, float] = {}
    for word in words:
        for number, score in _hits(trial, index.attribute("search")([word], 99)):
            total[number] = total.get(number, 0.0) + score
    return total


@bm25.criterion(
    _("an unknown word, an empty query and an empty corpus find nothing"),
    points=0.25,
    why=_("The first typo of a customer must not crash the search, and neither must a corpus that is not loaded yet."),
)
def finds_nothing(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    passages = [_passage(rng, {"motor": 1}, 5), _passage(rng, {}, 5), _passage(rng, {"motor": 2}, 7), []]
    nothing = _("Nothing has a word of the query, so the result is an empty list.")
    unknown = f"mtor{rng.integers(1000)}"
    cases: list[tuple[Passages, list[str]]] = [(passages, [unknown]), (passages, []), ([], ["motor"]), ([[]], ["oil"])]
    for searched, query in cases:
        trial.equal(_search(trial, answer, searched, query, 3), [], nothing)
    known = _hits(trial, _search(trial, answer, passages, ["motor"], 4))
    both = _hits(trial, _search(trial, answer, passages, [unknown, "motor"], 4))
    message = _("An unknown word changes nothing: the known ones are searched for as if it were not there.")
    trial.require(len(known) == 2, _("Two passages have the word."), expected="2")
    _require_scores(trial, both, dict(known), message)


@bm25.misconception(_("the older idf without the one inside the logarithm: it is negative for words in more than half"))
class negative_idf(_BM25):
    def idf(self, word: str) -> float:
        having = self.having[word]
        return math.log((len(self.passages) - having + 0.5) / (having + 0.5))


@bm25.misconception(_("the idf of TF-IDF, log(N / n): it is zero for a word that all passages have"))
class plain_idf(_BM25):
    def idf(self, word: str) -> float:
        return math.log(len(self.passages) / self.having[word])


@bm25.misconception(_("another logarithm than the natural one"))
class decimal_idf(_BM25):
    def idf(self, word: str) -> float:
        return super().idf(word) / math.log(10)


@bm25.misconception(_("an n that counts occurrences instead of passages"))
class counts_occurrences(_BM25):
    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.having = Counter(word for passage in self.passages for word in passage)

    def idf(self, word: str) -> float:
        return math.log(max(1 + (len(self.passages) - self.having[word] + 0.5) / (self.having[word] + 0.5), 1e-9))


@bm25.misconception(_("no idf: all words weigh the same"))
class no_idf(_BM25):
    def idf(self, word: str) -> float:
        return 1.0


@bm25.misconception(_("an N that leaves out empty passages"))
class empty_not_counted(_BM25):
    def idf(self, word: str) -> float:
        return _idf(sum(length > 0 for length in self.lengths), self.having[word])


@bm25.misconception(_("no k1 + 1 above the fraction line"))
class without_numerator(_BM25):
    def part(self, count: int, length: float) -> float:
        return super().part(count, length) / (self.k1 + 1)


@bm25.misconception(_("every occurrence counted in full, as in TF-IDF: twice as often is twice as good"))
class not_saturated(_BM25):
    def part(self, count: int, length: float) -> float:
        return float(count)


@bm25.misconception(_("no b: long passages and short ones are treated alike"))
class length_ignored(_BM25):
    def part(self, count: int, length: float) -> float:
        return super().part(count, self.average)


@bm25.misconception(_("a passage's length in characters instead of words"))
class length_in_characters(_BM25):
    def length(self, passage: Sequence[str]) -> float:
        return len("".join(passage))


@bm25.misconception(_("a length that counts different words only"))
class length_of_set(_BM25):
    def length(self, passage: Sequence[str]) -> float:
        return len(set(passage))


@bm25.misconception(_("fixed constants: `k1` and `b` that are handed in are ignored"))
class fixed_constants(_BM25):
    def __init__(self, passages: Sequence[Sequence[str]], k1: float = 1.5, b: float = 0.75) -> None:
        super().__init__(passages)


@bm25.misconception(_("a fixed k1 of 1.5: the `k1` that is handed in is ignored"))
class fixed_k1(_BM25):
    def __init__(self, passages: Sequence[Sequence[str]], k1: float = 1.5, b: float = 0.75) -> None:
        super().__init__(passages, b=b)


@bm25.misconception(_("a fixed b of 0.75: the `b` that is handed in is ignored"))
class fixed_b(_BM25):
    def __init__(self, passages: Sequence[Sequence[str]], k1: float = 1.5, b: float = 0.75) -> None:
        super().__init__(passages, k1=k1)


@bm25.misconception(_("an average length over the passages that are not empty, instead of over all"))
class average_without_empty(_BM25):
    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        filled = [length for length in self.lengths if length]
        self.average = sum(filled) / len(filled) if filled else 0.0


@bm25.misconception(_("a word counted as often as it occurs in the query"))
class repeated_words(_BM25):
    def words(self, query: Sequence[str]) -> Sequence[str]:
        return [word for word in query if word in self.having]


@bm25.misconception(_("a crash on words that no passage has"))
class crashes_on_unseen(_BM25):
    def words(self, query: Sequence[str]) -> Sequence[str]:
        return [{word: word for word in self.having}[word] for word in dict.fromkeys(query)]


@bm25.misconception(_("a crash on an empty corpus, whose average length is a division by zero"))
class crashes_on_empty(_BM25):
    def __init__(self, passages: Sequence[Sequence[str]], *args: Any, **settings: Any) -> None:
        super().__init__(passages, *args, **settings)
        self.average = sum(self.lengths) / len(passages)


@bm25.misconception(_("a list that is filled up with passages of score zero"))
class filled_up(_BM25):
    def search(self, query: Sequence[str], k: int) -> list[Hit]:
        return _best(dict.fromkeys(range(len(self.passages)), 0.0) | self.scores(query), k)


@bm25.misconception(_("the worst passage first"))
class worst_first(_BM25):
    def search(self, query: Sequence[str], k: int) -> list[Hit]:
        return sorted(self.scores(query).items(), key=lambda hit: hit[1])[:k]


@bm25.misconception(_("nothing found as soon as one word of the query is unknown"))
class stops_at_unknown(_BM25):
    def words(self, query: Sequence[str]) -> Sequence[str]:
        return super().words(query) if all(word in self.having for word in query) else []


@bm25.misconception(_("only passages that have all the words of the query"))
class all_words(_BM25):
    def search(self, query: Sequence[str], k: int) -> list[Hit]:
        scores = self.scores(query)
        return _best({n: s for n, s in scores.items() if all(word in self.counts[n] for word in query)}, k)


@bm25.misconception(_("the best `k` passages of each word, added up: what is second for two words is lost"))
class cut_for_each_word(_BM25):
    def search(self, query: Sequence[str], k: int) -> list[Hit]:
        scores: dict[int, float] = {}
        for word in dict.fromkeys(query):
            for number, score in super().search([word], k):
                scores[number] = scores.get(number, 0.0) + score
        return _best(scores, k)


@bm25.misconception(_("data of an index kept on the class, not in `self`: the next index overwrites it"))
class kept_on_the_class(_BM25):
    latest: _BM25

    def __init__(self, *args: Any, **settings: Any) -> None:
        type(self).latest = _BM25(*args, **settings)

    def search(self, query: Sequence[str], k: int) -> list[Hit]:
        return self.latest.search(query, k)


# ---------------------------------------------------------------- measure

measure = Check(
    UNIT,
    "measure",
    title=_("Measure a search"),
    hints=(
        _("Both numbers are means over questions: work out one number for each question first, then average."),
        _(
            "`set(ranking[:k]) & relevant` are the relevant passages that were found among the first k. For the "
            "reciprocal rank walk through the ranking with `enumerate(ranking, start=1)` and stop at the first that "
            "is relevant; if none is, the number is 0, and it still counts in the mean."
        ),
        _(
            "`recall = len(set(ranking[:k]) & wanted) / len(wanted)`; `reciprocal = next((1 / rank for rank, number in "
            "enumerate(ranking, start=1) if number in wanted), 0.0)`; divide both sums by the number of questions."
        ),
    ),
)

Rankings = list[list[int]]
Relevant = list[set[int]]


@dataclass(frozen=True)
class _Quality:
    recall: float
    mean_reciprocal_rank: float


def _recall(ranking: Sequence[int], relevant: set[int], k: int) -> float:
    return len(set(ranking[:k]) & relevant) / len(relevant)


def _reciprocal_rank(ranking: Sequence[int], relevant: set[int]) -> float:
    return next((1 / rank for rank, number in enumerate(ranking, start=1) if number in relevant), 0.0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _questions(rng: "np.random.Generator", *places: Sequence[int], size: int = 12) -> tuple[Rankings, Relevant]:
    """Draw a ranking for each question, whose relevant passages stand at these places (from 0); at -1: nowhere."""
    rankings, relevant = [], []
    for where in places:
        numbers = [int(number) for number in rng.permutation(3 * size)]
        rankings.append(numbers[:size])
        relevant.append({numbers[place] if place >= 0 else numbers[size - place] for place in where})
    return rankings, relevant


def _quality(trial: Trial, answer: Handle, rankings: Rankings, relevant: Relevant, k: int, name: str) -> Any:
    got = answer(rankings, relevant, k)
    return trial.fields(got, "Quality", name)[name]


def _require_recall(trial: Trial, answer: Handle, drawn: tuple[Rankings, Relevant], k: int, message: str) -> None:
    wanted = _mean([_recall(ranking, relevant, k) for ranking, relevant in zip(*drawn, strict=True)])
    _require_field(trial, answer, drawn, k, "recall", wanted, message)


def _require_rank(trial: Trial, answer: Handle, drawn: tuple[Rankings, Relevant], k: int, message: str) -> None:
    wanted = _mean([_reciprocal_rank(ranking, relevant) for ranking, relevant in zip(*drawn, strict=True)])
    _require_field(trial, answer, drawn, k, "mean_reciprocal_rank", wanted, message)


def _require_field(
    trial: Trial, answer: Handle, drawn: tuple[Rankings, Relevant], k: int, name: str, wanted: float, message: str
) -> None:
    got = _quality(trial, answer, *drawn, k, name)
    try:
        trial.close(got, wanted, message)
    except Failed as failed:
        raise Failed(failed.message, f"{name}={failed.expected}", f"{name}={failed.got}") from None


@measure.criterion(
    _("counts a question whose passage is first, and one whose passage is nowhere"),
    points=0.25,
    why=_("The two ends of the scale: everything found, and nothing."),
)
def both_ends(trial: Trial, answer: Handle) -> None:
    message = _("One passage is relevant, k is 1: recall is 1 if it comes first, and 0 if it does not come at all.")
    for places in ([[0]], [[-1]], [[0], [0]]):
        _require_recall(trial, answer, _questions(trial.rng, *places), 1, message)


@measure.criterion(
    _("recall: which share of the relevant passages is among the first k"),
    points=0.5,
    why=_("If there are two good passages, one of them is half of what could be found, however long the list is."),
)
def right_recall(trial: Trial, answer: Handle) -> None:
    message = _("Of each question's relevant passages, count those among the first k; divide by how many there are.")
    _require_recall(trial, answer, _questions(trial.rng, [1]), 3, message)
    _require_recall(trial, answer, _questions(trial.rng, [0, 4, 6, -1, -2]), 3, message)
    for k in (1, 3, 5):
        _require_recall(trial, answer, _questions(trial.rng, [k - 1]), k, message)
        _require_recall(trial, answer, _questions(trial.rng, [0, k]), k, message)
        _require_recall(trial, answer, _questions(trial.rng, [0, k - 1, k, 11], [k - 1, 11], size=14), k, message)
    _require_recall(trial, answer, _questions(trial.rng, [0, 1], size=2), 5, message)


@measure.criterion(
    _("every question weighs the same, also one without a hit"),
    points=0.25,
    why=_("The customer who found nothing is the one that matters. A mean without them praises the search."),
)
def all_questions(trial: Trial, answer: Handle) -> None:
    message = _("The mean is over all questions; one that found nothing counts as 0.")
    for misses in (1, 3):
        places: list[list[int]] = [[0], [1, 6, 8, -1], *([[-1]] * misses)]
        _require_recall(trial, answer, _questions(trial.rng, *places), 3, message)
    nothing: tuple[Rankings, Relevant] = ([[], []], [{1}, {2}])
    _require_recall(trial, answer, nothing, 3, message)


@measure.criterion(
    _("the reciprocal rank of the first relevant passage"),
    points=0.25,
    why=_("One divided by the place: 1 at the top, a half at the second place. Whoever reads from the top cares for "
          "the first good passage."),
)  # fmt: skip
def right_rank(trial: Trial, answer: Handle) -> None:
    message = _("For each question 1 / place of the first relevant passage, counted from one in the whole ranking.")
    for place in (0, 1, 4, 9):
        _require_rank(trial, answer, _questions(trial.rng, [place]), 3, message)
        _require_rank(trial, answer, _questions(trial.rng, [place, place + 1], [0, 7, -1]), 3, message)
    _require_rank(trial, answer, _questions(trial.rng, [12], [39], size=40), 3, message)
    _require_rank(trial, answer, ([[2, 0, 1]], [{0}]), 3, message)
    misses = _("A question without a relevant passage in its ranking has the number 0, and counts in the mean.")
    _require_rank(trial, answer, _questions(trial.rng, [0], [-1], [3]), 3, misses)
    _require_rank(trial, answer, ([[], [4, 2]], [{1}, {2}]), 3, misses)


@measure.criterion(
    _("refuses questions that cannot be measured"),
    points=0.25,
    why=_("If nothing is relevant there is nothing to find, and neither 0 nor 1 is true. It is a mistake in the data, "
          "and a number would hide it."),
)  # fmt: skip
def refuses(trial: Trial, answer: Handle) -> None:
    rankings, relevant = _questions(trial.rng, [0], [1], [2])
    for nothing_at in (0, 2):
        empty = [set() if place == nothing_at else wanted for place, wanted in enumerate(relevant)]
        message = _("Question number {number} has no relevant passage: this must raise ValueError.")
        with trial.raises("ValueError", message=trial.text(message, number=nothing_at)):
            answer(rankings, empty, 3)
        with trial.raises("ValueError", message=trial.text(message, number=nothing_at)):
            answer([[] if place == nothing_at else ranking for place, ranking in enumerate(rankings)], empty, 3)
    with trial.raises("ValueError", message=_("Without a single question this must raise ValueError.")):
        answer([], [], 3)


def _measured(
    rankings: Rankings,
    relevant: Relevant,
    k: int,
    *,
    recall: Callable[[Sequence[int], set[int], int], float] = _recall,
    reciprocal: Callable[[Sequence[int], set[int], int], float] = lambda ranking, wanted, _k: _reciprocal_rank(
        ranking, wanted
    ),
    mean: Callable[[Sequence[float]], float] = _mean,
) -> Any:
    if not relevant or not all(relevant):
        raise ValueError
    pairs = list(zip(rankings, relevant, strict=True))
    return _Quality(mean([recall(*pair, k) for pair in pairs]), mean([reciprocal(*pair, k) for pair in pairs]))


@measure.misconception(_("precision: divided by k instead of by the number of relevant passages"))
def divides_by_k(rankings: Rankings, relevant: Relevant, k: int) -> Any:
    return _measured(rankings, relevant, k, recall=lambda r, wanted, k: len(set(r[:k]) & wanted) / k)


@measure.misconception(_("a hit rate: whether anything relevant was found, not how much of it"))
def hit_rate(rankings: Rankings, relevant: Relevant, k: int) -> Any:
    return _measured(rankings, relevant, k, recall=lambda r, wanted, k: float(bool(set(r[:k]) & wanted)))


@measure.misconception(_("a recall of the whole ranking: k is ignored"))
def k_ignored(rankings: Rankings, relevant: Relevant, k: int) -> Any:
    return _measured(rankings, relevant, k, recall=lambda r, wanted, _k: _recall(r, wanted, len(r)))


@measure.misconception(_("a recall divided by k where more than k passages are relevant, so that 1 can be reached"))
def divides_by_less(rankings: Rankings, relevant: Relevant, k: int) -> Any:
    return _measured(rankings, relevant, k, recall=lambda r, w, k: len(set(r[:k]) & w) / min(k, len(w)))


@measure.misconception(_("all questions thrown together: found passages divided by all relevant passages"))
def thrown_together(rankings: Rankings, relevant: Relevant, k: int) -> Any:
    right = _measured(rankings, relevant, k)
    found = sum(len(set(r[:k]) & w) for r, w in zip(rankings, relevant, strict=True))
    return _Quality(found / sum(len(w) for w in relevant), right.mean_reciprocal_rank)


@measure.misconception(_("misses left out of the mean"))
def misses_left_out(rankings: Rankings, relevant: Relevant, k: int) -> Any:
    return _measured(rankings, relevant, k, mean=lambda values: _mean([value for value in values if value]))


@measure.misconception(_("misses left out of the mean of reciprocal ranks"))
def rank_misses_left_out(rankings: Rankings, relevant: Relevant, k: int) -> Any:
    right = _measured(rankings, relevant, k)
    ranks = [_reciprocal_rank(r, w) for r, w in zip(rankings, relevant, strict=True)]
    return _Quality(right.recall, _mean([rank for rank in ranks if rank]))


@measure.misconception(_("a reciprocal rank that only looks at the first k"))
def rank_within_k(rankings: Rankings, relevant: Relevant, k: int) -> Any:
    return _measured(rankings, relevant, k, reciprocal=lambda r, w, k: _reciprocal_rank(r[:k], w))


@measure.misconception(_("places that are one too large: the first counts as the second"))
def rank_shifted(rankings: Rankings, relevant: Relevant, k: int) -> Any:
    return _measured(rankings, relevant, k, reciprocal=lambda r, w, _k: _reciprocal_rank([-1, *r], w))


@measure.misconception(_("the reciprocal ranks of all relevant passages added up, not only that of the first"))
def all_ranks(rankings: Rankings, relevant: Relevant, k: int) -> Any:
    def reciprocal(ranking: Sequence[int], wanted: set[int], _k: int) -> float:
        return sum(1 / rank for rank, number in enumerate(ranking, start=1) if number in wanted)

    return _measured(rankings, relevant, k, reciprocal=reciprocal)


@measure.misconception(_("the reciprocal rank of the last relevant passage"))
def last_rank(rankings: Rankings, relevant: Relevant, k: int) -> Any:
    def reciprocal(ranking: Sequence[int], wanted: set[int], _k: int) -> float:
        places = [rank for rank, number in enumerate(ranking, start=1) if number in wanted]
        return 1 / places[-1] if places else 0.0

    return _measured(rankings, relevant, k, reciprocal=reciprocal)


@measure.misconception(_("a zero for questions that have no relevant passage"))
def zero_for_nothing(rankings: Rankings, relevant: Relevant, k: int) -> Any:
    somewhere = [wanted or {-1} for wanted in relevant]
    return _measured(rankings, somewhere, k) if relevant else _Quality(0.0, 0.0)


@measure.misconception(
    _("no look at what cannot be measured: a ZeroDivisionError in place of a ValueError that says what is wrong")
)
def nothing_guarded(rankings: Rankings, relevant: Relevant, k: int) -> Any:
    recalls = [_recall(ranking, wanted, k) for ranking, wanted in zip(rankings, relevant, strict=True)]
    ranks = [_reciprocal_rank(ranking, wanted) for ranking, wanted in zip(rankings, relevant, strict=True)]
    return _Quality(sum(recalls) / len(recalls), sum(ranks) / len(ranks))


@measure.misconception(_("a ZeroDivisionError in place of a ValueError if there are no questions at all"))
def no_questions_unguarded(rankings: Rankings, relevant: Relevant, k: int) -> Any:
    if not all(relevant):
        raise ValueError
    return nothing_guarded(rankings, relevant, k)


@measure.misconception(_("a question with nothing relevant and an empty ranking left out in silence"))
def empty_pairs_left_out(rankings: Rankings, relevant: Relevant, k: int) -> Any:
    pairs = [(ranking, wanted) for ranking, wanted in zip(rankings, relevant, strict=True) if ranking or wanted]
    return _measured([ranking for ranking, _w in pairs], [wanted for _r, wanted in pairs], k)


@measure.misconception(_("questions without a relevant passage left out in silence"))
def left_out_in_silence(rankings: Rankings, relevant: Relevant, k: int) -> Any:
    pairs = [(r, w) for r, w in zip(rankings, relevant, strict=True) if w]
    return _measured([r for r, _w in pairs], [w for _r, w in pairs], k) if pairs else _Quality(0.0, 0.0)


# ---------------------------------------------------------------- vector_index

vector_index = Check(
    UNIT,
    "vector_index",
    title=_("A vector index"),
    hints=(
        _(
            "If all vectors have the length one, the cosine of the angle is a dot product. One matrix times one vector "
            "gives all similarities at once."
        ),
        _(
            "Divide each row by its length, `np.linalg.norm(vectors, axis=1, keepdims=True)`; where that is zero, "
            "divide by one instead. `np.argpartition` finds the k best faster than sorting all, but leaves them "
            "unsorted, and refuses a k larger than the index; `np.argsort` knows neither problem."
        ),
        _(
            "`similarities = self.vectors @ (query / (np.linalg.norm(query) or 1))`; `best = "
            "np.argsort(-similarities)[:k]`; `[(int(i), float(similarities[i])) for i in best]`. Before that: `if not "
            "np.isfinite(query).all(): raise ValueError(...)`, and the same for the vectors."
        ),
    ),
)


def _cosines(vectors: Any, query: Any) -> dict[int, float]:
    """Return the cosine of each vector with the query, 0 where one of them is zero."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    dots = vectors @ query
    pairs = enumerate(zip(dots, lengths, strict=True))
    return {number: float(dot / length) if length else 0.0 for number, (dot, length) in pairs}


def _vectors(rng: "np.random.Generator", count: int, width: int = 4) -> Any:
    """Draw vectors of length one; up to 24 numbers are shown in a verdict, six vectors of four."""
    drawn = rng.normal(size=(count, width))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def _nearest(trial: Trial, answer: Handle, vectors: Any, query: Any, k: int) -> Any:
    return _found(trial, answer.make(vectors), vectors, query, k)


def _found(trial: Trial, index: Handle, vectors: Any, query: Any, k: int) -> Any:
    """Search an index of these vectors, which a verdict shows with the call."""
    shown = show(vectors) if len(vectors) else f"np.zeros({vectors.shape})"
    with trial.trying(f"VectorIndex({shown}).search({show(query)}, {k})"):
        return index.attribute("search")(query, k)


def _require_nearest(
    trial: Trial,
    got: Any,
    scores: Mapping[int, float],
    k: int,
    message: str,
    *,
    order_only: bool = False,
    **values: Any,
) -> None:
    """Fail unless these are the k most similar, best first, with their similarities; the order of ties is free."""
    hits = _hits(trial, got)
    wanted = _best(scores, k)
    numbers = [number for number, _score in hits]
    right = (
        len(set(numbers)) == len(numbers) == len(wanted)
        and all(order_only or abs(scores.get(number, math.nan) - score) <= _NEAR for number, score in hits)
        and all(abs(scores.get(n, math.nan) - best) <= _NEAR for n, (_m, best) in zip(numbers, wanted, strict=True))
    )
    if not right:
        missing = [number for number, _score in wanted if number not in numbers]
        if not missing and len(numbers) == len(wanted) and numbers != [n for n, _s in wanted]:
            message = _("These are the right passages, but the most similar one has to come first.")
        elif missing and len(numbers) + len(missing) == len(wanted) and all(scores[n] <= 0 for n in missing):
            message = _("Passage {number} is missing: if `k` reaches that far, a cosine of 0 or less counts as well.")
            values = {"number": missing[0]}
        elif numbers == [n for n, _s in wanted] and all(abs(scores[n] - score) < 0.01 for n, score in hits):
            message = _("Nearly right, but not near enough: return the cosine without rounding it.")
        raise Failed(trial.text(message, **values), show(wanted), show(hits))


_NEAR = 1e-5


@vector_index.criterion(
    _("the nearest vectors, nearest first"),
    points=0.5,
    why=_("This is what everything else stands on, and the first hit is the one that gets read."),
)
def nearest_first(trial: Trial, answer: Handle) -> None:
    message = _("The most similar passages come first; the numbers are those of the rows, from 0.")
    for count in (5, 15, 800):  # `argpartition` sorts a few hundred numbers by the way
        vectors, query = _vectors(trial.rng, count), _vectors(trial.rng, 1)[0]
        cosines = _cosines(vectors, query)
        middle = sorted(cosines, key=cosines.__getitem__)[count // 2]
        vectors[[middle, -1]] = vectors[[-1, middle]]  # a number that is found, and is no place among the four best
        index = answer.make(vectors)
        for k in (4, 1, count // 2):
            got = _found(trial, index, vectors, query, k)
            _require_nearest(trial, got, _cosines(vectors, query), k, message, order_only=True)


@vector_index.criterion(
    _("similarity is the cosine, whatever the lengths of the vectors"),
    points=0.5,
    why=_("A dot product prefers long vectors, whatever they mean. A threshold on it would mean something else for "
          "every model."),
)  # fmt: skip
def is_cosine(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    message = _("The similarity is the cosine of the angle: 1 in the same direction, -1 in the opposite one.")
    for kind in ("float64", "float32"):
        vectors = (_vectors(rng, 12, 2) * rng.uniform(0.2, 8, size=(12, 1))).astype(kind)
        query = (_vectors(rng, 1, 2)[0] * rng.uniform(2, 9)).astype(kind)
        vectors[3], vectors[7] = query / 1000, -3 * query
        _require_nearest(trial, _nearest(trial, answer, vectors, query, 5), _cosines(vectors, query), 5, message)


@vector_index.criterion(
    _("small indexes: all passages if k is larger, none if there are none"),
    points=0.5,
    why=_("A new customer's manual may have three passages, or none yet. A search for the best five must not crash."),
)
def any_size(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    message = _("The index has {count} passages: return as many as there are, at most k.")
    query = _vectors(rng, 1)[0]
    for count, k in ((5, 5), (5, 6), (3, 50), (1, 1), (1, 5), (0, 3)):
        vectors = _vectors(rng, count)
        got = _nearest(trial, answer, vectors, query, k)
        _require_nearest(trial, got, _cosines(vectors, query), k, message, order_only=True, count=count)
    message = _("After another index was made, this one gives other hits: each has its own data, in `self`.")
    vectors = _vectors(rng, 5)
    index = answer.make(vectors)
    answer.make(_vectors(rng, 3))
    got = _found(trial, index, vectors, query, 5)
    _require_nearest(trial, got, _cosines(vectors, query), 5, message, order_only=True)


@vector_index.criterion(
    _("a zero vector is similar to nothing"),
    points=0.25,
    why=_("An empty text can become a vector of zeros. Zero divided by zero is NaN, and NaN has no place in an order."),
)
def zero_vectors(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    message = _("A vector of zeros has no direction: its similarity is 0.")
    vectors, query = _vectors(rng, 6), _vectors(rng, 1)[0]
    empty, opposite = (int(number) for number in rng.permutation(6)[:2])
    vectors[empty], vectors[opposite] = 0.0, -query  # the opposite one is last: so the empty one is among five of six
    hits = dict(_hits(trial, _nearest(trial, answer.allowing_nonfinite(), vectors, query, 5)))
    trial.require(empty in hits, _("The passage with the zero vector is missing."), expected=f"[…, ({empty}, 0), …]")
    trial.close(hits[empty], 0.0, message)
    falling = sorted(number for number in hits if number != empty)
    wanted = sorted(number for number, _score in _best(_cosines(vectors, query), 5) if number != empty)
    trial.equal(falling, wanted, _("A zero vector in the index must not spoil the others."))
    got = _nearest(trial, answer.allowing_nonfinite(), vectors, 0 * query, 5)
    _require_nearest(trial, got, dict.fromkeys(range(6), 0.0), 5, message)


@vector_index.criterion(
    _("refuses vectors with NaN or infinity"),
    points=0.25,
    why=_("A model that overflows returns NaN. If nobody refuses it, one broken vector spoils every search to come."),
)
def refuses_nan(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    for broken in (float("nan"), float("inf"), -float("inf")):
        vectors, query = _vectors(rng, 5), _vectors(rng, 1)[0]
        bad_vectors, bad_query = vectors.copy(), query.copy()
        bad_vectors[int(rng.integers(5)), int(rng.integers(4))] = broken
        bad_query[int(rng.integers(4))] = broken
        told = _("One of the vectors of the index has {value}: this must raise ValueError when the index is made.")
        with trial.raises("ValueError", message=trial.text(told, value=str(broken))):
            answer.make(bad_vectors)
        told = _("The query's vector has {value}: this must raise ValueError.")
        with trial.raises("ValueError", message=trial.text(told, value=str(broken))):
            _nearest(trial, answer.allowing_nonfinite(), vectors, bad_query, 2)


class _VectorIndex:
    """The right index, of which each misconception changes a part."""

    def __init__(self, vectors: Any) -> None:
        self.require_finite(vectors)
        self.vectors = self.directions(vectors)

    def require_finite(self, vectors: Any) -> None:
        if not np.isfinite(vectors).all():
            raise ValueError

    def directions(self, vectors: Any) -> Any:
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            return vectors / np.where(lengths == 0, 1, lengths)

    def direction(self, query: Any) -> Any:
        with np.errstate(invalid="ignore"):
            return query / (np.linalg.norm(query) or 1.0)

    def similarities(self, query: Any) -> Any:
        return self.vectors @ self.direction(query)

    def best(self, similarities: Any, k: int) -> Any:
        return np.argsort(-similarities)[:k]

    def search(self, query: Any, k: int) -> list[Hit]:
        self.require_finite(query)
        similarities = self.similarities(query)
        return [(int(number), float(similarities[number])) for number in self.best(similarities, k)]


@vector_index.misconception(_("`argpartition` alone: the k best are found, but not sorted"), factory=True)
def unsorted() -> Any:
    class Unsorted(_VectorIndex):
        def best(self, similarities: Any, k: int) -> Any:
            return np.argpartition(-similarities, min(k, len(similarities)) - 1)[:k] if len(similarities) else []

    return Unsorted


@vector_index.misconception(_("`argpartition` with a k larger than the index, which raises"), factory=True)
def crashes_on_large_k() -> Any:
    class Crashes(_VectorIndex):
        def best(self, similarities: Any, k: int) -> Any:
            chosen = np.argpartition(-similarities, k)[:k]
            return chosen[np.argsort(-similarities[chosen])]

    return Crashes


@vector_index.misconception(_("positions among the k best instead of the numbers of rows"), factory=True)
def places_among_best() -> Any:
    class Places(_VectorIndex):
        def best(self, similarities: Any, k: int) -> Any:
            k = min(k, len(similarities))
            chosen = np.argpartition(-similarities, k - 1)[:k] if k else np.array([], dtype=int)
            return np.argsort(-similarities[chosen])

    return Places


@vector_index.misconception(_("the least similar first"), factory=True)
def least_first() -> Any:
    class Least(_VectorIndex):
        def best(self, similarities: Any, k: int) -> Any:
            return np.argsort(similarities)[:k]

    return Least


@vector_index.misconception(_("`[-k:]` of an ascending order: the k best, but the best comes last"), factory=True)
def ascending() -> Any:
    class Ascending(_VectorIndex):
        def best(self, similarities: Any, k: int) -> Any:
            return np.argsort(-similarities)[:k][::-1]

    return Ascending


@vector_index.misconception(_("a dot product, which prefers long vectors"), factory=True)
def dot_product() -> Any:
    class Dot(_VectorIndex):
        def directions(self, vectors: Any) -> Any:
            return vectors

        def direction(self, query: Any) -> Any:
            return query

    return Dot


@vector_index.misconception(_("vectors of the index that keep their lengths"), factory=True)
def index_not_normalised() -> Any:
    class Long(_VectorIndex):
        def directions(self, vectors: Any) -> Any:
            return vectors

    return Long


@vector_index.misconception(
    _("a query that keeps its length: the order is right, the similarities are not"), factory=True
)
def query_not_normalised() -> Any:
    class Long(_VectorIndex):
        def direction(self, query: Any) -> Any:
            return query

    return Long


@vector_index.misconception(_("the distance instead of the cosine"), factory=True)
def distance() -> Any:
    class Distance(_VectorIndex):
        def similarities(self, query: Any) -> Any:
            return -np.linalg.norm(self.vectors - self.direction(query), axis=1)

    return Distance


@vector_index.misconception(_("columns scaled to length one instead of rows"), factory=True)
def wrong_axis() -> Any:
    class Columns(_VectorIndex):
        def directions(self, vectors: Any) -> Any:
            lengths = np.linalg.norm(vectors, axis=0, keepdims=True)
            return vectors / np.where(lengths == 0, 1, lengths)

    return Columns


@vector_index.misconception(_("one length for the whole index, since `axis` is missing"), factory=True)
def one_length() -> Any:
    class Whole(_VectorIndex):
        def directions(self, vectors: Any) -> Any:
            return vectors / (np.linalg.norm(vectors) or 1.0)

    return Whole


@vector_index.misconception(_("a division by the length without a look at zero: NaN"), factory=True)
def zero_is_nan() -> Any:
    class Nan(_VectorIndex):
        def directions(self, vectors: Any) -> Any:
            with np.errstate(invalid="ignore"):
                return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

        def direction(self, query: Any) -> Any:
            with np.errstate(invalid="ignore"):
                return query / np.linalg.norm(query)

    return Nan


@vector_index.misconception(_("vectors with NaN are taken as they come"), factory=True)
def takes_nan() -> Any:
    class Takes(_VectorIndex):
        def require_finite(self, vectors: Any) -> None:
            pass

    return Takes


@vector_index.misconception(_("NaN is refused, infinity is not"), factory=True)
def takes_infinity() -> Any:
    class Takes(_VectorIndex):
        def require_finite(self, vectors: Any) -> None:
            if np.isnan(vectors).any():
                raise ValueError

    return Takes


@vector_index.misconception(
    _("vectors of an index kept on the class, not in `self`: the next index overwrites them"), factory=True
)
def kept_on_the_class_too() -> Any:
    class Shared(_VectorIndex):
        latest: _VectorIndex

        def __init__(self, vectors: Any) -> None:
            type(self).latest = _VectorIndex(vectors)

        def search(self, query: Any, k: int) -> list[Hit]:
            return self.latest.search(query, k)

    return Shared


vector_index.equivalent(
    "self.directions = vectors / np.where(lengths > 0, lengths, 1)",
    "self.directions = vectors / np.where(lengths > 0, lengths, 2)",
    reason="a vector of zeros divided by two is a vector of zeros",
)
vector_index.equivalent(
    "similarities = self.directions @ (query / (np.linalg.norm(query) or 1))",
    "similarities = self.directions @ (query / (np.linalg.norm(query) or 2))",
    reason="a vector of zeros divided by two is a vector of zeros",
)


# ---------------------------------------------------------------- reciprocal_rank_fusion

reciprocal_rank_fusion = Check(
    UNIT,
    "reciprocal_rank_fusion",
    title=_("Two searches, one list"),
    hints=(
        _("What does the first place of a list tell you that its score does not? And what does a list say about a "
          "passage that it does not have? Nothing."),
        _("Walk through every list with `enumerate(hits, start=1)` and add 1 / (k + rank) to the passage's entry in a "
          "dictionary. A passage that is missing from a list simply gets nothing there."),
        _("`fused[number] = fused.get(number, 0.0) + 1 / (k + rank)` inside two loops; then `sorted(fused.items(), "
          "key=lambda hit: hit[1], reverse=True)`."),
    ),
)  # fmt: skip

Results = Sequence[Sequence[Hit]]


def _fused(
    results: Results,
    k: float = 60,
    *,
    gain: Callable[[float, int, float], float] = lambda k, rank, _score: 1 / (k + rank),
) -> dict[int, float]:
    fused: dict[int, float] = {}
    for hits in results:
        for rank, (number, score) in enumerate(hits, start=1):
            fused[number] = fused.get(number, 0.0) + gain(k, rank, score)
    return fused


def _ranked(numbers: Sequence[Any], falling: Sequence[float] | None = None) -> list[Hit]:
    """Return a list of hits in this order. Unless told otherwise, the scores are such that adding them does no harm."""
    scores = [1 / (60 + rank) for rank in range(1, len(numbers) + 1)] if falling is None else falling
    return [(int(number), float(score)) for number, score in zip(numbers, scores, strict=True)]


def _own_gains(trial: Trial, answer: Handle, count: int) -> list[float]:
    """Return what the answer itself gives for each place; nothing if it does not add up what two lists give.

    So whose formula is another one, or who divides by the number of lists, is told so by one criterion only.
    """
    same = _ranked(range(count))
    one, two = (dict(_hits(trial, answer([same] * lists))) for lists in (1, 2))
    adds_up = len(one) == count and all(math.isclose(two.get(n, 0.0), 2 * one[n], rel_tol=1e-9) for n in one)
    return [one[number] for number in range(count)] if adds_up else []


def _require_fused(
    trial: Trial, answer: Handle, results: list[list[Hit]], message: str, gains: Sequence[float] = ()
) -> None:
    """Fail unless every passage comes once, none before one with a higher score, and its places' `gains` are added."""
    hits = _hits(trial, answer(results))
    wanted = _fused(results)
    scores = [wanted.get(number, math.nan) for number, _score in hits]
    complete = sorted(number for number, _score in hits) == sorted(wanted)
    if not (complete and all(one >= other - 1e-12 for one, other in pairwise(scores))):
        raise Failed(trial.text(message), show(_best(wanted, len(wanted))), show(hits))
    if gains:
        _require_scores(trial, hits, _fused(results, gain=lambda _k, rank, _score: gains[rank - 1]), message)


def _two_orders(rng: "np.random.Generator", count: int) -> tuple[list[int], list[int]]:
    """Return the same passages in two orders, in which no two passages have the same sum of places.

    Of five passages or more, not all come in the order in which they would come without a k.
    """
    numbers = [int(number) for number in rng.permutation(50)[:count]]
    while True:
        other = [int(number) for number in rng.permutation(numbers)]
        sums = {place + other.index(number) for place, number in enumerate(numbers)}
        without_k, fused = (_best(_fused([_ranked(numbers), _ranked(other)], k), count) for k in (0, 60))
        if len(sums) == count and other != numbers and (count < 5 or [*dict(without_k)] != [*dict(fused)]):
            return numbers, other


@reciprocal_rank_fusion.criterion(
    _("two lists of the same passages become one, best first"),
    points=0.5,
    why=_("What is high in both lists should come before what only one of them likes."),
)
def fuses_two(trial: Trial, answer: Handle) -> None:
    message = _("Each list adds 1 / (k + rank) for each of its passages; the largest sum comes first.")
    for count in (3, 5, 6):
        one, other = _two_orders(trial.rng, count)
        _require_fused(trial, answer, [_ranked(one), _ranked(other)], message)


@reciprocal_rank_fusion.criterion(
    _("the scores are sums of 1 / (k + rank)"),
    points=0.5,
    why=_("With another formula the order is often the same, until one list is longer or a third one comes."),
)
def right_scores(trial: Trial, answer: Handle) -> None:
    message = _(
        "Every passage of the lists comes back with the score of the formula: ranks from one, and with the `k` that "
        "was handed in."
    )
    one, other = _two_orders(trial.rng, 5)
    lists = [_ranked(one), _ranked(other)]
    _require_scores(trial, _hits(trial, answer(lists)), _fused(lists), message)
    _require_scores(trial, _hits(trial, answer(lists[:1])), _fused(lists[:1]), message)
    for k in (60, 2, int(trial.rng.integers(1, 59)), int(trial.rng.integers(61, 200))):
        _require_scores(trial, _hits(trial, answer(lists, k=k)), _fused(lists, k), message)


@reciprocal_rank_fusion.criterion(
    _("a passage that only one list has is kept"),
    points=0.5,
    why=_("Keyword search finds error codes, and meaning finds paraphrases. Mostly only one of them has the answer."),
)
def keeps_missing(trial: Trial, answer: Handle) -> None:
    message = _("A list that does not have a passage adds nothing for it, and takes nothing away.")
    gains = _own_gains(trial, answer, 16)
    for count in (3, 14):
        numbers = [int(number) for number in trial.rng.permutation(40)]
        apart = [_ranked(numbers[:count]), _ranked(numbers[count : 2 * count + 2])]
        shared = [_ranked(numbers[:count]), _ranked([numbers[20], *numbers[1 : count - 1], *numbers[21:24]])]
        _require_fused(trial, answer, apart, message, gains)
        _require_fused(trial, answer, shared, message, gains)


@reciprocal_rank_fusion.criterion(
    _("scores play no part, only places do"),
    points=0.25,
    why=_("BM25 has scores of 3 or 30, a cosine lies between -1 and 1. Added up, keyword search would decide alone."),
)
def ranks_only(trial: Trial, answer: Handle) -> None:
    message = _("Only the places in the lists count, whatever the scores are.")
    for count in (3, 5, 6):
        one, other = _two_orders(trial.rng, count)
        steep = [30.0, *sorted(trial.rng.uniform(0.5, 3, size=count - 1), reverse=True)]
        flat = sorted(trial.rng.uniform(-0.2, 0.9, size=count), reverse=True)
        _require_fused(trial, answer, [_ranked(one, steep), _ranked(other, flat)], message)
        _require_fused(trial, answer, [_ranked(one, flat), _ranked(other, steep)], message)
    _require_fused(trial, answer, [_ranked(one, [0.0] * 6)], message)


@reciprocal_rank_fusion.criterion(
    _("any number of lists, empty ones too"),
    points=0.25,
    why=_("The third search comes sooner than you think; and one that found nothing gives an empty list."),
)
def any_lists(trial: Trial, answer: Handle) -> None:
    numbers = [int(number) for number in trial.rng.permutation(60)]
    message = _("One list keeps its order, none gives none, and an empty one changes nothing.")
    three = [_ranked(numbers[:5]), _ranked(numbers[:5]), _ranked(numbers[4::-1])]
    five = [*three[:2], *three[2:] * 3]
    some: list[list[list[Hit]]] = [
        three,
        three[::-1],
        five,
        [_ranked(numbers[:4])],
        [_ranked(numbers[:3]), []],
        [[], []],
        [],
    ]
    gains = _own_gains(trial, answer, 5)
    for lists in some:
        # Of three lists or more, each has all passages here: what one does not have is the affair of another criterion.
        _require_fused(trial, answer, lists, message, gains if len(lists) > 2 else ())


@reciprocal_rank_fusion.misconception(_("a k of 60, whatever is handed in"))
def fixed_k(results: Results, k: int = 60) -> Any:
    fused = _fused(results)
    return _best(fused, len(fused))


@reciprocal_rank_fusion.misconception(
    _("a `k` that also cuts the list: it is the constant of the formula, and every passage is returned")
)
def cut_at_k(results: Results, k: int = 60) -> Any:
    return _best(_fused(results, k), k)


@reciprocal_rank_fusion.misconception(_("the scores added up: the search with the larger numbers decides alone"))
def adds_scores(results: Results, k: int = 60) -> Any:
    fused = _fused(results, k, gain=lambda _k, _rank, score: score)
    return _best(fused, len(fused))


@reciprocal_rank_fusion.misconception(
    _("scores scaled to 0 to 1 in each list and added: one outlier squeezes the rest")
)
def scales_scores(results: Results, k: int = 60) -> Any:
    scaled = []
    for hits in results:
        scores = [score for _number, score in hits]
        low, width = min(scores, default=0.0), (max(scores, default=1.0) - min(scores, default=0.0)) or 1.0
        scaled.append([(number, (score - low) / width) for number, score in hits])
    fused = _fused(scaled, k, gain=lambda _k, _rank, score: score)
    return _best(fused, len(fused))


@reciprocal_rank_fusion.misconception(_("a crash on passages that are missing from one list"))
def crashes_on_missing(results: Results, k: int = 60) -> Any:
    lists = [[number for number, _score in hits] for hits in results if hits]
    everything = dict.fromkeys(number for numbers in lists for number in numbers)
    fused = {number: sum(1 / (k + 1 + numbers.index(number)) for numbers in lists) for number in everything}
    return _best(fused, len(fused))


@reciprocal_rank_fusion.misconception(_("only passages that all lists have"))
def in_all_lists(results: Results, k: int = 60) -> Any:
    everywhere = [{number for number, _score in hits} for hits in results if hits]
    fused = {n: s for n, s in _fused(results, k).items() if all(n in numbers for numbers in everywhere)}
    return _best(fused, len(fused))


@reciprocal_rank_fusion.misconception(_("a missing passage treated as if it came after the last one"))
def missing_is_last(results: Results, k: int = 60) -> Any:
    fused = _fused(results, k)
    for number in fused:
        fused[number] += sum(1 / (k + len(hits) + 1) for hits in results if number not in dict(hits))
    return _best(fused, len(fused))


@reciprocal_rank_fusion.misconception(_("a missing passage treated as if it had a place far down, 1,000 say"))
def missing_is_far_down(results: Results, k: int = 60) -> Any:
    fused = _fused(results, k)
    for number in fused:
        fused[number] += sum(1 / (k + 1000) for hits in results if number not in dict(hits))
    return _best(fused, len(fused))


@reciprocal_rank_fusion.misconception(_("only the best place of each passage: nothing is added up"))
def best_rank_only(results: Results, k: int = 60) -> Any:
    fused: dict[int, float] = {}
    for hits in results:
        for rank, (number, _score) in enumerate(hits, start=1):
            fused[number] = max(fused.get(number, 0.0), 1 / (k + rank))
    return _best(fused, len(fused))


@reciprocal_rank_fusion.misconception(_("ranks counted from zero"))
def ranks_from_zero(results: Results, k: int = 60) -> Any:
    fused = _fused(results, k, gain=lambda k, rank, _score: 1 / (k + rank - 1))
    return _best(fused, len(fused))


@reciprocal_rank_fusion.misconception(_("no k: a first place is worth twice as much as a second"))
def without_k(results: Results, k: int = 60) -> Any:
    fused = _fused(results, 0)
    return _best(fused, len(fused))


@reciprocal_rank_fusion.misconception(_("the sum divided by the number of lists"))
def mean_of_lists(results: Results, k: int = 60) -> Any:
    fused = {number: score / len(results) for number, score in _fused(results, k).items()}
    return _best(fused, len(fused))


@reciprocal_rank_fusion.misconception(_("the passages in the order in which they come up, not sorted"))
def not_sorted(results: Results, k: int = 60) -> Any:
    return list(_fused(results, k).items())


@reciprocal_rank_fusion.misconception(_("only the first two lists"))
def two_lists_only(results: Results, k: int = 60) -> Any:
    fused = _fused(results[:2], k)
    return _best(fused, len(fused))
