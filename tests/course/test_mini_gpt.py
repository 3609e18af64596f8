"""What is special about mini_gpt: cheats that its checks are built against, and the numbers that its text quotes."""

import ast
import sys
from typing import Any

import jupytext
import numpy as np
import pytest
import torch

from kicourse.checks import mini_gpt as check
from kicourse.data import python_source
from kicourse.data.ngram import NGram
from kicourse.syllabus import course
from tests.course.alternatives import mini_gpt as honest


def run_cells(*wanted: str) -> dict[str, Any]:
    """Run the unit's imports and those of its cells that hold one of these texts; return what they define."""
    cells = [cell["source"] for cell in jupytext.read(course().unit("mini_gpt").source)["cells"]]
    names: dict[str, Any] = {"__name__": "mini_gpt"}
    for cell in cells:
        if cell.startswith("import math") or any(text in cell for text in wanted):
            exec(compile(ast.parse(cell), "<mini_gpt>", "exec"), names)
    return names


def test_weights_that_were_trained_earlier_know_nothing_of_a_fresh_language() -> None:
    stolen: dict[str, Any] = {}

    def thief(model: Any, optimizers: Any, tokens: Any, evaluate: Any, **settings: Any) -> Any:
        curve = honest.train(model, optimizers, tokens, evaluate, **settings)
        if isinstance(model, torch.nn.Module) and hasattr(model, "blocks"):
            stolen.update({} if stolen else {name: part.clone() for name, part in model.state_dict().items()})
            model.load_state_dict(stolen)
        return curve

    assert check.train.run(thief, seed=1).status == "passed"  # these are its own
    verdict = check.train.run(thief, seed=2)
    assert verdict.points == 0
    assert [result.name for result in verdict.criteria if result.status == "failed"] == ["learns", "beats_the_trigram"]


def test_a_curve_without_training_earns_nothing() -> None:
    def storyteller(*_args: Any, steps: int, every: int, **_settings: Any) -> list[tuple[int, float]]:
        return [(step, 9.0 / step) for step in range(every, steps + 1, every)]

    assert check.train.run(storyteller).points == 0


def test_training_that_replaces_the_model_is_no_fault_of_the_check() -> None:
    def replacing(model: Any, *args: Any, **settings: Any) -> Any:
        curve = honest.train(model, *args, **settings)
        if hasattr(model, "blocks"):
            model.blocks = torch.nn.Sequential()
        return curve

    verdict = check.train.run(replacing)
    (learns,) = [result for result in verdict.criteria if result.name == "learns"]
    assert verdict.points == 0
    assert "not the one that was sent" in learns.message


def test_a_block_that_only_mixes_positions_evenly_is_not_enough() -> None:
    class Average(honest.transformer_block):
        """Without queries all scores are equal: causal, residual, but blind to what a token says."""

        def forward(self, x: Any) -> Any:
            with torch.no_grad():
                for name, parameter in self.named_parameters():
                    if "query" in name:
                        parameter.zero_()
            return super().forward(x)  # type: ignore[no-untyped-call]

    verdict = check.transformer_block.run(Average)
    assert [result.name for result in verdict.criteria if result.status == "failed"] == ["has_heads"]


def test_the_notebooks_muon_is_pytorchs_muon_in_single_precision() -> None:
    ours = run_cells("class GPT", "class Muon")["Muon"]
    torch.manual_seed(1)
    start = [torch.randn(8, 24), torch.randn(24, 8)]
    results = []
    for build in (lambda p: ours(p, lr=0.02), lambda p: torch.optim.Muon(p, lr=0.02, weight_decay=0.1)):
        parameters = [torch.nn.Parameter(matrix.clone()) for matrix in start]
        optimizer = build(parameters)
        for step in range(4):
            for parameter in parameters:
                parameter.grad = torch.sin(parameter.detach() * (step + 1))
            optimizer.step()
        results.append(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    moved = (results[1] - torch.cat([matrix.flatten() for matrix in start])).abs().max()
    assert (results[0] - results[1]).abs().max() < 0.05 * moved  # PyTorch's computes in bfloat16


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the numbers are quoted for the library of Python 3.11")
def test_the_baselines_in_the_opening_figure_are_what_is_measured() -> None:
    source = course().unit("mini_gpt").source.read_text(encoding="utf-8")
    figure = ast.literal_eval(source.split("RESULTS = ")[1].split("\n}\n")[0] + "}")
    names = run_cells("trainers.BpeTrainer")
    characters = names["held_out_characters"]
    training, held_out = (names[name].numpy() for name in ("training_tokens", "held_out_tokens"))
    assert figure["blind guess"] == pytest.approx(np.log2(2048) * len(held_out) / characters, abs=0.02)
    for order in (1, 2, 3, 5):
        bits = NGram.fit(training, order, 2048).bits(held_out).sum() / characters
        assert figure[f"{order}-gram"] == pytest.approx(bits, abs=0.02)
    assert len(python_source.load().held_out) == 16
