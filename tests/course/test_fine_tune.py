"""What is special about fine_tune: each mistake costs its own criterion, cheats, and the demonstrations."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from kicourse.answers.training import Shifted, SmallClassifier, descend, linear
from kicourse.checks import fine_tune as check
from kicourse.checks.help import reference_source
from kicourse.syllabus import course
from tests.course.alternatives import fine_tune as honest
from tests.course.conftest import code_cells
from tests.course.demonstrations import demonstrated

CHECKS = (check.lora_linear, check.add_lora, check.make_batches, check.fine_tune, check.model_files)


def failed(verdict: Any) -> list[str]:
    return [result.name for result in verdict.criteria if result.status != "passed"]


@pytest.mark.long
@pytest.mark.usefixtures("undiagnosed")
def test_a_mistake_costs_its_own_criterion_only() -> None:
    expected = {
        "both_zero": "learns",
        "both_random": "begins_as_base",
        "scale_missing": "scales_update",
        "base_trained": "learns",
        "merged_twice": "merges_again",
        "merged_without_scale": "merges",
        "base_copied": "begins_as_base",
        "bias_shared": "merges_again",
        "bias_too_many": "merges",
        "base_still_trained": "trains_little",
        "head_frozen": "trains_little",
        "substring": "wraps_no_others",
        "counts_everything": "counts",
        "passes_over": "refuses_unknown",
        "names_from_model": "refuses_unknown",
        "tail_lost": "keeps_tail",
        "labels_misaligned": "labels_stay",
        "mask_of_ones": "pads",
        "not_sorted": "pads_little",
        "not_mixed": "shuffles",
        "texts_mixed_freely": "shuffles",
        "picked_on_test": "keeps_best",
        "kept_without_copy": "keeps_best",
        "dropout_while_measuring": "evaluates",
        "never_back_to_training": "takes_steps",
        "mean_of_batches": "evaluates",
        "reports_development": "reports",
        "reports_last": "reports",
        "falls_too_early": "takes_steps",
        "falls_too_fast": "takes_steps",
        "epochs_from_zero": "keeps_best",
        "never_stops": "stops",
        "stops_at_nan_only": "stops",
        "stops_after_the_step": "stops",
        "head_lost": "reloads",
        "everything_saved": "holds_little",
        "labels_sorted": "keeps_settings",
        "base_lost": "keeps_settings",
        "typed_in": "states_numbers",
    }
    for task in CHECKS:
        for wrong in task.misconceptions:
            if wrong.name in expected:
                results = task.run(wrong.build()).criteria
                own = [result.name for result in results if result.status == "failed"]
                assert own == [expected.pop(wrong.name)], wrong.name
    assert not expected


def changed(task: str, changes: dict[str, str]) -> Any:
    """Build the unit's own solution of a task with some changes."""
    source = reference_source("fine_tune", task, "en")
    for before, after in changes.items():
        assert source.count(before) == 1
        source = source.replace(before, after)
    names: dict[str, Any] = {"__name__": "notebook"}
    for cell in code_cells(course().unit("fine_tune").solution("en")):
        if cell.startswith(("import copy", "Batch =", "def wilson")):  # what all answers need
            exec(cell, names)
    exec(source, names)
    return names["LoRALinear" if task == "lora_linear" else task]


KNOWN = "known = dict(zip(map(tuple, texts), labels))"
ROTATED = "first = int(torch.randint(99, (1,), generator=generator)) % (len(batches) or 1)"
BEGIN = "torch.randn(rank, base.in_features)"
FORWARD, MERGED = "out: Tensor = ", "return layer"
LABEL, TEXT = "labels[number] for number in numbers", "torch.tensor(texts[number])"
SHUFFLE = "for place in torch.randperm(len(batches), generator=generator).tolist()]"
RETURN, STEP, START = "return [", "optimizer.step()", "accuracies: list"
DRAW = "order = torch.randperm(len(texts), generator=generator)"
KEEP, MEASURE = "accuracies.append(right / count)", "right, count = count_right(test)"
NUMBERS = "{100 * report.accuracy:.1f} % were right (95 % interval {100 * low:.1f} % to {100 * high:.1f} %)."


def at_rate(setting: str) -> dict[str, str]:
    """Change the solution of `fine_tune` to one that sets the rates of its optimizer itself."""
    found = "first, default = optimizer.param_groups[0]['lr'], optimizer.defaults['lr']"
    return {
        START: f"done = 0; {found}; {START}",
        STEP: f"{setting}; {STEP}; done += 1",
        "schedule.step()": "pass",
    }


