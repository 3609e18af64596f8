from pathlib import Path

import numpy as np
import pytest

from kicourse.data import vectors
from kicourse.models import hub_cache


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_cache, "home", lambda: tmp_path)


class Encoder:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.seen += texts
        return np.array([[len(text), text.count("ö")] for text in texts], dtype=np.float32)


def test_each_text_is_encoded_once_and_rows_are_in_order() -> None:
    encode = Encoder()
    first = vectors.cached(["Öl", "öööl", "Öl", ""], encode, "toy")
    assert first.tolist() == [[2, 0], [4, 3], [2, 0], [0, 0]]
    again = vectors.cached(["öööl", "neu"], encode, "toy")
    assert again.tolist() == [[4, 3], [3, 0]]
    assert sorted(encode.seen) == ["", "neu", "Öl", "öööl"]


def test_another_model_has_vectors_of_its_own() -> None:
    encode = Encoder()
    for model in ("toy", "other/model"):
        vectors.cached(["Öl"], encode, model)
    assert encode.seen == ["Öl", "Öl"]


def test_what_was_encoded_before_an_interruption_is_kept() -> None:
    encode = Encoder()
    texts = [f"{'x' * number}" for number in range(vectors.BATCH + 3)]

    def interrupted(batch: list[str]) -> np.ndarray:
        if encode.seen:
            raise KeyboardInterrupt
        return encode(batch)

    with pytest.raises(KeyboardInterrupt):
        vectors.cached(texts, interrupted, "toy")
    assert len(vectors.cached(texts, encode, "toy")) == len(texts)
    assert sorted(encode.seen) == sorted(texts)


def test_a_broken_file_is_computed_again(tmp_path: Path) -> None:
    encode = Encoder()
    vectors.cached(["Öl"], encode, "toy")
    [file] = (tmp_path / "kicourse" / "vectors").glob("*.npz")
    file.write_bytes(b"half a file")
    assert vectors.cached(["Öl"], encode, "toy").tolist() == [[2, 0]]
    assert encode.seen == ["Öl", "Öl"]
