# %% [markdown]
# # Train your own GPT
#
# The people who write firmware at Harz Pumpen want an assistant that completes their Python test scripts. The scripts may not leave the house, so no cloud model may see them. "You know these models now", says your head of department. "Can't we train one ourselves? What would it take?"
#
# This notebook is the honest answer, built by hand: you write the attention, the block, the measure, the training loop and the sampling of a GPT, and train it on this machine in one to two minutes. Nothing in it is a toy version of the idea. The model behind a chat window has the same parts, with larger numbers.
#
# Company code would be the right text to learn from. Here it is Python's own standard library, because it lies on every machine that runs this notebook: about 150 files, four million characters, written by people with good taste.

# %%
import kicourse
from kicourse.checks import mini_gpt as check

text = kicourse.start("mini_gpt")

# %%
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import HTML, display
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from kicourse import plots

torch.set_num_threads(1)  # a model this small gains little from a second core, and loses a lot when it has to share one

# %% [markdown]
# ## What you will have at the end
#
# A language model is good if it is rarely surprised. Surprise has a unit: the **bits** that it takes, on average, to say which character comes next to someone who knows the model. Guessing blindly among 2,048 tokens costs 3.50 bits per character here. The shorter a bar below, the better the model. The last one is yours.

# %% tags=["demo"]
RESULTS = {
    "blind guess": 3.50,
    "1-gram": 2.92,
    "2-gram": 2.03,
    "3-gram": 1.84,
    "5-gram": 1.79,
    "your GPT": 1.79,
}

figure = plots.figure(height=2.7)
axes = figure.subplots()
names = [text("blind guess"), text("1-gram"), text("2-gram"), text("3-gram"), text("5-gram"), text("your GPT")]
bars = axes.barh(names, list(RESULTS.values()), color=[plots.GREY] * 5 + [plots.BLUE])
axes.bar_label(bars, fmt="%.2f", padding=4)
axes.invert_yaxis()
axes.grid(visible=False)
axes.set_xlabel(text("bits per character on files never seen in training (less is better)"))
plots.show(
    figure,
    alt=text(
        "Bars, in bits per character: blind guess 3.50, 1-gram 2.92, 2-gram 2.03, 3-gram 1.84, 5-gram 1.79, your GPT 1.79."
    ),
)

# %% [markdown]
# Look at the distances. Counting pairs of tokens gets most of the way; a short training only draws level with the best that counting can do. The difference is what comes next: counting has nowhere left to go, while a GPT gets better with every doubling of its size, its text and its time. At the end you will put a model next to yours that was given some five hundred million times the computing.

# %% [markdown]
# ## Text becomes numbers
#
# A model reads **tokens**: pieces of text from a fixed list. Byte-pair encoding makes that list: it starts with single bytes and keeps merging the pair of neighbours that is most frequent, until the list is as long as wanted. Frequent words end up as one token, rare ones as several, and nothing is ever unknown.
#
# The files are split before anything else happens: one in ten is held out, and no line of it is ever trained on. A split by lines would be worthless, because files repeat themselves.

# %% tags=["demo"]
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from kicourse.data import python_source

VOCABULARY = 2_048

corpus = python_source.load()
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.train_from_iterator(
    corpus.training.values(),
    trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    ),
)


def encode_files(files: dict[str, str]) -> Int[Tensor, "length"]:
    """Return the tokens of all files, one file after the other."""
    encoded = tokenizer.encode_batch(list(files.values()))
    return torch.tensor([token for one in encoded for token in one.ids])


training_tokens = encode_files(corpus.training)
held_out_tokens = encode_files(corpus.held_out)
held_out_characters = sum(len(source) for source in corpus.held_out.values())

print(
    text("to train on: {files} files, {tokens} tokens").format(files=len(corpus.training), tokens=len(training_tokens))
)
print(text("held out: {files} files, {tokens} tokens").format(files=len(corpus.held_out), tokens=len(held_out_tokens)))
print(text("characters per token: {length:.2f}").format(length=held_out_characters / len(held_out_tokens)))

# %% tags=["demo"]
LINE = "    def __init__(self, temperature=20.5):\n        self.temperature = temperature\n"


def pieces(tokens: list[int]) -> str:
    """Draw a frame around each token."""
    style = "border: 1px solid #8a8f98; border-radius: 4px; padding: 0 3px; margin: 1px; font-family: monospace"
    shown = [tokenizer.decode([token]).replace(" ", "·").replace("\n", "↵") for token in tokens]
    return " ".join(f'<span style="{style}">{piece}</span>' for piece in shown)


display(HTML(pieces(tokenizer.encode(LINE).ids)))

# %% [markdown]
# > **Predict, then change it.** How many tokens will `self.temperature` take, and how many `Umwälzpumpe`? Put your own text into `LINE`. German costs more tokens here for the same reason that it does at every provider: the list was made from other text.
#
# <details><summary>Answer</summary>6 and 11 (the two bytes of the “ä” are a token each). A name that is frequent in the files, such as <code>self</code>, is one token.</details>

