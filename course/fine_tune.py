# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Make BERT yours
#
# Monday, 7 a.m.: a van of Harz Pumpen has driven 90 kilometres to Goslar for nothing. The customer had written "the feed pump no longer leaks", and the program that sorts messages, built on the sentence vectors that you know from *Inside BERT*, had understood "leaks". It was right about the subject and wrong about the one thing that matters: is the fault still **open**, or is it **solved**?
#
# No larger search index helps here. A large language model, asked in a prompt, may well tell the two apart, but each message then costs money and waiting, and leaves the house; we want to see how far the small model on this machine gets. Its own idea of what makes two sentences alike has to change. You will do that with 0.3 million numbers beside the 22.7 million that stay as they are, in a minute or two on this machine; and you will find out honestly how far it carries.

# %%
import kicourse
from kicourse.checks import fine_tune as check

text = kicourse.start("fine_tune")

# %%
import copy
import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import ModelCardData
from jaxtyping import Float, Int
from kicourse import plots
from safetensors.torch import save
from torch import Tensor, nn

torch.set_num_threads(1)  # batches this small gain little from a second core

# %% [markdown]
# ## What you will have at the end
#
# These are our results, on the machine on which this notebook was written (two cores, Python 3.11): the share of messages that were sorted correctly, learned from 1,000 messages. For LoRA it is the middle one of five runs that differ only in their random numbers, with a line from the worst to the best. Left, 400 messages from a generator whose verbs and phrases had been kept away from training; right, 72 messages that were written one by one. Look at both halves before you believe either.

# %% tags=["demo"]
RESULTS = {"TF-IDF": (0.52, 0.50), "frozen": (0.53, 0.46), "LoRA": (0.72, 0.51)}
LORA_RUNS = ((0.55, 0.74), (0.50, 0.60))  # the worst and the best of five
NAMES = [text("TF-IDF"), text("frozen vectors"), text("LoRA")]

figure = plots.figure(width=9, height=2.5)
for column, (axes, title, guess) in enumerate(
    zip(
        figure.subplots(1, 2, sharey=True),
        (text("unseen verbs and phrases"), text("written by hand")),
        (0.5, 0.667),
        strict=True,
    )
):
    shares = [pair[column] for pair in RESULTS.values()]
    bars = axes.barh(NAMES, shares, color=[plots.GREY, plots.GREY, plots.BLUE])
    axes.bar_label(bars, fmt="%.2f", label_type="center", color=plots.PAPER)
    axes.plot(LORA_RUNS[column], [NAMES[-1]] * 2, color=plots.INK, linewidth=2)
    axes.axvline(guess, color=plots.INK, linewidth=1, linestyle=":", zorder=0.5)
    axes.set_xlim(0, 1)
    axes.set_title(title)
    axes.set_xlabel(text("share sorted correctly (dotted: always the same label)"), fontsize=8.5)
    axes.grid(visible=False)
axes.invert_yaxis()  # of both: they share it
plots.show(
    figure,
    alt=text(
        "Two groups of bars, the share of messages sorted correctly. On unseen verbs and phrases: TF-IDF 0.52, frozen vectors 0.53, LoRA 0.72, in five runs from 0.55 to 0.74. On messages written by hand: TF-IDF 0.50, frozen vectors 0.46, LoRA 0.51, from 0.50 to 0.60, all below the 0.67 that always saying 'open' gets."
    ),
)

# %% [markdown]
# ## The messages
#
# A first model needs examples, and the service desk has not kept any. So we write a small grammar that makes as many as we like: a verb that is good news ("runs") or bad news ("leaks"), affirmed or denied, often with a word about the past. **It takes two words to tell**: what the verb means, and whether it is affirmed or denied. (The messages are in English because MiniLM read hardly anything else.)
#
# Generated text carries a trap: a test made by the same grammar asks for nothing new. Therefore a third of the verbs and of the phrases is **held out**. The development and the test set use those alone.

# %% tags=["demo"]
from kicourse.data import service_messages

training = service_messages.generate(np.random.default_rng(0), 1_000, held_out=False)
development = service_messages.generate(np.random.default_rng(1), 200, held_out=True)
test = service_messages.generate(np.random.default_rng(2), 400, held_out=True)
by_hand = service_messages.written()
for name, messages in (("training", training), ("development", development), ("by hand", by_hand)):
    print(f"--- {name}")
    for message in messages[:4]:
        print(f"{message.label:7} {message.text}")

# %% [markdown]
# ## What has to be beaten
#
# Before anything is trained at length, two cheap baselines. **TF-IDF** counts words and pairs of neighbouring words, rare ones weighing more, and a logistic regression gives each word and each pair a weight. **Frozen vectors**: the model turns each message into the mean of its token vectors, nothing in it changes, and a logistic regression learns on those 384 numbers.
#
# **Predict:** the figure at the top says that neither does much better than guessing on verbs that it was not trained on. Why? Look for one reason for TF-IDF and another for the vectors.

# %% tags=["demo"]
from kicourse.models import bert
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

tokenizer, encoder = bert.load()


