"""What a trial of training hands to an answer: small torch models, optimizers that take notes.

All of it is built on the answer's side with `answer.build("training", name, ...)`, and by the check itself where it
needs the same model. What is noted there can be forged there: it may gate points, never earn them.
"""

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class Bigram(nn.Module):
    """Scores the next token by the last one alone: a table of logits, and a bias of its own for every token.

    `seen` holds every batch of inputs. Raises ValueError for more than `context` tokens at once, as a model with
    positions would.
    """

    def __init__(self, table: Float[Tensor, "vocabulary vocabulary"], context: int) -> None:
        super().__init__()
        self.table = nn.Parameter(table.clone())
        self.bias = nn.Parameter(torch.zeros(len(table), dtype=table.dtype))
        self.context = context
        self.seen: list[Tensor] = []

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocabulary"]:
        """Return the logits of the token after each one."""
        if tokens.ndim != 2 or tokens.shape[1] > self.context:
            raise ValueError(f"[batch, time <= {self.context}], not {list(tokens.shape)}")
        self.seen.append(tokens.clone())
        return self.table[tokens] + self.bias


class SmallGPT(nn.Module):
    """A GPT of the usual kind: embeddings, pre-norm blocks, a final norm and a head.

    The blocks are torch's own: a submission can read what is here.
    """

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, context: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocabulary"]:
        """Return the logits of the token after each one."""
        time = tokens.shape[1]
        x = self.embedding(tokens) + self.position(torch.arange(time))
        mask = nn.Transformer.generate_square_subsequent_mask(time)
        logits: Tensor = self.head(self.norm(self.blocks(x, mask=mask, is_causal=True)))
        return logits


class SmallClassifier(nn.Module):
    """Sorts texts: an encoder of one block, the mean of its vectors over each text, and a head.

    In training some of the mean's numbers are hidden, as dropout does: always the same ones, so that a run can be
    repeated. If there are layers to be `shifted`, named as in a block, only their shifts and the head can be trained.
    """

    def __init__(
        self, vocabulary: int, width: int, labels: int, hidden: int = 0, shifted: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.encoder = _SmallEncoder(vocabulary, width, shifted)
        self.head = nn.Linear(width, labels)
        self.hidden = hidden
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not shifted or name.startswith("head.") or name.endswith(".shift"))

    def forward(self, ids: Int[Tensor, "batch time"], mask: Int[Tensor, "batch time"]) -> Float[Tensor, "batch labels"]:
        """Return a score for each label."""
        weights = mask.unsqueeze(-1).float()
        mean = (self.encoder(ids, mask) * weights).sum(dim=1) / weights.sum(dim=1)
        if self.training and self.hidden:
            mean = torch.cat([torch.zeros_like(mean[:, : self.hidden]), mean[:, self.hidden :]], dim=1)
        logits: Tensor = self.head(mean)
        return logits


