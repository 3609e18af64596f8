"""What is special about bert: its oracles against the real model, the numbers that its text quotes, honest styles."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from kicourse.checks import bert as check
from kicourse.checks.help import reference_source
from kicourse.data import bilingual_tickets
from kicourse.models import bert
from kicourse.syllabus import course
from tests.course.alternatives import bert as honest
from tests.course.demonstrations import demonstrated


def failed(verdict: Any) -> list[str]:
    return [result.name for result in verdict.criteria if result.status != "passed"]


@pytest.mark.usefixtures("undiagnosed")
def test_a_mistake_costs_its_own_criterion_only() -> None:
    expected = {
        "partial_pieces": "unknown",
        "unknown_characters": "unknown",
        "marks_missing": "marked",
        "marked_afterwards": "marked",
        "shortest_first": "longest_first",
        "from_the_end": "longest_first",
        "no_limit": "too_long",
        "too_long_at_hundred": "too_long",
        "text_too_long": "too_long",
        "plainly_split": "normalised",
        "white_space_only": "normalised",
        "lower_only": "normalised",
        "model_width": "scales",
        "not_scaled": "scales",
        "mask_afterwards": "hides_padding",
        "mask_on_queries": "hides_padding",
        "mask_without_axes": "hides_padding",
        "mask_with_one_axis": "hides_padding",
        "mask_of_zeros": "hides_padding",
        "infinite_on_queries": "hides_padding",
        "infinite_on_both": "hides_padding",
        "mask_of_ten": "hides_padding",
        "ten_less": "hides_padding",
        "overflows": "stays_finite",
        "one_largest": "stays_finite",
        "averages_padding": "leaves_padding_out",
        "counts_padding": "leaves_padding_out",
        "not_a_number": "empty_text",
        "not_unit": "ignores_length",
        "lengths_of_one": "ignores_length",
        "includes_itself": "not_itself",
        "drops_twins": "not_itself",
        "divides_by_zero": "small_heaps",
        "sorted_to_the_end": "small_heaps",
        "index_of_zeros": "small_heaps",
        "tuned_on_test": "threshold_on_development",
        "gives_up_early": "threshold_on_development",
        "more_than_wanted": "threshold_on_development",
        "only_fitting": "threshold_on_development",
        "strictly_above": "unsure_below",
        "unsure_is_right": "counted",
        "share_right": "counted",
        "lowers_the_bar": "promises_nothing",
    }
    for task in (check.wordpiece, check.attention, check.mean_pool, check.most_similar, check.zero_shot):
        for wrong in task.misconceptions:
            if wrong.name in expected:
                assert failed(task.run(wrong.build())) == [expected.pop(wrong.name)], wrong.name
    assert not expected


def changed(task: str, before: str, after: str) -> Any:
    """Build the unit's own solution with one change."""
    source = reference_source("bert", task, "en")
    assert source.count(before) == 1
    namespace = {"np": np, "math": math, "words": check._split, "Texts": Any, "Report": check._Report}
    exec(source.replace(before, after), namespace)
    return namespace[task]


ALL_PIECES = "return [piece for word in words(text) for piece in cut(word)]"
MASKED = "np.where(mask[:, None, None, :] == 1, scores, -np.inf)"
OTHERS = "[int(row) for row in np.argsort(-cosines) if row != index]"
PASSES = "right[scores >= score].mean() >= wanted"
SMALLEST = "min(passing, default=math.inf)"


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    ("task", "before", "after", "criterion"),
    [
        ("wordpiece", ALL_PIECES, f'{ALL_PIECES} or ["[UNK]"]', "normalised"),
        ("wordpiece", "in words(text)", "in words(text)[:12]", "normalised"),
        ("attention", MASKED, MASKED.replace("-np.inf", "-100"), "hides_padding"),
        ("attention", MASKED, MASKED.replace("-np.inf", "-1000"), "hides_padding"),
        ("attention", MASKED, "scores - 1000 * (1 - mask[:, None, None, :])", "hides_padding"),
        (
            "mean_pool",
            "mask[:, :, None]",
            "((mask.cumsum(axis=1) > 0) & (mask[:, ::-1].cumsum(axis=1)[:, ::-1] > 0))[:, :, None]",
            "leaves_padding_out",
        ),
        ("mean_pool", "np.maximum(kept.sum(axis=1), 1)", "(kept.sum(axis=1) + 1e-4)", "empty_text"),
        ("most_similar", "np.where(lengths > 0, lengths, 1)", "np.maximum(lengths, 0.1)", "ignores_length"),
        ("most_similar", "float(cosines[row])", "float(cosines[row] if cosines[row] > -0.999 else 1)", "not_itself"),
        (
            "most_similar",
            f"others = {OTHERS}",
            "cosines[index] = -1; others = np.argsort(-cosines, kind='stable')[: len(cosines) - 1].tolist()",
            "not_itself",
        ),
        ("zero_shot", PASSES, f"{PASSES} - 1e-3", "threshold_on_development"),
        ("zero_shot", SMALLEST, f"{SMALLEST} if len(scores) > 2 else math.inf", "threshold_on_development"),
        ("zero_shot", SMALLEST, f"round({SMALLEST}, 6)", "unsure_below"),
    ],
)
def test_a_branch_that_goes_wrong_costs_its_own_criterion_only(
    task: str, before: str, after: str, criterion: str
) -> None:
    for seed in range(5):
        assert failed(getattr(check, task).run(changed(task, before, after), seed=seed)) == [criterion]


