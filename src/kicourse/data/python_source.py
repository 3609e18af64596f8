"""A corpus that is on every learner's machine: the Python source of Python's own standard library.

    corpus = python_source.load()
    corpus.training["argparse.py"]     # nine files in ten, by name
    corpus.held_out["calendar.py"]     # the others; which ones follows from the name alone

Numbers in notebooks are for Python 3.11; other versions differ a little, because their library does.
"""

import keyword
import re
import sysconfig
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

ONE_IN = 10
"""One file in so many is held out."""

_GENERATED = "_sysconfigdata"  # written when Python was built: holds paths of the machine and is no source
_WORD = re.compile(r"[a-z]{3,}")


@dataclass(frozen=True)
class Corpus:
    """Source files by name, split by file so that nothing of a held-out file has been seen in training."""

    training: dict[str, str]
    held_out: dict[str, str]


def load() -> Corpus:
    """Read the modules that lie directly in the standard library's folder: about 170 files, 4.7 million characters.

    Raises FileNotFoundError where Python was installed without its source.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    paths = [path for path in sorted(folder.glob("*.py")) if not path.name.startswith(_GENERATED)]
    files = {path.name: path.read_text(encoding="utf-8") for path in paths}
    if not files:
        raise FileNotFoundError(f"There is no Python source in {folder}.")
    return Corpus(
        training={name: text for name, text in files.items() if not is_held_out(name)},
        held_out={name: text for name, text in files.items() if is_held_out(name)},
    )


def is_held_out(name: str) -> bool:
    """Whether a file is kept from training: decided by its name, the same on every machine and in every version."""
    return zlib.crc32(name.encode()) % ONE_IN == 0


def in_another_dialect(texts: list[str], rng: "np.random.Generator") -> list[str]:
    """Return the texts with their words swapped for one another, the same way in all of them.

    Keywords stay, and so does the shape of the code; what stands for what is new. A model that has learned the real
    library by heart knows little about a dialect of it, so a check can ask for text that nobody has read.
    """
    swaps = _swaps({word for text in texts for word in _WORD.findall(text)}, rng)
    return [_WORD.sub(lambda match: swaps.get(match[0], match[0]), text) for text in texts]


def _swaps(words: set[str], rng: "np.random.Generator") -> dict[str, str]:
    """Draw a permutation of the words that keeps their lengths."""
    by_length: dict[int, list[str]] = defaultdict(list)
    for word in sorted(words - set(keyword.kwlist)):
        by_length[len(word)].append(word)
    return {
        word: group[place]
        for group in by_length.values()
        for word, place in zip(group, rng.permutation(len(group)), strict=True)
    }