def sentence_vectors(texts: list[str]) -> Float[np.ndarray, "texts width"]:
    """Return the mean of each text's token vectors, scaled to length one."""
    parts = []
    for start in range(0, len(texts), 50):
        tokens = tokenizer(texts[start : start + 50], padding=True, return_tensors="pt")
        with torch.no_grad():
            vectors = encoder(**tokens).last_hidden_state
        weights = tokens["attention_mask"].unsqueeze(-1).float()
        parts.append(F.normalize((vectors * weights).sum(dim=1) / weights.sum(dim=1), dim=1))
    return torch.cat(parts).numpy()


def texts_of(messages: list[service_messages.Message]) -> list[str]:
    """Return the texts of messages."""
    return [message.text for message in messages]


def labels_of(messages: list[service_messages.Message]) -> list[str]:
    """Return the labels of messages."""
    return [message.label for message in messages]


counting = make_pipeline(
    TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=2_000)
)
counting.fit(texts_of(training), labels_of(training))
frozen = LogisticRegression(max_iter=5_000)
frozen.fit(sentence_vectors(texts_of(training)), labels_of(training))
print("TF-IDF", counting.score(texts_of(development), labels_of(development)))
print("frozen", frozen.score(sentence_vectors(texts_of(development)), labels_of(development)))

# %% [markdown]
# Both guess on the development set as well: 0.54 and 0.55 when we ran it. TF-IDF has never seen these verbs. The vectors do know what they mean; why that does not help shows in a picture: the cosine similarity of six sentences, three with a fault and three that say the contrary, all with verbs that are held out.

# %% tags=["demo"]
SENTENCES = [
    "the pump spills oil",
    "the pump fails whatever we do",
    "the pump is not cooling now",
    "the pump is not spilling oil now",
    "nobody can say that the pump fails",
    "the pump cools",
]


def draw_similarities(vectors: Float[np.ndarray, "texts width"], title: str, alt: str) -> None:
    """Draw how alike the six sentences are."""
    figure = plots.figure(width=7.5, height=3.4)
    axes = figure.subplots()
    image = axes.imshow(vectors @ vectors.T, vmin=-1, vmax=1)
    labels = [f"{sentence} ({'open' if place < 3 else 'solved'})" for place, sentence in enumerate(SENTENCES)]
    axes.set_yticks(range(len(SENTENCES)), labels)
    axes.set_xticks(range(len(SENTENCES)), [])
    for row in range(len(SENTENCES)):
        for column in range(len(SENTENCES)):
            share = float(vectors[row] @ vectors[column])
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", color="black" if share > 0 else "white")
    axes.axhline(2.5, color=plots.PAPER, linewidth=2)
    axes.axvline(2.5, color=plots.PAPER, linewidth=2)
    axes.set_title(title)
    axes.grid(visible=False)
    figure.colorbar(image, label=text("cosine similarity"))
    plots.show(figure, alt=alt)


draw_similarities(
    sentence_vectors(SENTENCES),
    text("before fine-tuning"),
    text(
        "A table of cosine similarities of six sentences. Each is most like the one that says the contrary: 'the pump spills oil' has 0.82 with 'the pump is not spilling oil now', and less with the other open ones."
    ),
)

# %% [markdown]
# For the pretrained model each sentence is most like the one that says the contrary, because both are about the same thing, and about-the-same-thing is what it was trained for. That is right for search and wrong for us.
#
# **Fine-tuning** continues the training of a pretrained model on a task of your own. The model gets a **head**, one linear layer that turns the mean of the token vectors into a score for each label, and now the gradient flows through the head into the encoder.
#
# A refresher, in case *Train your own GPT* lies some time back: `F.cross_entropy(scores, labels)` is the mean surprise about the right labels; `loss.backward()` computes for each parameter with `requires_grad` how the loss changes with it, and *adds* that to `.grad`; `optimizer.step()` moves the parameters, `optimizer.zero_grad()` clears the gradients. `model.train()` and `model.eval()` switch a model's mode: in training mode **dropout** sets numbers to zero at random, so that the model does not rely on any single one.


# %%
class Classifier(nn.Module):
    """An encoder, the mean of its vectors over each text, and a head with a score for each label."""

    def __init__(self, encoder: nn.Module, width: int, labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, labels)

    def forward(self, ids: Int[Tensor, "batch time"], mask: Int[Tensor, "batch time"]) -> Float[Tensor, "batch labels"]:
        """Return the scores; `mask` is 1 for tokens and 0 for padding."""
        vectors = self.encoder(ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).float()
        scores: Tensor = self.head((vectors * weights).sum(dim=1) / weights.sum(dim=1))
        return scores


