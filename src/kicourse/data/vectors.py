"""Sentence vectors that are computed once: what a model said about a text is kept on disk.

    vectors = vectors.cached(texts, encode, model="all-MiniLM-L6-v2")

A text that has been seen before, by whatever notebook, is not encoded again; a changed one is another text.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kicourse.models import hub_cache

if TYPE_CHECKING:
    import numpy as np

BATCH = 16
"""Texts that are encoded at once, of about the same length, so that little is padded."""


def cached(
    texts: Sequence[str],
    encode: "Callable[[list[str]], np.ndarray]",
    model: str,
    progress: Callable[[int, int], object] = lambda done, wanted: None,
) -> "np.ndarray":
    """Return a row for each text: from the disk, or from `encode`, which gets a few texts at a time.

    `model` names what encodes; another name has vectors of its own. What has been encoded is kept when the run is
    interrupted. `progress` is told after each batch how many new texts are done, and how many there are.
    """
    import numpy as np

    known = _read(_place(model))
    new = sorted({text for text in texts if _key(text) not in known}, key=len)
    try:
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            known.update(zip(map(_key, batch), encode(batch), strict=True))
            progress(start + len(batch), len(new))
    finally:
        if new:
            _write(_place(model), known)
    return np.stack([known[_key(text)] for text in texts])


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _place(model: str) -> Path:
    return hub_cache.home() / "kicourse" / "vectors" / f"{_key(model)[:16]}.npz"


def _read(place: Path) -> "dict[str, np.ndarray]":
    import zipfile

    import numpy as np

    try:
        with np.load(place) as stored:
            return dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # none yet, or broken: they can be computed again
        return {}


def _write(place: Path, known: "dict[str, np.ndarray]") -> None:
    """Write them beside the old ones, then put them in their place, so that nobody reads half a file."""
    import numpy as np

    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_suffix(f".{os.getpid()}.npz")
    np.savez(unfinished, keys=np.array(list(known)), vectors=np.stack(list(known.values())))
    os.replace(unfinished, place)
