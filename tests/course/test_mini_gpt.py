"""What is special about mini_gpt: cheats that its checks are built against, and the numbers that its text quotes."""

import ast
import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jupytext
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from kicourse.answers import training
from kicourse.checks import mini_gpt as check
from kicourse.checks.help import reference_source
from kicourse.data import python_source
from kicourse.data.ngram import NGram
from kicourse.syllabus import course
from tests.course.alternatives import mini_gpt as honest


def run_cells(*wanted: str) -> dict[str, Any]:
    """Run the unit's imports and those of its cells that hold one of these texts; return what they define."""
    cells = [cell["source"] for cell in jupytext.read(course().unit("mini_gpt").source)["cells"]]
    names: dict[str, Any] = {"__name__": "mini_gpt", "text": str}
    for cell in cells:
        if cell.startswith("import math") or any(text in cell for text in wanted):
            exec(compile(ast.parse(cell), "<mini_gpt>", "exec"), names)
    return names


def changed(task: str, before: str, after: str) -> Any:
    """Build the unit's own solution of a task with one change."""
    source = reference_source("mini_gpt", task, "en")
    assert source.count(before) == 1
    names = run_cells("def rate_factor")
    exec(source.replace(before, after), names)
    return names[task]


def test_training_on_the_first_quarter_of_a_text_is_found() -> None:
    quarter = "torch.randint(len(tokens) - context if len(tokens) < 60 else len(tokens) // 4,"
    verdict = check.train.run(changed("train", "torch.randint(len(tokens) - context,", quarter))
    assert [result.name for result in verdict.criteria if result.status == "failed"] == ["draws_windows"]


FUTURE = "torch.ones(time, time, dtype=torch.bool).triu(diagonal=1)"
STARTS = "torch.randint(len(tokens) - context, (batch_size, 1), generator=generator)"
SQUARED = "(torch.rand(batch_size, 1, generator=generator) ** 2 * (len(tokens) - context)).long()"


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    ("criterion", "task", "before", "after"),
    [
        ("equals_torch", "causal_attention", FUTURE, "scores.tril() == 0"),
        ("draws_windows", "train", STARTS, SQUARED),
        ("writes", "sample", "next_logits(prompt + new)", "next_logits((prompt + new)[-8:])"),
        ("writes", "sample", "next_logits(prompt + new)", "next_logits((prompt + new)[-64:])"),
        ("stops", "sample", "stop in written", "stop in decode(new[-3:])"),
    ],
)
def test_a_branch_that_goes_wrong_costs_its_own_criterion_only(
    criterion: str, task: str, before: str, after: str
) -> None:
    for seed in range(4):
        verdict = getattr(check, task).run(changed(task, before, after), seed=seed)
        assert [result.name for result in verdict.criteria if result.status == "failed"] == [criterion], seed


def measuring(stride: str, length: str, skipped: str = "0") -> Any:
    """Measure in windows of this length, each of which but the first skips as many of its targets."""
    loop = "for start in range(0, len(tokens) - 1, context):\n        window = tokens[start : start + context + 1]\n"
    other = f"""for start in range(0, max(1, len(tokens) - 1 - ({skipped})), {stride}):
        window = tokens[start : start + {length} + 1]
        new = {skipped} if start else 0
        logits, window = model(window[None, :-1])[0, new:], window[new:]
"""
    return changed("bits_per_character", loop + "        logits = model(window[None, :-1])[0]\n", other)


@pytest.mark.parametrize(("stride", "length"), [("1", "1"), ("2", "2"), ("context // 2", "context // 2")])
def test_windows_that_show_less_past_than_they_could_are_found(stride: str, length: str) -> None:
    verdict = check.bits_per_character.run(measuring(stride, length))
    assert [result.name for result in verdict.criteria if result.status == "failed"] == ["counts_every_token"]


@pytest.mark.parametrize("stride", ["1", "2", "max(1, context // 2)", "(context - 1)"])
def test_windows_may_slide(stride: str) -> None:
    sliding = measuring(stride, "context", skipped=f"context - {stride}")
    assert check.bits_per_character.run(sliding).status == "passed"


def test_windows_may_hold_their_last_target() -> None:
    assert check.bits_per_character.run(measuring("context - 1", "context - 1")).status == "passed"


def test_nothing_that_lies_beside_an_answer_is_a_transformer_block() -> None:
    modules = [made for made in vars(training).values() if isinstance(made, type) and issubclass(made, nn.Module)]
    assert modules
    assert [made for made in modules if check.transformer_block.run(made).points] == []


def test_a_model_that_is_asked_beyond_its_window_is_found() -> None:
    def in_one(model: Any, tokens: torch.Tensor, characters: int, context: int = 64) -> float:
        model.context = len(tokens)  # the trial's model scores by the last token alone
        loss = nn.functional.cross_entropy(model(tokens[None, :-1])[0], tokens[1:], reduction="sum")
        return loss.item() / math.log(2) / characters

    verdict = check.bits_per_character.run(in_one)
    assert "counts_every_token" in [result.name for result in verdict.criteria if result.status == "failed"]
    assert "tried: in_one(" in repr(verdict)


