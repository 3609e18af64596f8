"""The checks of `fine_tune`: adapters, batches, a fine-tuning that can be believed, and what is published of it."""

import copy
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import lazy_loader

from kicourse.checks import AnswerRaised, Check, Handle, Record, Trial, _, as_tuple
from kicourse.checks.show import show

np = lazy_loader.load("numpy")
torch = lazy_loader.load("torch")
yaml = lazy_loader.load("yaml")

UNIT = "fine_tune"


def _normal(rng: Any, *shape: int) -> Any:
    """Draw a tensor of standard normal numbers."""
    return torch.from_numpy(rng.normal(size=shape)).float()


# ---------------------------------------------------------------- lora_linear

lora_linear = Check(
    UNIT,
    "lora_linear",
    title=_("A layer with LoRA"),
    hints=(
        _("The layer that is wrapped stays what it is. What is added beside it has to be nothing at first, and must "
          "still be able to learn."),
        _("`A` is random and `B` is zero: then B·A is zero, and the gradient of `B` is not. For rows x, the matrix W "
          "is applied as x·Wᵀ, so B·A is applied as x·Aᵀ·Bᵀ. What must `merged` leave as it is?"),
        _("Freeze the base with `requires_grad_(False)`, and keep the scale: `self.scale = alpha / rank`. `merged` "
          "makes a new `nn.Linear(base.in_features, base.out_features, bias=base.bias is not None)`, and with "
          "`copy_` it gets the weight W plus the scale times `self.B @ self.A`, and the base's bias."),
    ),
)  # fmt: skip

Shape = tuple[int, int, int, float, bool]
_SHAPES: tuple[Shape, ...] = ((5, 3, 1, 2.0, True), (4, 6, 2, 16.0, True), (7, 4, 3, 1.5, False))
"""Inputs, outputs, rank, alpha, and whether there is a bias."""


class _Layer:
    """A base layer, what it was made of, and the answer around it."""

    def __init__(self, trial: Trial, answer: Handle, shape: Shape) -> None:
        inputs, outputs, self.rank, alpha, has_bias = shape
        self.weight = _normal(trial.rng, outputs, inputs)
        self.bias = _normal(trial.rng, outputs) if has_bias else None
        self.scale = alpha / self.rank
        self.base = answer.build("training", "linear", self.weight, self.bias)
        self.answer = answer.make(self.base, rank=self.rank, alpha=alpha)

    def draw_factors(self, trial: Trial) -> tuple[Any, Any]:
        """Write fresh matrices into the answer, and return them."""
        outputs, inputs = self.weight.shape
        drawn = {"A": _normal(trial.rng, self.rank, inputs), "B": _normal(trial.rng, outputs, self.rank)}
        try:
            self.answer.probe("set_parameters", drawn)
        except AnswerRaised as error:
            self.factors(trial)  # says which one is missing, or of another shape
            message = _(
                "The parameters `A` [rank, inputs] and `B` [outputs, rank] cannot be filled with numbers: {error}"
            )
            trial.require(False, message, error=error.text)
        return drawn["A"], drawn["B"]

    def factors(self, trial: Trial) -> tuple[Any, Any]:
        """Return the matrices that the answer begins with."""
        found = self.answer.probe("parameters")
        outputs, inputs = self.weight.shape
        for name, shape in (("A", (self.rank, inputs)), ("B", (outputs, self.rank))):
            message = _("There must be a parameter `{name}` of the shape {shape}.")
            trial.require(isinstance(found, dict) and name in found, message, name=name, shape=str(list(shape)))
            trial.array(found[name], shape, "tensor")
        return found["A"], found["B"]

    def learning(self) -> list[str]:
        """The names of what asks for gradients."""
        parts = {f"base.{name}": self.base.attribute(name) for name in self.base_parts()}
        parts |= {name: self.answer.attribute(name) for name in "AB"}
        return [name for name, part in parts.items() if part.attribute("requires_grad").data()]

    def base_parts(self) -> list[str]:
        """The names of the base's parameters."""
        return ["weight"] if self.bias is None else ["weight", "bias"]

    def outputs(self, x: Any) -> Any:
        """What the base makes of `x`."""
        return torch.nn.functional.linear(x, self.weight, self.bias)

    def expected(self, x: Any, a: Any, b: Any) -> Any:
        """What base and update together make of `x`."""
        return self.outputs(x) + self.scale * (x @ a.T @ b.T)

    def own_output(self, trial: Trial, x: Any) -> Any:
        """What the answer makes of `x`: something else than its base, since its matrices are not zero."""
        got = self.answer.probe("evaluate", x)
        trial.array(got, (*x.shape[:-1], len(self.weight)), "tensor")
        same = torch.allclose(got, self.outputs(x), rtol=0, atol=1e-3)
        trial.require(not same, _("With other numbers in A and B, the layer must not give what its base gives."))
        return got

    def merge(self, trial: Trial) -> Handle:
        """What `merged` returns."""
        try:
            merged = self.answer.attribute("merged")
        except AnswerRaised as error:
            trial.require(False, _("The layer has no method `merged`: {error}"), error=error.text)
        return merged.make()

    def merged_output(self, trial: Trial, merged: Handle, x: Any) -> Any:
        """What a plain layer with the merged one's weights makes of `x`: what is published is weights."""
        held = merged.probe("state_dict")
        wanted = self.base_parts()
        extra = isinstance(held, dict) and self.bias is None and "bias" in held
        trial.require(not extra, _("The base has no bias, and the merged layer has one."))
        message = _("`merged` must return a plain `nn.Linear`, with these weights: {wanted}.")
        trial.require(isinstance(held, dict) and sorted(held) == sorted(wanted), message, wanted=", ".join(wanted))
        for name, part in (("weight", self.weight), ("bias", self.bias)):
            if part is not None:
                trial.array(held[name], tuple(part.shape), "tensor")
        return torch.nn.functional.linear(x, held["weight"], held.get("bias"))

    def is_unchanged(self) -> bool:
        """Whether the base still has the weights that it came with."""
        held = self.base.probe("state_dict")
        wanted = {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})
        return set(held) == set(wanted) and all(torch.equal(held[name], wanted[name]) for name in wanted)


@lora_linear.criterion(
    _("adds the update to what the base gives"),
    points=0.25,
    why=_("The pretrained layer goes on doing its work; B·A says what is different."),
)
def adds_update(trial: Trial, answer: Handle) -> None:
    for inputs, outputs, rank, _alpha, bias in _SHAPES:
        _require_update(trial, answer, (inputs, outputs, rank, float(rank), bias), (2,), (2, 3))


@lora_linear.criterion(
    _("at the scale alpha / rank"),
    points=0.25,
    why=_("With this scale the update stays about as large when you try another rank."),
)
def scales_update(trial: Trial, answer: Handle) -> None:
    for shape in _SHAPES:
        _require_update(trial, answer, shape, (6,), (), (2, 3, 2))


def _require_update(trial: Trial, answer: Handle, shape: Shape, *batches: tuple[int, ...]) -> None:
    layer = _Layer(trial, answer, shape)
    a, b = layer.draw_factors(trial)
    for batch in batches:
        x = _normal(trial.rng, *batch, shape[0])
        got = layer.answer.probe("evaluate", x)
        trial.array(got, (*batch, shape[1]), "tensor")
        message = _("With rank {rank} and a scale of {scale} the output must be base(x) + scale · x·Aᵀ·Bᵀ.")
        trial.close(got, layer.expected(x, a, b), message, rank=shape[2], scale=layer.scale, atol=1e-4, rtol=1e-3)


@lora_linear.criterion(
    _("equal to its base at the start"),
    points=0.25,
    why=_("Training then begins where the pretrained model stands, and not in a model that was shaken first."),
)
def begins_as_base(trial: Trial, answer: Handle) -> None:
    for shape in _SHAPES:
        layer = _Layer(trial, answer, shape)
        x = _normal(trial.rng, 2, shape[0])
        got = layer.answer.probe("evaluate", x)
        trial.array(got, (2, shape[1]), "tensor")
        trial.close(got, layer.outputs(x), _("A new layer must give what its base gives."), atol=1e-5)
        layer.weight = _normal(trial.rng, *layer.weight.shape)
        layer.base.probe("set_parameters", {"weight": layer.weight})
        got = layer.answer.probe("evaluate", x)
        message = _(
            "The base was given other weights, and the layer still has the old ones: keep the base, not a copy."
        )
        trial.close(got, layer.outputs(x), message, atol=1e-5)


@lora_linear.criterion(
    _("learns, and leaves its base alone"),
    points=0.5,
    why=_("Only A and B are to learn: a base that moves is full fine-tuning, with all its cost."),
)
def learns(trial: Trial, answer: Handle) -> None:
    rate, steps = 0.01, 4
    for inputs, outputs, rank, _alpha, bias in _SHAPES:
        shape = inputs, outputs, rank, float(rank), bias  # a scale of one, so that a wrong scale is not asked for here
        layer = _Layer(trial, answer, shape)
        a, b = layer.factors(trial)
        x, fresh = _normal(trial.rng, 8, shape[0]), _normal(trial.rng, 3, shape[0])
        target = layer.outputs(x) + _normal(trial.rng, 8, shape[1])
        trained = answer.build("training", "descend", layer.answer, [x], target, rate, steps)
        got = trained.probe("evaluate", fresh)
        trial.array(got, (3, shape[1]), "tensor")
        trial.require(layer.is_unchanged(), _("After {steps} steps of training the base has changed."), steps=steps)
        trial.require(
            not torch.allclose(got, layer.outputs(fresh), rtol=0, atol=1e-6),
            _("After {steps} steps of training nothing has moved. Are A and B both zero? Then so are their gradients."),
            steps=steps,
        )
        a, b = _descended(layer, a, b, x, target, rate, steps)
        message = _("After {steps} steps of training, A and B are not where their gradients lead.")
        trial.close(got, layer.expected(fresh, a, b), message, steps=steps, atol=1e-4, rtol=1e-3)
    _require_chance(trial, answer)
    _require_frozen(trial, answer)