# %% [markdown]
# ## LoRA: change little
#
# Full fine-tuning moves all 22.7 million weights. During training each of them needs three more numbers (its gradient, and two means that AdamW keeps), and every customer's model is a file of 90 MB. **LoRA** (*low-rank adaptation*, Hu and others, 2021) leaves a layer's matrix $W$ alone and learns a correction beside it, a product of two thin matrices:
#
# $$y = W x + b + \frac{\alpha}{r}\, B A x \qquad A: r \times \text{inputs}, \quad B: \text{outputs} \times r$$
#
# The **rank** $r$ is small, 8 for instance. A matrix of 384 × 1,536 has 589,824 numbers; its A and B together have 8 × (384 + 1,536) = 15,360. The factor $\alpha / r$ is the **scale**: if you double the rank, about twice as much is added up in $BA$, and the scale makes up for it.
#
# Two more ideas. At the **start** the correction has to be zero, so that training begins with the pretrained model; and at the **end** $W + \frac{\alpha}{r} BA$ can be computed once, which gives a plain layer again. This is called **merging**.

# %% tags=["demo"]
a, b = torch.randn(2, 5), torch.zeros(3, 2)
a.requires_grad_(), b.requires_grad_()
x, wanted = torch.randn(4, 5), torch.randn(4, 3)
((x @ a.T @ b.T - wanted) ** 2).sum().backward()
print("gradient of A:", a.grad.abs().sum().item(), "  gradient of B:", round(b.grad.abs().sum().item(), 1))

# %% [markdown]
# > **Predict.** B is zero and A is random. In this first step the gradient of A is zero, and that of B is not. What happens in the second step? And what if A were zero as well?
#
# <details><summary>Answer</summary>After the first step B is no longer zero, so from the second step on A learns too. If both were zero, both gradients would be zero, in every step: nothing would ever happen.</details>
#
# Tools for the task: `nn.Parameter(tensor)` makes a tensor that is trained, `layer.requires_grad_(False)` freezes a layer, `@torch.no_grad()` above a method computes without gradients, and `tensor.copy_(other)` overwrites numbers in place. PyTorch keeps samples in rows, so that $W x$ becomes `x @ W.T`; `nn.Linear` has `weight` [outputs, inputs], `bias` (None if there is none), `in_features` and `out_features`.
#
# ### Task: a layer with LoRA (2 points)
#
# Write `LoRALinear(base, rank, alpha)` as an `nn.Module` around an `nn.Linear`:
#
# * It has the parameters `A` [rank, inputs] and `B` [outputs, rank]. A begins with random numbers (normally distributed, divided by the square root of the inputs, say), B with zeros.
# * `base` itself is kept, not copied, and frozen: its weight and its bias never change.
# * `forward(x)` takes tensors of any shape [..., inputs] and returns base(x) + alpha / rank · x·Aᵀ·Bᵀ.
# * `merged()` returns a *new*, plain `nn.Linear`, with tensors of its own, that computes the same. It has a bias only if the base has one. The LoRA layer and its base stay as they are, so that one can merge as often as one likes.