@pytest.mark.usefixtures("undiagnosed")
def test_a_longest_piece_that_leads_to_a_dead_end_is_not_taken_back() -> None:
    def cut(word: str, mark: str, vocabulary: set[str]) -> list[str] | None:
        for end in range(len(word), 0, -1):
            if mark + word[:end] in vocabulary:
                rest = cut(word[end:], "##", vocabulary)
                if rest is not None:
                    return [mark + word[:end], *rest]
        return None if word else []

    def backtracking(text: str, vocabulary: set[str]) -> list[str]:
        found = [cut(word, "", vocabulary) if len(word) <= 100 else None for word in check._split(text)]
        return [piece for pieces in found for piece in pieces or ["[UNK]"]]

    for seed in range(5):
        assert failed(check.wordpiece.run(backtracking, seed=seed)) == ["unknown"]


def masking_one_head(query: Any, key: Any, value: Any, mask: Any) -> Any:
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])
    scores[:, 0] = np.where(mask[:, None, :] == 1, scores[:, 0], -np.inf)
    weights = check._softmax(scores)
    return weights @ value, weights


def padding_comes_last(query: Any, key: Any, value: Any, mask: Any) -> Any:
    real = np.arange(mask.shape[1]) < mask.sum(axis=1)[:, None]
    return honest.attention(query, key, value, real.astype(mask.dtype))


def padding_comes_first(query: Any, key: Any, value: Any, mask: Any) -> Any:
    real = np.arange(mask.shape[1])[::-1] < mask.sum(axis=1)[:, None]
    return honest.attention(query, key, value, real.astype(mask.dtype))


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize("wrong", [masking_one_head, padding_comes_last, padding_comes_first])
def test_padding_is_hidden_in_every_head_and_wherever_it_is(wrong: Any) -> None:
    for seed in range(10):
        assert failed(check.attention.run(wrong, seed=seed)) == ["hides_padding"]


def test_padding_in_the_place_of_queries_is_nobodys_concern() -> None:
    def hides_both(query: Any, key: Any, value: Any, mask: Any) -> Any:
        output, weights = honest.attention(query, key, value, mask)
        real = mask[:, None, :, None]
        return output * real, weights * real

    assert check.attention.run(hides_both).status == "passed"


def test_nan_is_told_as_what_it_is() -> None:
    def hides_both_by_infinity(query: Any, key: Any, value: Any, mask: Any) -> Any:
        scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])
        both = (mask[:, None, :, None] * mask[:, None, None, :]) == 1
        with np.errstate(all="ignore"):
            scores = np.where(both, scores, -np.inf)
            powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights = powers / powers.sum(axis=-1, keepdims=True)
        return weights @ value, weights

    verdict = check.attention.run(hides_both_by_infinity)
    assert failed(verdict) == ["hides_padding"]
    assert "NaN" in verdict.criteria[2].message
    assert "mask the keys alone" in verdict.diagnosis


def test_a_mask_may_be_a_large_negative_number() -> None:
    def by_subtraction(query: Any, key: Any, value: Any, mask: Any) -> Any:
        scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1]) - 1e4 * (1 - mask[:, None, None, :])
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights = powers / powers.sum(axis=-1, keepdims=True)
        return weights @ value, weights

    assert check.attention.run(by_subtraction).status == "passed"
    by_smallest = changed("attention", MASKED, MASKED.replace("-np.inf", "np.finfo(np.float32).min"))
    for seed in range(5):
        assert check.attention.run(by_smallest, seed=seed).status == "passed"