def _require_frozen(trial: Trial, answer: Handle) -> None:
    """Require that the base asks for no gradients, unless it is out of use: copying it costs another criterion."""
    layer = _Layer(trial, answer, _SHAPES[0])
    x = _normal(trial.rng, 2, _SHAPES[0][0])
    before = layer.answer.probe("evaluate", x)
    layer.base.probe("set_parameters", {"weight": -layer.weight})
    if not torch.equal(layer.answer.probe("evaluate", x), before):
        unfrozen = [name for name in layer.learning() if name.startswith("base.")]
        message = _("The base must be frozen, and these still ask for gradients: {names}.")
        trial.require(not unfrozen, message, names=", ".join(unfrozen))


def _require_chance(trial: Trial, answer: Handle) -> None:
    """Require that no two rows of two layers' A begin alike; they are so long that chance never makes them."""
    rows = torch.cat([_Layer(trial, answer, (40, 2, 3, 3.0, True)).factors(trial)[0] for _layer in range(2)])
    message = _("Each row of `A` must begin with random numbers of its own. Two layers of rank 3 have six rows "
                "together, and the number of different ones is {count}: equal rows learn the same.")  # fmt: skip
    count = len(rows.unique(dim=0))
    trial.require(count == len(rows), message, count=count)
    message = _("In a row of `A` all numbers are equal: then the layer sees no more of `x` than its sum.")
    trial.require(bool((rows.amax(dim=1) > rows.amin(dim=1)).all()), message)


def _descended(layer: _Layer, a: Any, b: Any, x: Any, target: Any, rate: float, steps: int) -> tuple[Any, Any]:
    """Gradient descent by hand on half the sum of squares."""
    for _step in range(steps):
        error = layer.expected(x, a, b) - target
        slope = layer.scale * error.T @ x  # of B·A
        a, b = a - rate * b.T @ slope, b - rate * slope @ a.T
    return a, b


@lora_linear.criterion(
    _("merged: one plain layer that computes the same"),
    points=0.5,
    gate=True,
    why=_("A merged layer costs nothing extra at work: whoever runs the model need not know of LoRA."),
)
def merges(trial: Trial, answer: Handle) -> None:
    for shape in _SHAPES:
        layer = _Layer(trial, answer, shape)
        layer.draw_factors(trial)
        x = _normal(trial.rng, 2, shape[0])
        wanted_output = layer.own_output(trial, x)
        merged = layer.merge(trial)
        message = _("The merged layer gives another output than the layer it was made of.")
        for got in (layer.merged_output(trial, merged, x), merged.probe("evaluate", x)):
            trial.close(got, wanted_output, message, atol=1e-4, rtol=1e-3)


@lora_linear.criterion(
    _("merging changes nothing: it can be done twice"),
    points=0.25,
    why=_("Whoever saves a model in the middle of training must get the same model to train on."),
)
def merges_again(trial: Trial, answer: Handle) -> None:
    for inputs, outputs, rank, alpha, _bias in _SHAPES:
        shape = inputs, outputs, rank, alpha, True  # whether a base without one gets a bias is asked for above
        layer = _Layer(trial, answer, shape)
        layer.draw_factors(trial)
        x = _normal(trial.rng, 2, shape[0])
        wanted, learning = layer.own_output(trial, x), layer.learning()
        merged = layer.merge(trial)
        message = _("Before merging {before} can be trained, and afterwards {after}.")
        before, after = (", ".join(names) or "-" for names in (learning, layer.learning()))
        trial.require(before == after, message, before=before, after=after)
        got = layer.answer.probe("evaluate", x)
        message = _("After merging, the layer itself gives another output.")
        trial.close(got, wanted, message, atol=1e-4, rtol=1e-3)
        first, second = (layer.merged_output(trial, part, x) for part in (merged, layer.merge(trial)))
        message = _("Merged a second time, the layer gives another output.")
        trial.close(second, first, message, atol=1e-4, rtol=1e-3)
        layer.draw_factors(trial)  # as if it had been trained on
        third = layer.merged_output(trial, layer.merge(trial), x)
        message = _("A and B have other numbers by now, and the layer is merged with the old ones.")
        trial.require(not torch.allclose(third, second, rtol=0, atol=1e-3), message)
        trial.require(layer.is_unchanged(), _("After merging, the base has changed."))
        merged.probe("set_parameters", {name: 0 * part for name, part in merged.probe("parameters").items()})
        message = _("Zeros were written into the merged layer, and now the base has changed: they share a tensor.")
        trial.require(layer.is_unchanged(), message)


def _lora(
    begin: str = "B zero",
    scale: Callable[[float, int], float] = lambda alpha, rank: alpha / rank,
    trains_base: bool = False,
    in_place: bool = False,
    merged_scale: bool = True,
    copies: bool = False,
    shares_bias: bool = False,
    always_bias: bool = False,
) -> Any:
    """Build a LoRA layer with faults on demand."""
    nn = torch.nn

    class Layer(nn.Module):  # type: ignore[name-defined]
        def __init__(self, base: Any, rank: int, alpha: float) -> None:
            super().__init__()
            self.base = (copy.deepcopy(base) if copies else base).requires_grad_(trains_base)
            self.scale = scale(alpha, rank)
            a = torch.randn(rank, base.in_features) / math.sqrt(base.in_features)
            b = torch.randn(base.out_features, rank) if begin == "both random" else torch.zeros(base.out_features, rank)
            self.A, self.B = nn.Parameter(0 * a if begin == "both zero" else a), nn.Parameter(b)

        def forward(self, x: Any) -> Any:
            return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)

        @torch.no_grad()  # type: ignore[untyped-decorator]
        def merged(self) -> Any:
            base = self.base
            weight = base.weight + (self.scale if merged_scale else 1.0) * self.B @ self.A
            layer = base
            if not in_place:
                layer = nn.Linear(base.in_features, base.out_features, bias=always_bias or base.bias is not None)
                if shares_bias:
                    layer.bias = base.bias
                elif base.bias is not None:
                    layer.bias.copy_(base.bias)
            layer.weight.copy_(weight)
            return layer

    return Layer


@lora_linear.misconception(_("A and B both zero: neither ever gets a gradient, so nothing is learned"), factory=True)
def both_zero() -> Any:
    return _lora(begin="both zero")


@lora_linear.misconception(_("A and B both random: training begins in a model that was shaken first"), factory=True)
def both_random() -> Any:
    return _lora(begin="both random")


@lora_linear.misconception(_("an update without its scale"), factory=True)
def scale_missing() -> Any:
    return _lora(scale=lambda _alpha, _rank: 1.0)


@lora_linear.misconception(_("an update that is scaled by alpha and not divided by the rank"), factory=True)
def scale_is_alpha() -> Any:
    return _lora(scale=lambda alpha, _rank: alpha)


@lora_linear.misconception(_("a scale that is upside down: rank / alpha"), factory=True)
def scale_upside_down() -> Any:
    return _lora(scale=lambda alpha, rank: rank / alpha)


@lora_linear.misconception(_("a base that is trained along with A and B"), factory=True)
def base_trained() -> Any:
    return _lora(trains_base=True)


@lora_linear.misconception(
    _("merging into the base itself: from then on the update counts twice, and with the next merging once more"),
    factory=True,
)
def merged_twice() -> Any:
    return _lora(in_place=True)


@lora_linear.misconception(_("merging without the scale"), factory=True)
def merged_without_scale() -> Any:
    return _lora(merged_scale=False)


@lora_linear.misconception(_("a copy of the base: what is loaded into the base later never arrives"), factory=True)
def base_copied() -> Any:
    return _lora(copies=True)


@lora_linear.misconception(_("a merged layer that shares the bias of its base"), factory=True)
def bias_shared() -> Any:
    return _lora(shares_bias=True)


@lora_linear.misconception(_("a merged layer with a bias although its base has none"), factory=True)
def bias_too_many() -> Any:
    return _lora(always_bias=True)


lora_linear.equivalent(
    "self.A = nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))",
    "self.A = nn.Parameter(torch.randn(rank, base.in_features) * math.sqrt(base.in_features))",
    reason="How large A is at first is left open: the text gives one size as an example.",
)


# ---------------------------------------------------------------- add_lora

add_lora = Check(
    UNIT,
    "add_lora",
    title=_("LoRA for a whole model"),
    hints=(
        _("Three things, in this order: freeze, replace, free what is to learn. What is made after the freezing is not "
          "frozen."),
        _("`model.encoder.named_modules()` gives names and modules; make a list of what fits before you change "
          "anything. A name fits if it is a target, or ends with a dot and a target. To replace a layer, set it as an "
          "attribute of its parent."),
        _("`parent, _, last = name.rpartition(\".\")`, then `setattr(model.encoder.get_submodule(parent), last, "
          "wrap(layer))`; the head: `model.head.requires_grad_(True)`. At the end count "
          "`parameter.numel()` of the parameters with `requires_grad`."),
    ),
)  # fmt: skip

_WORDS, _WIDTH, _LABELS = 40, 8, 3
_PLAIN = ("key",)
"""Fits the same layers however names are compared."""
_TARGETS: tuple[Collection[str], ...] = (
    ("output",), ("query",), {"attention.query", "value"}, ("layer.1.attention.key", "prequery"),
)  # fmt: skip


def _sizes(**changed: Any) -> dict[str, Any]:
    return {"vocabulary": _WORDS, "width": _WIDTH, "labels": _LABELS} | changed


def _classifier(seed: int, **sizes: Any) -> Any:
    """Build the trial's model here, as the answer's side builds it."""
    from kicourse.answers import training

    return training.seeded("SmallClassifier", seed, **_sizes(**sizes))


def _batch(rng: Any, count: int, longest: int = 7) -> tuple[Any, Any, Any]:
    """Draw a batch of texts of different lengths: tokens, mask and labels."""
    lengths = rng.integers(2, longest + 1, size=count)
    lengths[0] = longest
    mask = torch.from_numpy((np.arange(longest) < lengths[:, None]).astype(np.int64))
    ids = torch.from_numpy(rng.integers(1, _WORDS, size=(count, longest))) * mask
    return ids, mask, torch.from_numpy(rng.integers(0, _LABELS, size=count))


