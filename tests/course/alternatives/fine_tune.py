"""Second solutions of fine_tune's tasks, in other styles: one matrix, recursion, filling by hand, a card by hand."""

import json
import math
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor, Tensor]


class lora_linear(nn.Module):  # noqa: N801
    """Computes with the whole matrix each time, as torch's parametrizations do."""

    A: Tensor
    B: Tensor

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.register_parameter("B", nn.Parameter(base.weight.new_zeros(base.out_features, rank)))
        self.register_parameter("A", nn.Parameter(nn.init.kaiming_uniform_(torch.empty(rank, base.in_features))))
        self.inner, self.rank, self.alpha = base, rank, alpha
        for part in self.inner.parameters():
            part.requires_grad = False

    def weight(self) -> Tensor:
        return torch.addmm(self.inner.weight, self.B, self.A, alpha=self.alpha / self.rank)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight(), self.inner.bias)

    def merged(self) -> nn.Linear:
        outputs, inputs = self.inner.weight.shape
        bias = self.inner.bias
        plain = nn.Linear(inputs, outputs, bias=bias is not None)
        plain.weight.data = self.weight().detach().clone()
        if bias is not None:
            plain.bias.data = bias.detach().clone()
        return plain


def add_lora(model: Any, targets: Collection[str], wrap: Callable[[nn.Linear], nn.Module]) -> int:
    for part in model.parameters():
        part.requires_grad = False
    used: set[str] = set()

    def visit(module: nn.Module, path: list[str]) -> None:
        for name, child in list(module.named_children()):
            here = [*path, name]
            fitting = [target for target in targets if here[-len(target.split(".")) :] == target.split(".")]
            if isinstance(child, nn.Linear) and fitting:
                used.update(fitting)
                module._modules[name] = wrap(child)
            else:
                visit(child, here)

    visit(model.encoder, [])
    if set(targets) - used:
        raise ValueError(", ".join(set(targets) - used))
    count = 0
    for part in model.head.parameters():
        part.requires_grad = True
    for part in model.parameters():
        count += math.prod(part.shape) * part.requires_grad
    return count


def make_batches(texts: list[list[int]], labels: list[int], size: int, generator: torch.Generator) -> list[Batch]:
    chance = random.Random(int(torch.randint(2**31, (1,), generator=generator)))
    items = list(zip(texts, labels, strict=True))
    chance.shuffle(items)
    items.sort(key=lambda item: len(item[0]))
    batches = []
    while items:
        part, items = items[:size], items[size:]
        width = len(part[-1][0])
        rows = [text + [0] * (width - len(text)) for text, _label in part]
        masks = [[1] * len(text) + [0] * (width - len(text)) for text, _label in part]
        batches.append((torch.tensor(rows), torch.tensor(masks), torch.tensor([label for _text, label in part])))
    chance.shuffle(batches)
    return batches


@dataclass(frozen=True)
class Report:
    development: list[float]
    epoch: int
    accuracy: float
    interval: tuple[float, float]


def _accuracy(model: nn.Module, batches: list[Batch]) -> tuple[float, int]:
    model.train(False)
    right = count = 0
    with torch.inference_mode():
        for ids, mask, labels in batches:
            for row, seen, label in zip(ids, mask, labels, strict=True):
                right += int(model(row[None], seen[None])[0].argmax()) == int(label)
                count += 1
    return right / count, count


def fine_tune(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs: list[list[Batch]],
    development: list[Batch],
    test: list[Batch],
) -> Report:
    peaks = [group["lr"] for group in optimizer.param_groups]
    total, done = sum(map(len, epochs)), 0
    shares: list[float] = []
    snapshots = []
    for batches in epochs:
        model.train()
        for ids, mask, labels in batches:
            optimizer.zero_grad()
            log_probabilities = model(ids, mask).log_softmax(-1)
            loss = -log_probabilities[torch.arange(len(labels)), labels].mean()
            if not math.isfinite(loss.item()):
                raise FloatingPointError("no number")
            loss.backward()
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * (total - done) / total
            optimizer.step()
            done += 1
        shares.append(_accuracy(model, development)[0])
        snapshots.append({name: part.clone() for name, part in model.state_dict().items()})
    best = max(range(len(shares)), key=shares.__getitem__)
    model.load_state_dict(snapshots[best])
    p, n = _accuracy(model, test)
    z = 1.96
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Report(shares, best + 1, p, ((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)))


def model_files(model: nn.Module, labels: list[str], facts: dict[str, Any], report: Any) -> dict[str, bytes]:
    weights = {}
    for name, part in model.named_parameters():
        if part.requires_grad:
            weights[name] = part.data.clone()
    config = dict(facts)
    config["labels"] = list(labels)
    percent = [format(share, ".1%") for share in (report.accuracy, report.interval[0], report.interval[1])]
    head = {key: facts[key] for key in ("base_model", "license")} | {"pipeline_tag": "text-classification"}
    lines = ["---", *(f"{key}: {value}" for key, value in head.items()), "language:", f"- {facts['language']}", "---"]
    lines += ["", "| accuracy | from | to |", "| --- | --- | --- |", "| " + " | ".join(percent) + " |"]
    return {
        "README.md": bytes("\n".join(lines), "utf-8"),
        "config.json": bytes(json.dumps(config, ensure_ascii=False, indent=2), "utf-8"),
        "adapter.safetensors": safetensors.torch.save(weights),
    }