class Attended(NamedTuple):
    output: Any
    weights: Any


class Neighbour(NamedTuple):
    number: int
    cosine: float


def test_named_tuples_and_tuples_of_labels_are_right() -> None:
    assert check.attention.run(lambda *heads: Attended(*honest.attention(*heads))).status == "passed"
    similar = honest.most_similar
    assert check.most_similar.run(lambda *case: [Neighbour(*pair) for pair in similar(*case)]).status == "passed"

    def report(*case: Any) -> Any:
        right = honest.zero_shot(*case)._asdict()
        return check._Report(**right | {"answers": tuple(right["answers"])})

    assert check.zero_shot.run(report).status == "passed"


@pytest.mark.parametrize("entry", [-2.0, 1.0])
def test_the_row_itself_at_the_end_of_a_short_list_is_refused(entry: float) -> None:
    def with_itself(vectors: Any, index: int, k: int) -> Any:
        return [*honest.most_similar(vectors, index, k), (index, entry)][:k]

    assert failed(check.most_similar.run(with_itself)) == ["small_heaps"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda _q, _k, value, _m: value, "two arrays"),
        (lambda _q, _k, value, _m: (value, value.tolist()), "numpy.ndarray"),
        (lambda _q, _k, value, _m: (value, value[..., :1]), "shape"),
        (lambda _q, _k, value, _m: (value, np.full((1, 1, value.shape[2], value.shape[2]), "x")), "numbers"),
    ],
)
def test_attention_of_another_form_is_told_so(answer: Any, words: str) -> None:
    verdict = check.attention.run(answer)
    assert verdict.points == 0
    assert words in verdict.criteria[0].message


@pytest.mark.parametrize("entry", [3, (1,), ("one", 0.5), (True, 0.5), (1.0, 0.5)])
def test_entries_that_are_no_pairs_are_told_so(entry: Any) -> None:
    verdict = check.most_similar.run(lambda _vectors, _index, k: [entry] * k)
    assert verdict.points == 0
    assert "a pair" in verdict.criteria[0].message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"answers": ["x"]}, "as many answers are wanted"),
        ({"answers": None}, "`answers` must be a list"),
        ({"answers": np.array(["x"])}, "`answers` must be a list"),
        ({"threshold": "high"}, "You returned str, not a number"),
        ({"threshold": float("nan")}, "smallest similarity"),
    ],
)
def test_a_report_with_a_wrong_field_is_told_so(fields: dict[str, Any], words: str) -> None:
    verdict = check.zero_shot.run(lambda *case: honest.zero_shot(*case)._replace(**fields))
    messages = " ".join(result.message for result in verdict.criteria)
    assert verdict.status in ("failed", "partial")
    assert words in messages
    assert "fault of its own" not in messages


def test_without_a_report_the_learner_is_told_what_is_wanted() -> None:
    verdict = check.zero_shot.run(lambda *case: tuple(honest.zero_shot(*case)._asdict().values()))
    assert "You returned tuple, not Report" in verdict.criteria[0].message


def test_the_tickets_are_balanced_and_translated_and_the_heaps_share_nothing() -> None:
    tickets = bilingual_tickets.load()
    for heap in (tickets.development, tickets.test):
        for topic in (*bilingual_tickets.TOPICS, bilingual_tickets.OTHER):
            assert sum(ticket.topic == topic for ticket in heap) == 8, topic
    assert all(ticket.german for ticket in tickets.development)
    sentences = [ticket.english for heap in (tickets.development, tickets.test) for ticket in heap]
    assert len(set(sentences)) == len(sentences) == 96


@pytest.fixture(scope="module")
def model() -> Any:
    tokenizer, model = bert.load()
    model.set_attn_implementation("eager")
    return tokenizer, model


def run_model(model: Any, texts: list[str]) -> tuple[Any, Any]:
    import torch

    tokenizer, network = model
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return inputs, network(**inputs, output_hidden_states=True, output_attentions=True)


ODD = ("Größe: 12 m³/h, 5€ – „naïve“ a\u200bb", "Pump 🔧 u\u0308ber\u00a0HP-2041!", "x" * 101, "Weiß\u00adblech C#", "")