class _Adapted:
    """An answer's model after `add_lora`, and the model that it should be."""

    def __init__(self, trial: Trial, answer: Handle, targets: Collection[str]) -> None:
        from kicourse.answers.training import Shifted

        seed, labels = int(trial.rng.integers(2**31)), int(trial.rng.integers(_LABELS, 3 * _LABELS))
        self.model = answer.build("training", "seeded", "SmallClassifier", seed, **_sizes(labels=labels))
        self.count = answer(self.model, targets, answer.build("training", "shifting"))
        self.expected = _classifier(seed, labels=labels)
        _adapt(self.expected, targets, Shifted)


@add_lora.criterion(
    _("wraps every layer that fits"),
    points=0.5,
    why=_("A layer that is passed over learns nothing."),
)
def wraps_all(trial: Trial, answer: Handle) -> None:
    _require_wrapped(trial, answer, _PLAIN)


@add_lora.criterion(
    _("only what was added and the head learn"),
    points=0,  # what is frozen shows on the answer's side alone: so it opens the way to points, and earns none
    gate=True,
    why=_("Whatever else moves needs a gradient, memory for it, and a place in the file that you publish."),
)
def trains_little(trial: Trial, answer: Handle) -> None:
    for _case in range(2):
        adapted = _Adapted(trial, answer, _PLAIN)
        ids, mask, labels = _batch(trial.rng, 6)
        trained = answer.build("training", "descend", adapted.model, [ids, mask], labels, 0.5, 2)
        held = trained.probe("state_dict")
        before, after = _moved(adapted, ids, mask, labels)
        moved = [name for name in held if name in before and not torch.equal(held[name], before[name])]
        wanted = [name for name in after if not torch.equal(after[name], before[name])]
        message = _("After two steps of training these should have moved and have not: {names}.")
        missing = sorted(set(wanted) - set(moved))
        trial.require(not missing, message, names=", ".join(missing))
        message = _("After two steps of training these have moved and should not have: {names}.")
        extra = sorted(set(moved) - set(wanted))
        trial.require(not extra, message, names=", ".join(extra))


