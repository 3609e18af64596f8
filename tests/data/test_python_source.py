import ast
import keyword
import re

import numpy as np

from kicourse.data import python_source


def test_the_corpus_is_split_by_file_and_only_by_name() -> None:
    corpus = python_source.load()
    assert not set(corpus.training) & set(corpus.held_out)
    assert "argparse.py" in corpus.training
    assert "calendar.py" in corpus.held_out
    assert len(corpus.training) > 100
    assert sum(map(len, corpus.training.values())) > 3_000_000
    assert 0.05 < len(corpus.held_out) / len(corpus.training) < 0.2


def test_no_file_that_was_written_for_this_machine_is_in_it() -> None:
    corpus = python_source.load()
    assert not [name for name in corpus.training | corpus.held_out if "sysconfigdata" in name]


def test_a_dialect_keeps_the_code_and_swaps_the_words_consistently() -> None:
    corpus = python_source.load()
    texts = [corpus.held_out[name] for name in ("calendar.py", "copy.py")]
    first, second = python_source.in_another_dialect(texts, np.random.default_rng(1))
    assert [len(text) for text in (first, second)] == [len(text) for text in texts]
    assert ast.dump(ast.parse(first)) != ast.dump(ast.parse(texts[0]))  # still Python, and not the same

    words = re.compile(r"[a-z]{3,}")
    pairs = {
        (old, new)
        for before, after in zip(texts, (first, second), strict=True)
        for old, new in zip(words.findall(before), words.findall(after), strict=True)
    }
    assert len({old for old, _ in pairs}) == len({new for _, new in pairs}) == len(pairs)
    assert all(old == new for old, new in pairs if old in keyword.kwlist)
    assert sum(old != new for old, new in pairs) > 0.8 * len(pairs)


def test_dialects_differ_by_generator_and_repeat_with_it() -> None:
    texts = list(python_source.load().held_out.values())[:2]
    one, same, other = (python_source.in_another_dialect(texts, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == same != other