SET_ALL = "[group.update(lr={rate} * (1 - done / steps)) for group in optimizer.param_groups]"


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    ("criterion", "task", "changes"),
    [
        ("learns", "lora_linear", {BEGIN: "torch.ones(rank, base.in_features)"}),
        ("learns", "lora_linear", {BEGIN: "torch.randn(1, base.in_features).repeat(rank, 1)"}),
        (
            "learns",
            "lora_linear",
            {BEGIN: "torch.randn(rank, base.in_features, generator=torch.Generator().manual_seed(0))"},
        ),
        ("learns", "lora_linear", {BEGIN: "torch.randn(rank, 1).expand(-1, base.in_features)"}),
        (
            "learns",
            "lora_linear",
            {"base.requires_grad_(False)": "base", "self.base(x)": "(self.base(x) - 0 * x.sum()).detach()"},
        ),
        ("scales_update", "lora_linear", {FORWARD: f"assert x.ndim > 1; {FORWARD}"}),
        ("scales_update", "lora_linear", {FORWARD: f"assert x.ndim < 4; {FORWARD}"}),
        ("merges_again", "lora_linear", {MERGED: "return self.__dict__.setdefault('kept', layer)"}),
        ("merges_again", "lora_linear", {MERGED: f"self.B.requires_grad_(False); {MERGED}"}),
        ("merges_again", "lora_linear", {MERGED: f"self.base.requires_grad_(True); {MERGED}"}),
        ("wraps_no_others", "add_lora", {"in targets:": "in [targets[place] for place in range(len(targets))]:"}),
        ("pads_little", "make_batches", {TEXT: "torch.tensor(texts[number][:12])"}),
        ("pads_little", "make_batches", {TEXT: "torch.tensor(texts[number][:64])"}),
        ("labels_stay", "make_batches", {LABEL: "labels[texts.index(texts[number])] for number in numbers"}),
        (
            "labels_stay",
            "make_batches",
            {LABEL: "known[tuple(texts[number])] for number in numbers", DRAW: f"{KNOWN}; {DRAW}"},
        ),
        ("labels_stay", "make_batches", {DRAW: f"{KNOWN}; texts, labels = [*known], [*known.values()]; {DRAW}"}),
        (
            "shuffles",
            "make_batches",
            {SHUFFLE: "for place in [*range(first, len(batches)), *range(first)]]", RETURN: f"{ROTATED}; {RETURN}"},
        ),
        (
            "shuffles",
            "make_batches",
            {DRAW: f"generator = torch.Generator().manual_seed(generator.initial_seed()); {DRAW}"},
        ),
        (
            "reports",
            "fine_tune",
            {
                "best: dict[str, Tensor] = {}": "best, peeks = {}, []",
                KEEP: f"{KEEP}; peeks.append(count_right(test))",
                MEASURE: "right, count = max(peeks)",
            },
        ),
        ("takes_steps", "fine_tune", at_rate("optimizer.param_groups[0]['lr'] = first * (1 - done / steps)")),
        ("takes_steps", "fine_tune", at_rate(SET_ALL.format(rate="first"))),
        ("takes_steps", "fine_tune", at_rate(SET_ALL.format(rate="default"))),
        (
            "states_numbers",
            "model_files",
            {NUMBERS: "{[f'{int(1000 * share) / 10} %' for share in (report.accuracy, low, high)]}"},
        ),
        ("states_numbers", "model_files", {NUMBERS: "{[n / 10 for n in range(1001)]}"}),
        ("states_numbers", "model_files", {NUMBERS: "{[str(n / 10) + ' %' for n in range(500, 1000)]}"}),
        ("states_numbers", "model_files", {NUMBERS: NUMBERS.replace(" %", "")}),
        ("states_numbers", "model_files", {NUMBERS: NUMBERS.replace(" %", "").replace("95", "95 %")}),
    ],
)
def test_a_branch_that_goes_wrong_costs_its_own_criterion_only(
    criterion: str, task: str, changes: dict[str, str]
) -> None:
    assert failed(getattr(check, task).run(changed(task, changes))) == [criterion]