# %% [markdown]
# ## What counting can do
#
# Before a model is trained, someone should ask what it has to beat. An **n-gram** model counts: after these n − 1 tokens, which token came how often? What was never seen gets a share from the shorter contexts (the method is called Kneser-Ney and was the state of the art for two decades). It takes a second, and it is a baseline that embarrasses many a network.

# %% tags=["demo"]
from kicourse.data.ngram import NGram

surprises = {
    order: NGram.fit(training_tokens.numpy(), order, VOCABULARY).bits(held_out_tokens.numpy()) for order in (1, 2, 3, 5)
}
baselines = {order: bits.sum() / held_out_characters for order, bits in surprises.items()}
for order, bits in baselines.items():
    print(text("{order}-gram: {bits:.2f} bits per character").format(order=order, bits=bits))

# %% [markdown]
# From three tokens to five hardly anything is gained: most contexts of four tokens occur once in the whole corpus, and a count of one says little. To look further back, a model has to see that two different pasts are *alike*. That is what the rest of this notebook is about.

# %% [markdown]
# ## Attention
#
# Every position of a text carries a vector. **Attention** lets it fetch something from the others. From its vector each position makes three: a **query** (what am I looking for?), a **key** (what do I have to offer?) and a **value** (what do I hand over?). The score of a pair is the scalar product of one's query with the other's key; a softmax turns scores into weights that sum to one; the result is the weighted mean of the values:
#
# $$\text{attention}(Q, K, V) = \text{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}}\right) V$$
#
# Two details decide whether it works. The division by $\sqrt{d}$, where $d$ is the width of a head: a scalar product of $d$ numbers grows with $\sqrt{d}$, and a softmax of large scores puts everything on one token and learns no more. And the **causal mask**: all positions of a text are trained at once, each of them on the question "what comes next?", so none may look at what comes after it.

# %% tags=["demo"]
scores = torch.tensor([2.0, 1.0, 0.5])
print("scores             ", scores.numpy())
print("weights            ", scores.softmax(dim=0).numpy().round(2))
print("scores, ten times  ", (10 * scores).softmax(dim=0).numpy().round(2))
print("one ruled out      ", torch.tensor([2.0, 1.0, -math.inf]).softmax(dim=0).numpy().round(2))

# %% [markdown]
# > **Predict.** In the last line one score is minus infinity. What would the weights be if you had set the third *weight* to zero instead, after the softmax? Do they still sum to one?
#
# <details><summary>Answer</summary>0.63, 0.23 and 0, which sum to 0.86: the share of what was ruled out is lost instead of being passed to the others.</details>
#
# Two tools for the task: `scores.masked_fill(mask, value)` returns a copy with `value` wherever `mask` is true, and `torch.ones(n, n, dtype=torch.bool).triu(diagonal=1)` is true above the diagonal. `.transpose(-2, -1)` swaps the last two dimensions, and `@` multiplies matrices in the last two, for every batch and head.

# %% [markdown]
# ### Task: causal attention (2 points)
#
# Write `causal_attention`. Tensors have the shape [batch, heads, time, head width]; batch and heads are only carried along, and the values may be wider or narrower than queries and keys. Position *t* may look at positions 0 to *t*, its own included. PyTorch has this as `F.scaled_dot_product_attention(..., is_causal=True)`, and the check compares with it: write it out once with matrix products, and you will never have to wonder again what it does.


# %% task="causal_attention"
def causal_attention(
    query: Float[Tensor, "batch heads time width"],
    key: Float[Tensor, "batch heads time width"],
    value: Float[Tensor, "batch heads time value_width"],
) -> Float[Tensor, "batch heads time value_width"]:
    """Return for each position the mean of the values up to its own, weighted by how well keys fit its query."""
    ### BEGIN SOLUTION
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    time = scores.shape[-1]
    future: Bool[Tensor, "time time"] = torch.ones(time, time, dtype=torch.bool).triu(diagonal=1)
    weights = scores.masked_fill(future, -math.inf).softmax(dim=-1)
    return weights @ value
    ### END SOLUTION


# %% check="causal_attention"
check.causal_attention(causal_attention)

# %% [markdown]
# The weights themselves never leave your function. There is a trick to see them all the same: hand over the unit matrix as values. The weighted mean of unit vectors *is* the row of weights.


# %% tags=["demo"]
def attention_weights(
    query: Float[Tensor, "batch heads time width"], key: Float[Tensor, "batch heads time width"]
) -> Float[Tensor, "batch heads time time"]:
    """Return the weights that causal_attention uses."""
    batch, heads, time, _ = query.shape
    return causal_attention(query, key, torch.eye(time).expand(batch, heads, time, time))


