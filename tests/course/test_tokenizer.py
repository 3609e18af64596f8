"""What is special about tokenizer: its checks against the real library, and the numbers that its text quotes."""

import ast
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import jupytext
import numpy as np
import pytest

from kicourse.checks import tokenizer as check
from kicourse.data import course_text
from kicourse.syllabus import course
from tests.course.alternatives import tokenizer as honest


def run_cells(*wanted: str) -> dict[str, Any]:
    """Run the unit's code that is no demonstration, and those cells that hold one of these texts."""
    names: dict[str, Any] = {"__name__": "tokenizer", "text": str}
    for cell in jupytext.read(course().unit("tokenizer").source)["cells"]:
        demo = "demo" in cell["metadata"].get("tags", "")
        skipped = cell["cell_type"] != "code" or "kicourse.start" in cell["source"] or "check" in cell["metadata"]
        if not skipped and (not demo or any(text in cell["source"] for text in wanted)):
            exec(compile(ast.parse(cell["source"]), "<tokenizer>", "exec"), names)
        if "train_bpe" in names:
            names["train_bpe"] = honest.train_bpe  # it corrects counts instead of counting anew: seconds
    return names


@pytest.fixture(scope="module")
def unit() -> dict[str, Any]:
    return run_cells("corpora = {", "def spellings", "def library_tokenizer", "def byte_letters")