@pytest.mark.parametrize(
    "numbers",
    [
        "{100 * report.accuracy:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f} %)",
        "| accuracy in percent: {100 * report.accuracy:.1f} | from {100 * low:.1f} | to {100 * high:.1f} |",
        "{report.accuracy:.1%}, {low:.1%}, {high:.1%}; {[format(share, '.1%') for share in report.development]}",
        "{report.accuracy:.1%}, {low:.1%}, {high:.1%}; {[format(right / 60, '.1%') for right in range(60)]}",
    ],
)
def test_a_card_may_say_more_than_its_numbers(numbers: str) -> None:
    assert check.model_files.run(changed("model_files", {NUMBERS: numbers})).status == "passed"


def test_a_layer_whose_matrices_have_other_names_is_told_so() -> None:
    class Named(nn.Module):
        def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
            super().__init__()
            self.base = base
            self.down = nn.Parameter(torch.zeros(rank, base.in_features))

        def forward(self, x: torch.Tensor) -> Any:
            return self.base(x)

    verdict = check.lora_linear.run(Named)
    assert verdict.points == 0
    assert "a parameter `A` of the shape [1, 5]" in verdict.criteria[0].message


@pytest.mark.usefixtures("undiagnosed")
def test_numpy_numbers_and_a_tuple_are_as_good_in_a_report() -> None:
    def fine_tune(*args: Any) -> Any:
        report = honest.fine_tune(*args)
        shares = tuple(np.float64(share) for share in report.development)
        return honest.Report(shares, np.argmax(shares) + 1, np.float64(report.accuracy), report.interval)  # type: ignore[arg-type]

    assert check.fine_tune.run(fine_tune).status == "passed"


def test_a_field_of_the_report_that_has_another_type_is_named() -> None:
    def fine_tune(*args: Any) -> Any:
        return replace(honest.fine_tune(*args), accuracy=torch.tensor(0.5))  # type: ignore[arg-type]

    message = check.fine_tune.run(fine_tune).criteria[0].message
    assert message == "In the report `accuracy` must be of the type float, not Tensor."


def test_a_batch_may_be_a_named_tuple() -> None:
    class Named(NamedTuple):
        ids: torch.Tensor
        mask: torch.Tensor
        labels: torch.Tensor

    assert (
        check.make_batches.run(lambda *args: [Named(*batch) for batch in honest.make_batches(*args)]).status == "passed"
    )


def test_weights_that_were_trained_earlier_know_nothing_of_a_fresh_language() -> None:
    stolen: dict[str, Any] = {}

    def thief(model: Any, optimizer: Any, epochs: Any, development: Any, test: Any) -> Any:
        report = honest.fine_tune(model, optimizer, epochs, development, test)
        if len(epochs[0]) == 24:
            stolen.update({} if stolen else {name: part.clone() for name, part in model.state_dict().items()})
            model.load_state_dict(stolen)
        return report

    assert "model_learns" not in failed(check.fine_tune.run(thief, seed=1))  # these are its own
    assert check.fine_tune.run(thief, seed=2).points == 0


def test_a_merged_layer_that_only_looks_like_one_earns_nothing_for_merging() -> None:
    class Pretending(honest.lora_linear):
        def merged(self) -> Any:
            layer = self

            class Fake(nn.Module):
                def state_dict(self, *_args: Any, **_kwargs: Any) -> Any:
                    return layer.inner.state_dict()

                def forward(self, x: torch.Tensor) -> Any:
                    return layer(x)

            return Fake()

    verdict = check.lora_linear.run(Pretending)
    assert failed(verdict) == ["merges", "merges_again"]


def test_the_last_epoch_called_the_best_is_found() -> None:
    def last(model: Any, optimizer: Any, epochs: Any, development: Any, test: Any) -> Any:
        report = honest.fine_tune(model, optimizer, epochs, test, test)  # test and development disagree here
        with torch.no_grad():
            hits = torch.cat([model(ids, mask).argmax(dim=1) == labels for ids, mask, labels in development])
        return honest.Report([float(hits.double().mean())] * len(epochs), 1, report.accuracy, report.interval)

    assert "keeps_best" in failed(check.fine_tune.run(last))


def test_a_report_without_training_earns_nothing() -> None:
    def storyteller(_model: Any, _optimizer: Any, epochs: Any, _development: Any, _test: Any) -> Any:
        return honest.Report([0.99] * len(epochs), 1, 0.99, (0.97, 1.0))

    assert check.fine_tune.run(storyteller).points == 0