query, key = torch.randn(2, 1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
figure = plots.figure(height=2.9)
for sharpness, axes, weights in zip(
    (0.1, 1, 5), figure.subplots(1, 3), (attention_weights(s * query, key)[0, 0] for s in (0.1, 1, 5)), strict=True
):
    axes.imshow(weights, vmin=0, vmax=1, cmap="Blues")
    axes.set_title(text("scores × {factor}").format(factor=sharpness))
    axes.set_xlabel(text("position looked at"))
    axes.set_ylabel(text("position that looks"))
    axes.grid(visible=False)
plots.show(
    figure,
    alt=text(
        "Three triangular maps of attention weights. With small scores each position spreads its attention evenly over its past, with large ones it looks at one place only. Above the diagonal everything is empty."
    ),
)

# %% [markdown]
# ## The block
#
# Attention carries information between positions. What a position does with it is the job of a small network of two layers, the **MLP**, that works on each position alone. Together they are a **transformer block**, and a GPT is a stack of them:
#
# ```text
#      x ──┬── norm ── attention ──(+)──┬── norm ── MLP ──(+)── x
#          └────────────────────────────┘└─────────────────┘
# ```
#
# Both are *added* to what was there. That path from bottom to top, the **residual stream**, is why deep networks can be trained at all: the gradient reaches every block without passing through the others. The **norm** before each part brings every vector to the same length, whatever has been added before.
#
# **Heads** are attention several times over: the width is cut into equal parts, each part attends by itself, and the results are put side by side again. One head can follow brackets while another looks for the last use of a name.

# %% [markdown]
# A refresher, if `nn.Module` is new to you: a layer is made once, in `__init__`, and applied in `forward`. `nn.Linear(6, 18)` is a matrix and a bias that take the last dimension from 6 to 18, `nn.Sequential(a, b, c)` applies one layer after the other, and a module knows the parameters of everything that is assigned to `self`. Heads are cut out of the width by changing shapes: first split the last dimension, then swap two dimensions. Going straight to the shape with `view` would mix positions.

# %% tags=["demo"]
vectors = torch.arange(12).view(1, 2, 6)  # [batch, time, width]
split = vectors.unflatten(-1, (2, 3))  # [batch, time, heads, head width]
by_head = split.transpose(1, 2)  # [batch, heads, time, head width]
print("vectors\n", vectors[0].numpy())
print("first head\n", by_head[0, 0].numpy())
print("second head\n", by_head[0, 1].numpy())
print("side by side again\n", by_head.transpose(1, 2).flatten(-2)[0].numpy())

# %% [markdown]
# ### Task: a transformer block (2 points)
#
# Write `TransformerBlock(width, heads)` as an `nn.Module` for tensors of the shape [batch, time, width]:
#
# * `x = x + attention(norm(x))`, then `x = x + mlp(other_norm(x))`, with `nn.LayerNorm` as norms;
# * the attention has one `nn.Linear` from width to 3 × width (queries, keys and values of all heads), your `causal_attention` on `heads` heads of width / heads each, and one `nn.Linear` from width to width;
# * the MLP has `nn.Linear` from width to 4 × width, `nn.GELU`, and `nn.Linear` back;
# * linear layers and norms keep their biases, as PyTorch makes them, and the two norms are two;
# * no dropout (a model that sees its text only once has nothing to learn by heart), and no positions: they are added before the first block.
#
# The block is checked together with your `causal_attention`; as long as that does not pass, use PyTorch's.


# %% task="transformer_block"
class TransformerBlock(nn.Module):
    """Attention between positions, then an MLP on each of them, each added to what was there."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        ### END SOLUTION

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        """Return the vectors of all positions, changed by what each fetched from its past."""
        ### BEGIN SOLUTION
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))

    def attention(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        """Let every position fetch something from its past, once for each head."""
        parts = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each [batch, heads, time, head width]
        mixed = causal_attention(query, key, value)
        return self.projection(mixed.transpose(1, 2).flatten(-2))
        ### END SOLUTION


# %% check="transformer_block"
check.transformer_block(TransformerBlock)

# %% [markdown]
# The rest of a GPT is quickly said. Each token has a learned vector, each place in the window has one, their sum enters the first block; after the last one, a linear layer scores every token of the vocabulary as the next one.


# %%
class GPT(nn.Module):
    """Scores, for each position of a text, every token of the vocabulary as the next one."""

    def __init__(self, vocabulary: int, width: int = 96, layers: int = 2, heads: int = 4, context: int = 64) -> None:
        super().__init__()
        self.context = context
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocabulary"]:
        """Return the logits of the token after each one."""
        x = self.embedding(tokens) + self.position(torch.arange(tokens.shape[1]))
        return self.head(self.norm(self.blocks(x)))


# %% tags=["demo"]
torch.manual_seed(0)
gpt = GPT(VOCABULARY)
for name, part in gpt.named_children():
    print(f"{name:10}{sum(parameter.numel() for parameter in part.parameters()):>10,} parameters")
print(f"{'together':10}{sum(parameter.numel() for parameter in gpt.parameters()):>10,} parameters")

# %% [markdown]
# ## The measure
#
# How well does a model know a text? It gave some probability $p$ to every token that really came. The text as a whole then costs $-\sum \log_2 p$ bits: a token that was expected with probability ½ costs one bit, one that was expected with 1 in 1,024 costs ten.
#
# Divide that by the number of *characters*, not of tokens. A model with longer tokens has fewer of them to predict, and each is harder; per token, models with different vocabularies cannot be compared. Per character they can, whatever they are: our GPT, an n-gram model, or a zip program (bits per character is what a compressor with this model would need).
#
# The text is longer than the model's window, so it is scored piece by piece. The first token has nothing before it and is not scored. Every other token is scored exactly once:
#
# ```text
# context = 4     tokens   0 1 2 3 4 5 6 7 8 9
# first window             0 1 2 3 →  scores 1 2 3 4
# second window                    4 5 6 7 →  scores 5 6 7 8
# third window                             8 →  scores 9
# ```
#
# (A window that slides by less than its length is allowed too, and gives every token a longer past. It only costs more.)

# %% [markdown]
# ### Task: bits per character (1 point)
#
# Write `bits_per_character`. `model` takes tokens of the shape [batch, time], `context` of them at most, and returns logits of the shape [batch, time, vocabulary]; PyTorch's `F.cross_entropy` turns logits and targets into a loss in *nats*, that is with the natural logarithm. It takes logits of the shape [rows, vocabulary] and targets of the shape [rows] (`.flatten(0, 1)` makes one row of every position of a batch), and returns their mean, or with `reduction="sum"` their sum. `characters` is the number of characters that all scored tokens stand for together.


# %% task="bits_per_character"
@torch.no_grad()
def bits_per_character(model: nn.Module, tokens: Int[Tensor, "length"], characters: int, context: int = 64) -> float:
    """Return how many bits a character of a text costs that has these tokens (two at least)."""
    ### BEGIN SOLUTION
    nats = 0.0
    for start in range(0, len(tokens) - 1, context):
        window = tokens[start : start + context + 1]
        logits = model(window[None, :-1])[0]
        nats += F.cross_entropy(logits, window[1:], reduction="sum").item()
    return nats / math.log(2) / characters
    ### END SOLUTION


# %% check="bits_per_character"
check.bits_per_character(bits_per_character)

# %% [markdown]
# A GPT that was never trained knows nothing. Its first measurement should therefore be close to the blind guess; if it is far better, it cheats, and if it is far worse, it starts out with strong opinions. This is the cheapest test of a new model that there is. (The blind guess costs more here than in the first figure, because this passage has fewer characters per token than the held-out files together.)

# %% tags=["demo"]
passage = held_out_tokens[:8_001]
passage_characters = len(tokenizer.decode(passage[1:].tolist()))

blind = 8_000 * math.log2(VOCABULARY) / passage_characters
untrained = bits_per_character(gpt, passage, passage_characters)
print(
    text("blind guess {blind:.2f}, untrained GPT {untrained:.2f} bits per character").format(
        blind=blind, untrained=untrained
    )
)

# %% [markdown]
# ## The training loop
#
# Training repeats four lines. Here they are in the smallest setting there is: a table of logits, one row for each token, learns by gradient descent what a 2-gram model counts.

# %% tags=["demo"]
table = nn.Embedding(VOCABULARY, VOCABULARY)
nn.init.zeros_(table.weight)
optimizer = torch.optim.AdamW(table.parameters(), lr=0.3, weight_decay=0.0)
for step in range(31):
    place = torch.randint(len(training_tokens) - 1, (4_096,))
    loss = F.cross_entropy(table(training_tokens[place]), training_tokens[place + 1])  # what comes next?
    optimizer.zero_grad()  # gradients add up until they are cleared
    loss.backward()  # how would the loss change with each number of the table?
    optimizer.step()  # a step downhill
    if step % 10 == 0:
        print(f"step {step:2}: {loss.item() / math.log(2):.2f} bits per token")

# %% [markdown]
# > **Predict.** The first line says 11.00. Why could you have known? (There are 2,048 tokens.)
#
# <details><summary>Answer</summary>A table of zeros gives every token the same probability, 1/2048, and log₂ 2048 is 11.</details>
#
# For a GPT five things come on top, and each is there because something breaks without it:
#
# * **Windows.** Each step takes a batch of windows from random places. A window of `context + 1` tokens holds `context` questions at once: the inputs are all tokens but the last, the targets all but the first. Forget this shift by one, and the model is asked to name the token that it is looking at. The loss falls gloriously, and it has learned to copy.
# * **Warm-up.** At first everything is random, and so is the direction of a step. The rate rises linearly over the first steps.
# * **Cosine.** Large steps find the valley, small ones its floor: after the warm-up the rate falls along half a cosine to zero.
# * **Clipping.** One strange batch can have a gradient a hundred times as long as usual. If all gradients together are longer than 1, they are scaled down to 1.
# * **Evaluation.** Every so often the model is measured on held-out text. A curve shows in seconds what a final number hides.


# %%
def rate_factor(step: int, steps: int, warm_up: int) -> float:
    """Return the share of its peak rate that training uses in a step; steps count from 0."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


# %% tags=["demo"]
figure = plots.figure(height=2.6)
axes = figure.subplots()
axes.plot([rate_factor(step, 1_000, 50) for step in range(1_000)], color=plots.BLUE)
axes.set_xlabel(text("training step"))
axes.set_ylabel(text("share of the peak rate"))
plots.show(
    figure,
    alt=text("The rate rises steeply in the first 50 of 1,000 steps and then falls along half a cosine to zero."),
)

# %% [markdown]
# ### Task: train (3 points)
#
# Write `train`. In each of the `steps` steps, counted from 0:
#
# 1. draw `batch_size` windows with `torch.randint(..., generator=generator)`; every place where a window of `context + 1` tokens fits can be its start, with equal chance;
# 2. compute the mean cross-entropy over all positions of all windows;
# 3. clear the gradients, compute them (`backward`), and clip the norm of all gradients together to 1;
# 4. let each optimizer take its step, at its own peak rate (the one that it comes with) times `rate_factor(step, steps, warm_up)`;
# 5. after every `every` steps, and after the last, append `(step + 1, evaluate(model))` to the curve, so that the curve counts finished steps.
#
# Two tools: `nn.utils.clip_grad_norm_(model.parameters(), 1.0)` clips, after `backward` and before the step. An optimizer keeps its rates in `optimizer.param_groups`, a list of dictionaries: `group["lr"]` can be read and set. Or you leave that to `schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)`, which multiplies the rates of all groups by `factor(step)` and moves on with `schedule.step()`, after `optimizer.step()`.
#
# Why several optimizers? You will see in a moment. The check first watches one step after the other; then it lets your function train a small GPT for 150 steps on a language that was made up a moment ago, takes the weights, and measures them on text that neither you nor the model has seen.


# %% task="train"
def train(
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    tokens: Int[Tensor, "length"],
    evaluate: Callable[[nn.Module], float],
    *,
    steps: int,
    warm_up: int,
    batch_size: int = 16,
    context: int = 64,
    every: int = 50,
    generator: torch.Generator,
) -> list[tuple[int, float]]:
    """Train the model and return its learning curve: (finished steps, what `evaluate` said of the model then)."""
    ### BEGIN SOLUTION
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, steps, warm_up))
        for optimizer in optimizers
    ]
    curve = []
    for step in range(steps):
        starts = torch.randint(len(tokens) - context, (batch_size, 1), generator=generator)
        windows = tokens[starts + torch.arange(context + 1)]
        inputs, targets = windows[:, :-1], windows[:, 1:]
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()

        if (step + 1) % every == 0 or step + 1 == steps:
            curve.append((step + 1, evaluate(model)))
    return curve
    ### END SOLUTION


