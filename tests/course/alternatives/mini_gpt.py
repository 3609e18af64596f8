"""Second solutions of mini_gpt's tasks, in other styles: loops, einsum, one layer a head, schedules by hand."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    rows = []
    for time in range(query.shape[2]):
        seen = slice(0, time + 1)
        scores = torch.einsum("bhw,bhtw->bht", query[:, :, time], key[:, :, seen]) * query.shape[-1] ** -0.5
        weights = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
        weights = weights / weights.sum(dim=-1, keepdim=True)
        rows.append(torch.einsum("bht,bhtw->bhw", weights, value[:, :, seen]))
    return torch.stack(rows, dim=2)


class _Head(nn.Module):
    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, head_width)
        self.key = nn.Linear(width, head_width)
        self.value = nn.Linear(width, head_width)
        self.register_buffer("past", torch.ones(512, 512).tril())

    def forward(self, x: Tensor) -> Tensor:
        time = x.shape[1]
        scores = self.query(x) @ self.key(x).mT / math.sqrt(self.query.out_features)
        past = self.get_buffer("past")[:time, :time]
        out: Tensor = scores.masked_fill(past == 0, float("-inf")).softmax(-1) @ self.value(x)
        return out


class _Residual(nn.Module):
    def __init__(self, width: int, layer: nn.Module) -> None:
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(width), layer

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layer(self.norm(x))
        return out


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(_Head(width, width // heads) for _ in range(heads))
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)  # a block that begins as the identity

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.cat([head(x) for head in self.heads], dim=-1))
        return out


class transformer_block(nn.Sequential):  # noqa: N801
    def __init__(self, width: int, heads: int) -> None:
        mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        super().__init__(_Residual(width, _Attention(width, heads)), _Residual(width, mlp))


def bits_per_character(model: nn.Module, tokens: Tensor, characters: int, context: int = 64) -> float:
    """Score one token at a time, each with as long a past as the model takes."""
    model.eval()
    bits = torch.zeros((), dtype=torch.float64)
    with torch.inference_mode():
        for place in range(1, len(tokens)):
            past = tokens[max(0, place - context) : place]
            probabilities = model(past.unsqueeze(0))[0, -1].double().softmax(-1)
            bits -= probabilities[tokens[place]].log2()
    return float(bits / characters)


def train(
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    tokens: Tensor,
    evaluate: Callable[[nn.Module], float],
    *,
    steps: int,
    warm_up: int,
    batch_size: int = 16,
    context: int = 64,
    every: int = 50,
    generator: torch.Generator,
) -> list[tuple[int, float]]:
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    peaks = [group["lr"] for group in groups]
    windows = tokens.unfold(0, context + 1, 1)
    curve = []
    for done in range(1, steps + 1):
        progress = (done - 1 - warm_up) / (steps - warm_up)
        share = done / warm_up if done <= warm_up else math.cos(math.pi / 2 * progress) ** 2
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * share
        batch = windows[torch.randint(0, len(windows), (batch_size,), generator=generator)]
        log_probabilities = model(batch[:, :-1]).log_softmax(-1)
        loss = -log_probabilities.gather(-1, batch[:, 1:, None]).mean()
        loss.backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        length = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
        for gradient in gradients:
            gradient *= min(1.0, 1.0 / length)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if done == steps or done % every == 0:
            curve.append((done, float(evaluate(model))))
    return curve


def sample(
    next_logits: Callable[[list[int]], Tensor],
    draw: Callable[[Tensor], int],
    decode: Callable[[list[int]], str],
    prompt: list[int],
    *,
    max_tokens: int = 64,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: str | None = None,
) -> str:
    tokens = list(prompt)
    while len(tokens) < len(prompt) + max_tokens:
        scaled = (next_logits(tokens) / temperature).tolist()
        best = sorted(range(len(scaled)), key=scaled.__getitem__, reverse=True)[:top_k]
        shares = _shares({token: math.exp(scaled[token] - scaled[best[0]]) for token in best})
        if top_p is not None:
            kept: dict[int, float] = {}
            for token, share in shares.items():
                kept[token] = share
                if sum(kept.values()) >= top_p:
                    break
            shares = _shares(kept)
        tokens.append(draw(torch.tensor([shares.get(token, 0.0) for token in range(len(scaled))])))
        text = decode(tokens[len(prompt) :])
        if stop and (place := text.find(stop)) >= 0:
            return text[:place]
    return decode(tokens[len(prompt) :])


def _shares(weights: dict[int, float]) -> dict[int, Any]:
    total = sum(weights.values())
    return {token: weight / total for token, weight in weights.items()}