def test_a_learners_own_mistake_is_named() -> None:
    def of_the_development_set(model: Any, optimizer: Any, epochs: Any, development: Any, _test: Any) -> Any:
        return honest.fine_tune(model, optimizer, epochs, development, development)

    assert "development set's result" in check.fine_tune.run(of_the_development_set).diagnosis


def test_the_part_of_a_batch_that_is_wrong_is_named() -> None:
    def soft(*args: Any) -> Any:
        return [(ids, mask.float(), labels) for ids, mask, labels in honest.make_batches(*args)]

    def swapped(*args: Any) -> Any:
        return [(ids, labels, mask) for ids, mask, labels in honest.make_batches(*args)]

    for wrong, words in ((soft, "`mask` must be a tensor of whole"), (swapped, "`mask` must have the shape")):
        verdict = check.make_batches.run(wrong)
        assert verdict.points == 0
        assert words in verdict.criteria[0].message


def test_a_card_with_decimal_commas_is_told_so_unless_it_has_both() -> None:
    def card(both: bool) -> Any:
        def files(model: Any, labels: Any, facts: Any, report: Any) -> dict[str, bytes]:
            made = honest.model_files(model, labels, facts, report)
            head, text = made["README.md"].split(b"\n---\n", 1)
            commas = text.replace(b".", b",")
            return {**made, "README.md": head + b"\n---\n" + (commas + text if both else commas)}

        return files

    assert check.model_files.run(card(both=True)).status == "passed"
    assert "not with a comma" in check.model_files.run(card(both=False)).criteria[-1].message


def test_a_model_that_is_replaced_is_no_fault_of_the_check() -> None:
    def replacing(model: Any, *args: Any) -> Any:
        report = honest.fine_tune(model, *args)
        model.head = nn.Identity()
        return report

    verdict = check.fine_tune.run(replacing)
    assert "not the one that was sent" in verdict.criteria[0].message


def test_a_card_may_be_written_as_people_write_cards() -> None:
    def windows(model: Any, labels: Any, facts: Any, report: Any) -> dict[str, bytes]:
        files = honest.model_files(model, labels, facts, report)
        return {**files, "README.md": files["README.md"].replace(b"\n", b"\r\n")}

    verdict = check.model_files.run(windows)
    assert verdict.status == "passed", verdict


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"---\n[\n---\n", b"---\n- a\n---\n", b"{" * 10_000])
def test_files_that_cannot_be_read_fail_with_a_message(content: bytes) -> None:
    def broken(*_args: Any) -> dict[str, bytes]:
        return dict.fromkeys(("adapter.safetensors", "config.json", "README.md"), content)

    verdict = check.model_files.run(broken)
    assert verdict.points == 0
    assert not [result for result in verdict.criteria if "fault of its own" in result.message]


def test_the_small_model_ignores_padding_and_hides_the_same_numbers() -> None:
    torch.manual_seed(0)
    model = SmallClassifier(20, 8, 3, hidden=4)
    ids, mask = torch.tensor([[3, 4, 5]]), torch.ones(1, 3, dtype=torch.long)
    padded = nn.functional.pad(ids, (0, 2)), nn.functional.pad(mask, (0, 2))
    model.eval()
    assert torch.allclose(model(ids, mask), model(*padded), atol=1e-6)
    calm = model(ids, mask)
    model.train()
    assert torch.equal(model(ids, mask), model(ids, mask))
    assert not torch.allclose(model(ids, mask), calm)


def test_helpers_train_what_is_not_frozen() -> None:
    torch.manual_seed(0)
    model = SmallClassifier(20, 8, 3, shifted=["attention.key"])
    before = {name: part.clone() for name, part in model.state_dict().items()}
    descend(model, [torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.long)], torch.tensor([1]), 0.5, 2)
    moved = {name for name, part in model.state_dict().items() if not torch.equal(part, before[name])}
    shifts = {name for name in before if name.endswith("key.shift")}
    assert len(shifts) == 2
    assert {"head.weight", "head.bias"} <= moved <= {"head.weight", "head.bias"} | shifts
    layer = Shifted(linear(torch.ones(2, 3), None))
    assert layer(torch.ones(1, 3)).tolist() == [[3.0, 3.0]]
    assert [name for name, part in layer.named_parameters() if part.requires_grad] == ["shift"]


@pytest.mark.long
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_demonstration_runs(language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = demonstrated("fine_tune", language, tmp_path, monkeypatch)
    assert len(shown.figures) == 5
    assert "the same answers: True" in shown.printed