# %% check="train"
check.train(train)

# %% [markdown]
# ### Which way is downhill?
#
# AdamW, the optimizer of most models you know, gives every single number of a model a rate of its own. In 1,000 steps it takes this GPT to 2.1 bits, which is worse than counting pairs. **Muon** (Jordan and others, 2024; since used to train models of a trillion parameters) sees that the weights of a layer are a *matrix*. Its gradients are dominated by a few directions, and the rare ones never get anywhere. Muon replaces all singular values of a step by (about) one, so that every direction moves equally far. It takes twenty lines, and it is worth more than any other change that was tried for this notebook.
#
# It is made for the matrices inside the blocks. Embeddings, head, norms and biases stay with AdamW: hence two optimizers.


# %%
def orthogonal(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Bring all singular values of a matrix close to one, by five steps of a Newton-Schulz iteration."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    x = matrix / (matrix.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.7750 * gram) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Momentum, with every step made orthogonal."""

    def __init__(self, matrices: list[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.1) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:
        """Move every matrix against its gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                memory = self.state[matrix].setdefault("memory", torch.zeros_like(matrix))
                memory.lerp_(matrix.grad, 1 - group["momentum"])
                direction = orthogonal(matrix.grad.lerp(memory, group["momentum"]))
                rows, columns = matrix.shape
                matrix.mul_(1 - group["lr"] * group["decay"])
                matrix.sub_(direction, alpha=group["lr"] * math.sqrt(max(1, rows / columns)))


def optimizers_for(model: GPT) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the blocks, and AdamW for everything else."""
    matrices = [parameter for parameter in model.blocks.parameters() if parameter.ndim == 2]
    inside = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    return [Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=0.02, betas=(0.9, 0.95), weight_decay=0.1)]


# %% [markdown]
# ### See it learn
#
# Now the real thing, with your own parts. The curve below is drawn while the model trains. It is measured on the passage of 8,000 tokens from above, and so are the grey lines; the number at the end is for all held-out files. It takes one to two minutes.
#
# > **Predict.** After how many of the 1,000 steps will it pass the 2-gram? And where will the curve fall fastest, now that you know the schedule?
#
# <details><summary>Answer</summary>When this notebook was made, between step 400 and step 450. The curve falls fastest in the first 150 steps, where the rate is high and everything is still to be learned.</details>

# %% tags=["demo"]
STEPS = 1_000
EVERY = 50


class LiveCurve:
    """Measures a model on the passage, and draws all measurements so far into the same figure."""

    def __init__(self) -> None:
        self.bits: list[float] = []
        self.place = plots.Live()

    def __call__(self, model: nn.Module) -> float:
        """Measure the model, draw, and return the bits per character."""
        self.bits.append(bits_per_character(model, passage, passage_characters))
        figure = plots.figure(height=3.4)
        axes = figure.subplots()
        steps = EVERY * np.arange(1, len(self.bits) + 1)
        axes.plot(steps, self.bits, color=plots.BLUE, marker="o", markersize=3, clip_on=False)
        for order, bits in surprises.items():
            level = bits[:8_000].sum() / passage_characters
            axes.axhline(level, color=plots.GREY, linewidth=1)
            label, side = text("{order}-gram").format(order=order), "top" if order == 5 else "bottom"
            axes.text(10, level, label, ha="left", va=side, fontsize=9, color=plots.GREY)
        axes.set(xlim=(0, STEPS), ylim=(1.7, 3.7))
        axes.set_xlabel(text("training step"))
        axes.set_ylabel(text("bits per character"))
        alt = text("Learning curve: {bits:.2f} bits per character after {step} steps.")
        self.place.show(figure, alt=alt.format(bits=self.bits[-1], step=steps[-1]))
        return self.bits[-1]


torch.manual_seed(0)
gpt = GPT(VOCABULARY)
optimizers = optimizers_for(gpt)
curve = train(
    gpt,
    optimizers,
    training_tokens,
    LiveCurve(),
    steps=STEPS,
    warm_up=50,
    every=EVERY,
    generator=torch.Generator().manual_seed(0),
)
measured = bits_per_character(gpt, held_out_tokens, held_out_characters)
print(text("{measured:.2f} bits per character on all held-out files").format(measured=measured))

# %% [markdown]
# Two things are worth a second look. The curve is measured on files that were never trained on, and apart from small bumps it does not turn up: in 1,000 steps the model has not even read the whole corpus once, so there was nothing to learn by heart. And it keeps falling until the rate is nearly zero. If you stop a run half-way, you do not get half of it: the last, small steps are worth a lot.
#
# On this passage the GPT ends between the 3-gram and the 5-gram; on all held-out files it draws level with the 5-gram, as in the first figure.
#
# > **Change it.** Try `optimizers = [torch.optim.AdamW(gpt.parameters(), lr=6e-3)]` in the cell above, `GPT(VOCABULARY, width=128)`, `layers=4`, or twice the `STEPS`. Write down your guess first. One honest rule: compare at equal *time*, not at equal steps.

# %% [markdown]
# ## Sampling
#
# The model gives probabilities; a text comes from drawing. Always taking the most probable token makes texts that go round in circles. Drawing from all 2,048 makes texts that derail, because thousands of unlikely tokens are together likely enough to be drawn every few words. Three knobs lie between, and they are applied in this order:
#
# 1. **temperature**: the logits are divided by it before the softmax. Below 1 the favourites win more often, above 1 the outsiders.
# 2. **top-k**: only the `top_k` most probable tokens stay (all of them, if there are no more than that).
# 3. **top-p**: only as many of the most probable ones stay as it takes for their probabilities to sum to at least `top_p`. The token that crosses the line stays too; where the model is sure, that is a single one, and where it is not, it may be hundreds.
#
# After each cut the rest is scaled so that it sums to one again.
#
# Two tools: `ordered, order = probabilities.sort(descending=True)` returns the sorted numbers and where each of them stood, and `.cumsum(dim=0)` their running sums. `probabilities[order[3:]] = 0` then sets all but the three largest to zero.

# %% [markdown]
# ### Task: sample (2 points)
#
# Write `sample`. It is handed three functions, so that it works with every model there is:
#
# * `next_logits(tokens)` returns the logits of the next token, a tensor of the vocabulary's size;
# * `draw(probabilities)` draws a token from such a tensor of probabilities, in the order of the vocabulary (chance comes from outside, so that a run can be repeated and a check can be exact);
# * `decode(tokens)` turns tokens into text. A character such as "ö" can be spread over two tokens, so decode all new tokens together.
#
# Ask, draw, append, and ask again with all tokens so far, `max_tokens` times at most. Return the new text, without the prompt. If the *new* text contains `stop`, return what comes before it, at once: the stop string may begin in one token and end in another.


# %% task="sample"
def sample(
    next_logits: Callable[[list[int]], Float[Tensor, "vocabulary"]],
    draw: Callable[[Float[Tensor, "vocabulary"]], int],
    decode: Callable[[list[int]], str],
    prompt: list[int],
    *,
    max_tokens: int = 64,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: str | None = None,
) -> str:
    """Continue the prompt token by token and return the new text."""
    ### BEGIN SOLUTION
    new: list[int] = []
    written = ""
    for _ in range(max_tokens):
        probabilities = (next_logits(prompt + new) / temperature).softmax(dim=-1)
        ordered, order = probabilities.sort(descending=True)
        if top_k is not None:
            ordered[top_k:] = 0
            ordered /= ordered.sum()
        if top_p is not None:
            before = ordered.cumsum(dim=0) - ordered
            ordered[before >= top_p] = 0
            ordered /= ordered.sum()
        new.append(draw(torch.zeros_like(ordered).scatter(0, order, ordered)))
        written = decode(new)
        if stop is not None and stop in written:
            return written.split(stop)[0]
    return written
    ### END SOLUTION


# %% check="sample"
check.sample(sample)

# %% [markdown]
# What the three knobs do is best seen in the distributions that `draw` gets. Here the model has read `if name is None:` and, on the next line, `return`. Now it is about to go on.


# %% tags=["demo"]
@torch.no_grad()
def gpt_logits(tokens: list[int]) -> Float[Tensor, "vocabulary"]:
    """Score the next token by our GPT, which reads as much of the text as fits into its window."""
    return gpt(torch.tensor([tokens[-gpt.context :]]))[0, -1]


def distribution(prompt: str, **settings: float) -> Float[Tensor, "vocabulary"]:
    """Return what `sample` would draw the next token from."""
    seen: list[Tensor] = []
    sample(
        gpt_logits,
        lambda probabilities: seen.append(probabilities) or 0,
        tokenizer.decode,
        tokenizer.encode(prompt).ids,
        max_tokens=1,
        **settings,
    )
    return seen[0]


PROMPT = "        if name is None:\n            return"
favourites = distribution(PROMPT).topk(12).indices
labels = [tokenizer.decode([token]).replace(" ", "·").replace("\n", "↵") for token in favourites.tolist()]
figure = plots.figure(height=3.2)
for axes, settings in zip(
    figure.subplots(1, 4, sharex=True, sharey=True),
    ({}, {"temperature": 0.5}, {"top_k": 4}, {"top_p": 0.3}),
    strict=True,
):
    axes.barh(labels, distribution(PROMPT, **settings)[favourites], color=plots.BLUE)
    axes.set_title(", ".join(f"{name}={value}" for name, value in settings.items()) or "softmax", fontsize=9)
    axes.locator_params(axis="x", nbins=3)
    axes.grid(visible=False)
axes.invert_yaxis()  # of all four: they share it
figure.supxlabel(text("probability of the next token"), fontsize=10)
plots.show(
    figure,
    alt=text(
        "Probabilities of the twelve likeliest next tokens, four times: as they are, sharpened by a temperature of 0.5, cut to the first four by top-k, and cut to a handful by top-p."
    ),
)

# %% [markdown]
# ### Let it write


# %% tags=["demo"]
def seeded_draw(seed: int) -> Callable[[Float[Tensor, "vocabulary"]], int]:
    """Return a `draw` whose choices can be repeated."""
    generator = torch.Generator().manual_seed(seed)
    return lambda probabilities: int(torch.multinomial(probabilities, 1, generator=generator))


prompt = 'import json\n\n\nclass Pump:\n    """A pump of the test rig."""\n\n    def __init__(self,'
for temperature in (0.2, 0.8, 1.3):
    print(f"--- temperature {temperature}")
    written = sample(
        gpt_logits,
        seeded_draw(1),
        tokenizer.decode,
        tokenizer.encode(prompt).ids,
        max_tokens=80,
        temperature=temperature,
        top_p=0.95,
        stop="\n\n\n",
    )
    print(prompt + written)

# %% [markdown]
# It looks like Python and means nothing. Indentation, brackets, docstrings and `self` are where they belong; there is no thought behind them. A window of 64 tokens is about six lines, and six hundred thousand weights are not many to know a library with.
#
# Below is a small completion box. Type the beginning of a line, and press the button several times: each press writes the rest of the line, or the next one.

# %% tags=["demo"]
import ipywidgets

box = ipywidgets.Textarea(value="class Pump:\n    def ", layout={"width": "100%", "height": "180px"})
button = ipywidgets.Button(description=text("complete the line"))
presses = iter(range(1_000_000))


def complete(_button: ipywidgets.Button) -> None:
    """Append the rest of a line, or the next one, to what stands in the box."""
    tokens = tokenizer.encode(box.value).ids
    written = sample(
        gpt_logits,
        seeded_draw(next(presses)),
        tokenizer.decode,
        tokens,
        max_tokens=24,
        temperature=0.7,
        top_p=0.9,
    )
    indent = written[: len(written) - len(written.lstrip())]
    box.value += indent + written.lstrip().partition("\n")[0]


button.on_click(complete)
display(ipywidgets.VBox([box, button]))

# %% [markdown]
# ## What the heads look at
#
# Attention weights can be read. Below are the four heads of each of the two blocks while the model reads two lines of code: each row is a position, and the darker a cell, the more it looks there. (While the model reads, `causal_attention` and PyTorch's own are swapped for one that takes notes.)

# %% tags=["demo"]
from unittest.mock import patch

READ = "    self.count = count\n    return self.count"

read = tokenizer.encode(READ).ids
noted: list[Tensor] = []


def noting_attention(query: Tensor, key: Tensor, value: Tensor, **_options: object) -> Tensor:
    """Note the weights, and attend as usual."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    future = torch.ones_like(scores, dtype=torch.bool).triu(diagonal=1)
    weights = scores.masked_fill(future, -math.inf).softmax(dim=-1)
    noted.extend(weights.reshape(-1, *weights.shape[-2:]))
    return weights @ value


notes = patch.dict(globals(), causal_attention=noting_attention)
with notes, patch.object(F, "scaled_dot_product_attention", noting_attention), torch.no_grad():
    gpt(torch.tensor([read]))

labels = [tokenizer.decode([token]).replace(" ", "·").replace("\n", "↵") for token in read]
if len(noted) == 8:
    figure = plots.figure(width=9, height=5.4)
    for number, (axes, weights) in enumerate(zip(figure.subplots(2, 4).flat, noted, strict=True)):
        axes.imshow(weights, vmin=0, vmax=1, cmap="Blues")
        axes.set_title(
            text("block {layer}, head {head}").format(layer=number // 4 + 1, head=number % 4 + 1), fontsize=9
        )
        axes.set_xticks(range(len(read)), labels, rotation=90, fontsize=8)
        axes.set_yticks(range(len(read)), labels if number % 4 == 0 else [], fontsize=8)
        axes.grid(visible=False)
    figure.supxlabel(text("position looked at"), fontsize=10)
    figure.supylabel(text("position that looks"), fontsize=10)
    plots.show(
        figure,
        alt=text(
            "Eight triangular maps of attention weights, four heads in each of two blocks, each with a pattern of its own."
        ),
    )
else:
    print(
        text("Your blocks call no causal_attention that could take notes for eight heads, so there is no figure here.")
    )

# %% [markdown]
# Nobody told any head what to do. Most spread over what they have read; in the second block some settle on a single place, such as the line break or the word `return`. Be careful with stories about them all the same: weights say where a head looks, not what it takes from there.

# %% [markdown]
# ## What scale changes
#
# The same idea, other numbers: SmolLM2 has 135 million parameters and has read two trillion tokens of text and code, with some five hundred million times the computing of your run. It comes through `transformers`, needs no network, and is driven by *your* `sample` and measured by *your* `bits_per_character`. (The first time, its weights are unpacked for PyTorch, which takes half a minute.)

# %% tags=["demo"]
from transformers import AutoModelForCausalLM, AutoTokenizer

from kicourse.models import gpt as embedded

folder = embedded.torch_path()
smollm_tokenizer = AutoTokenizer.from_pretrained(folder)
smollm = AutoModelForCausalLM.from_pretrained(folder)


@torch.no_grad()
def smollm_logits(tokens: list[int]) -> Float[Tensor, "vocabulary"]:
    """Score the next token by SmolLM2."""
    return smollm(torch.tensor([tokens])).logits[0, -1]


written = sample(
    smollm_logits,
    seeded_draw(1),
    smollm_tokenizer.decode,
    smollm_tokenizer.encode(prompt),
    max_tokens=40,
    temperature=0.8,
    top_p=0.95,
    stop="\n\n\n",
)
print(prompt + written)

# %% tags=["demo"]
page = corpus.held_out["calendar.py"][3_000:5_000]
own = torch.tensor(tokenizer.encode(page).ids)
theirs = torch.tensor(smollm_tokenizer.encode(page))
own_bits = bits_per_character(gpt, own, len(tokenizer.decode(own[1:].tolist())))
their_bits = bits_per_character(
    lambda tokens: smollm(tokens).logits, theirs, len(smollm_tokenizer.decode(theirs[1:])), context=256
)
print(text("your GPT {own:.2f}, SmolLM2 {theirs:.2f} bits per character").format(own=own_bits, theirs=their_bits))

# %% [markdown]
# > **Think.** Is this a fair comparison? `calendar.py` was held out from *your* model. It has been on the public web for twenty years, so SmolLM2 has almost certainly read it, many times over. This is called **contamination**, and it is the first thing to ask when somebody shows you a benchmark.

# %% [markdown]
# ## Where you stand now
#
# You can now
#
# * write causal attention and a transformer block, and say what each part is for;
# * compare language models with each other, and with a baseline that costs nothing;
# * write a training loop, and read from its curve what goes wrong;
# * control how a model writes, whichever it is.
#
# And your head of department gets an answer: a model that is trained from nothing on one company's code learns its look and not its sense. Six hundred thousand weights and two minutes buy what careful counting buys; useful completions begin about a thousand times further up. So nobody trains from nothing. One takes a model that has read the world, and continues its training on one's own text, which is the subject of the unit *Make BERT yours*.

# %% [markdown]
# ## Where it breaks in production
#
# * **It repeats what it has read.** A model that has seen a key, a name or a licensed file can write it out again. What may not leave the house may not be trained on for outside use either; what it wrote has to be checked like anybody's code.
# * **Speed.** `sample` computes the whole window anew for every token. Real servers keep the keys and values of the past (the *KV cache*) and serve many users in one batch.
# * **The window.** What lies more than 64 tokens back does not exist. Doubling the window costs four times the attention.
# * **Instability.** A run of weeks meets loss spikes, broken files and dying machines. Save the state often, the optimizer's and the generator's included, or you cannot continue, only begin again.
# * **Drift.** The text of tomorrow differs from the corpus. Keep a held-out set that is renewed, and measure it on a schedule.

# %% [markdown]
# ## What to read next
#
# * Vaswani and others, *Attention Is All You Need* (2017): where it comes from.
# * Andrej Karpathy, *nanoGPT* and the lecture *Let's build GPT*: the same model at the next size.
# * Hoffmann and others, *Training Compute-Optimal Large Language Models* (2022): how large a model should be for a given amount of text and time.
# * Holtzman and others, *The Curious Case of Neural Text Degeneration* (2020): why top-p.
# * Keller Jordan, *Muon: An optimizer for hidden layers in neural networks* (2024).