class _SmallEncoder(nn.Module):
    """Two blocks whose layers are called as in BERT; among them some whose names only look alike."""

    def __init__(self, vocabulary: int, width: int, shifted: Collection[str]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.query = nn.Linear(width, width)
        self.layer = nn.ModuleList(_SmallBlock(width, shifted) for _block in range(2))
        self.outputs = nn.Linear(width, width)

    def forward(self, ids: Int[Tensor, "batch time"], mask: Int[Tensor, "batch time"]) -> Float[Tensor, "b t width"]:
        x: Tensor = self.query(self.embedding(ids))
        for block in self.layer:
            x = block(x, mask)
        out: Tensor = self.outputs(x)
        return out


class _SmallBlock(nn.Module):
    def __init__(self, width: int, shifted: Collection[str]) -> None:
        super().__init__()

        def linear(name: str) -> nn.Module:
            layer = nn.Linear(width, width)
            return Shifted(layer) if name in shifted else layer

        attention = ("query", "key", "value", "output")
        self.attention = nn.ModuleDict({name: linear(f"attention.{name}") for name in attention})
        self.prequery = linear("prequery")
        self.output = linear("output")
        self.value = nn.LayerNorm(width)  # no Linear, whatever its name

    def forward(self, x: Float[Tensor, "b t width"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b t width"]:
        query, key, value = (self.attention[name](x) for name in ("query", "key", "value"))
        seen = mask[:, None, :].bool()
        x = x + self.attention["output"](scaled_dot_product_attention(query, key, value, attn_mask=seen))
        out: Tensor = x + self.output(torch.nn.functional.gelu(self.prequery(self.value(x))))
        return out


class Shifted(nn.Module):
    """A frozen linear layer with one thing to train, a number for each output that is added to it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.shift = nn.Parameter(torch.zeros(base.out_features))

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Return the layer's output, shifted."""
        out: Tensor = self.base(x) + self.shift
        return out


class NotedSGD(torch.optim.SGD):
    """Plain gradient descent that notes, at every step, the rate of each group and the norm of all its gradients."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups)
        self.rates: list[list[float]] = []
        self.norms: list[float] = []

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take notes, then the step."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        gradients = [parameter.grad.flatten() for parameter in parameters if parameter.grad is not None]
        self.rates.append([float(group["lr"]) for group in self.param_groups])
        self.norms.append(float(torch.cat(gradients).norm()) if gradients else 0.0)
        super().step(closure)


class ScriptedEvaluation:
    """An `evaluate(model)` that returns the given values, one a call."""

    def __init__(self, values: list[float]) -> None:
        self.values = iter(values)

    def __call__(self, model: nn.Module) -> float:
        """Return the next value."""
        return next(self.values, 0.0)


def noted_sgd(model: nn.Module, rates: dict[str, float]) -> NotedSGD:
    """Return an optimizer with a group for each of these named parameters, with that peak rate."""
    parameters = dict(model.named_parameters())
    return NotedSGD([{"params": [parameters[name]], "lr": rate} for name, rate in rates.items()])


def linear(weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"] | None) -> nn.Linear:
    """Return a linear layer with these weights, and without a bias if there is none."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return layer


def shifting() -> type[Shifted]:
    """Return what wraps a layer: the class Shifted."""
    return Shifted


def report(development: list[float], epoch: int, accuracy: float, interval: tuple[float, float]) -> SimpleNamespace:
    """Return what a fine-tuning reports."""
    return SimpleNamespace(development=development, epoch=epoch, accuracy=accuracy, interval=interval)


def descend(module: nn.Module, inputs: list[Tensor], targets: Tensor, rate: float, steps: int) -> nn.Module:
    """Take steps of plain gradient descent with all of a module that is not frozen; return the module.

    The loss is the cross-entropy where targets are labels, else half the sum of squares.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for _step in range(steps):
        with torch.enable_grad():
            outputs = module(*inputs)
            if targets.is_floating_point():
                loss = 0.5 * ((outputs - targets) ** 2).sum()
            else:
                loss = torch.nn.functional.cross_entropy(outputs, targets)
            gradients = torch.autograd.grad(loss, trained, allow_unused=True) if loss.requires_grad else []
        with torch.no_grad():
            for parameter, gradient in zip(trained, gradients, strict=False):
                if gradient is not None:
                    parameter.sub_(rate * gradient)
    return module


def sgd(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Return plain gradient descent for all of a model that is not frozen."""
    return torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=rate)


def adamw(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Return AdamW for the whole model, with that peak rate."""
    return torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95))


def seeded(name: str, seed: int, **sizes: Any) -> nn.Module:
    """Build one of this module's models with weights that follow from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        # The weights are made on the CPU. Without a GPU, torch.manual_seed notes down who called it, file by file.
        torch.default_generator.manual_seed(seed)
        model: nn.Module = globals()[name](**sizes)
    return model


def generator(seed: int) -> torch.Generator:
    """Return a torch generator."""
    return torch.Generator().manual_seed(seed)