def _moved(adapted: _Adapted, ids: Any, mask: Any, labels: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the weights of the model as it should be, before training and after."""
    from kicourse.answers.training import descend

    before = {name: value.clone() for name, value in adapted.expected.state_dict().items()}
    descend(adapted.expected, [ids, mask], labels, 0.5, 2)
    return before, dict(adapted.expected.state_dict())


@add_lora.criterion(
    _("a target fits whole parts of a name, from its end"),
    points=0.5,
    why=_("A target that catches too little learns too little, and one that catches too much costs memory, both in "
          "silence."),
)  # fmt: skip
def wraps_no_others(trial: Trial, answer: Handle) -> None:
    for targets in _TARGETS:
        _require_wrapped(trial, answer, targets)


def _require_wrapped(trial: Trial, answer: Handle, targets: Collection[str]) -> None:
    adapted = _Adapted(trial, answer, targets)
    held, expected = adapted.model.probe("state_dict"), adapted.expected.state_dict()
    wrapped, wanted = (
        sorted(name.removesuffix(".shift") for name in weights if name.endswith(".shift"))
        for weights in (held, expected)
    )
    message = _("With the targets {targets} these layers must be wrapped: {wanted}. Yours: {wrapped}.")
    named = {"wanted": ", ".join(wanted), "wrapped": ", ".join(wrapped) or "-"}
    trial.require(wrapped == wanted, message, targets=repr(targets), **named)
    message = _("Apart from the layers that are wrapped the model must stay as it was; these differ: {names}.")
    other = sorted(set(held) ^ set(expected))
    trial.require(not other, message, names=", ".join(other))
    shifts = {name: _normal(trial.rng, len(part)) for name, part in expected.items() if name.endswith(".shift")}
    adapted.model.probe("set_parameters", shifts)
    adapted.expected.load_state_dict(shifts, strict=False)
    ids, mask, _labels = _batch(trial.rng, 5)
    got = adapted.model.probe("evaluate", ids, mask)
    message = _("Numbers were written into what you added, and the model's scores are not what follows from them.")
    with torch.no_grad():
        trial.close(got, adapted.expected.eval()(ids, mask), message, atol=1e-4, rtol=1e-3)


@add_lora.criterion(
    _("counts what can be trained"),
    points=0.25,
    why=_("This number is the point of LoRA, and the first sign that a target was misspelt."),
)
def counts(trial: Trial, answer: Handle) -> None:
    adapted = _Adapted(trial, answer, _PLAIN)
    moved = sum(part.numel() for part in adapted.expected.parameters() if part.requires_grad)
    message = _("Tensors with {moved} numbers in all move when your model is trained.")
    trial.equal(adapted.count, moved, message, moved=moved)


@add_lora.criterion(
    _("a target that fits no layer is an error"),
    points=0.25,
    why=_("Misspelt, a target trains the head alone, and the result looks like bad luck."),
)
def refuses_unknown(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    for targets in ((_misspelt(rng, "key"),), ("key", _misspelt(rng, "value")), ("head",)):
        model = answer.build("training", "seeded", "SmallClassifier", 1, **_sizes())
        message = _("One of the targets {targets} fits no `nn.Linear` of the encoder, so this must raise {names}.")
        with trial.raises("ValueError", message=trial.text(message, targets=repr(targets), names="ValueError")):
            answer(model, targets, answer.build("training", "shifting"))


def _misspelt(rng: Any, name: str) -> str:
    """Return a name with one of its letters doubled."""
    place = int(rng.integers(len(name)))
    return name[: place + 1] + name[place:]


def _fits(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def _adapt(
    model: Any,
    targets: Collection[str],
    wrap: Any,
    *,
    fits: Callable[[str, str], bool] = _fits,
    freezes: bool = True,
    freezes_last: bool = False,
    frees_head: bool = True,
    counts_all: bool = False,
    silent: bool = False,
    any_module: bool = False,
    from_model: bool = False,
) -> int:
    """Adapt a model, with faults on demand."""
    model.requires_grad_(not freezes)
    kinds = torch.nn.Module if any_module else torch.nn.Linear
    root = model if from_model else model.encoder
    layers = [(name, layer) for name, layer in root.named_modules() if isinstance(layer, kinds)]
    for target in targets:
        if not silent and not any(fits(name, target) for name, _layer in layers):
            raise ValueError(target)
    for name, layer in layers:
        if any(fits(name, target) for target in targets):
            parent, _dot, last = name.rpartition(".")
            setattr(root.get_submodule(parent), last, wrap(layer))
    if freezes_last:
        model.requires_grad_(False)
    model.head.requires_grad_(frees_head)
    return sum(part.numel() for part in model.parameters() if part.requires_grad or counts_all)


@add_lora.misconception(_("everything but the wrapped layers is still trained"), factory=True)
def base_still_trained() -> Any:
    return partial(_adapt, freezes=False)


@add_lora.misconception(_("a head that is frozen with the rest: it stays as random as it was made"), factory=True)
def head_frozen() -> Any:
    return partial(_adapt, frees_head=False)


@add_lora.misconception(_("freezing after wrapping, so that what was added is frozen as well"), factory=True)
def lora_frozen() -> Any:
    return partial(_adapt, freezes_last=True)


@add_lora.misconception(_("a target that is looked for anywhere in the name"), factory=True)
def substring() -> Any:
    return partial(_adapt, fits=lambda name, target: target in name)


@add_lora.misconception(_("an ending that need not begin at a dot: `query` catches `prequery`"), factory=True)
def loose_ending() -> Any:
    return partial(_adapt, fits=str.endswith)


@add_lora.misconception(_("only the last part of a name is compared: `attention.query` never fits"), factory=True)
def last_part_only() -> Any:
    return partial(_adapt, fits=lambda name, target: name.rpartition(".")[2] == target)


@add_lora.misconception(_("all parameters counted, the frozen ones too"), factory=True)
def counts_everything() -> Any:
    return partial(_adapt, counts_all=True)


@add_lora.misconception(_("a target that fits nothing is passed over in silence"), factory=True)
def passes_over() -> Any:
    return partial(_adapt, silent=True)


@add_lora.misconception(_("names that count from the model: the target `head` wraps the head"), factory=True)
def names_from_model() -> Any:
    return partial(_adapt, from_model=True)


# ---------------------------------------------------------------- make_batches

make_batches = Check(
    UNIT,
    "make_batches",
    title=_("Batches of texts of similar length"),
    hints=(
        _("Draw an order, sort it, cut it, shuffle the batches. What do you sort: the texts, or their numbers?"),
        _("Sort numbers (indices) by the length of their text, and take tokens *and* labels by these numbers. "
          "`torch.randperm(count, generator=generator)` gives numbers in random order; Python's `sorted` keeps the "
          "order of what is equal."),
        _("`order = sorted(torch.randperm(len(texts), generator=generator).tolist(), key=lambda i: len(texts[i]))`, "
          "then `order[start : start + size]` for every `start` in `range(0, len(order), size)`. `pad_sequence` fills "
          "up the tokens, and the mask from rows of ones (`torch.ones_like`). Draw a second permutation for the "
          "batches."),
    ),
)  # fmt: skip

Batch = tuple[Any, Any, Any]
_ROWS = _("{count} texts became {found} rows.")


def _texts(rng: Any, count: int, longest: int = 12) -> tuple[list[list[int]], list[int]]:
    """Draw texts that are all different, with labels that are not sorted in any way."""
    lengths = rng.integers(2, longest + 1, size=count)
    lengths[:1] = longest
    texts = [[int(token) for token in rng.integers(1, 30_000, size=length)] for length in lengths]
    return texts, [int(label) for label in rng.integers(0, 1_000, size=count)]


def _batches(
    trial: Trial, answer: Handle, texts: list[list[int]], labels: list[int], size: int, generator: Handle | None = None
) -> list[Batch]:
    """Return the answer's batches; fail unless each is three tensors that fit together."""
    got = answer(texts, labels, size, generator or answer.build("training", "generator", 7))
    trial.is_a(got, list)
    batches = []
    for batch in got:
        message = _("A batch must be a tuple of three tensors: tokens, mask, labels.")
        batch = as_tuple(batch)
        trial.require(type(batch) is tuple and len(batch) == 3, message)
        ids, mask, marks = batch
        trial.array(ids, None, "tensor")
        trial.require(ids.ndim == 2, _("The tokens of a batch must have two dimensions: text and position."))
        for name, part, shape in (("mask", mask, ids.shape), ("labels", marks, ids.shape[:1])):
            trial.array(part, None, "tensor")
            message = _("In a batch, {name} must have the shape {wanted}, not {found}.")
            shapes = {"wanted": tuple(shape), "found": tuple(part.shape)}
            trial.require(part.shape == shape, message, name=f"`{name}`", **shapes)
        for name, part in zip(("tokens", "mask", "labels"), batch, strict=True):
            message = _("In a batch, {name} must be a tensor of whole numbers, not {kind}.")
            trial.require(not part.is_floating_point(), message, name=f"`{name}`", kind=str(part.dtype))
        batches.append((ids.long(), mask.long(), marks.long()))
    return batches


def _rows(batches: list[Batch]) -> list[tuple[int, ...]]:
    """Return the texts in batches: no token of theirs is 0."""
    return [tuple(row[row != 0].tolist()) for ids, _mask, _labels in batches for row in ids]


@make_batches.criterion(
    _("every text once, in batches of the right size"),
    points=0.25,
    why=_(
        "The training loop unpacks what it gets into tokens, mask and labels, and in an epoch it reads each text once."
    ),
)
def holds_every_text(trial: Trial, answer: Handle) -> None:
    for count, size in ((4, 2), (8, 8), (30, 5), (0, 4)):
        _require_texts(trial, answer, count, size)


@make_batches.criterion(
    _("the tail as well: a last batch that is not full"),
    points=0.25,
    why=_("What is left over at the end belongs to training, and still more to a test."),
)
def keeps_tail(trial: Trial, answer: Handle) -> None:
    for count, size in ((3, 2), (1, 8), (33, 16)):
        _require_texts(trial, answer, count, size)


def _require_texts(trial: Trial, answer: Handle, count: int, size: int) -> None:
    texts, labels = _texts(trial.rng, count)
    batches = _batches(trial, answer, texts, labels, size)
    got, wanted = sorted(_rows(batches)), sorted(tuple(text) for text in texts)
    missing = len(set(wanted) - set(got))
    message = _("Texts in no batch: {missing} of {count}.")
    trial.require(not missing, message, count=count, missing=missing)
    trial.require(got == wanted, _ROWS, count=count, found=len(got))
    sizes = sorted((len(labels) for _ids, _mask, labels in batches), reverse=True)
    full = [size] * (count // size) + ([count % size] if count % size else [])
    message = _("{count} texts in batches of {size} must have these sizes: {wanted}. Yours: {sizes}.")
    trial.require(sizes == full, message, count=count, size=size, wanted=str(full), sizes=str(sizes))


@make_batches.criterion(
    _("labels stay with their texts"),
    points=0.5,
    why=_("Labels on the wrong texts raise no error. The loss just never falls."),
)
def labels_stay(trial: Trial, answer: Handle) -> None:
    for count, size in ((6, 2), (23, 5), (46, 16)):  # with two more texts, no batch is left over that is not full
        texts, labels = _texts(trial.rng, count)
        texts += texts[:2]  # the same text again, with another label
        labels += [label + 1 for label in labels[:2]]
        known = Counter(zip(map(tuple, texts), labels, strict=True))
        batches = _batches(trial, answer, texts, labels, size)
        rows, marks = _rows(batches), [int(label) for _ids, _mask, marks in batches for label in marks]
        there = {row for row, _label in known}
        wrong = Counter(pair for pair in zip(rows, marks, strict=True) if pair[0] in there) - known
        message = _("{count} of {rows} texts have another text's label, the first of them {text}. (The same text may "
                    "come twice, with different labels.)")  # fmt: skip
        shown = str([row for row, _label in wrong][:1])
        trial.require(bool(marks) and not wrong, message, count=wrong.total(), rows=len(marks), text=shown)
        trial.require(len(rows) == len(texts), _ROWS, count=len(texts), found=len(rows))


@make_batches.criterion(
    _("tokens first, then zeros, and a mask that says which is which"),
    points=0.25,
    why=_("The model must not attend to padding, nor count it in a mean."),
)
def pads(trial: Trial, answer: Handle) -> None:
    for count, size in ((5, 3), (20, 8)):
        texts, labels = _texts(trial.rng, count)
        for ids, mask, _labels in _batches(trial, answer, texts, labels, size):
            lengths = (ids != 0).sum(dim=1, keepdim=True)
            wanted = (torch.arange(ids.shape[1]) < lengths).long()
            trial.require(
                torch.equal((ids != 0).long(), wanted), _("Zeros, which are [PAD], must come after the text.")
            )
            trial.require(torch.equal(mask, wanted), _("A mask must be 1 for each token and 0 after the last one."))


@make_batches.criterion(
    _("as little padding as sorting allows"),
    points=0.5,
    why=_("Padding is computed like text and thrown away afterwards."),
)
def pads_little(trial: Trial, answer: Handle) -> None:
    for count, size, longest in ((9, 3, 12), (48, 8, 80), (64, 16, 12)):
        texts, labels = _texts(trial.rng, count, longest)
        batches = _batches(trial, answer, texts, labels, size)
        total = sum(len(text) for text in texts)
        held = sum(len(row) for row in _rows(batches))
        trial.require(held == total, _("The batches hold {held} tokens of {total}."), held=held, total=total)
        spent = sum(ids.numel() for ids, _mask, _labels in batches)
        least = max(_positions(texts, size, reverse) for reverse in (False, True))
        message = _("Your batches have {spent} positions for {total} tokens; sorted by length it takes {least}.")
        trial.require(spent <= least, message, spent=spent, total=total, least=least)


def _positions(texts: list[list[int]], size: int, reverse: bool) -> int:
    lengths = sorted((len(text) for text in texts), reverse=reverse)
    parts = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    return sum(len(part) * max(part) for part in parts)


@make_batches.criterion(
    _("another order each time, and with equal generators the same"),
    points=0.25,
    why=_("Training needs chance, and chance that can be repeated: otherwise a result cannot be explained."),
)
def shuffles(trial: Trial, answer: Handle) -> None:
    texts, labels = _texts(trial.rng, 96)
    seed = int(trial.rng.integers(2**31))
    first, equal = (answer.build("training", "generator", seed) for _generator in range(2))
    one, again, other = (_batches(trial, answer, texts, labels, 4, used) for used in (first, equal, first))
    trial.require(_rows(one) == _rows(again), _("Two runs with equal generators gave different batches."))
    message = _("Used a second time, a generator gave the same batches: draw from `generator` itself, which goes on "
                "from where it stands.")  # fmt: skip
    trial.require(_rows(one) != _rows(other), message)
    lengths, others = ([int((ids != 0).sum(dim=1).max()) for ids, _mask, _labels in got] for got in (one, other))
    # Seen as a ring, in which a sorted row that begins somewhere in the middle turns round just once as well.
    steps = [longer - shorter for shorter, longer in pairwise([*lengths, lengths[0]])]
    turns = min(sum(step < 0 for step in steps), sum(step > 0 for step in steps))
    trial.require(
        turns > 1,
        _("The batches come sorted by length, so the model would learn length first; draw their order."),
    )
    message = _("Used a second time, a generator gave the batches in the same order of lengths: draw their order from "
                "it, too.")  # fmt: skip
    trial.require(lengths != others, message)
    together, apart = ({frozenset(_rows([batch])) for batch in batches} for batches in (one, other))
    trial.require(
        len(together & apart) < len(together) / 2,
        _("Texts of equal length always share a batch with the same others: draw an order before you sort."),
    )
    alike = [[number, *trial.rng.integers(1, 30_000, size=3).tolist()] for number in range(1, 25)]
    numbers = [row[0] for row in _rows(_batches(trial, answer, alike, labels[:24], 24, first))]
    kept = sum(after - before in (1, -23) for before, after in pairwise(numbers))  # 1 in the mean, where chance rules
    message = _("Of 24 texts of equal length, {count} come right behind the one that was before them: draw an order.")
    trial.require(kept < 12, message, count=kept)


def _bucketed(
    texts: list[list[int]],
    labels: list[int],
    size: int,
    generator: Any,
    *,
    sorts: bool = True,
    mixes: bool = True,
    shuffles: bool = True,
    same_shuffle: bool = False,
    uses_generator: bool = True,
    mixes_freely: bool = False,
    drops_tail: bool = False,
    takes_labels: bool = True,
    pads_to: Callable[[list[int], int], int] = lambda lengths, _longest: max(lengths),
    mask_value: int = 0,
) -> list[Batch]:
    """Make batches with faults on demand."""
    if not uses_generator:
        generator = None
    count = len(texts)
    mixing = None if mixes_freely else generator
    order = torch.randperm(count, generator=mixing).tolist() if mixes else list(range(count))
    if sorts:
        order.sort(key=lambda number: len(texts[number]))
    parts = [order[start : start + size] for start in range(0, count, size)]
    if drops_tail:
        parts = [part for part in parts if len(part) == size]
    batches = []
    place = 0
    for part in parts:
        width = pads_to([len(texts[number]) for number in part], max(len(text) for text in texts))
        ids = torch.zeros(len(part), width, dtype=torch.long)
        mask = torch.full_like(ids, mask_value)
        for row, number in enumerate(part):
            ids[row, : len(texts[number])] = torch.tensor(texts[number])
            mask[row, : len(texts[number])] = 1
        marks = [labels[number] for number in part] if takes_labels else labels[place : place + len(part)]
        batches.append((ids, mask, torch.tensor(marks)))
        place += len(part)
    if not shuffles:
        return batches
    if same_shuffle:
        generator = torch.Generator().manual_seed(0)
    return [batches[number] for number in torch.randperm(len(batches), generator=generator).tolist()]


@make_batches.misconception(_("the tail is lost: texts that do not fill a batch are left out"), factory=True)
def tail_lost() -> Any:
    return partial(_bucketed, drops_tail=True)


@make_batches.misconception(_("labels misaligned: the texts are sorted, the labels are not"), factory=True)
def labels_misaligned() -> Any:
    return partial(_bucketed, takes_labels=False)


@make_batches.misconception(_("texts in random order, long ones beside short ones"), factory=True)
def not_sorted() -> Any:
    return partial(_bucketed, sorts=False)


@make_batches.misconception(_("all batches as wide as the longest text of all"), factory=True)
def padded_to_longest() -> Any:
    return partial(_bucketed, pads_to=lambda _lengths, longest: longest)


@make_batches.misconception(_("batches that always come from short to long"), factory=True)
def not_shuffled() -> Any:
    return partial(_bucketed, shuffles=False)


@make_batches.misconception(_("batches that come in the same mixed order each time"), factory=True)
def shuffled_alike() -> Any:
    return partial(_bucketed, same_shuffle=True)


@make_batches.misconception(_("texts of equal length that always meet the same others"), factory=True)
def not_mixed() -> Any:
    return partial(_bucketed, mixes=False)


@make_batches.misconception(_("an order that is drawn without the generator"), factory=True)
def generator_ignored() -> Any:
    return partial(_bucketed, uses_generator=False)


@make_batches.misconception(
    _("the texts mixed without the generator, which draws the order of the batches alone"), factory=True
)
def texts_mixed_freely() -> Any:
    return partial(_bucketed, mixes_freely=True)


@make_batches.misconception(_("a mask of ones, padding included"), factory=True)
def mask_of_ones() -> Any:
    return partial(_bucketed, mask_value=1)


# ---------------------------------------------------------------- fine_tune

fine_tune = Check(
    UNIT,
    "fine_tune",
    title=_("Fine-tuning that can be believed"),
    hints=(
        _("Write the measuring first, as a function of its own: model and batches in, share of right answers out. "
          "Which mode must the model be in there, and which one when training goes on?"),
        _("After each epoch measure on the development set, and keep a *copy* of the weights whenever the result is "
          "better than all before. At the end load that copy, and only then touch the test set. "
          "`torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)` falls in a straight line; "
          "`steps` counts the batches of *all* epochs."),
        _("`model.train()` before each epoch, `model.eval()` and `torch.no_grad()` for measuring; "
          "`best = copy.deepcopy(model.state_dict())`, at the end `model.load_state_dict(best)`. Count right answers "
          "over all batches before you divide: batches differ in size. `if not loss.isfinite(): raise "
          "FloatingPointError` comes before `backward`."),
    ),
    seconds=60,
)  # fmt: skip

_TOPICS, _LENGTH, _STEPS = 4, 8, 24
_LEARNED = 0.6
"""The share of new texts that a trained model must sort rightly; guessing gets 0.25.

The reference gets 0.97 with a deviation of 0.02. Mistakes that other criteria ask for shall mostly pass this one.
"""


@fine_tune.criterion(
    _("the model learns: it sorts new texts"),
    points=0.75,
    why=_("Texts that took no part in anything are the only proof."),
)
def model_learns(trial: Trial, answer: Handle) -> None:
    # What returns no report at all is told so before anything is trained at length.
    _Run(trial, answer, [[_batch(trial.rng, 4)]], [_batch(trial.rng, 5)], [_batch(trial.rng, 5)])
    sizes = {"vocabulary": 60, "width": 16, "labels": _TOPICS}
    seed = int(trial.rng.integers(2**31))
    draw = _topics(trial.rng)
    model = answer.build("training", "seeded", "SmallClassifier", seed, **_sizes(**sizes))
    optimizer = answer.build("training", "adamw", model, 1e-2)
    epoch = [draw(32) for _step in range(_STEPS)]
    _report(trial, answer, model, optimizer, [epoch], [draw(16)], [draw(16)])
    ids, mask, labels = draw(1_000)
    with torch.no_grad():
        scores = _fetched(trial, model, **sizes).eval()(ids, mask)
    right = (scores.argmax(dim=1) == labels).float().mean()
    message = _("After {steps} steps the model sorts {share} of 1,000 new texts rightly.")
    trial.require(right >= _LEARNED, message, expected=f">= {_LEARNED}", steps=_STEPS, share=float(right))


def _topics(rng: Any) -> Callable[[int], Batch]:
    """Make up a language in which each label has favourite words; return what draws a batch of it."""
    favourites = rng.dirichlet(np.full(59, 0.1), size=_TOPICS)

    def draw(count: int) -> Batch:
        labels = rng.integers(_TOPICS, size=count)
        ids = np.stack([rng.choice(59, size=_LENGTH, p=favourites[label]) + 1 for label in labels])
        return torch.from_numpy(ids), torch.ones(count, _LENGTH, dtype=torch.long), torch.from_numpy(labels)

    return draw


def _fetched(trial: Trial, model: Handle, **sizes: int) -> Any:
    """Fetch the weights of the answer's model; return a model of our own with them."""
    own = _classifier(0, **sizes)
    try:
        own.load_state_dict(model.probe("state_dict"))
    except (AttributeError, RuntimeError, TypeError) as error:
        trial.require(False, _("The model that came back is not the one that was sent: {error}"), error=str(error))
    return own


@fine_tune.criterion(
    _("one step for each batch, at a rate that falls in a straight line"),
    points=0.75,
    why=_("Large steps first, small ones at the end. Gradients add up until they are cleared, and measuring leaves a "
          "model in another mode than training needs."),
)  # fmt: skip
def takes_steps(trial: Trial, answer: Handle) -> None:
    for lengths, rate in (((1,), 0.1), ((4,), 0.1), ((3, 8), 0.2)):
        if len(lengths) == 1:
            epochs = [[_batch(trial.rng, 6) for _step in range(length)] for length in lengths]
        else:
            epochs = _single_minded(trial.rng, lengths)
        measured = [_labelled(_batch(trial.rng, 5), len(lengths) - 1)]  # no earlier epoch is better than the last
        rates = {"rate": rate, "head_rate": 2 * rate}
        run = _Run(trial, answer, epochs, measured, measured, **rates, hidden=4)
        held, wanted = run.model.probe("state_dict"), run.expected().state_dict()
        for name in ("head.weight", "encoder.layer.1.output.weight", "encoder.embedding.weight"):
            message = _("There is no weight {name} any more in the model.")
            trial.require(isinstance(held, dict) and name in held, message, name=name)
            message = _(
                "After the last step ({steps} in all, in epochs of {lengths}) {name} is not where it should be. "
                "In this trial the optimizer comes with a rate of {head_rate} for the head, and of {rate} for all else."
            )
            shown = {"name": name, "steps": sum(lengths), "lengths": " + ".join(map(str, lengths))}
            trial.close(held[name], wanted[name], message, rtol=1e-3, atol=2e-4, **rates, **shown)
    measured = [_batch(trial.rng, 5)]
    run = _Run(trial, answer, [[_batch(trial.rng, 16)]], measured, measured, rate=0.01, head_scale=_STEEP)
    message = _("The gradients are long here, and the only step is as long as they are, times the rate: clip nothing.")
    held, wanted = run.model.probe("state_dict"), run.expected().state_dict()
    name = "encoder.layer.1.output.weight"
    trial.close(held[name], wanted[name], message, rtol=1e-3, atol=2e-4)


_STEEP = 100.0
"""With a head so many times as large, the gradients of all parameters together have a norm of 8 to 250."""


def _single_minded(rng: Any, lengths: tuple[int, ...]) -> list[list[Batch]]:
    """Batches whose labels are all the same within an epoch, and others in the next: a model follows them."""
    return [[_labelled(_batch(rng, 6), number) for _step in range(length)] for number, length in enumerate(lengths)]


def _labelled(batch: Batch, label: int) -> Batch:
    ids, mask, labels = batch
    return ids, mask, torch.full_like(labels, label)


@fine_tune.criterion(
    _("measures without dropout, each text once"),
    points=0.5,
    why=_("Dropout is for training: measured with it, a model looks worse than it is. And in a mean of batches a small "
          "batch counts as much as a large one."),
)  # fmt: skip
def evaluates(trial: Trial, answer: Handle) -> None:
    for sizes in ((40,), (37, 2, 5)):
        development = partial(_swayed, sizes=sizes)
        run = _Run(trial, answer, [[_batch(trial.rng, 4)]] * 2, development, [_batch(trial.rng, 5)], hidden=4)
        message = _("The rate is zero, so nothing changes: after each epoch the model sorts {share} of the "
                    "development set rightly.")  # fmt: skip
        wanted = run.accuracy(trial, run.development)
        trial.close(run.report.development, [wanted] * 2, message, share=wanted, atol=1e-5)


def _swayed(trial: Trial, run: "_Run", sizes: tuple[int, ...]) -> list[Batch]:
    """Batches with texts that the run's untrained model sorts rightly, but for its dropout, which sways it.

    Some models cannot be swayed: they give all texts one label. The run gets another one then.
    """
    while True:
        batches = [batch for size in sizes if (batch := _half_swayed(trial.rng, run.fresh(), size))]
        if len(batches) == len(sizes):
            return batches
        run.seed = int(trial.rng.integers(2**31))


def _half_swayed(rng: Any, model: Any, size: int) -> Batch | None:
    """A batch of which dropout sways half; None if the model does not do that on the texts that were drawn."""
    ids, mask, labels = _batch(rng, 8 * size)
    with torch.no_grad():
        usual, trained = model.eval()(ids, mask), model.train()(ids, mask)
    swayed = usual.argmax(dim=1) != trained.argmax(dim=1)
    half = (size + 1) // 2
    clear = _is_clear(usual) & _is_clear(trained)
    parts = (clear & swayed).nonzero()[:half], (clear & ~swayed).nonzero()[: size - half]
    kept = torch.cat(parts).flatten()
    labels = torch.where(swayed, usual.argmax(dim=1), labels)
    return (ids[kept], mask[kept], labels[kept]) if len(kept) == size else None


def _clear(trial: Trial, run: "_Run", sizes: tuple[int, ...]) -> list[Batch]:
    """Batches of texts on which the untrained model's first two scores are clearly apart."""
    batches = []
    for size in sizes:
        ids, mask, labels = _batch(trial.rng, 4 * size)
        with torch.no_grad():
            kept = _is_clear(run.fresh().eval()(ids, mask)).nonzero().flatten()[:size]
        batches.append((ids[kept], mask[kept], labels[kept]))
    return batches


def _is_clear(scores: Any) -> Any:
    """Whether the first two scores of each text are so far apart that rounding cannot change their order."""
    best, second = scores.topk(2, dim=1).values.T
    return best - second > 1e-3


@fine_tune.criterion(
    _("keeps the epoch that is best on the development set"),
    points=0.5,
    why=_("The best of several epochs on the test set is partly best by chance: the number is too good to be true. "
          "And weights that are kept without a copy go on changing."),
)  # fmt: skip
def keeps_best(trial: Trial, answer: Handle) -> None:
    run = _Run(trial, answer, [[_batch(trial.rng, 4)]] * 3, _clear_forty, [_batch(trial.rng, 5)])
    message = _("`epoch` counts from 1, and yours is {epoch}.")
    trial.require(run.report.epoch >= 1, message, epoch=run.report.epoch)
    message = _("All three epochs are equally good here, since the rate is zero: the first must be kept.")
    trial.equal(run.report.epoch, 1, message)

    development, test = ([_labelled(_batch(trial.rng, 40), label)] for label in (0, 1))
    run = _Run(trial, answer, _single_minded(trial.rng, (4, 12)), development, test, rate=0.2)
    shares = run.report.development
    found = ", ".join(f"{share:.2f}" for share in shares)
    message = _("In the second epoch all labels were others. On the development set the accuracies were {found}, so "
                "this epoch must be kept.")  # fmt: skip
    trial.equal(run.report.epoch, shares.index(max(shares)) + 1, message, found=found)
    best, right = (run.accuracy(trial, development, model) for model in (run.expected(), None))
    message = _("The model that was left sorts {share} of the development set rightly, and the best epoch {best}: "
                "these are other weights.")  # fmt: skip
    trial.close(right, best, message, rtol=0, atol=0.03, share=right, best=best)


_clear_forty = partial(_clear, sizes=(40,))


@fine_tune.criterion(
    _("reports the test set, with its interval"),
    points=0.25,
    why=_("The same accuracy on 80 texts and on 8,000 says something else. Whoever reads it has to see that."),
)
def reports(trial: Trial, answer: Handle) -> None:
    run = _Run(trial, answer, [[_batch(trial.rng, 4)]], _clear_forty, partial(_clear, sizes=(30, 30)))
    _require_measured(trial, run, 60, atol=1e-5)
    # The first epoch is better on the development set, the second on the test set.
    ids, mask, labels = _batch(trial.rng, 41)
    test = [(ids, mask, (torch.arange(41) % 4 > 0).to(labels))]
    development = [_labelled(_batch(trial.rng, 40), 0)]
    run = _Run(trial, answer, _single_minded(trial.rng, (3, 8)), development, test, rate=0.2)
    _require_measured(trial, run, 41, atol=0.03)  # one text may lie where rounding decides


def _require_measured(trial: Trial, run: "_Run", count: int, atol: float) -> None:
    """Require that the report is about the model that was left, on `count` test texts."""
    wanted, reported = run.accuracy(trial, run.test), run.report.accuracy
    message = _("The model that was left sorts {share} of the {count} test texts rightly.")
    trial.close(reported, wanted, message, share=wanted, count=count, rtol=0, atol=atol)
    message = _("That is not Wilson's interval for a share of {share} in {count} texts.")
    interval = _wilson(min(count, max(0, round(reported * count))), count)
    trial.close(list(run.report.interval), interval, message, share=reported, count=count, rtol=0, atol=2e-4)


@fine_tune.criterion(
    _("stops when the loss is no longer a number"),
    points=0.25,
    why=_("NaN never heals: every further step costs time, and what is saved at the end is worthless."),
)
def stops(trial: Trial, answer: Handle) -> None:
    message = _("With a rate of 1e30 the loss soon is NaN or infinite. This must raise {names}.")
    epochs = [[_batch(trial.rng, 4) for _step in range(4)]]
    with trial.raises("FloatingPointError", message=trial.text(message, names="FloatingPointError")):
        _Run(trial, answer, epochs, [_batch(trial.rng, 5)], [_batch(trial.rng, 5)], rate=1e30)

    model = answer.build("training", "seeded", "SmallClassifier", int(trial.rng.integers(2**31)), **_sizes())
    model.probe("set_parameters", {"head.bias": torch.tensor([-3e38, 3e38, 3e38])})
    before = model.probe("state_dict")
    batch = _labelled(_batch(trial.rng, 4), 0)
    message = _("The loss is infinite here, though not NaN. This must raise {names}.")
    with trial.raises("FloatingPointError", message=trial.text(message, names="FloatingPointError")):
        _report(trial, answer, model, answer.build("training", "sgd", model, 0.1), [[batch]], [batch], [batch])
    after = model.probe("state_dict")
    message = _("The loss was infinite, and still the optimizer took a step: look at the loss before.")
    trial.require(all(torch.equal(after[name], part) for name, part in before.items()), message)


Drawn = list[Batch] | Callable[[Trial, "_Run"], list[Batch]]


class _Run:
    """A small run with plain gradient descent: what the answer reports, and the model that it leaves."""

    def __init__(
        self,
        trial: Trial,
        answer: Handle,
        epochs: list[list[Batch]],
        development: Drawn,
        test: Drawn,
        rate: float = 0.0,
        head_rate: float | None = None,
        hidden: int = 0,
        head_scale: float = 1.0,
    ) -> None:
        self.seed, self.hidden, self.head_scale = int(trial.rng.integers(2**31)), hidden, head_scale
        self.epochs, self.rate, self.head_rate = epochs, rate, head_rate
        self.development = development(trial, self) if callable(development) else development
        self.test = test(trial, self) if callable(test) else test
        self.model = answer.build("training", "seeded", "SmallClassifier", self.seed, **_sizes(hidden=hidden))
        if head_scale != 1:
            self.model.probe("set_parameters", {"head.weight": self.fresh().state_dict()["head.weight"]})
        name, rates = self.descent()
        optimizer = answer.build("training", name, self.model, rates)
        self.report = _report(trial, answer, self.model, optimizer, epochs, self.development, self.test)

    def fresh(self) -> Any:
        """The untrained model."""
        model = _classifier(self.seed, hidden=self.hidden)
        with torch.no_grad():
            model.head.weight *= self.head_scale
        return model

    def descent(self) -> tuple[str, Any]:
        """The name of plain gradient descent in `answers.training`, and its rates: the head may have its own."""
        if self.head_rate is None:
            return "sgd", self.rate
        names = [name for name, _part in self.fresh().named_parameters()]
        return "noted_sgd", {name: self.head_rate if name.startswith("head.") else self.rate for name in names}

    def expected(self) -> Any:
        """The model that the same run leaves here."""
        from kicourse.answers import training

        model = self.fresh()
        with torch.enable_grad():
            name, rates = self.descent()
            optimizer = getattr(training, name)(model, rates)
            _tuning(model, optimizer, self.epochs, self.development, self.test)
        return model

    def accuracy(self, trial: Trial, batches: list[Batch], model: Any = None) -> float:
        """The share of right answers of a model, or else of the one that the answer left."""
        own = _fetched(trial, self.model, hidden=self.hidden) if model is None else model
        with torch.no_grad():
            right = [own.eval()(ids, mask).argmax(dim=1) == labels for ids, mask, labels in batches]
        return float(torch.cat(right).double().mean())


def _report(
    trial: Trial, answer: Handle, model: Handle, optimizer: Handle, epochs: Any, development: Any, test: Any
) -> Any:
    """Let the answer fine-tune; return its report, with the four fields of the right types."""
    got = answer(model, optimizer, epochs, development, test)
    fields = ("development", "epoch", "accuracy", "interval")
    known = isinstance(got, Record) and set(fields) <= set(got.fields)
    trial.require(known, _("Return a `Report` with development, epoch, accuracy and interval."))
    report = SimpleNamespace(**{name: _python(got[name]) for name in fields})
    message = _("`development` must be a list with a float for each of the {count} epochs.")
    listed = type(report.development) is list and len(report.development) == len(epochs)
    trial.require(listed and all(type(share) is float for share in report.development), message, count=len(epochs))
    for name, kind, wanted in (("epoch", int, "int"), ("accuracy", float, "float"), ("interval", list, "tuple")):
        found = getattr(report, name)
        message = _("In the report `{name}` must be of the type {wanted}, not {found}.")
        shown = {"name": name, "wanted": wanted, "found": type(found).__name__}
        trial.require(type(found) is kind, message, **shown)
    return report


def _python(value: Any) -> Any:
    """Turn NumPy's numbers into Python's, and a tuple into a list: in a report they are as good."""
    if isinstance(value, (list, tuple)):
        return [_python(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


_Z = 1.96
"""As in the unit, to the digit: answers are compared with the misconceptions below up to rounding."""


def _wilson(right: int, count: int) -> tuple[float, float]:
    share, spread = right / count, _Z**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / count + spread / count / 4) / (1 + spread)
    return centre - half, centre + half


def _wald(right: int, count: int) -> tuple[float, float]:
    share = right / count
    half = _Z * math.sqrt(share * (1 - share) / count)
    return share - half, share + half


@dataclass(frozen=True)
class _Report:
    """What the learner's `Report` looks like."""

    development: list[float]
    epoch: int
    accuracy: float
    interval: tuple[float, float]


def _tuning(
    model: Any,
    optimizer: Any,
    epochs: list[list[Batch]],
    development: list[Batch],
    test: list[Batch],
    *,
    clears: bool = True,
    clips: bool = False,
    factor: Callable[[int, int], float] = lambda step, steps: 1 - step / steps,
    back_to_training: bool = True,
    dropout_off: bool = True,
    by_batch: bool = False,
    pick_on_test: bool = False,
    copies: bool = True,
    later: bool = False,
    report_development: bool = False,
    report_last: bool = False,
    interval: Callable[[int, int], tuple[float, float]] = _wilson,
    stops: Callable[[Any], bool] = lambda loss: not loss.isfinite(),
    stops_late: bool = False,
    of_one_epoch: bool = False,
    first: int = 1,
) -> _Report:
    """Fine-tune with faults on demand."""
    steps = len(epochs[0]) if of_one_epoch else sum(len(batches) for batches in epochs)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step, steps))

    def measure(batches: list[Batch]) -> float:
        if dropout_off:
            model.eval()
        with torch.no_grad():
            hits = [(model(ids, mask).argmax(dim=1) == labels).double() for ids, mask, labels in batches]
        return float(torch.stack([hit.mean() for hit in hits]).mean() if by_batch else torch.cat(hits).mean())

    shares: list[float] = []
    kept, chosen, best = model.state_dict(), 0, -1.0
    model.train()
    for number, batches in enumerate(epochs, start=first):
        if back_to_training:
            model.train()
        for ids, mask, labels in batches:
            loss = torch.nn.functional.cross_entropy(model(ids, mask), labels)
            if stops(loss) and not stops_late:
                raise FloatingPointError
            if clears:
                model.zero_grad()
            loss.backward()
            if clips:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if stops(loss):
                raise FloatingPointError
            schedule.step()
        shares.append(measure(development))
        share = measure(test) if pick_on_test else shares[-1]
        if share > best or (later and share == best):
            best, chosen = share, number
            kept = copy.deepcopy(model.state_dict()) if copies else model.state_dict()
    reported = development if report_development else test
    if not report_last:
        model.load_state_dict(kept)
    share = measure(reported)
    model.load_state_dict(kept)
    count = sum(len(labels) for _ids, _mask, labels in reported)
    return _Report(shares, chosen, share, interval(round(share * count), count))


@fine_tune.misconception(_("an epoch that is picked on the test set"), factory=True)
def picked_on_test() -> Any:
    return partial(_tuning, pick_on_test=True)


@fine_tune.misconception(_("dropout that is still on while you measure"), factory=True)
def dropout_while_measuring() -> Any:
    return partial(_tuning, dropout_off=False)


@fine_tune.misconception(
    _("dropout that is off from the first measurement on, because nothing brings the model back to training"),
    factory=True,
)
def never_back_to_training() -> Any:
    return partial(_tuning, back_to_training=False)


@fine_tune.misconception(
    _("the best weights kept without a copy: they go on changing with the model"), factory=True
)  # fmt: skip
def kept_without_copy() -> Any:
    return partial(_tuning, copies=False)


@fine_tune.misconception(_("the last of several epochs that are equally good"), factory=True)
def later_of_equals() -> Any:
    return partial(_tuning, later=True)


@fine_tune.misconception(_("gradients that add up over the steps, because they are not cleared"), factory=True)
def gradients_not_cleared() -> Any:
    return partial(_tuning, clears=False)


@fine_tune.misconception(_("gradients that are clipped, which nobody asked for here"), factory=True)
def gradients_clipped() -> Any:
    return partial(_tuning, clips=True)


@fine_tune.misconception(_("a rate that stays what it is"), factory=True)
def constant_rate() -> Any:
    return partial(_tuning, factor=lambda _step, _steps: 1.0)


@fine_tune.misconception(_("a rate that begins one step too low: at (S - 1) / S of the full rate"), factory=True)
def falls_too_early() -> Any:
    return partial(_tuning, factor=lambda step, steps: 1 - (step + 1) / steps)


@fine_tune.misconception(_("a rate that is zero at the last step already: s / (S - 1)"), factory=True)
def falls_too_fast() -> Any:
    return partial(_tuning, factor=lambda step, steps: 1 - step / max(steps - 1, 1))


@fine_tune.misconception(
    _("S counted over one epoch: in the next the rate is negative, and the loss grows without end"), factory=True
)
def steps_of_one_epoch() -> Any:
    return partial(_tuning, of_one_epoch=True)


@fine_tune.misconception(_("epochs counted from 0; `epoch` counts from 1"), factory=True)
def epochs_from_zero() -> Any:
    return partial(_tuning, first=0)


@fine_tune.misconception(
    _("the mean of the batches' accuracies, in which a small batch counts as much as a large one"), factory=True
)
def mean_of_batches() -> Any:
    return partial(_tuning, by_batch=True)


@fine_tune.misconception(_("the development set's result, reported as the test set's"), factory=True)
def reports_development() -> Any:
    return partial(_tuning, report_development=True)


@fine_tune.misconception(_("the last epoch measured on the test set, before the best one is loaded"), factory=True)
def reports_last() -> Any:
    return partial(_tuning, report_last=True)


@fine_tune.misconception(_("Wald's interval, which is certain of everything when all answers are right"), factory=True)
def wald() -> Any:
    return partial(_tuning, interval=_wald)


@fine_tune.misconception(_("training on when the loss is no longer a number"), factory=True)
def never_stops() -> Any:
    return partial(_tuning, stops=lambda _loss: False)


@fine_tune.misconception(_("only NaN is looked for; an infinite loss goes on"), factory=True)
def stops_at_nan_only() -> Any:
    return partial(_tuning, stops=lambda loss: bool(loss.isnan()))


@fine_tune.misconception(_("the loss looked at after the step, when the weights are spoilt already"), factory=True)
def stops_after_the_step() -> Any:
    return partial(_tuning, stops_late=True)


fine_tune.equivalent(
    "best: dict[str, Tensor] = {}",
    "pass",
    reason="The first epoch is better than none, so `best` is always set before it is read.",
)


# ---------------------------------------------------------------- model_files

model_files = Check(
    UNIT,
    "model_files",
    title=_("What you publish"),
    hints=(
        _("A stranger has these three files and nothing else. What does one need to get your predictions, and to judge "
          "whether they are good enough?"),
        _("Weights: those with `requires_grad`, by name, through `safetensors.torch.save`. Config: `facts` and "
          "`labels`, through `json.dumps`. Card: `ModelCardData(...).to_yaml()` between two lines of `---`, then text "
          "with numbers from `report`."),
        _("`{name: part.detach().contiguous() for name, part in model.named_parameters() if part.requires_grad}`; "
          "`{**facts, \"labels\": labels}`; in the card `f\"{100 * report.accuracy:.1f} %\"`, and the same for both "
          "ends of `report.interval`. `.encode()` turns text into bytes."),
    ),
)  # fmt: skip

_NAMES = ("standstill", "limping", "solved", "Störung", "läuft", "other 🛠", "a", "Z", "b: c")
_WRAPPED = {"query": ["attention.query"], "output": ["attention.output", "output"], "attention.key": ["attention.key"]}
"""Targets, and what fits them in a block."""
_WEIGHTS, _CONFIG, _CARD = "adapter.safetensors", "config.json", "README.md"


class _Published:
    """A small model that was trained, what an answer makes of it, and what is true of it."""

    def __init__(self, trial: Trial, answer: Handle) -> None:
        from kicourse.answers.training import descend

        rng = trial.rng
        self.seed, self.targets = int(rng.integers(2**31)), [str(rng.choice([*_WRAPPED]))]
        self.labels = [str(name) for name in rng.permutation(_NAMES)[:_LABELS]]
        self.facts = {
            "base_model": f"{rng.choice(['harz', 'acme'])}/small-{rng.integers(10, 100)}",
            "license": str(rng.choice(["apache-2.0", "mit"])),
            "language": str(rng.choice(["en", "de"])),
            "targets": self.targets,
            "rank": int(rng.integers(1, 64)),
            "alpha": float(rng.integers(1, 64)),
        }
        low, accuracy, high = sorted(int(share) for share in rng.choice(np.arange(510, 990), size=3, replace=False))
        # Two are rounded up to these numbers, and one down.
        self.accuracy, self.interval = (accuracy - 0.3) / 1_000, ((low - 0.2) / 1_000, (high + 0.3) / 1_000)
        self.development = [float(share) / 1_000 for share in rng.integers(110, 490, size=3)]
        batch = _batch(rng, 12)
        self.expected = self.fresh()
        descend(self.expected, list(batch[:2]), batch[2], 0.5, 3)
        model = answer.build("training", "seeded", "SmallClassifier", self.seed, **_sizes(), shifted=self._shifted())
        answer.build("training", "descend", model, list(batch[:2]), batch[2], 0.5, 3)
        report = answer.build(
            "training", "report", self.development, 1 + int(rng.integers(3)), self.accuracy, self.interval
        )
        self.files = answer(model, self.labels, self.facts, report)

    def fresh(self) -> Any:
        """The model as it was before training, adapted."""
        return _classifier(self.seed, shifted=self._shifted())

    def _shifted(self) -> list[str]:
        return [name for target in self.targets for name in _WRAPPED[target]]

    def file(self, trial: Trial, name: str) -> bytes:
        """Return the bytes of a file."""
        trial.is_a(self.files, dict)
        wanted = (_WEIGHTS, _CONFIG, _CARD)
        message = _("The files must be called {names}.")
        trial.require(sorted(map(str, self.files)) == sorted(wanted), message, names=", ".join(wanted))
        content: bytes = self.files[name]
        kind = type(content)
        trial.require(kind is bytes, _("{name} must be bytes, not {kind}."), name=name, kind=kind.__name__)
        return content

    def weights(self, trial: Trial) -> dict[str, Any]:
        """Read the file with the weights."""
        from safetensors import torch as safetensors

        content = self.file(trial, _WEIGHTS)
        try:
            held: dict[str, Any] = safetensors.load(content)
        except Exception as error:  # of several libraries, whose bytes these may be meant for
            message = _("{name} cannot be read as safetensors: {error}")
            trial.require(False, message, name=_WEIGHTS, error=str(error))
        return held

    def trained(self) -> list[str]:
        """The names of what was trained."""
        return [name for name, part in self.expected.named_parameters() if part.requires_grad]


@model_files.criterion(
    _("three files, as bytes"),
    why=_("This is what a repository on the Hub is: names and contents."),
)
def makes_files(trial: Trial, answer: Handle) -> None:
    published = _Published(trial, answer)
    for name in (_WEIGHTS, _CONFIG, _CARD):
        published.file(trial, name)


@model_files.criterion(
    _("the same predictions after reloading"),
    points=0.5,
    why=_("A model that nobody can load is a story about a model."),
)
def reloads(trial: Trial, answer: Handle) -> None:
    for _case in range(2):
        published = _Published(trial, answer)
        held, model = published.weights(trial), published.fresh()
        known = model.state_dict()
        for name in published.trained():
            message = _("{name} was trained, and it is not in the file.")
            trial.require(name in held and held[name].shape == known[name].shape, message, name=name)
        model.load_state_dict({name: held[name] for name in held if name in known}, strict=False)
        ids, mask, _labels = _batch(trial.rng, 5)
        with torch.no_grad():
            got, wanted = model.eval()(ids, mask), published.expected.eval()(ids, mask)
        message = _("A model that was made anew and got these weights gives other scores than yours.")
        trial.close(got, wanted, message, rtol=1e-3, atol=1e-4)


@model_files.criterion(
    _("only what was trained"),
    points=0.25,
    why=_("The base model lies on the Hub already. Here that is 1 MB to publish instead of 90."),
)
def holds_little(trial: Trial, answer: Handle) -> None:
    published = _Published(trial, answer)
    extra = sorted(set(published.weights(trial)) - set(published.trained()))
    message = _("These were never trained, and they are in the file: {names}.")
    trial.require(not extra, message, names=", ".join(extra))


@model_files.criterion(
    _("the base model, the adapter's settings and the labels in their order"),
    points=0.25,
    why=_("The model says 2, and only the list of labels knows what that means. And weights of an adapter are useless "
          "without the model that they adapt."),
)  # fmt: skip
def keeps_settings(trial: Trial, answer: Handle) -> None:
    for _case in range(3):
        published = _Published(trial, answer)
        try:
            found = json.loads(published.file(trial, _CONFIG).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            trial.require(False, _("{name} cannot be read as JSON: {error}"), name=_CONFIG, error=str(error))
        trial.is_a(found, dict)
        wanted = {**published.facts, "labels": published.labels}
        missing = [name for name in wanted if name not in found]
        message = _("In {name} these are missing: {missing}.")
        trial.require(not missing, message, name=_CONFIG, missing=", ".join(missing))
        for name, value in wanted.items():
            message = _("In {file}, `{name}` is {found}, and not what was given.")
            same = type(found[name]) is type(value) and found[name] == value
            trial.require(same, message, expected=value, file=_CONFIG, name=name, found=show(found[name]))


@model_files.criterion(
    _("a card that the Hub can read"),
    points=0.25,
    why=_("Filters, the licence at the top of the page and the link to the base model come from these lines."),
)
def has_front_matter(trial: Trial, answer: Handle) -> None:
    for _case in range(2):
        published = _Published(trial, answer)
        front, _text = _card(trial, published)
        wanted = {name: published.facts[name] for name in ("base_model", "license", "language")}
        for name, value in {**wanted, "pipeline_tag": "text-classification"}.items():
            got = front.get(name)
            message = _("In the head of the card, `{name}` must be {value}.")
            listed = isinstance(got, list) and got == [value]  # the Hub takes a list of one as well
            trial.require(got == value or listed, message, expected=str(value), name=name, value=str(value))


@model_files.criterion(
    _("the numbers that were measured, with their interval"),
    points=0.25,
    why=_("A number that was typed in is true once, and nobody notices when it no longer is."),
)
def states_numbers(trial: Trial, answer: Handle) -> None:
    for _case in range(2):
        published = _Published(trial, answer)
        _front, text = _card(trial, published)
        for value in (published.accuracy, *published.interval):
            wanted = f"{100 * value:.1f}"
            message = _("The report says {value}, so the text of the card must say {wanted}.")
            if wanted.replace(".", ",") in text:
                message = _("The report says {value}: write {wanted}, with a point and not with a comma.")
            trial.require(_states(text, wanted), message, expected=f"{wanted} %", value=value, wanted=f"{wanted} %")
        message = _("The numbers in the text of the card do not say that they are percent: write {wanted}.")
        percent = re.search(r"%|percent|per cent|prozent", re.sub(r"(?<![\d.])95\s*%", "", text), re.IGNORECASE)
        trial.require(percent, message, wanted=f"{100 * published.accuracy:.1f} %")
        # Beside its three numbers a card may state others; but one with any number at all says nothing.
        drawn = trial.rng.choice(np.arange(510, 990), size=20, replace=False)
        stated = sum(_states(text, f"{number / 10:.1f}") for number in drawn)
        message = _("Of 20 numbers that were drawn at random, {count} stand in the text of the card: nobody can tell "
                    "which ones were measured.")  # fmt: skip
        trial.require(stated <= len(drawn) / 2, message, count=stated)


def _states(text: str, number: str) -> bool:
    """Whether a number stands in the text, and not as a part of another one."""
    return bool(re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", text))


def _card(trial: Trial, published: _Published) -> tuple[dict[str, Any], str]:
    """Read the card: what stands between the first two lines of three dashes, and the text after them."""
    try:
        card = published.file(trial, _CARD).decode("utf-8")
    except UnicodeDecodeError as error:
        trial.require(False, _("{name} is not text in UTF-8: {error}"), name=_CARD, error=str(error))
    parts = re.match(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n(.*))?\Z", card, flags=re.DOTALL)
    message = _("A card begins with a line `---`, then come lines of YAML, another line `---`, and the text.")
    trial.require(parts, message)
    assert parts is not None
    try:
        front = yaml.safe_load(parts[1])
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        trial.require(False, _("The head of the card cannot be read as YAML: {error}"), error=str(error))
    trial.require(isinstance(front, dict), message)
    return front, parts[2] or ""


def _files(
    model: Any,
    labels: list[str],
    facts: dict[str, Any],
    report: Any,
    *,
    kept: Callable[[str, Any], bool] = lambda _name, part: part.requires_grad,
    config: Callable[[dict[str, Any], list[str]], dict[str, Any]] = lambda facts, labels: {**facts, "labels": labels},
    front: bool = True,
    typed: bool = False,
    development: bool = False,
    without_interval: bool = False,
) -> dict[str, bytes]:
    """Make the files with faults on demand."""
    from safetensors import torch as safetensors

    weights = {name: part.detach().contiguous() for name, part in model.named_parameters() if kept(name, part)}
    head = {name: facts[name] for name in ("base_model", "license", "language")}
    head["pipeline_tag"] = "text-classification"
    numbers = [report.accuracy, *report.interval]
    if typed:
        numbers = [0.875, 0.8, 0.95]
    if development:
        numbers[0] = max(report.development)
    if without_interval:
        numbers = numbers[:1]
    text = ", ".join(f"{100 * number:.1f} %" for number in numbers)
    card = f"---\n{yaml.safe_dump(head)}---\n{text}\n" if front else f"# Model\n\n{text}\n"
    return {
        _WEIGHTS: safetensors.save(weights),
        _CONFIG: json.dumps(config(facts, labels)).encode(),
        _CARD: card.encode(),
    }


@model_files.misconception(_("numbers that were typed in"), factory=True)
def typed_in() -> Any:
    return partial(_files, typed=True)


@model_files.misconception(_("an accuracy without its interval"), factory=True)
def without_interval() -> Any:
    return partial(_files, without_interval=True)


@model_files.misconception(_("the development set's accuracy in place of the test set's"), factory=True)
def development_in_card() -> Any:
    return partial(_files, development=True)


@model_files.misconception(_("the labels are lost"), factory=True)
def labels_lost() -> Any:
    return partial(_files, config=lambda facts, _labels: facts)


@model_files.misconception(_("the labels in alphabetical order, which is not the model's"), factory=True)
def labels_sorted() -> Any:
    return partial(_files, config=lambda facts, labels: {**facts, "labels": sorted(labels)})


@model_files.misconception(_("the base model is lost"), factory=True)
def base_lost() -> Any:
    def config(facts: dict[str, Any], labels: list[str]) -> dict[str, Any]:
        return {**{name: value for name, value in facts.items() if name != "base_model"}, "labels": labels}

    return partial(_files, config=config)


@model_files.misconception(_("all weights saved, the frozen ones too"), factory=True)
def everything_saved() -> Any:
    return partial(_files, kept=lambda _name, _part: True)


@model_files.misconception(_("the adapter saved without the head"), factory=True)
def head_lost() -> Any:
    return partial(_files, kept=lambda name, part: part.requires_grad and not name.startswith("head"))


@model_files.misconception(_("the head saved without the adapter"), factory=True)
def adapter_lost() -> Any:
    return partial(_files, kept=lambda name, _part: name.startswith("head"))


@model_files.misconception(_("a card without the lines that the Hub reads"), factory=True)
def no_front_matter() -> Any:
    return partial(_files, front=False)


_FREE = "The text of the card is free, apart from its three numbers."
model_files.equivalent('"# Is the fault still open?",', '"",', reason=_FREE)
model_files.equivalent(
    "f\"A LoRA adapter for {facts['base_model']} that sorts messages: {', '.join(labels)}.\",",
    '"",',
    reason=_FREE,
)