# %% task="lora_linear"
class LoRALinear(nn.Module):
    """A frozen linear layer, and beside it a trainable correction of low rank."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.A = nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))
        ### END SOLUTION

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Return what the base gives, plus the scaled correction."""
        ### BEGIN SOLUTION
        out: Tensor = self.base(x) + self.scale * (x @ self.A.T @ self.B.T)
        return out
        ### END SOLUTION

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return a plain layer that computes the same."""
        ### BEGIN SOLUTION
        layer = nn.Linear(self.base.in_features, self.base.out_features, bias=self.base.bias is not None)
        layer.weight.copy_(self.base.weight + self.scale * self.B @ self.A)
        if self.base.bias is not None:
            layer.bias.copy_(self.base.bias)
        return layer
        ### END SOLUTION


# %% check="lora_linear"
check.lora_linear(LoRALinear)

# %% [markdown]
# ## Which layers?
#
# A model is a tree of modules, and each has a name with dots: `encoder.layer.0.attention.self.query` is the query projection in the first block. (MiniLM itself has a part called `encoder`.) These are the linear layers of that block:

# %% tags=["demo"]
for name, layer in encoder.named_modules():
    if isinstance(layer, nn.Linear) and name.startswith("encoder.layer.0."):
        print(f"{name:45} {layer.in_features:5} -> {layer.out_features}")

# %% [markdown]
# One chooses layers by the end of their name, as the library `peft` does: the **target** `query` fits every name that is `query` or ends with `.query`. `output.dense` fits two layers in each block; `dense` would fit three.
#
# To look up, and to replace, a module by its name: `model.get_submodule("encoder.layer.0.attention")` returns a module (and `model.get_submodule("")` the model itself), and `setattr(parent, "query", new)` puts another one in its place. `"a.b.c".rpartition(".")` is `("a.b", ".", "c")`.
#
# ### Task: LoRA for a whole model (1.5 points)
#
# Write `add_lora`. `model` has an `encoder` and a `head`, as `Classifier` above; it is changed in place.
#
# * Everything in the model is frozen, except the head and what is added.
# * In `model.encoder`, each `nn.Linear` whose name fits a target is replaced by `wrap(layer)`. Names count from `model.encoder`, and a target fits a name that equals it or ends with a dot and the target. Other kinds of modules are left alone, whatever they are called. You may rely on it that no layer fits two targets.
# * A target that fits no `nn.Linear` raises a `ValueError`.
# * It returns the number of trainable numbers (not of tensors) in the whole model.
#
# `wrap` decides what is put around a layer. What `wrap` returns has frozen its base, and what is new in it is trainable, as in your `LoRALinear`.


# %% task="add_lora"
def add_lora(model: nn.Module, targets: Collection[str], wrap: Callable[[nn.Linear], nn.Module]) -> int:
    """Freeze a model but for its head, wrap the layers that fit a target, and count what can be trained.

    Raises ValueError if a target fits no layer.
    """
    ### BEGIN SOLUTION
    model.requires_grad_(False)
    layers = [(name, layer) for name, layer in model.encoder.named_modules() if isinstance(layer, nn.Linear)]
    for target in targets:
        fitting = [(name, layer) for name, layer in layers if f".{name}".endswith(f".{target}")]
        if not fitting:
            raise ValueError(f"no nn.Linear fits the target {target!r}")
        for name, layer in fitting:
            parent, _, last = name.rpartition(".")
            setattr(model.encoder.get_submodule(parent), last, wrap(layer))
    model.head.requires_grad_(True)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    ### END SOLUTION


# %% check="add_lora"
check.add_lora(add_lora)

# %% [markdown]
# Now for the real encoder. Its dropout is switched off for good, since so few numbers can hardly memorise anything; all targets of a block together make about one number in eighty trainable.

# %% tags=["demo"]
TARGETS = ("query", "value", "intermediate.dense", "output.dense")
RANK, ALPHA = 8, 16.0


def fresh_classifier() -> Classifier:
    """Return the pretrained encoder with a new head, and without dropout."""
    _, encoder = bert.load()
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return Classifier(encoder, encoder.config.hidden_size, len(service_messages.LABELS))


torch.manual_seed(1)
classifier = fresh_classifier()
everything = sum(parameter.numel() for parameter in classifier.parameters())
trainable = add_lora(classifier, TARGETS, lambda layer: LoRALinear(layer, rank=RANK, alpha=ALPHA))
print(f"{trainable:,} of {everything:,} numbers can be trained: {trainable / everything:.2%}")

# %% [markdown]
# ## Batches that waste nothing
#
# A batch is a rectangle: the short texts in it are filled up with the token 0, `[PAD]`, to the length of the longest. The **mask** says what is text (1) and what is padding (0). Padding is computed like text and then thrown away. Put texts of similar length together, and little of it is needed. That is **length bucketing**: sort by length, cut into batches.
#
# But a model that sees all short texts first learns something odd about the order. So chance comes in twice: the *batches* are shuffled, and texts of *equal length* are mixed before the sorting. (`sorted` and `list.sort` are stable: what is equal keeps its order.)
#
# `torch.randperm(n, generator=generator)` returns the numbers 0 to n − 1 in random order. `nn.utils.rnn.pad_sequence(rows, batch_first=True)` turns a list of tensors of different length into one, filled up with zeros.

# %% [markdown]
# ### Task: batches (2 points)
#
# Write `make_batches`. `texts` are lists of token numbers (never 0, never empty), `labels` has one number for each. Return a list of batches, each a **tuple** of three tensors of whole numbers: tokens [texts, longest], mask of the same shape, labels [texts].
#
# 1. Draw an order of all texts with `generator`, and sort it by length, so that texts of equal length stay in drawn order.
# 2. Cut it into batches of `size` texts. The last batch holds what is left over. Each batch is as wide as its longest text; tokens come first, then zeros.
# 3. Return the batches in an order that is drawn with `generator`.
#
# Equal generators give equal batches. The same generator, used again for the next epoch, gives others. No texts give no batches.

# %%
Batch = tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"], Int[Tensor, " batch"]]


# %% task="make_batches"
def make_batches(texts: list[list[int]], labels: list[int], size: int, generator: torch.Generator) -> list[Batch]:
    """Return batches of texts of similar length, in random order: tokens, mask and labels."""
    ### BEGIN SOLUTION
    order = torch.randperm(len(texts), generator=generator).tolist()
    order.sort(key=lambda number: len(texts[number]))
    batches = []
    for start in range(0, len(order), size):
        numbers = order[start : start + size]
        rows = [torch.tensor(texts[number]) for number in numbers]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        batches.append((ids, mask, torch.tensor([labels[number] for number in numbers])))
    return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]
    ### END SOLUTION


# %% check="make_batches"
check.make_batches(make_batches)

# %% [markdown]
# What it saves, on our own messages. Each column is a text of a batch, dark is text, light is padding. When we ran it, bucketing brought the padding from 33 % down to 1 %.


# %% tags=["demo"]
def encode(messages: list[service_messages.Message]) -> tuple[list[list[int]], list[int]]:
    """Return the tokens of messages, and the numbers of their labels."""
    tokens = tokenizer(texts_of(messages), truncation=True, max_length=64)["input_ids"]
    return tokens, [service_messages.LABELS.index(message.label) for message in messages]


texts, numbers = encode(training)
sorted_batches = make_batches(texts, numbers, 16, torch.Generator().manual_seed(0))
longest = max(len(tokens) for tokens in texts)
random_lengths = [[len(tokens) for tokens in texts[start : start + 16]] for start in range(0, 1_000, 16)]
sorted_lengths = [mask.sum(dim=1).tolist() for _ids, mask, _labels in sorted_batches]

figure = plots.figure(width=9, height=3)
for axes, title, batches in zip(
    figure.subplots(1, 2, sharey=True),
    (text("as they come"), text("bucketed by length")),
    (random_lengths, sorted_lengths),
    strict=True,
):
    widths = [max(batch) for batch in batches for _text in batch][:160]
    lengths = [length for batch in batches for length in batch][:160]
    axes.bar(range(160), widths, width=1, color=plots.ORANGE, alpha=0.35, label=text("padding"))
    axes.bar(range(160), lengths, width=1, color=plots.BLUE, label=text("text"))
    padding = 1 - sum(map(sum, batches)) / sum(len(batch) * max(batch) for batch in batches)
    axes.set_title(text("{title}: {share:.0%} padding").format(title=title, share=padding))
    axes.set_xlabel(text("the first 160 texts, in batches of 16"))
    axes.grid(visible=False)
figure.axes[0].set_ylabel(text("tokens"))
figure.axes[1].legend(loc="upper right", fontsize=8)
plots.show(
    figure,
    alt=text(
        "Ten batches, twice. As they come, each batch is as wide as its longest text, with much padding above the others. Bucketed by length, the texts of a batch are nearly equally long, with hardly any padding."
    ),
)

# %% [markdown]
# ## A fine-tuning that can be believed
#
# Now the loop. Its steps are those that you know; what is new is the bookkeeping, and there most mistakes are made. None of them raises an error. All of them give a number that looks fine.
#
# * **Three sets.** The training set teaches. The *development set* chooses: after each epoch it says how good the model is, and the best epoch is kept. The *test set* is looked at once, after the choice. Whoever chooses by the test set reports the number that came out best by chance.
# * **Two modes.** Measure in `eval` mode and without gradients, and switch back to `train` before the next epoch. (Our encoder has no dropout left, so for it the modes are alike; the model of the check has dropout, as most models do.)
# * **A copy.** `model.state_dict()` does not hold the weights of this moment but the model's own tensors, which go on changing. `copy.deepcopy` keeps the moment. `model.load_state_dict(kept)` brings it back.
# * **All texts count alike.** Batches differ in size; so count right answers over all batches, and divide once.
# * **An interval.** 180 of 200 right is 0.90, but another 200 messages would give another number. Wilson's interval says which accuracies are compatible with the 180 of 200 at a level of 95 %:


# %%
def wilson(right: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval for a share of `right` in `count`."""
    share, spread = right / count, 1.96**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = 1.96 * math.sqrt(share * (1 - share) / count + spread / count / 4) / (1 + spread)
    return centre - half, centre + half