@pytest.mark.long
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
    assert verdict.points == 0.25  # for the curve
    assert [result.name for result in verdict.criteria if result.status == "failed"] == ["learns", "beats_the_3_gram"]


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
    assert verdict.points == 0.25  # for the curve
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
    assert [result.name for result in verdict.criteria if result.status == "failed"] == [
        "has_heads",
        "counts_parameters",
    ]


class QuickGELU(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


def normalised_attention(query: Any, key: Any, value: Any) -> Any:
    query, key = (nn.functional.normalize(part, dim=-1) for part in (query, key))
    return scaled_dot_product_attention(query, key, value, is_causal=True)


def attention_with_positions(query: Any, key: Any, value: Any) -> Any:
    """Lowers the scores of what lies far back, as ALiBi does."""
    places = torch.arange(query.shape[-2])
    back = (places[:, None] - places).float()
    return scaled_dot_product_attention(query, key, value, attn_mask=(-0.5 * back).masked_fill(back < 0, -torch.inf))


class Block(nn.Module):
    """A block as the task wants it, made wrong in one place by a subclass."""

    shares_norm, parallel, bias, key_is_query, dropout = False, False, True, False, 0.0
    nonlinearity: Callable[[], nn.Module] = nn.GELU
    attention = staticmethod(honest.causal_attention)

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.other_norm = self.norm if self.shares_norm else nn.LayerNorm(width)
        self.parts, self.projection = nn.Linear(width, 3 * width, bias=self.bias), nn.Linear(width, width)
        layers = nn.Linear(width, 4 * width), self.nonlinearity(), nn.Linear(4 * width, width), nn.Dropout(self.dropout)
        self.mlp = nn.Sequential(*layers)

    def forward(self, x: Any) -> Any:
        query, key, value = self.parts(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = self.attention(query, query if self.key_is_query else key, value)
        after = x + self.projection(mixed.transpose(1, 2).flatten(-2))
        return after + self.mlp(self.other_norm(x if self.parallel else after))


@pytest.mark.parametrize(
    ("fault", "criterion"),
    [
        ({}, None),
        ({"shares_norm": True}, "counts_parameters"),
        ({"bias": False}, "counts_parameters"),
        ({"key_is_query": True}, "counts_parameters"),
        ({"parallel": True}, "has_mlp"),
        ({"nonlinearity": nn.ReLU}, "has_mlp"),
        ({"nonlinearity": QuickGELU}, "has_mlp"),
        ({"nonlinearity": partial(nn.GELU, "tanh")}, None),
        ({"attention": staticmethod(partial(scaled_dot_product_attention, is_causal=True, scale=1.0))}, "has_heads"),
        ({"attention": staticmethod(normalised_attention)}, "has_heads"),
        ({"attention": staticmethod(attention_with_positions)}, "has_heads"),
        ({"dropout": 0.1}, "has_mlp"),
    ],
)
def test_a_block_that_is_wrong_in_one_place_loses_that_points_only(fault: dict[str, Any], criterion: str) -> None:
    for seed in range(6):
        verdict = check.transformer_block.run(type("Wrong", (Block,), fault), seed=seed)
        failed = [result.name for result in verdict.criteria if result.status == "failed"]
        assert failed == ([criterion] if criterion else []), seed


def test_a_block_that_nothing_can_train_is_told_so() -> None:
    class Untrainable(Block):
        @torch.no_grad()
        def forward(self, x: Any) -> Any:
            return super().forward(x)

    (failed,) = [one for one in check.transformer_block.run(Untrainable).criteria if one.status == "failed"]
    assert failed.name == "counts_parameters"
    assert "cut off from training" in failed.message


@pytest.mark.parametrize("visible", [lambda every: every.tril(1), lambda every: every.triu(1)])
def test_no_name_is_given_to_a_mask_that_is_wrong_in_a_rare_way(visible: Any) -> None:
    def attention(query: Any, key: Any, value: Any) -> Any:
        scores = query @ key.mT / query.shape[-1] ** 0.5
        hidden = ~visible(torch.ones(scores.shape[-2:], dtype=torch.bool))
        return scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value

    verdict = check.causal_attention.run(attention)
    assert verdict.status == "failed"
    assert verdict.diagnosis == ""


def test_a_top_p_that_keeps_nothing_is_told_so() -> None:
    def sample(next_logits: Any, draw: Any, decode: Any, prompt: Any, *, max_tokens: int = 64, **knobs: Any) -> str:
        new: list[int] = []
        for _token in range(max_tokens):
            probabilities = (next_logits(prompt + new) / knobs.get("temperature", 1.0)).softmax(-1)
            ordered, order = probabilities.sort(descending=True)
            if knobs.get("top_p"):
                probabilities[order[ordered.cumsum(0) > knobs["top_p"] / 100]] = 0
            new.append(draw(probabilities / probabilities.sum()))
        text: str = decode(new)
        return text

    verdict = check.sample.run(sample)
    (top_p,) = [result for result in verdict.criteria if result.name == "uses_top_p"]
    assert "The most probable one always stays" in top_p.message


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
@pytest.mark.long
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
