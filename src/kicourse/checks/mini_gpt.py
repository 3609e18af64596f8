"""Checks of the unit mini_gpt: attention, a block, a measure, training, sampling."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import lazy_loader

from kicourse.checks import Check, Handle, Trial, _

np = lazy_loader.load("numpy")
torch = lazy_loader.load("torch")

UNIT = "mini_gpt"


def _normal(rng: Any, *shape: int) -> Any:
    """Draw a tensor of standard normal numbers."""
    return torch.from_numpy(rng.normal(size=shape)).float()


# causal_attention

causal_attention = Check(
    UNIT,
    "causal_attention",
    title=_("Causal attention"),
    hints=(
        _(
            "A position may look at itself and at what came before it. When must the others be ruled out: before the "
            "softmax, or after it?"
        ),
        _("Rule the future out before the softmax: a score of minus infinity becomes a weight of zero."),
        _(
            "`scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])`, then "
            "`scores.masked_fill(future, -math.inf).softmax(dim=-1) @ value`, where `future` is "
            "`torch.ones(time, time, dtype=torch.bool).triu(diagonal=1)`."
        ),
    ),
)


@causal_attention.criterion(
    _("the first position attends to itself"),
    why=_("The first position has no past: all that it can look at is itself."),
)
def sees_itself(trial: Trial, answer: Handle) -> None:
    for time in (4, 1):
        query, key, value = (_normal(trial.rng, 1, 2, time, 4) for _part in range(3))
        got = answer.allowing_nonfinite()(query, key, value)
        trial.array(got, value.shape, "tensor")
        message = _("The first position has one weight, 1, so its own value must come back (NaN: no weight at all).")
        trial.close(got[:, :, 0], value[:, :, 0], message)


@causal_attention.criterion(
    _("nothing from the future"),
    points=1,
    why=_("A model that sees its own target learns to copy it, and then cannot write."),
)
def sees_no_future(trial: Trial, answer: Handle) -> None:
    for time in (4, 2, 9):
        query, value = _normal(trial.rng, 1, 2, time, 4), _normal(trial.rng, 1, 2, time, 4)
        key = _normal(trial.rng, 1, 2, 1, 4).expand(-1, -1, time, -1).contiguous()
        got = answer(query, key, value)
        trial.array(got, value.shape, "tensor")
        seen = torch.arange(1, time + 1).view(time, 1)
        trial.close(
            got,
            value.cumsum(dim=-2) / seen,
            _("All keys are equal here, so each position must get the mean of the values up to its own."),
            atol=1e-5,
        )


@causal_attention.criterion(
    _("equals PyTorch's own attention"),
    points=1,
    why=_("Scores grow with the width of a head; divided by its square root they stay where the softmax can choose."),
)
def equals_torch(trial: Trial, answer: Handle) -> None:
    def draw(rng: Any, size: int) -> tuple[Any, ...]:
        shape, value_width = (1 + size % 2, 1 + size % 4, 1 + size // 2, 2 + size % 3), 2 + size % 5
        sharpness = (0, 1, 5, 30)[size % 4]  # without any sharpness all scores are 0, those of the past too
        return sharpness * _normal(rng, *shape), _normal(rng, *shape), _normal(rng, *shape[:-1], value_width)

    for query, key, value in trial.cases(draw, 16):
        got = answer(query, key, value)
        trial.array(got, value.shape, "tensor")
        expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        trial.close(got, expected, rtol=1e-3, atol=1e-4)
    # A score of 400 lies in the first position's future, and in the past of the last.
    query, key, value = torch.ones(1, 1, 3, 4), torch.zeros(1, 1, 3, 4), _normal(trial.rng, 1, 1, 3, 4)
    key[..., 1, :] = 200.0
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    trial.close(answer(query, key, value), expected, rtol=1e-3, atol=1e-4)


def _attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    scale: Callable[[Any], float] = lambda query: math.sqrt(query.shape[-1]),
    hidden_from: int = 1,
    after_softmax: bool = False,
    over: int = -1,
) -> Any:
    """Causal attention with faults on demand."""
    scores = query @ key.transpose(-2, -1) / scale(query)
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(diagonal=hidden_from)
    if after_softmax:
        return scores.softmax(dim=over).masked_fill(hidden, 0.0) @ value
    return scores.masked_fill(hidden, -math.inf).softmax(dim=over) @ value


@causal_attention.misconception(_("a mask that is applied after the softmax, so that the weights no longer sum to one"))
def masked_after_softmax(query: Any, key: Any, value: Any) -> Any:
    return _attention(query, key, value, after_softmax=True)


@causal_attention.misconception(_("a mask that hides the diagonal too, so that a position cannot see itself"))
def diagonal_hidden(query: Any, key: Any, value: Any) -> Any:
    return _attention(query, key, value, hidden_from=0)


@causal_attention.misconception(_("attention without a mask: every position sees the future"))
def unmasked(query: Any, key: Any, value: Any) -> Any:
    return _attention(query, key, value, hidden_from=query.shape[-2])


@causal_attention.misconception(_("scores that are divided by the square root of the model's width, not of the head's"))
def scaled_by_model_width(query: Any, key: Any, value: Any) -> Any:
    return _attention(query, key, value, scale=lambda query: math.sqrt(query.shape[1] * query.shape[-1]))


@causal_attention.misconception(_("scores that are not divided by the square root of the head's width"))
def unscaled(query: Any, key: Any, value: Any) -> Any:
    return _attention(query, key, value, scale=lambda _query: 1.0)


@causal_attention.misconception(_("a softmax over the queries instead of over the keys"))
def softmax_over_queries(query: Any, key: Any, value: Any) -> Any:
    return _attention(query, key, value, over=-2)


@causal_attention.misconception(
    _("the largest score looked for before the mask: if it lies in the future, nothing is left of the past")
)
def largest_before_mask(query: Any, key: Any, value: Any) -> Any:
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp().tril()
    return weights / weights.sum(dim=-1, keepdim=True) @ value


causal_attention.equivalent(
    "scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])",
    "scores = query @ key.transpose(2, -1) / math.sqrt(query.shape[-1])",
    reason="there are always four dimensions, so the last but one is number 2",
)
causal_attention.equivalent(
    "time = scores.shape[-1]", "time = scores.shape[-2]", reason="there are as many queries as keys"
)


# transformer_block

transformer_block = Check(
    UNIT,
    "transformer_block",
    title=_("A transformer block"),
    hints=(
        _("A block changes its input twice, and each time what is computed is added to what was there."),
        _(
            "`x = x + attention(norm(x))`, then `x = x + mlp(other_norm(x))`. Inside the attention, one linear layer "
            "gives queries, keys and values for all heads at once; the shapes have to become "
            "[batch, heads, time, head width]."
        ),
        _(
            "`self.query_key_value(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)` gives the three of "
            "them; after the attention, `.transpose(1, 2).flatten(-2)` puts the heads side by side again."
        ),
    ),
)

WIDTH = 16
FAR = 1_000.0
"""Scales an input so far up that what a block adds to it hardly changes its direction."""
TURN = 0.2
"""Above what rounding and the finite FAR can do to one head, and far below what four heads do."""


def _block(trial: Trial, answer: Handle, heads: int = 2) -> Handle:
    """Make a block whose matrices are drawn anew, so that nothing depends on how the answer initialises them."""
    block = answer.make(WIDTH, heads)
    parameters = block.probe("parameters")
    trial.is_a(parameters, dict)
    drawn = {
        name: _normal(trial.rng, *value.shape) * 1.5 / math.sqrt(value.shape[-1])
        for name, value in parameters.items()
        if hasattr(value, "shape") and value.ndim >= 2 and value.numel() < 100 * WIDTH**2
    }
    block.probe("set_parameters", drawn)
    return block


def _two_heads(trial: Trial, answer: Handle) -> Handle:
    """A block with two heads, whose matrices stay as they are: many criteria can share it."""
    return _block(trial, answer)


def _run(trial: Trial, block: Handle, x: Any) -> Any:
    got = block.probe("evaluate", x)
    trial.array(got, x.shape, "tensor")
    return got


def _added(trial: Trial, block: Handle, x: Any) -> Any:
    """What a block adds to an input that is far out, where a norm sees only the direction of x."""
    return _run(trial, block, FAR * x) - FAR * x


@transformer_block.criterion(
    _("each sequence of a batch by itself"),
    why=_("A batch is many texts side by side; what one says must not reach another."),
)
def keeps_sequences_apart(trial: Trial, answer: Handle) -> None:
    block = trial.once(_two_heads, answer)
    x = _normal(trial.rng, 3, 5, WIDTH)
    together = _run(trial, block, x)
    backwards = _run(trial, block, x.flip(0))
    message = _("The result of a sequence changes with its place in the batch, or with its neighbours.")
    trial.close(backwards.flip(0), together, message, rtol=1e-3, atol=1e-3)
    trial.close(_run(trial, block, x[:1]), together[:1], message, rtol=1e-3, atol=1e-3)


@transformer_block.criterion(
    _("a position knows its past and not its future"),
    points=0.5,
    why=_("In training every position of a text is a question at once: what comes next? None may see the answer."),
)
def is_causal(trial: Trial, answer: Handle) -> None:
    block = trial.once(_two_heads, answer)
    x = _normal(trial.rng, 2, 6, WIDTH)
    whole = _run(trial, block, x)
    for time in (1, 3):
        trial.close(
            _run(trial, block, x[:, :time].contiguous()),
            whole[:, :time],
            _("A position's result changes when later positions are taken away."),
            rtol=1e-3,
            atol=1e-3,
        )
    other = torch.cat([_normal(trial.rng, 2, 1, WIDTH), x[:, 1:]], dim=1)
    moved = (_run(trial, block, other) - whole)[:, -1].abs().max()
    trial.require(moved > 1e-3, _("The last position's result does not depend on the first position."))


@transformer_block.criterion(
    _("adds to its input, twice, after a norm"),
    points=0.5,
    gate=True,
    why=_("On the residual path gradients reach the first block undiminished; without it deep models do not train."),
)
def has_residual_path(trial: Trial, answer: Handle) -> None:
    block = trial.once(_two_heads, answer)
    x = _normal(trial.rng, 2, 4, WIDTH)
    message = _(
        "A thousand times the input must come back with about as much added as for two thousand times the input: "
        "what is added comes from a norm, which does not see the size. Check: `x = x + part(norm(x))`, twice."
    )
    added = _added(trial, block, x)
    trial.close(_added(trial, block, 2 * x), added, message, rtol=0.0, atol=0.5)
    trial.require(added.abs().max() > 0.1, _("The block gives back what comes in: nothing is added to it."))


@transformer_block.criterion(
    _("the heads look at different things"),
    points=0.5,
    why=_("Each head has scores and weights of its own: one may look for the last token, another for a bracket."),
)
def has_heads(trial: Trial, answer: Handle) -> None:
    blocks = {heads: _block(trial, answer, heads) for heads in (1, 4)}
    turned = {heads: _turn(trial, block) for heads, block in blocks.items()}
    trial.require(
        turned[1] < TURN,
        _("With one head, what a repeated token adds must only grow or shrink as it is repeated. Here it turns."),
    )
    trial.require(
        turned[4] > TURN,
        _("With four heads, the block behaves like one with a single head: all of them use the same weights."),
    )
    _require_attention(trial, blocks[4], WIDTH // 4)


def _require_attention(trial: Trial, block: Handle, head_width: int) -> None:
    """Require what attention adds to the last position, which sees all others, where all its matrices are alike.

    With the same vector in every row, no matter which rows are queries, keys, values or the projection, each head
    computes with the same numbers, one a position; the vector's sum is 1, so that the projection gives them back.
    """
    vector = _normal(trial.rng, WIDTH) / math.sqrt(WIDTH)
    vector += (1 - vector.sum()) / WIDTH
    shapes = {name: tuple(value.shape) for name, value in block.probe("parameters").items() if not (value == 1).all()}
    same = {name: torch.zeros(shape) for name, shape in shapes.items()}  # all but the scales of the norms, which are 1
    for value in same.values():
        if value.ndim == 2 and value.numel() < 4 * WIDTH**2:  # of the attention; the MLP adds nothing
            value += vector
    block.probe("set_parameters", same)
    x = _normal(trial.rng, 8, 6, WIDTH)
    x = (x - x.mean(dim=-1, keepdim=True)) / x.std(dim=-1, correction=0, keepdim=True)  # a norm leaves it as it is
    numbers = x @ vector
    weights = (numbers * numbers[:, -1:] * math.sqrt(head_width)).softmax(dim=-1)
    wanted = (weights * numbers).sum(dim=-1, keepdim=True)
    message = _(
        "The block's attention is another than `causal_attention`: it weighs by the products of queries and keys, "
        "divided by the square root of a head's width, and by nothing else, positions for instance."
    )
    added = (_run(trial, block, x) - x)[:, -1]
    trial.close(added, wanted.expand_as(added), message, rtol=0.0, atol=0.02)


def _turn(trial: Trial, block: Handle) -> float:
    """How far what a past of n equal tokens adds to the present turns as n grows: 0 if it keeps its direction.

    A head mixes two values here, the past's and the present's. One head moves along a line; several turn, because
    each weighs the past differently. The largest turn of several pairs of tokens counts.
    """
    past, present = _normal(trial.rng, 12, 1, WIDTH), _normal(trial.rng, 12, 1, WIDTH)
    alone = _added(trial, block, present)[:, -1]
    added = [
        _added(trial, block, torch.cat([past.expand(-1, times, -1), present], dim=1))[:, -1] - alone
        for times in (1, 8, 64)
    ]
    return float(torch.linalg.svdvals(torch.stack(added, dim=1))[:, 1].max())


@transformer_block.criterion(
    _("as many parameters as a block has, and each of them counts"),
    points=0,  # what parameters there are the answer's side alone knows: it opens the way to points, and earns none
    gate=True,
    why=_(
        "Attention has four matrices of width × width and the MLP two of width × 4 width, all with biases; each of the "
        "two norms has a scale and a shift of its own."
    ),
)
def counts_parameters(trial: Trial, answer: Handle) -> None:
    block, heads = trial.once(_two_heads, answer), 2
    x = _normal(trial.rng, 1, 5, WIDTH)
    gradients = block.probe("parameter_gradients", x, _normal(trial.rng, *x.shape))
    trial.is_a(gradients, dict)
    count, wanted = sum(gradient.numel() for gradient in gradients.values()), 12 * WIDTH**2 + 13 * WIDTH
    message = _("With width {width} your block has {count} parameters; {wanted} are expected.")
    trial.require(count == wanted, message, width=WIDTH, count=count, wanted=wanted)
    message = _(
        "Some rows of `{name}` get no gradient: a query, key or value is made and not used, or cut off from training."
    )
    for name, gradient in gradients.items():
        for rows in gradient.split(WIDTH // heads) if gradient.ndim == 2 else ():
            trial.require(rows.abs().max() > 1e-6, message, name=name)
    message = _("`{name}` gets no gradient: each of the two norms must be used, and none cut off from training.")
    for name, value in block.probe("parameters").items():
        is_used = gradients[name].abs().max() > 1e-6
        trial.require(is_used or not (value == 1).all(), message, name=name)  # ones: the scale of a norm


@transformer_block.criterion(
    _("an MLP with GELU that reads what the attention has added"),
    points=0.5,
    why=_("Two linear layers without a nonlinearity between them are one linear layer."),
)
def has_mlp(trial: Trial, answer: Handle) -> None:
    block = _block(trial, answer)
    x = _normal(trial.rng, 16, 1, WIDTH)
    moved = (_run(trial, block, x) - x - _added(trial, block, x)).abs().max()
    trial.require(
        moved > 0.05, _("The MLP reads what came in, without what the attention has added: it must take the new `x`.")
    )
    message = _("With the same number added to all of an input, something else is added to it: use `nn.LayerNorm`.")
    trial.close(_added(trial, block, x + 1), _added(trial, block, x), message, rtol=0.0, atol=0.5)
    message = _("While it trains, your block computes something else than afterwards: leave out dropout.")
    trial.close(block(x), _run(trial, block, x), message, rtol=1e-3, atol=1e-3)
    # The attention switched off, and every unit of the MLP the same: it sees the sum of the first two numbers.
    shapes = {name: tuple(value.shape) for name, value in block.probe("parameters").items()}
    one_unit = {name: torch.zeros(shape) for name, shape in shapes.items() if len(shape) == 2 or shape == (4 * WIDTH,)}
    for value in one_unit.values():
        if value.shape == (4 * WIDTH, WIDTH):
            value[:, :2] = 1.0
        elif value.shape == (WIDTH, 4 * WIDTH):
            value += 1 / (4 * WIDTH)
    block.probe("set_parameters", one_unit)
    x = (x - x.mean(dim=-1, keepdim=True)) / x.std(dim=-1, correction=0, keepdim=True)  # a norm leaves it as it is
    added = _added(trial, block, x)
    wanted = torch.nn.functional.gelu(x[..., :2].sum(dim=-1, keepdim=True))
    message = _("Between its two linear layers the MLP does not compute GELU, or not only GELU.")
    trial.close(added - added[:1], (wanted - wanted[:1]).expand_as(added), message, rtol=0.0, atol=0.005)


def _block_class(
    *,
    residual: bool = True,
    post_norm: bool = False,
    causal: bool = True,
    one_head: bool = False,
    linear: bool = False,
    mixes_batch: bool = False,
    one_norm: bool = False,
) -> Any:
    """Return a transformer block with faults on demand."""
    from torch import nn

    class TransformerBlock(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = 1 if one_head else heads
            self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
            self.query_key_value, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
            between = nn.Identity() if linear else nn.GELU()
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), between, nn.Linear(4 * width, width))

        def forward(self, x: Any) -> Any:
            layers: tuple[Callable[[Any], Any], ...] = (self.attention, self.mlp)
            norms = [self.norms[0]] * 2 if one_norm else self.norms
            for norm, layer in zip(norms, layers, strict=True):
                added = layer(x if post_norm else norm(x))
                x = x + added if residual else added
                x = norm(x) if post_norm else x
            return x

        def attention(self, x: Any) -> Any:
            parts = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))
            query, key, value = parts.permute(2, 1, 3, 0, 4) if mixes_batch else parts.permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
            mixed = mixed.permute(2, 0, 1, 3) if mixes_batch else mixed.transpose(1, 2)
            return self.projection(mixed.flatten(-2))

    return TransformerBlock


@transformer_block.misconception(_("a block without residual connections"), factory=True)
def without_residual() -> Any:
    return _block_class(residual=False)


@transformer_block.misconception(_("a block whose attention sees the future"), factory=True)
def leaking_future() -> Any:
    return _block_class(causal=False)


@transformer_block.misconception(_("a block that normalises after the addition, not before each layer"), factory=True)
def normalising_afterwards() -> Any:
    return _block_class(post_norm=True)


@transformer_block.misconception(_("a block that never splits its width into heads"), factory=True)
def with_one_head() -> Any:
    return _block_class(one_head=True)


@transformer_block.misconception(_("a block that uses its first norm twice, and the second one never"), factory=True)
def with_one_norm() -> Any:
    return _block_class(one_norm=True)


@transformer_block.misconception(_("a block whose MLP has no nonlinearity"), factory=True)
def with_linear_mlp() -> Any:
    return _block_class(linear=True)


@transformer_block.misconception(_("a block that attends along the batch instead of along time"), factory=True)
def attending_along_the_batch() -> Any:
    return _block_class(mixes_batch=True)


_LEARNED_ROLE = "which third of the linear layer is the query, key or value is only a name until it is trained"
for _swapped in ("key, query, value", "query, value, key"):
    transformer_block.equivalent(
        "mixed = causal_attention(query, key, value)", f"mixed = causal_attention({_swapped})", reason=_LEARNED_ROLE
    )
transformer_block.equivalent(
    "return self.projection(mixed.transpose(1, 2).flatten(-2))",
    "return self.projection(mixed.transpose(1, 2).flatten(2))",
    reason="there are always four dimensions, so the last but one is number 2",
)


# bits_per_character

bits_per_character = Check(
    UNIT,
    "bits_per_character",
    title=_("Bits per character"),
    hints=(
        _("Which tokens have something before them that the model can predict them from? Each of these counts once."),
        _(
            "Add up the losses of all windows (`reduction='sum'`), and divide once, at the end: by ln 2, because "
            "PyTorch's losses are in nats, and by the number of characters."
        ),
        _(
            "`for start in range(0, len(tokens) - 1, context)`: the window is `tokens[start : start + context + 1]`; "
            "its inputs are all but the last token, its targets all but the first."
        ),
    ),
)

VOCABULARY = 12


def _measure(trial: Trial, answer: Handle, length: int, characters: int, context: int) -> list[list[int]]:
    """Have a text measured; return the rows of places in it that the model was shown (-2: from outside)."""
    vocabulary = max(VOCABULARY, length)
    table = 2 * _normal(trial.rng, vocabulary, vocabulary)
    tokens = torch.from_numpy(trial.rng.permutation(vocabulary)[:length])  # no token comes twice
    model = answer.build("training", "Bigram", table, context)
    got = answer(model, tokens, characters, context=context)
    seen = model.attribute("seen").data()
    longest = max((part.shape[-1] for part in seen), default=0)
    message = _(
        "The model was asked about more tokens at once than the {context} that it takes: score the "
        "text window by window."
    )
    trial.require(longest <= context, message, context=context)
    nats = torch.nn.functional.cross_entropy(table[tokens[:-1]].double(), tokens[1:], reduction="sum")
    trial.close(got, float(nats) / math.log(2) / characters, rtol=1e-3)
    places = {token: place for place, token in enumerate(tokens.tolist())}
    return [[places.get(token, -2) for token in row] for batch in seen for row in batch.tolist()]


@bits_per_character.criterion(
    _("counts in bits"),
    points=0.25,
    why=_("A bit is one yes-or-no question. PyTorch's loss is in nats, and 1 nat is 1.44 bits."),
)
def counts_bits(trial: Trial, answer: Handle) -> None:
    _measure(trial, answer, length=5, characters=4, context=8)


@bits_per_character.criterion(
    _("per character, not per token"),
    points=0.25,
    why=_("Tokens differ from model to model, characters do not: only per character can models be compared."),
)
def counts_characters(trial: Trial, answer: Handle) -> None:
    _measure(trial, answer, length=9, characters=int(trial.rng.integers(20, 40)), context=8)


@bits_per_character.criterion(
    _("every token but the first counts once"),
    points=0.5,
    why=_("A text rarely ends where a window does. What falls between two windows is part of the text too."),
)
def counts_every_token(trial: Trial, answer: Handle) -> None:
    for length, context in ((17, 8), (24, 8), (18, 8), (2, 8), (200, 3)):
        shown = _measure(trial, answer, length, characters=3 * length, context=context)
        _require_past(trial, shown, length - 1, context)


def _require_past(trial: Trial, shown: list[list[int]], count: int, context: int) -> None:
    """Require that the model was shown about as much past as in windows side by side, for the mean of `count` tokens.

    Not for each of them: windows that slide give some a shorter past and most a longer one. And windows that are one
    token shorter, because the last target counts as a part of them, are no mistake.
    """
    longest = [0] * count
    for row in shown:
        past = 0
        for before, place in zip([-2, *row], row, strict=False):
            past = past + 1 if place == before + 1 else 1
            if 0 <= place < count:
                longest[place] = max(longest[place], past)
    wanted = sum(place % (context - 1) + 1 for place in range(count))
    message = _(
        "The past from which a token was predicted has a mean length of {found} tokens; with windows of {context} "
        "tokens side by side it has {wanted}. Fill each window up to `context`."
    )
    side_by_side = sum(place % context + 1 for place in range(count)) / count
    trial.require(sum(longest) >= wanted, message, found=sum(longest) / count, context=context, wanted=side_by_side)


def _bits(
    model: Any,
    tokens: Any,
    characters: int,
    context: int = 64,
    *,
    unit: float = math.log(2),
    per_token: bool = False,
    stride: int = 0,
    whole_windows: bool = False,
    mean_of_means: bool = False,
    mean: bool = False,
    shift: int = 1,
    overlap: int = 1,
) -> float:
    """Bits per character with faults on demand. `stride` is added to the context between two windows."""
    losses = []
    for start in range(0, len(tokens) - 1, context + stride):
        window = tokens[start : start + context + overlap]
        if len(window) < 2 or (whole_windows and len(window) <= context and start):
            continue
        with torch.no_grad():
            logits = model(window[None, :-1])[0]
        targets = window[shift : shift + len(logits)]
        losses.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
    total = float(torch.cat(losses).mean() if mean else torch.cat(losses).sum())
    if mean_of_means:
        total = float(torch.stack([loss.mean() for loss in losses]).mean()) * (len(tokens) - 1)
    return total / unit / (len(tokens) - 1 if per_token else characters)


@bits_per_character.misconception(_("nats per character: the loss was not divided by ln 2"))
def nats(model: Any, tokens: Any, characters: int, context: int = 64) -> float:
    return _bits(model, tokens, characters, context, unit=1.0)


@bits_per_character.misconception(_("bits per token"))
def per_token(model: Any, tokens: Any, characters: int, context: int = 64) -> float:
    return _bits(model, tokens, characters, context, per_token=True)


@bits_per_character.misconception(_("a measure in which each token is its own target: targets start one later"))
def not_shifted(model: Any, tokens: Any, characters: int, context: int = 64) -> float:
    return _bits(model, tokens, characters, context, shift=0)


@bits_per_character.misconception(_("a mean of the losses instead of their sum (`reduction='sum'`)"))
def mean_of_losses(model: Any, tokens: Any, characters: int, context: int = 64) -> float:
    return _bits(model, tokens, characters, context, mean=True)


_GAPS = _("windows that do not overlap by one token, so that the first of each is not scored")


@bits_per_character.misconception(_GAPS)
def windows_without_overlap(model: Any, tokens: Any, characters: int, context: int = 64) -> float:
    return _bits(model, tokens, characters, context, overlap=0)


@bits_per_character.misconception(_GAPS)
def between_windows(model: Any, tokens: Any, characters: int, context: int = 64) -> float:
    return _bits(model, tokens, characters, context, stride=1)


@bits_per_character.misconception(_("whole windows only, so that the end of the text is not scored"))
def tail_lost(model: Any, tokens: Any, characters: int, context: int = 64) -> float:
    return _bits(model, tokens, characters, context, whole_windows=True)


@bits_per_character.misconception(_("a mean of the windows' means, in which a short last window weighs too much"))
def mean_of_means(model: Any, tokens: Any, characters: int, context: int = 64) -> float:
    return _bits(model, tokens, characters, context, mean_of_means=True)


for _end in ("len(tokens) + 1", "len(tokens) - 0"):
    bits_per_character.equivalent(
        "for start in range(0, len(tokens) - 1, context):",
        f"for start in range(0, {_end}, context):",
        reason="a further window would hold no question, so it adds nothing",
    )


# train

train = Check(
    UNIT,
    "train",
    title=_("Training"),
    hints=(
        _(
            "One step: draw windows, ask the model about all positions at once, compare with the token after each "
            "one, improve. Print the shapes of inputs and targets, and look at one row of both."
        ),
        _(
            "A window has `context + 1` tokens: the inputs are all but its last, the targets all but its first. Then "
            "clear the gradients, compute them with `backward`, clip, step. `torch.optim.lr_scheduler.LambdaLR` "
            "multiplies the rates of an optimizer by a factor that depends on the step: `optimizer.step()` first, "
            "then `schedule.step()`."
        ),
        _(
            "`starts = torch.randint(len(tokens) - context, (batch_size, 1), generator=generator)`, "
            "`windows = tokens[starts + torch.arange(context + 1)]`, "
            "`loss = F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())`; "
            "after `loss.backward()`, `nn.utils.clip_grad_norm_(model.parameters(), 1.0)`."
        ),
    ),
    seconds=60,
)

SUBJECTS, WORDS, DOCUMENT = 8, 64, 128
STEPS, CONTEXT, BATCH = 150, 64, 16
SIZES = {"vocabulary": WORDS, "width": 32, "layers": 1, "heads": 2, "context": CONTEXT}
ENOUGH = 240
"""Windows. That none of so many begins in some tenth of a text happens once in some billion runs."""
ROOM = 0.1
"""Bits per token by which a trained model must beat the 3-gram. The reference beats it by 0.4."""


@train.criterion(
    _("draws windows of the text"),
    why=_("Random windows show the model every place of the text, and in another order than it was written."),
)
def draws_windows(trial: Trial, answer: Handle) -> None:
    tokens = torch.from_numpy(trial.rng.permutation(200))
    for length, steps, batch_size, context in ((200, 6, 40, 8), (200, 8, 3, 5), (10, 4, 8, 8)):
        part = tokens[:length]
        seen, again, otherwise = (_watched(answer, part, [], steps, batch_size, context, seed)[1] for seed in (7, 7, 8))
        starts = [
            start
            for run in (seen, otherwise)
            for start in _require_windows(trial, run, part, (batch_size, context), steps)
        ]
        later = sum(start > (length - context - 1) / 2 for start in starts)
        message = _(
            "Of {count} windows {later} begin in the second half of the text. Every place where a window fits must "
            "have the same chance to be its start."
        )
        # Chance never makes it a quarter more or less than half, where there are as many.
        even = len(starts) < 2 * ENOUGH or abs(later / len(starts) - 0.5) < 0.125
        trial.require(even, message, count=len(starts), later=later)
        trial.require(
            len(seen) == len(again) and all(torch.equal(one, other) for one, other in zip(seen, again, strict=True)),
            _("Two runs with equal generators drew different windows: draw with `generator`."),
        )
        trial.require(
            any(not torch.equal(one, other) for one, other in zip(seen, otherwise, strict=False)),
            _("Two runs with different generators drew the same windows: draw with `generator`."),
        )


def _watched(
    answer: Handle, tokens: Any, values: list[float], steps: int, batch_size: int, context: int, seed: int = 7
) -> Any:
    """Train a table; return the curve and every batch that it saw."""
    model = answer.build("training", "Bigram", torch.zeros(200, 200), context)
    optimizers = [answer.build("training", "noted_sgd", model, {name: 0.1}) for name in ("table", "bias")]
    curve = answer(
        model,
        optimizers,
        tokens,
        answer.build("training", "ScriptedEvaluation", values),
        steps=steps,
        warm_up=2,
        batch_size=batch_size,
        context=context,
        every=4,
        generator=answer.build("training", "generator", seed),
    )
    return curve, model.attribute("seen").data()


def _require_windows(trial: Trial, seen: Any, tokens: Any, shape: tuple[int, int], steps: int) -> list[int]:
    """Require that these are windows of the text, from all of it; return where they start."""
    trial.require(
        len(seen) == steps, _("The model was asked {count} times in {steps} steps."), count=len(seen), steps=steps
    )
    places = {int(token): place for place, token in enumerate(tokens)}  # no token comes twice
    starts = []
    for batch in seen:
        trial.array(batch, shape, "tensor")
        for row in batch:
            start = places.get(int(row[0]), -1)
            trial.require(
                torch.equal(row, tokens[start : start + shape[1]]),
                _("A row of the inputs must be {context} neighbouring tokens of the text."),
                context=shape[1],
            )
            starts.append(start)
    last = len(tokens) - shape[1] - 1
    trial.require(
        len(set(starts)) > min(steps, last),
        _("The windows must start at places drawn at random from the whole text, 0 to {last}; these: {starts}."),
        last=last,
        starts=str(sorted(set(starts))[:10]),
    )
    message = _(
        "{count} windows were drawn, and none of them begins at one of the places {first} to {last}. Every place where "
        "a window fits must have the same chance to be its start."
    )
    for places in np.array_split(np.arange(last + 1), 10) if len(starts) >= ENOUGH else ():
        named = {"first": int(places[0]), "last": int(places[-1])}
        trial.require(np.isin(places, starts).any(), message, count=len(starts), **named)
    return starts


@train.criterion(
    _("takes the right gradient in every step"),
    gate=True,
    why=_("The target of each position is the token after it. Gradients add up in PyTorch until they are cleared."),
)
def takes_the_gradient(trial: Trial, answer: Handle) -> None:
    tokens = torch.from_numpy(trial.rng.integers(0, 6, size=9))
    _require_gradients(trial, answer, tokens, 0.1 * _normal(trial.rng, 6, 6))
    tokens, table, steps = torch.from_numpy(trial.rng.permutation(40)), 0.1 * _normal(trial.rng, 40, 40), 5
    _rates, norms, seen = _notes(answer, tokens, table, [{"table": 0.0, "bias": 0.0}], steps, warm_up=2)
    after = torch.zeros_like(tokens)  # what follows each token: none comes twice
    after[tokens[:-1]] = tokens[1:]
    wanted = [_gradient_norm(table, batch, after[batch]) for batch in seen]
    message = _("In each of {steps} steps, the gradient must be that of the mean loss over all windows of the batch.")
    trial.close(norms[0], wanted, message, rtol=2e-3, steps=steps)


def _require_gradients(trial: Trial, answer: Handle, tokens: Any, table: Any) -> None:
    """Require the norm of the gradients in each step, on a text of one window and with rates of zero."""
    steps = 5
    rates, norms, _seen = _notes(answer, tokens, table, [{"table": 0.0}, {"bias": 0.0}], steps, warm_up=2)
    for noted in norms:
        message = _("One of two optimizers took {count} steps of {steps}.")
        trial.require(len(noted) == steps, message, count=len(noted), steps=steps)
    trial.require(
        not np.any(rates),
        _("The peak rate of the optimizers is 0 here, so 0 times the factor must be their rate; yours had another."),
    )
    norm = _gradient_norm(table, tokens[None, :-1], tokens[None, 1:])
    message = _(
        "The text is one window, and the rates are zero, so the gradients that reach the optimizers must have "
        "the same norm in each of the {steps} steps: {wanted} here ({norm} before clipping)."
    )
    total = [math.hypot(*pair) for pair in zip(*norms, strict=True)]
    trial.close(total, [min(norm, 1.0)] * steps, message, rtol=2e-3, steps=steps, wanted=min(norm, 1.0), norm=norm)


def _notes(
    answer: Handle, tokens: Any, table: Any, peaks: list[dict[str, float]], steps: int, warm_up: int
) -> tuple[list[Any], list[list[float]], Any]:
    """Train a table with these optimizers, given by the peak rates of their groups.

    Return the rates [step][group] and the gradient norms [step] of each of them, and the batches that the table saw.
    """
    context = 8
    model = answer.build("training", "Bigram", table, context)
    watched = [answer.build("training", "noted_sgd", model, rates) for rates in peaks]
    answer(
        model,
        watched,
        tokens,
        answer.build("training", "ScriptedEvaluation", [1.0]),
        steps=steps,
        warm_up=warm_up,
        batch_size=3,
        context=context,
        every=steps,
        generator=answer.build("training", "generator", 7),
    )
    noted = [[optimizer.attribute(name).data() for optimizer in watched] for name in ("rates", "norms")]
    return noted[0], noted[1], model.attribute("seen").data()


def _gradient_norm(table: Any, inputs: Any, targets: Any) -> float:
    from kicourse.answers.training import Bigram

    with torch.enable_grad():
        model = Bigram(table, inputs.shape[1])
        torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return float(torch.cat([gradient.flatten() for gradient in gradients]).norm())


@train.criterion(
    _("evaluates on the way, and keeps a curve"),
    points=0.25,
    why=_("A curve shows in time that something goes wrong."),
)
def keeps_a_curve(trial: Trial, answer: Handle) -> None:
    for steps in (6, 8):
        values = [float(value) for value in trial.rng.uniform(1, 5, size=2)]
        curve, _seen = _watched(answer, torch.arange(20), values, steps, batch_size=2, context=5)
        got = [tuple(point) for point in curve] if isinstance(curve, list) else curve
        message = _("The curve must hold (finished steps, evaluation) after every 4 steps and after the last.")
        trial.equal(got, [(4, values[0]), (steps, values[1])], message)


@train.criterion(
    _("the model learns: it beats the 2-gram on new text"),
    points=1.75,
    why=_("Held-out text is the only proof that a model has learned a language and not a text."),
)
def learns(trial: Trial, answer: Handle) -> None:
    bits = trial.once(_trained, answer)
    _require_better(trial, bits, 2, 0.0)


@train.criterion(
    _("clips, warms up, then follows a cosine to zero"),
    gate=True,
    why=_(
        "One wild batch must not throw the model off: clipping bounds the norm of all gradients together by 1. Large "
        "steps early wreck what is still random; small steps at the end settle the details."
    ),
)
def bounds_its_steps(trial: Trial, answer: Handle) -> None:
    surprised = torch.zeros(6, 6)
    surprised[0, 1] = 20.0
    _require_gradients(trial, answer, torch.zeros(9, dtype=torch.int64), surprised)
    tokens = torch.from_numpy(trial.rng.integers(0, 6, size=40))
    optimizers = [{"table": 0.5}, {"bias": 0.01}], [{"table": 0.5, "bias": 0.01}]
    for steps, warm_up, peaks in ((12, 4, optimizers[0]), (9, 1, optimizers[1])):
        rates, _norms, _seen = _notes(answer, tokens, torch.zeros(6, 6), peaks, steps, warm_up)
        for noted, groups in zip(rates, peaks, strict=True):
            for got, peak in zip(zip(*noted, strict=True), groups.values(), strict=True):
                wanted = [peak * _factor(step, steps, warm_up) for step in range(steps)]
                message = _(
                    "These are the rates of one parameter group of an optimizer at each of {steps} steps, {warm_up} of "
                    "them to warm up."
                )
                trial.close(list(got), wanted, message, rtol=1e-3, atol=1e-9, steps=steps, warm_up=warm_up)


@train.criterion(
    _("beats the 3-gram on new text"),
    points=1,
    why=_("A 3-gram sees two tokens. Attention that was trained well sees what a whole text is about."),
)
def beats_the_3_gram(trial: Trial, answer: Handle) -> None:
    bits = trial.once(_trained, answer)
    _require_better(trial, bits, 3, ROOM)


def _require_better(trial: Trial, bits: dict[str, float], order: int, room: float) -> None:
    trial.require(
        bits["model"] <= bits[str(order)] - room,
        _("After {steps} steps the model needs {got} bits a token on new text; the {order}-gram needs {baseline}."),
        expected=f"<= {bits[str(order)] - room:.2f}",
        steps=STEPS,
        got=bits["model"],
        order=order,
        baseline=bits[str(order)],
    )


def _trained(trial: Trial, answer: Handle) -> dict[str, float]:
    """Train a small GPT on a language made up a moment ago; measure its weights here, on text that it never met."""
    from kicourse.data.ngram import NGram

    text = _made_up_language(trial.rng, 1_100)
    training, held_out = text[: 1_000 * DOCUMENT], text[1_000 * DOCUMENT :]
    seed = int(trial.rng.integers(2**31))
    model = answer.build("training", "seeded", "SmallGPT", seed, **SIZES)
    answer(
        model,
        [answer.build("training", "adamw", model, 1e-2)],
        torch.from_numpy(training),
        answer.build("training", "ScriptedEvaluation", [1.0]),
        steps=STEPS,
        warm_up=15,
        batch_size=BATCH,
        context=CONTEXT,
        every=STEPS,
        generator=answer.build("training", "generator", seed),
    )
    bits = {str(order): float(NGram.fit(training, order, WORDS).bits(held_out).mean()) for order in (2, 3)}
    bits["model"] = _bits_per_token(trial, model.probe("state_dict"), torch.from_numpy(held_out))
    return bits


def _made_up_language(rng: Any, documents: int) -> Any:
    """Write documents, each about one of a few subjects that have their own favourite words.

    A few tokens hardly tell the subject; a whole window does.
    """
    favourites = rng.dirichlet(np.full(WORDS, 0.2), size=SUBJECTS)
    subjects = rng.integers(SUBJECTS, size=documents)
    return np.concatenate([rng.choice(WORDS, size=DOCUMENT, p=favourites[subject]) for subject in subjects])


def _bits_per_token(trial: Trial, weights: Any, tokens: Any) -> float:
    from kicourse.answers.training import SmallGPT

    model = SmallGPT(**SIZES)
    try:
        model.load_state_dict(weights)
    except (AttributeError, RuntimeError, TypeError) as error:
        trial.require(False, _("The model that came back is not the one that was sent: {error}"), error=str(error))
    windows = tokens[: len(tokens) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    with torch.no_grad():
        logits = model(windows[:, :-1])
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())) / math.log(2)


def _factor(step: int, steps: int, warm_up: int) -> float:
    """The share of the peak rate that a step has."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def _training(
    model: Any,
    optimizers: Any,
    tokens: Any,
    evaluate: Any,
    *,
    steps: int,
    warm_up: int,
    batch_size: int = 16,
    context: int = 64,
    every: int = 100,
    generator: Any,
    shift: int = 1,
    clears: bool = True,
    clips: bool = True,
    windows_scored: int | None = None,
    factor: Callable[[int, int, int], float] = _factor,
) -> list[tuple[int, float]]:
    """Training with faults on demand."""
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    curve = []
    for step in range(steps):
        starts = torch.randint(len(tokens) - context, (batch_size, 1), generator=generator)
        windows = tokens[starts + torch.arange(context + 1)]
        inputs, targets = windows[:, :-1], windows[:, shift : shift + context]
        logits, targets = model(inputs)[:windows_scored], targets[:windows_scored]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        if clears:
            model.zero_grad()
        loss.backward()
        if clips:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, rates in zip(optimizers, peaks, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor(step, steps, warm_up)
            optimizer.step()
        if (step + 1) % every == 0 or step + 1 == steps:
            curve.append((step + 1, evaluate(model)))
    return curve


@train.misconception(
    _("training in which each token is its own target: the loss falls impossibly low, and the model learns to copy"),
    factory=True,
)
def targets_not_shifted() -> Any:
    return partial(_training, shift=0)


@train.misconception(
    _("training in which the gradients of all steps add up, because they are not cleared"), factory=True
)
def gradients_not_cleared() -> Any:
    return partial(_training, clears=False)


@train.misconception(
    _("training whose gradients are not clipped by their norm, all together, between `backward` and `step`"),
    factory=True,
)
def gradients_not_clipped() -> Any:
    return partial(_training, clips=False)


@train.misconception(_("a loss of the first window of each batch alone"), factory=True)
def one_window_scored() -> Any:
    return partial(_training, windows_scored=1)


@train.misconception(_("training at a constant rate"), factory=True)
def constant_rate() -> Any:
    return partial(_training, factor=lambda _step, _steps, _warm_up: 1.0)


@train.misconception(_("a cosine without a warm-up"), factory=True)
def without_warm_up() -> Any:
    return partial(_training, factor=lambda step, steps, _warm_up: _factor(step, steps, 0))


# sample

sample = Check(
    UNIT,
    "sample",
    title=_("Sampling"),
    hints=(
        _(
            "One loop: score, draw, append. What is drawn from changes with temperature, top-k and top-p, one after "
            "the other."
        ),
        _(
            "For top-p, sort the probabilities from high to low. A token stays if those before it do not yet sum to "
            "`top_p`; so the one that crosses the line stays too. Decode all new tokens together, every time."
        ),
        _(
            "`ordered, order = probabilities.sort(descending=True)`, `before = ordered.cumsum(0) - ordered`, "
            "`probabilities[order[before >= top_p]] = 0`, then divide by the sum. For the stop string: "
            "`if stop is not None and stop in text: return text.split(stop)[0]`."
        ),
    ),
)

PIECES = (
    "x",
    " = ",
    "pump",
    "\n",
    "\n\n",
    "def ",
    "(",
    "):",
    "    ",
    "re",
    "turn",
    " tur",
    "n\n",
    "\nre",
    "1",
    "\n\nx\n\n(",
)


def _sampled(trial: Trial, answer: Handle, logits: list[Any], drawn: list[int], **settings: Any) -> Any:
    """Let the answer write, with scripted scores and draws; return its text, what it asked, what it drew from."""
    asked: list[list[int]] = []
    distributions: list[Any] = []

    def next_logits(tokens: Any) -> Any:
        asked.append([int(token) for token in tokens])
        return logits[(len(asked) - 1) % len(logits)]

    def draw(probabilities: Any) -> int:
        distributions.append(probabilities)
        return drawn[len(distributions) - 1] if len(distributions) <= len(drawn) else 0

    decode = settings.pop("decode", _joined)
    prompt = settings.pop("prompt", [0, 1])
    text = answer(next_logits, draw, decode, prompt, **settings)
    for probabilities in distributions:
        trial.require(
            tuple(getattr(probabilities, "shape", ())) == (len(PIECES),),
            _("`draw` takes one probability for each of the {count} tokens, in their order, as a tensor."),
            count=len(PIECES),
        )
        message = _("No token was left, and divided by the sum 0 they become NaN. The most probable one always stays.")
        trial.require(not torch.as_tensor(probabilities).isnan().any(), message)
    return text, asked, distributions


def _joined(tokens: Any) -> str:
    return "".join(PIECES[int(token)] for token in tokens)


def _scores(trial: Trial) -> Any:
    """Draw scores whose probabilities are clearly apart, so that no rank and no sum is a matter of rounding."""
    gaps = trial.rng.uniform(0.3, 1.0, size=len(PIECES)).cumsum()
    return torch.from_numpy(trial.rng.permutation(gaps)).float()


def _distribution(logits: Any, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Any:
    """The oracle: temperature, then top-k, then top-p."""
    probabilities = np.exp((logits.double().numpy() - float(logits.max())) / temperature)
    order = np.argsort(-probabilities)
    probabilities[order[len(order) if top_k is None else top_k :]] = 0
    probabilities /= probabilities.sum()
    if top_p is not None:
        before = np.concatenate([[0.0], probabilities[order].cumsum()[:-1]])
        probabilities[order[before >= top_p]] = 0
    return probabilities / probabilities.sum()


def _require_distributions(trial: Trial, answer: Handle, message: str, settings: list[dict[str, Any]]) -> None:
    """Require that one token is drawn from the right distribution, for each of the settings."""
    for kept in settings:
        logits = _scores(trial)
        _text, _asked, distributions = _sampled(trial, answer, [logits], [2], max_tokens=1, **kept)
        trial.require(len(distributions) == 1, _("`draw` must be called once for each token."))
        expected = _distribution(logits, **kept)
        named = ", ".join(f"{name}={value}" for name, value in kept.items())
        trial.close(distributions[0], expected, message, rtol=1e-3, atol=1e-5, settings=named)


@sample.criterion(
    _("writes token by token"),
    points=0.5,
    why=_("A GPT only ever answers one question: what comes next? Its own answer is part of the next question."),
)
def writes(trial: Trial, answer: Handle) -> None:
    for count, length in ((1, 3), (0, 3), (4, 80)):
        drawn = [int(token) for token in trial.rng.integers(0, len(PIECES), size=count)]
        logits = [_scores(trial) for _token in range(max(count, 1))]
        prompt = [int(token) for token in trial.rng.integers(0, len(PIECES), size=length)]
        text, asked, distributions = _sampled(trial, answer, logits, drawn, prompt=prompt, max_tokens=count)
        wanted = [prompt + drawn[:place] for place in range(count)]
        trial.equal(asked, wanted, _("`next_logits` must be asked with the prompt and everything drawn so far."))
        for got, scores in zip(distributions, logits, strict=False):
            trial.close(got, _distribution(scores), _("Draw from the softmax of the scores."), rtol=1e-3)
        trial.require(len(distributions) == count, _("`draw` must be called once for each token."))
        trial.equal(text, _joined(drawn), _("Return the new text, without the prompt."))
    umlaut = list("Größe".encode())
    text, _asked, _distributions = _sampled(
        trial,
        answer,
        [_scores(trial)],
        umlaut,
        max_tokens=len(umlaut),
        decode=lambda tokens: bytes(int(token) for token in tokens).decode(errors="replace"),
    )
    trial.equal(text, "Größe", _("A character can be spread over two tokens: decode the new tokens together."))


@sample.criterion(
    _("temperature"),
    points=0.25,
    why=_("The scores are divided by the temperature: below 1 the model is surer than it was, above 1 bolder."),
)
def uses_temperature(trial: Trial, answer: Handle) -> None:
    message = _("With {settings} the token was drawn from another distribution.")
    _require_distributions(trial, answer, message, [{"temperature": 0.5}, {"temperature": 2.0}, {"temperature": 0.1}])


@sample.criterion(
    _("top-k"),
    points=0.25,
    why=_("Thousands of unlikely tokens are together likely enough to spoil a text. Top-k cuts them off."),
)
def uses_top_k(trial: Trial, answer: Handle) -> None:
    message = _("With {settings} the token was drawn from another distribution.")
    _require_distributions(trial, answer, message, [{"top_k": count} for count in (1, 2, 5, len(PIECES), 99)])


@sample.criterion(
    _("top-p"),
    points=0.5,
    why=_(
        "Top-p keeps the fewest tokens that together are at least that likely, so the one that crosses the line too."
    ),
)
def uses_top_p(trial: Trial, answer: Handle) -> None:
    message = _("With {settings} the token was drawn from another distribution.")
    _require_distributions(trial, answer, message, [{"top_p": share} for share in (0.97, 0.8, 0.55, 0.3, 0.01, 1.0)])


@sample.criterion(
    _("first temperature, then top-k, then top-p"),
    points=0.25,
    why=_("Top-p sums probabilities, so it matters what was scaled and cut off before."),
)
def keeps_the_order(trial: Trial, answer: Handle) -> None:
    message = _("With {settings} the token was drawn from another distribution.")
    settings: list[dict[str, Any]] = [
        {"top_k": 3, "top_p": 0.75},
        {"temperature": 3.0, "top_p": 0.5},
        {"temperature": 4.0, "top_k": 4, "top_p": 0.6},
        {"temperature": 0.7, "top_k": 6, "top_p": 0.9},
    ]
    _require_distributions(trial, answer, message, settings)


@sample.criterion(
    _("ends before the stop string"),
    points=0.25,
    why=_(
        "A stop string rarely begins where a token does. And every token drawn after it is paid for and thrown away."
    ),
)
def stops(trial: Trial, answer: Handle) -> None:
    # (stop string, drawn tokens, how many are needed, the text)
    cases = (
        ("\n\n", "x| = |1|\n\n|pump", 4, "x = 1"),
        ("\n\n", "x|\n|\n|pump", 3, "x"),
        ("return", "pump|re|turn|x", 3, "pump"),
        ("turn\nre", "(| tur|n\n|\nre|):", 5, "( turn\n\nre):"),
        ("\n\nre", "(| tur|n\n|\nre|):", 4, "( turn"),
        ("\n\n", "x|\n\nx\n\n(|pump", 2, "x"),
        (None, "x|\n\n|pump", 3, "x\n\npump"),
        ("return", "re|pump|turn", 3, "repumpturn"),
        ("x = pump(1", "re|x| = |pump|(|1|turn", 6, "re"),
    )
    for stop, pieces, needed, wanted in cases:
        drawn = [PIECES.index(piece) for piece in pieces.split("|")]
        prompt = [PIECES.index("x"), PIECES.index("\n\n"), PIECES.index("re"), PIECES.index("turn"), PIECES.index("(")]
        text, _asked, distributions = _sampled(
            trial, answer, [_scores(trial)], drawn, prompt=prompt, max_tokens=len(drawn), stop=stop
        )
        trial.equal(text, wanted, _("The text must end before the first {stop}."), stop=repr(stop))
        trial.require(
            len(distributions) == needed,
            _("{count} tokens were drawn; {needed} are enough to see {stop}."),
            count=len(distributions),
            needed=needed,
            stop=repr(stop),
        )


def _sampling(
    next_logits: Any,
    draw: Any,
    decode: Any,
    prompt: list[int],
    *,
    max_tokens: int = 64,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: str | None = None,
    distribution: Callable[[Any, float, int | None, float | None], Any] = _distribution,
    decodes_one_by_one: bool = False,
    stops_at_tokens: bool = False,
    with_prompt: bool = False,
    keeps_stop: bool = False,
) -> str:
    """Sampling with faults on demand."""
    new: list[int] = []
    text = ""
    for _token in range(max_tokens):
        probabilities = distribution(next_logits(prompt + new), temperature, top_k, top_p)
        new.append(draw(torch.as_tensor(probabilities)))
        text = "".join(decode([token]) for token in new) if decodes_one_by_one else decode(new)
        if stop is not None and stop in (decode(new[-1:]) if stops_at_tokens else text):
            return text if keeps_stop else text.split(stop)[0]
    return decode(prompt + new) if with_prompt else text


def _without_crossing_token(logits: Any, temperature: float, top_k: int | None, top_p: float | None) -> Any:
    probabilities = _distribution(logits, temperature, top_k)
    if top_p is not None:
        order = np.argsort(-probabilities)
        late = probabilities[order].cumsum() > top_p
        late[0] = False
        probabilities[order[late]] = 0
    return probabilities / probabilities.sum()


def _top_p_first(logits: Any, temperature: float, top_k: int | None, top_p: float | None) -> Any:
    kept = _distribution(logits, temperature, None, top_p)
    probabilities = _distribution(logits, temperature, top_k)
    return np.where(kept > 0, probabilities, 0) / probabilities[kept > 0].sum()


def _temperature_last(logits: Any, temperature: float, top_k: int | None, top_p: float | None) -> Any:
    probabilities = _distribution(logits, 1.0, top_k, top_p) ** (1 / temperature)
    return probabilities / probabilities.sum()


@sample.misconception(_("a top-p that drops the token that crosses the line"), factory=True)
def crossing_token_dropped() -> Any:
    return partial(_sampling, distribution=_without_crossing_token)


@sample.misconception(
    _("a top-p that is applied before top-k, to probabilities that top-k has not cut yet"), factory=True
)
def top_p_first() -> Any:
    return partial(_sampling, distribution=_top_p_first)


@sample.misconception(_("a temperature that is applied last, to the tokens that were kept"), factory=True)
def temperature_last() -> Any:
    return partial(_sampling, distribution=_temperature_last)


@sample.misconception(_("scores that are multiplied by the temperature"), factory=True)
def temperature_upside_down() -> Any:
    return partial(_sampling, distribution=lambda logits, warmth, *cut: _distribution(logits, 1 / warmth, *cut))


@sample.misconception(_("a stop string that is looked for in each token by itself"), factory=True)
def stop_within_one_token() -> Any:
    return partial(_sampling, stops_at_tokens=True)


@sample.misconception(_("a text that still holds the stop string"), factory=True)
def stop_string_kept() -> Any:
    return partial(_sampling, keeps_stop=True)


@sample.misconception(
    _("tokens that are decoded one by one, which breaks characters that two of them share"), factory=True
)
def decoded_one_by_one() -> Any:
    return partial(_sampling, decodes_one_by_one=True)


@sample.misconception(_("a text that begins with the prompt"), factory=True)
def prompt_returned() -> Any:
    return partial(_sampling, with_prompt=True)


sample.equivalent(
    "probabilities = (next_logits(prompt + new) / temperature).softmax(dim=-1)",
    "probabilities = (next_logits(prompt + new) / temperature).softmax(dim=-0)",
    reason="there is one dimension",
)
sample.equivalent(
    "ordered[before >= top_p] = 0",
    "ordered[before > top_p] = 0",
    reason="whether a sum of rounded probabilities equals top_p exactly is chance",
)
