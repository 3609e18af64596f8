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
