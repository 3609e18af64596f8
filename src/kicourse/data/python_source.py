"""A corpus that is on every learner's machine: the Python source of Python's own standard library.

    corpus = python_source.load()
    corpus.training["argparse.py"]     # nine files in ten, by name
    corpus.held_out["calendar.py"]     # the others; which ones follows from the name alone

Numbers in notebooks are for Python 3.11; other versions differ a little, because their library does.
"""

import sysconfig
import zlib
from dataclasses import dataclass
from pathlib import Path

ONE_IN = 10
"""One file in so many is held out."""

_GENERATED = "_sysconfigdata"  # written when Python was built: holds paths of the machine and is no source


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