@dataclass
class Report:
    """What a fine-tuning reports."""

    development: list[float]  # accuracy on the development set after each epoch
    epoch: int  # the epoch that was kept, counted from 1
    accuracy: float  # on the test set
    interval: tuple[float, float]  # of that accuracy


# %% tags=["demo"]
for right, count in ((18, 20), (180, 200), (1_800, 2_000), (20, 20)):
    low, high = wilson(right, count)
    print(f"{right:5} of {count:5}: {right / count:.2f}, from {low:.2f} to {high:.2f}")

# %% [markdown]
# ### Task: fine-tune (3 points)
#
# Write `fine_tune`. The optimizer comes ready, with its rates: each of its parameter groups may have one of its own. `epochs` holds a list of batches for each epoch; `development` and `test` are lists of batches. You may rely on none of these lists being empty.
#
# 1. For each batch, in the order given: the mean cross-entropy, cleared gradients, `backward`, one step. Of S steps in all (over all epochs), step s, counted from 0, is taken at 1 − s / S of the rate that the optimizer came with. `torch.optim.lr_scheduler.LambdaLR(optimizer, factor)` multiplies the rates by `factor(step)`; its `step()` comes after the optimizer's.
# 2. If a loss is NaN or infinite, raise `FloatingPointError` at once, before the step.
# 3. After each epoch measure the accuracy on `development`.
# 4. At the end the model has the weights of the epoch that was best on `development`; of equally good ones, the first.
# 5. Measure this model on `test`, and return a `Report`, with the interval from `wilson`.
#
# Training happens in training mode, measuring in evaluation mode and without gradients. The check first lets your function train a small model for 24 steps on a language that was made up a moment ago, and tests the trained model on texts that nobody has seen; then it looks at the five points, one by one.