def test_the_oracle_gives_the_tokens_of_the_library(unit: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    merges = check.trained(rng, {" pump": 9, " pumpen": 5, " größe": 7, " 🔧": 4, "aaaa": 3, " Pumpe": 6}, 30)
    library = unit["in_library"](merges)
    for text in (
        " pumpen größe",
        "aaaaaaa aaa",
        "🔧 🔧🚰",
        " pump\u200bpump u\u0308",
        "",
        " ",
        "Pumpengröße\n\n  pump",
    ):
        assert library.encode(text).ids == check.encoded(text, merges)
        assert honest.decode(library.encode(text).ids, merges) == text


def test_training_finds_what_the_library_finds(unit: dict[str, Any]) -> None:
    assert [len(unit["learned"][name]) for name in ("English", "German", "both")] == [300, 300, 300]
    spelled = {spelling.decode(errors="replace") for spelling in check.spelled(unit["learned"]["both"])[256:]}
    library = unit["library"]
    theirs = {library.decode([token]) for token in range(256, 256 + 300)}
    assert len(spelled & theirs) >= 290  # the others are ties, and what follows from them


def test_the_opening_figure_shows_what_is_measured(unit: dict[str, Any]) -> None:
    from tokenizers import Tokenizer

    from kicourse.models import gpt

    source = course().unit("tokenizer").source.read_text(encoding="utf-8")
    figure = ast.literal_eval(source.split("RESULTS = ")[1].split("\n}\n")[0] + "}")
    smollm = Tokenizer.from_file(str(gpt.torch_path() / "tokenizer.json"))
    libraries = {"SmolLM2": smollm} | {
        f"trained on {name}": unit["in_library"](merges) for name, merges in unit["learned"].items()
    }
    assert list(figure) == list(libraries)
    pairs = course_text.load()["mini_gpt"]
    for name, library in libraries.items():
        for texts, quoted in zip(
            ([pair.english for pair in pairs], [pair.german for pair in pairs]), figure[name], strict=True
        ):
            tokens = sum(len(library.encode(text).ids) for text in texts)
            # The course's text is edited now and then, which moves the numbers a little.
            assert tokens / sum(len(text.split()) for text in texts) == pytest.approx(quoted, rel=0.03), name


def test_the_pieces_of_a_text_are_the_text(unit: dict[str, Any]) -> None:
    for text in ("  a_b  12,5 °C\n\n\tGröße u\u0308 a\u200bb 👩‍🔧!? ", "", " ", "x"):
        assert "".join(unit["split"](text)) == text


def test_any_most_frequent_pair_is_accepted() -> None:
    def trainer(seed: int) -> Any:
        return lambda counts, merges: check.trained(np.random.default_rng(seed), counts, merges)

    for seed in range(5):
        verdict = check.train_bpe.run(trainer(seed), seed=seed)
        assert verdict.status == "passed", verdict


@pytest.mark.parametrize(
    ("merges", "words"),
    [
        (["ab", (97, 98)], "A merge is a pair of token numbers"),
        ([(97, 98)] * 3, "no pair"),
        ([(1.0, 2.0)], "A merge is a pair of token numbers"),
        ([[97, 98]], "[97, 98] is a list"),
        ([(True, 98)], "A merge is a pair of token numbers"),
        ([(97, 98, 99)], "A merge is a pair of token numbers"),
    ],
)
def test_a_list_that_holds_no_merges_is_told_so(merges: Any, words: str) -> None:
    verdict = check.train_bpe.run(lambda _counts, _wanted: merges)
    assert verdict.points == 0
    assert words in verdict.criteria[0].message


def test_what_is_shown_before_a_task_is_not_its_solution() -> None:
    source = course().unit("tokenizer").source.read_text(encoding="utf-8")
    assert "enumerate(merges, start=256)" not in source.split('task="encode"')[0]
    assert not re.search(r"append\((\w+)\[left\] \+ \1\[right\]\)", source.split('task="decode"')[0])


@pytest.mark.parametrize(
    ("task", "wrong", "points"),
    [
        ("train_bpe", "crashes_at_the_end", 2.75),
        ("train_bpe", "numbered_from_255", 2),
        ("train_bpe", "counts_ignored", 2.5),
        ("train_bpe", "counted_without_overlap", 2.5),
        ("train_bpe", "rare_pairs_left", 2.75),
        ("encode", "most_frequent_first", 1.5),
        ("encode", "last_merge_first", 1.5),
        ("encode", "stripped", 1.75),
        ("decode", "one_level_only", 1),
        ("decode", "decodes_stripped", 1.25),
        ("tokens_per_word", "float_cost", 1.25),
        ("tokens_per_word", "mean_of_means", 1.25),
        ("tokens_per_word", "cost_rounded", 1.25),
    ],
)
def test_one_mistake_costs_one_criterion(task: str, wrong: str, points: float) -> None:
    for seed in range(5):
        verdict = getattr(check, task).run(getattr(check, wrong), seed=seed)
        assert verdict.points == points, verdict


def merges_bytes_only(tokens: list[int], pair: Any, new: int) -> list[int]:
    return honest.merge_pair(tokens, pair, new) if max(pair) < 256 else list(tokens)


def merges_the_same_objects(tokens: list[int], pair: Any, new: int) -> list[int]:
    result: list[int] = []
    place = 0
    while place < len(tokens):
        found = place + 1 < len(tokens) and tokens[place] is pair[0] and tokens[place + 1] is pair[1]
        result.append(new if found else tokens[place])
        place += 2 if found else 1
    return result


def trains_on(changed: Callable[[str], str]) -> Any:
    def train_bpe(counts: dict[str, int], merges: int) -> Any:
        return honest.train_bpe({changed(piece): count for piece, count in counts.items()}, merges)

    return train_bpe


def decodes(changed: Callable[[bytes], str]) -> Any:
    def decode(tokens: list[int], merges: Any) -> str:
        spelled = check.spelled(merges)
        return changed(b"".join(spelled[token] for token in tokens))

    return decode


def costs(cost: Callable[[int, Decimal], Decimal]) -> Any:
    def tokens_per_word(messages: list[str], encode: Any, price: Decimal) -> Any:
        ratio, _cost = honest.tokens_per_word(messages, encode, price)
        return ratio, cost(sum(len(encode(message)) for message in messages), price)

    return tokens_per_word


def counts_a_message_once(messages: list[str], encode: Any, price: Decimal) -> Any:
    ratio, _cost = honest.tokens_per_word(list(dict.fromkeys(messages)), encode, price)
    return ratio, honest.tokens_per_word(messages, encode, price)[1]


NFC = partial(unicodedata.normalize, "NFC")
WRONG = [
    ("merge_pair", merges_bytes_only, "keeps_the_rest"),
    ("merge_pair", merges_the_same_objects, "keeps_the_rest"),
    ("train_bpe", trains_on(NFC), "works_on_bytes"),
    ("train_bpe", trains_on(str.lower), "works_on_bytes"),
    ("encode", lambda text, merges: honest.encode(text.replace("\r\n", "\n"), merges), "encodes_the_ends"),
    ("encode", lambda text, merges: honest.encode(text.replace("\u00a0", " "), merges), "encodes_zero_width"),
    ("decode", decodes(lambda data: NFC(data.decode(errors="replace"))), "decodes_the_ends"),
    ("decode", decodes(lambda data: data.decode("utf-8-sig", errors="replace")), "decodes_the_ends"),
    ("tokens_per_word", costs(lambda tokens, price: round(tokens * price / 10**6, 8)), "costs"),
    ("tokens_per_word", costs(lambda tokens, price: Decimal(str(tokens * float(price) / 1e6))), "costs"),
    ("tokens_per_word", counts_a_message_once, "weighs_messages"),
]


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(("task", "wrong", "criterion"), WRONG)
def test_a_branch_that_goes_wrong_costs_its_own_criterion_only(task: str, wrong: Any, criterion: str) -> None:
    for seed in range(8):
        verdict = getattr(check, task).run(wrong, seed=seed)
        assert [result.name for result in verdict.criteria if result.status != "passed"] == [criterion], seed


class Merge(NamedTuple):
    left: int
    right: int


@pytest.mark.parametrize("kind", [Merge._make, lambda pair: tuple(np.array(pair))])
def test_a_merge_may_be_a_named_tuple_or_hold_numbers_of_numpy(kind: Callable[[Any], Any]) -> None:
    def train_bpe(counts: dict[str, int], merges: int) -> Any:
        return [kind(pair) for pair in honest.train_bpe(counts, merges)]

    assert check.train_bpe.run(train_bpe).status == "passed"


def test_a_float_in_between_is_told_however_it_came_in() -> None:
    def of_a_float(messages: list[str], encode: Any, price: Decimal) -> Any:
        ratio, _cost = honest.tokens_per_word(messages, encode, price)
        return ratio, sum(len(encode(message)) for message in messages) * Decimal(float(price) / 1e6)

    assert "somewhere a float came in" in check.tokens_per_word.run(of_a_float).criteria[1].message


def test_a_cost_that_is_forgotten_without_words_is_told_what_it_should_be() -> None:
    def forgetful(messages: list[str], encode: Any, price: Decimal) -> Any:
        ratio, cost = honest.tokens_per_word(messages, encode, price)
        return (ratio, cost) if ratio else (0, Decimal("0"))

    verdict = check.tokens_per_word.run(forgetful)
    assert "0.04" in verdict.criteria[4].expected
    assert "a cost of nothing where there is no word" in verdict.diagnosis


def test_a_flat_price_where_there_is_no_word_is_refused() -> None:
    def flat(messages: list[str], encode: Any, price: Decimal) -> Any:
        ratio, cost = honest.tokens_per_word(messages, encode, price)
        return ratio, cost if ratio or not cost else Decimal(1)

    for seed in range(10):
        verdict = check.tokens_per_word.run(flat, seed=seed)
        assert [result.name for result in verdict.criteria if result.status != "passed"] == ["measures_anything"]


@pytest.mark.parametrize("separator", ["", " ", "\n"])
def test_messages_that_are_encoded_as_one_text_never_pass(separator: str) -> None:
    def joined(messages: list[str], encode: Any, price: Decimal) -> Any:
        tokens = len(encode(separator.join(messages)))
        words = sum(len(message.split()) for message in messages)
        return (tokens / words if words else 0.0), tokens * price / 1_000_000

    for seed in range(20):
        verdict = check.tokens_per_word.run(joined, seed=seed)
        assert verdict.criteria[3].status == "failed", verdict
        assert verdict.diagnosis.startswith("all messages joined"), verdict


def test_a_tokenizer_of_its_own_does_not_replace_the_one_that_is_handed_in() -> None:
    def stubborn(messages: list[str], _encode: Any, price: Any) -> Any:
        return honest.tokens_per_word(messages, lambda text: list(text.encode()), price)

    assert check.tokens_per_word.run(stubborn).points == 0


def test_a_list_that_shrinks_under_a_loop_is_told_where_it_ends() -> None:
    def shrinking(tokens: list[int], pair: Any, new: int) -> list[int]:
        tokens = list(tokens)
        for place in range(len(tokens) - 1):
            if (tokens[place], tokens[place + 1]) == pair:
                tokens[place : place + 2] = [new]
        return tokens

    assert "the last token for its right neighbour" in check.merge_pair.run(shrinking).diagnosis


def test_an_answer_that_changes_its_input_is_told_so_at_no_cost() -> None:
    def in_place(tokens: list[int], pair: Any, new: int) -> list[int]:
        place = 0
        while place < len(tokens) - 1:
            if (tokens[place], tokens[place + 1]) == pair:
                tokens[place : place + 2] = [new]
            place += 1
        return tokens

    verdict = check.merge_pair.run(in_place)
    assert verdict.status == "passed"
    assert "changed its input `tokens`" in verdict.notes[0]