@pytest.mark.long
def test_the_oracle_of_pieces_is_the_models_own_tokenizer(model: Any, solution_of_bert: dict[str, Any]) -> None:
    tokenizer, _network = model
    vocabulary = tokenizer.get_vocab()
    tickets = bilingual_tickets.load()
    texts = [*ODD, *(ticket.german for ticket in tickets.development), *(ticket.english for ticket in tickets.test)]
    pieces = [piece for piece, _number in sorted(vocabulary.items(), key=lambda entry: entry[1]) if piece != "[UNK]"]
    library = check._library(pieces)
    for text in texts:
        wanted = tokenizer.tokenize(text)
        assert library.encode(text).tokens == wanted, text
        assert solution_of_bert["wordpiece"](text, set(vocabulary)) == wanted, text


@pytest.mark.long
def test_the_oracle_of_attention_is_what_the_model_does_in_every_layer(model: Any) -> None:
    import torch

    inputs, outputs = run_model(model, ["The seal of the pump in hall 3 leaks.", "Help!", "Where is my parcel?"])
    mask = inputs["attention_mask"].numpy()
    for layer, module in enumerate(model[1].encoder.layer):
        own = module.attention.self
        with torch.inference_mode():
            made = [matrix(outputs.hidden_states[layer]) for matrix in (own.query, own.key, own.value)]
        query, key, value = (array.unflatten(-1, (12, 32)).transpose(1, 2).numpy() for array in made)
        heads = check._Heads(query, key, value, mask)
        _output, weights = check._attended(heads)
        np.testing.assert_allclose(weights, outputs.attentions[layer].numpy(), atol=1e-5)


@pytest.fixture(scope="module")
def solution_of_bert() -> dict[str, Any]:
    from tests.course.conftest import answers_of

    return answers_of(course().unit("bert").solution("en"))


@pytest.mark.long
def test_the_numbers_that_the_text_quotes_are_measured(model: Any, solution_of_bert: dict[str, Any]) -> None:
    most_similar, zero_shot = (solution_of_bert[task] for task in ("most_similar", "zero_shot"))

    def embed(texts: list[str]) -> Any:
        inputs, outputs = run_model(model, texts)
        return solution_of_bert["mean_pool"](outputs.last_hidden_state.numpy(), inputs["attention_mask"].numpy())

    tickets = bilingual_tickets.load()
    topics = [ticket.topic for ticket in tickets.development]
    english = embed([ticket.english for ticket in tickets.development])
    german = embed([ticket.german for ticket in tickets.development])
    known = [place for place, topic in enumerate(topics) if topic != "other"]
    for vectors, share in ((english, 0.70), (german, 0.475)):
        nearest = [most_similar(vectors[known], place, 1)[0][0] for place in range(len(known))]
        hits = [topics[known[place]] == topics[known[near]] for place, near in enumerate(nearest)]
        assert np.mean(hits) == pytest.approx(share, abs=0.03)
    units = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (german, english)]
    assert sum((units[0] @ units[1].T).argmax(axis=1) == np.arange(48)) == pytest.approx(12, abs=1)

    source = course().unit("bert").source.read_text(encoding="utf-8")
    quoted: dict[str, Any] = {}
    exec("LABELS = {" + source.split("LABELS = {")[1].split("\n}\n")[0] + "\n}", quoted)
    test = embed([ticket.english for ticket in tickets.test]), [ticket.topic for ticket in tickets.test]
    labels = dict(zip(quoted["LABELS"], embed(list(quoted["LABELS"].values())), strict=True))
    report = zero_shot(labels, (english, topics), test, 0.9)
    assert (report.answered, report.right) == (32, 28)
    assert all(answer == "unsure" for answer, true in zip(report.answers, test[1], strict=True) if true == "other")
    bare = dict(zip(labels, embed(list(labels)), strict=True))
    fitting = [place for place, true in enumerate(test[1]) if true != "other"]
    ours = test[0][fitting], [test[1][place] for place in fitting]
    assert [zero_shot(named, (english, topics), ours, 0.0).right for named in (labels, bare)] == [33, 35]


@pytest.mark.long
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_demonstration_runs_without_a_network(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    shown = demonstrated("bert", language, tmp_path, monkeypatch)
    assert len(shown.figures) == 5
    assert shown.figures[0].startswith("Ein Ablauf") == (language == "de")
    assert "48 " in shown.printed