# %% task="fine_tune"
def fine_tune(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs: list[list[Batch]],
    development: list[Batch],
    test: list[Batch],
) -> Report:
    """Train a model, leave it with the weights of its best epoch, and report how good it is.

    Raises FloatingPointError if the loss is no longer a number.
    """
    ### BEGIN SOLUTION
    steps = sum(len(batches) for batches in epochs)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)

    def count_right(batches: list[Batch]) -> tuple[int, int]:
        model.eval()
        with torch.no_grad():
            hits = torch.cat([model(ids, mask).argmax(dim=1) == labels for ids, mask, labels in batches])
        return int(hits.sum()), len(hits)

    accuracies: list[float] = []
    best: dict[str, Tensor] = {}
    for batches in epochs:
        model.train()
        for ids, mask, labels in batches:
            loss = F.cross_entropy(model(ids, mask), labels)
            if not loss.isfinite():
                raise FloatingPointError(f"the loss is {loss.item()}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        right, count = count_right(development)
        accuracies.append(right / count)
        if accuracies.index(max(accuracies)) == len(accuracies) - 1:
            best = copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
    right, count = count_right(test)
    return Report(accuracies, accuracies.index(max(accuracies)) + 1, right / count, wilson(right, count))
    ### END SOLUTION


# %% check="fine_tune"
check.fine_tune(fine_tune)

# %% [markdown]
# ## The real thing
#
# Two epochs of 1,000 messages, 126 steps. It takes a minute or two. You know our five runs from the figure at the top; yours has other random numbers. **Predict:** which of the two epochs will be kept? And which of the six sentences from above will part from the one that says the contrary, and which will not?

# %% tags=["demo"]
generator = torch.Generator().manual_seed(0)
development_batches = make_batches(*encode(development), 64, generator)
test_batches = make_batches(*encode(test), 64, generator)
epochs = [make_batches(texts, numbers, 16, generator) for _epoch in range(2)]
optimizer = torch.optim.AdamW([part for part in classifier.parameters() if part.requires_grad], lr=2e-3)
report = fine_tune(classifier, optimizer, epochs, development_batches, test_batches)
print(report)


@torch.no_grad()
def sort_messages(model: nn.Module, texts: list[str]) -> list[str]:
    """Return the label that a model gives to each text."""
    model.eval()
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    scores = model(tokens["input_ids"], tokens["attention_mask"])
    return [service_messages.LABELS[number] for number in scores.argmax(dim=1).tolist()]


answers = sort_messages(classifier, texts_of(by_hand))
right = sum(answer == label for answer, label in zip(answers, labels_of(by_hand), strict=True))
print("by hand", right / len(by_hand), wilson(right, len(by_hand)))

# %% [markdown]
# And this is what has become of the similarities. Compare with the first table and with your guess.


# %% tags=["demo"]
def tuned_vectors(texts: list[str]) -> Float[np.ndarray, "texts width"]:
    """Return the sentence vectors of the encoder as it is now."""
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        vectors = classifier.encoder(**tokens).last_hidden_state
    weights = tokens["attention_mask"].unsqueeze(-1).float()
    return F.normalize((vectors * weights).sum(dim=1) / weights.sum(dim=1), dim=1).numpy()


draw_similarities(
    tuned_vectors(SENTENCES),
    text("after fine-tuning"),
    text(
        "The same table after fine-tuning. In our run 'the pump spills oil' and 'the pump is not spilling oil now' have parted, from 0.82 to -0.58; 'the pump fails whatever we do' and 'nobody can say that the pump fails' have not: 0.96."
    ),
)

# %% [markdown]
# Of our five runs, which differ only in chance (the first numbers of head and A, the order of the batches), the best got 0.74 on the test set, the middle one 0.72 and the worst 0.55; the frozen vectors have 0.53. Twice the first epoch was kept and three times the second; with you it may be either. **Wilson's interval knows the chance of the test texts alone; the chance of training comes on top.** Here it is larger: the intervals of the best and the worst run do not overlap. So one run proves little; but four of five at 0.70 and more do say that the model learns something about denial that it can use on verbs that it was never shown. Not on every way to deny: in our table "is not spilling oil now" has parted from "spills oil", and "nobody can say that the pump fails" lies beside "fails" as before.
#
# And 0.50 to 0.60 by hand, less than the 0.67 that somebody gets who always says "open". A person writes "False alarm, someone had closed the tap", and nothing in our grammar is like that. **A fine-tuned model is as narrow as its data.** This one must not send vans.
#
# How many messages does it take? The learning curve, measured on the test set, one run for each point, none of them among the five above. With 250 messages LoRA guesses like the others. How much of the rest is chance, you can judge from the five runs.

# %% tags=["demo"]
MESSAGES = [250, 500, 1_000]
CURVES = {
    text("LoRA"): ([0.53, 0.61, 0.675], plots.BLUE),
    text("frozen vectors"): ([0.537, 0.545, 0.527], plots.ORANGE),
    text("TF-IDF"): ([0.487, 0.517, 0.520], plots.GREY),
}
figure = plots.figure(height=3)
axes = figure.subplots()
for name, (shares, color) in CURVES.items():
    intervals = [wilson(round(400 * share), 400) for share in shares]
    axes.plot(MESSAGES, shares, color=color, marker="o", label=name)
    axes.fill_between(MESSAGES, [low for low, _ in intervals], [high for _, high in intervals], color=color, alpha=0.15)
axes.set_xticks(MESSAGES)
axes.set_ylim(0.4, 0.8)
axes.set_xlabel(text("messages to learn from"))
axes.set_ylabel(text("accuracy on the test set"))
axes.legend(loc="upper left", ncols=3, fontsize=8.5)
plots.show(
    figure,
    alt=text(
        "Learning curves with intervals. TF-IDF and frozen vectors stay near 0.5 however many messages there are; LoRA begins with them at 250 messages and is clearly above them at 1,000."
    ),
)

# %% [markdown]
# ## All that we measured
#
# Before this unit was written we tried several data sets, and it would be cherry-picking to show only the one on which fine-tuning wins. So here are all of them: the accuracy with 800 texts to learn from (353 in the second row, where there are no more), one run each, on one core; LoRA and full fine-tuning with two epochs. (*Docstring*: from which library, or which part of scikit-learn, does a piece of documentation come? *Tickets* are messages that one of six teams has to answer. *Three states* are standstill, limping and solved. The last two rows are the messages of this unit, with 1,000 to learn from and five runs of LoRA; the two above them are a first version of these messages.)
#
# | data | labels | test texts | most frequent label | TF-IDF | frozen | LoRA | full |
# | --- | --- | --- | --- | --- | --- | --- | --- |
# | docstring: which library? (other files) | 6 | 480 | 0.35 | 0.48 | 0.59 | 0.58 | 0.58 |
# | docstring: which family of scikit-learn? (other files) | 6 | 107 | 0.41 | 0.66 | 0.71 | 0.70 | |
# | ticket: which team? (unseen patterns) | 6 | 480 | 0.19 | 0.33 | 0.84 | 0.82 | |
# | ticket: which team? (by hand) | 6 | 150 | 0.17 | 0.42 | 0.81 | 0.80 | |
# | three states (unseen phrases) | 3 | 480 | | 0.29 | 0.51 | 0.53 | |
# | three states (by hand) | 3 | 72 | 0.33 | 0.47 | 0.49 | 0.61 | |
# | open or solved, first version (unseen verbs and phrases) | 2 | 480 | 0.50 | 0.53 | 0.49 | 0.71 | 0.70 |
# | open or solved, first version (by hand) | 2 | 72 | 0.67 | 0.49 | 0.65 | 0.56 | 0.53 |
# | open or solved (unseen verbs and phrases) | 2 | 400 | 0.50 | 0.52 | 0.53 | 0.55 to 0.74 | |
# | open or solved (by hand) | 2 | 72 | 0.67 | 0.50 | 0.46 | 0.50 to 0.60 | |
#
# Empty cells were not measured. Read it row by row. Where the label is a *topic* (library, team), frozen vectors and a logistic regression, which take half a minute at most, are as good as anything. Where the label lies *across* the topic, it depends. For open or solved, LoRA is ahead on unseen verbs and phrases, mostly by far. In both rows of three states, and in the last row, it leads by less than chance can explain, and on the first version by hand it trailed: 72 texts are few, and Wilson's intervals overlap. In the three rows where we measured LoRA and full fine-tuning, one run each, we see no difference between them. With 800 texts LoRA took 39 s of computing and full fine-tuning 80 s; the file that you publish has 1.2 MB in place of 90.
#
# > **Change it.** `from kicourse.data import tickets` has the messages for six teams: `tickets.generate(rng, 1_000, held_out=False)` and `tickets.written()`, each with `text` and `team`; in `labels_of`, `encode`, `fresh_classifier` and `sort_messages` put `.team` for `.label` and `tickets.TEAMS` for `service_messages.LABELS`. Or set `RANK` to 1. Write down your guess first.

# %% [markdown]
# ## Publish it
#
# A model lives in a **repository** on the Hub: a folder of files with a history. Yours needs three.
#
# * `adapter.safetensors`: the tensors that were trained, by name. `safetensors.torch.save(tensors)` turns a dictionary of tensors into bytes. (`model.named_parameters()` gives names and parameters; take them with `.detach().contiguous()`. Unlike pickle, the format holds numbers and no code.)
# * `config.json`: what somebody needs who builds the model anew. The model says "1", and only the list of labels knows what that means.
# * `README.md`: the **model card**. It begins with lines of YAML between two lines `---`, which the Hub reads, and goes on with text for people: what the model is for, how good it is, where it fails.

# %% tags=["demo"]
example = ModelCardData(base_model="acme/tiny", license="mit", language="en", pipeline_tag="fill-mask")
print(f"---\n{example.to_yaml()}\n---\n\n# A model of Acme\n\nIt guesses **83.1 %** of masked words.")

# %% [markdown]
# Numbers in a card are never typed in. They come from the report, or one day they are wrong and nobody notices.
#
# ### Task: the files (1.5 points)
#
# Write `model_files`. It returns a dictionary with these three names, each with the file's content as `bytes` (`text.encode()` makes UTF-8 of text); `facts` stays as it is:
#
# * `adapter.safetensors`: exactly the parameters of `model` with `requires_grad`, under their names in `model.named_parameters()`;
# * `config.json`: an object with everything in `facts`, and `labels`, in their order;
# * `README.md`: a head with `base_model`, `license` and `language` from `facts`, and `pipeline_tag: text-classification`; below it text that gives the accuracy of the report and both ends of its interval in percent, each rounded to one decimal, with a point: `81.3 %`. Everything else in the text is up to you.
#
# `facts` holds `base_model`, `license` and `language` (texts), and the adapter's `targets` (a list), `rank` and `alpha`.


# %% task="model_files"
def model_files(model: nn.Module, labels: list[str], facts: dict[str, Any], report: Report) -> dict[str, bytes]:
    """Return the files of a repository, by name: the adapter's weights, its config and a model card."""
    ### BEGIN SOLUTION
    weights = {name: part.detach().contiguous() for name, part in model.named_parameters() if part.requires_grad}
    head = ModelCardData(
        base_model=facts["base_model"],
        license=facts["license"],
        language=facts["language"],
        pipeline_tag="text-classification",
    )
    low, high = report.interval
    lines = [
        "---",
        head.to_yaml(),
        "---",
        "# Is the fault still open?",
        f"A LoRA adapter for {facts['base_model']} that sorts messages: {', '.join(labels)}.",
        f"On the test set {100 * report.accuracy:.1f} % were right (95 % interval {100 * low:.1f} % to {100 * high:.1f} %).",
    ]
    return {
        "adapter.safetensors": save(weights),
        "config.json": json.dumps({**facts, "labels": labels}).encode(),
        "README.md": "\n".join(lines).encode(),
    }
    ### END SOLUTION


# %% check="model_files"
check.model_files(model_files)

# %% [markdown]
# Now publish it. `HfApi` is the client that also talks to huggingface.co; there it takes a token of your own, and `endpoint` is left out. Here a small Hub on this machine answers, so that no test model of yours ends up in public.

# %% tags=["demo"]
import tempfile

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from kicourse.models import local_hub
from safetensors.torch import load_file

facts = {
    "base_model": bert.NAME,
    "license": "apache-2.0",
    "language": "en",
    "targets": list(TARGETS),
    "rank": RANK,
    "alpha": ALPHA,
}
files = model_files(classifier, list(service_messages.LABELS), facts, report)
repository = "harz-pumpen/open-or-solved"

with local_hub.running() as endpoint, tempfile.TemporaryDirectory() as cache:
    api = HfApi(endpoint=endpoint, token="a token of your own")
    api.create_repo(repository, private=True)
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    print(api.create_commit(repository, operations, commit_message="First adapter").oid)

    # From here on: somebody else, who has nothing but the name of the repository.
    paths = {name: hf_hub_download(repository, name, endpoint=endpoint, cache_dir=cache) for name in files}
    with open(paths["config.json"], encoding="utf-8") as file:
        config = json.load(file)
    reloaded = fresh_classifier()
    wrap = lambda layer: LoRALinear(layer, rank=config["rank"], alpha=config["alpha"])  # noqa: E731
    add_lora(reloaded, config["targets"], wrap)
    loaded = reloaded.load_state_dict(load_file(paths["adapter.safetensors"]), strict=False)

print({name: f"{len(content) / 1e6:.2f} MB" for name, content in files.items()})
print("weights that fit nowhere:", loaded.unexpected_keys)
print("the same answers:", sort_messages(reloaded, texts_of(by_hand)) == answers)

# %% [markdown]
# `strict=False` says that the file does not hold all weights of the model; the others come from the base model. It also passes over weights that fit nowhere, so look at `unexpected_keys`: with other targets in the config the LoRA layers would stay untrained, in silence. To use the model without LoRA layers, replace each of them by its `merged()`.

# %% [markdown]
# ## Where you stand now
#
# You can now
#
# * say when fine-tuning is worth trying: when the difference that matters to you makes no difference to the pretrained model;
# * write LoRA by hand, choose its layers, count what it trains, and merge it;
# * train without wasting computing on padding, choose an epoch without fooling yourself, and report with an interval;
# * publish a model so that others can load and judge it.
#
# ## Where it breaks in production
#
# * **The training data are the model.** Ours come from a grammar. The cheapest improvement is not a better optimizer but 300 real messages with labels.
# * **Forgetting.** What the encoder was good at before may suffer. Do not use the tuned vectors for search without measuring again.
# * **The world moves on.** A new product, a new phrase: measure on fresh messages every month, with somebody who labels fifty of them.
# * **Licences and people.** The base model's licence goes on applying. And what customers wrote may be stored, word for word, in a model that you publish.
#
# ## What to read next
#
# * Hu and others, *LoRA: Low-Rank Adaptation of Large Language Models* (2021).
# * The documentation of `peft`, the library that does this for you, with many variants.
# * Mitchell and others, *Model Cards for Model Reporting* (2019).
# * Dodge and others, *Fine-Tuning Pretrained Language Models: Weight Initializations, Data Orders, and Early Stopping* (2020): how much of a result is luck.
