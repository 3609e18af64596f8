# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Talk to a GPT
#
# Monday, your first day at Harz Pumpen: 400 people, pumps from the size of a fist to the size of a van, and a service desk that gets 300 messages a day. You are the company's first AI developer. "Can one of these chat models answer the easy ones?" asks the head of service. By the end of this unit you can let a program talk to a GPT: ask, stream the answer, know to a hundredth of a cent what it cost, and hold a dialogue that never outgrows its budget.

# %%
import kicourse
from kicourse.checks import first_call as check

text = kicourse.start("first_call")

# %%
import math
from collections.abc import Callable, Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal

from kicourse import plots
from kicourse.models import gpt
from openai import OpenAI
from openai.types import CompletionUsage

# %% [markdown]
# ## A map of the job
#
# Many people work with AI, and their titles overlap. What tells them apart is where they spend their days.

# %% tags=["demo"]
stages = [
    text("understand\nthe problem"),
    text("collect and\ncheck data"),
    text("analyse"),
    text("train\nmodels"),
    text("put models\nto work"),
    text("build the\nproduct"),
    text("operate\nand improve"),
]
roles = [
    (text("AI consultant"), 0, 2, plots.GREY),
    (text("Data analyst"), 0, 3, plots.GREY),
    (text("Data scientist"), 0, 4, plots.GREY),
    (text("ML engineer"), 2, 7, plots.GREY),
    (text("AI developer: you"), 4, 7, plots.BLUE),
]
figure = plots.figure(width=9, height=3.2)
axes = figure.subplots()
for role, first, last, color in roles:
    axes.barh(role, last - first, left=first, color=color, height=0.62)
axes.barh(roles[-1][0], 0.94, left=0.03, color="none", edgecolor=plots.BLUE, linestyle="--", height=0.58)
axes.text(0.5, len(roles) - 1, text("with one foot"), ha="center", va="center", color=plots.BLUE, fontsize=8.5)
axes.set_xticks([position + 0.5 for position in range(7)], stages, fontsize=8.5)
axes.set_xlim(0, 7)
axes.invert_yaxis()
axes.grid(False)
plots.show(
    figure,
    alt=text(
        "Bars show where each role works, from understanding the problem to operating the product. Consultants and data analysts work at the beginning, data scientists up to training, machine-learning engineers from analysis to operation, AI developers where models are put to work and products are built and operated, and a little at the beginning."
    ),
)

# %% [markdown]
# * **Data scientists** ask what the data say, and try which model would fit.
# * **Machine-learning engineers** train models and keep that machinery running.
# * **AI developers** take models, most of them trained by others, and build software around them that people can rely on: requests, prompts, data, tests, limits, costs. They train too when it pays (Parts II and III of this course), but first they ask whether a model that exists will do.
#
# The borders are soft and every company draws them differently. What you always need is software engineering: the model is one unreliable part among reliable ones.

# %% [markdown]
# ## Your GPT
#
# A GPT (generative pretrained transformer) runs on your machine right now. It is called SmolLM2, has 135 million parameters (a large one has ten thousand times as many), and speaks the same HTTP interface as OpenAI's models. It answers at once, costs nothing, and nothing you type leaves your machine. It also has the self-confidence of a much larger model, as you will see.
#
# It was trained almost only on English, so all prompts here are in English.

# %%
client = OpenAI()  # reads OPENAI_BASE_URL and OPENAI_API_KEY from the environment
MODEL = gpt.model()
INSTRUCTIONS = (
    "You are the service desk of Harz Pumpen, a maker of industrial pumps. Answer in one or two short sentences."
)

# %% [markdown]
# A request is a list of **messages**. Each has a role: `system` for your instructions, `user` for the human's words, `assistant` for the model's own.

# %% tags=["demo"]
reply = client.chat.completions.create(
    model=MODEL,
    messages=[
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": "What does a pump do?"},
    ],
    temperature=0,
)
print(reply.model_dump_json(indent=2, exclude_none=True))

# %% [markdown]
# That is all there is: JSON goes in, JSON comes out. The client turns the reply's JSON into an object, so you reach into it with dots, not brackets (lists keep their brackets: `reply.choices[0]`). Look for three things in it: the text (how would you get at it?), `finish_reason` (`stop`: the model was done; `length`: it was cut off), and `usage`, which is what you pay for.

# %% [markdown]
# ## Task 1: ask a question
#
# Write `ask`. It sends the instructions as the system's message and then the question as the user's, nothing else, and returns the text of the reply.


# %% task="ask"
def ask(client: OpenAI, question: str, instructions: str = INSTRUCTIONS) -> str:
    """Ask MODEL one question and return the text of its reply."""
    ### BEGIN SOLUTION
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": instructions}, {"role": "user", "content": question}],
    )
    return reply.choices[0].message.content or ""
    ### END SOLUTION


# %% check="ask"
check.ask(ask)

# %% [markdown]
# The check gave your function a real client that talks to a small scripted server, and looked at what arrived there. So it does not matter how witty the model is today; what counts is your engineering.
#
# Stuck? `check.ask.hint()` helps in three steps, and `check.ask.many()` tries your answer with twenty other seeds, as grading does. Every check has both.
#
# Now ask the real one. **Predict first:** which of these will it get wrong?

# %% tags=["demo"]
for question in (
    "Which is heavier: 1 kg of steel or 1 kg of feathers?",
    "What is 17 * 23?",
    'How many letters "r" are in strawberry?',
    "Who makes the best pumps?",
):
    print(f"Q: {question}\nA: {ask(client, question)}\n")

# %% [markdown]
# Usually: wrong, wrong, wrong, and loyal. Fluency is not correctness, and larger models only make the mistakes rarer and harder to spot. Now try `ask(client, "What does a pump do?", "You are a pirate. Answer like one.")` in a cell of your own, and see what a system message can do, and what it cannot.

# %% [markdown]
# ## One token at a time
#
# Why is it so sure of itself? Because it never decides on an answer. It reads the text so far and gives every **token** (a word or a piece of one) in its vocabulary a probability; one is drawn, appended, and the whole thing starts again. The interface shows you these probabilities if you ask for `logprobs`, their logarithms.

# %% tags=["demo"]
reply = client.chat.completions.create(
    model=MODEL,
    messages=[
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": "Why is my pump noisy?"},
    ],
    temperature=0,
    max_tokens=24,
    logprobs=True,
    top_logprobs=10,
)
tokens = reply.choices[0].logprobs.content
wavers = min(range(1, len(tokens)), key=lambda place: abs(tokens[place].logprob - math.log(0.4)))
so_far = "".join(token.token for token in tokens[:wavers])
candidates = [candidate.token for candidate in tokens[wavers].top_logprobs]
logprobs = [candidate.logprob for candidate in tokens[wavers].top_logprobs]

print(" | ".join(token.token for token in tokens))

figure = plots.figure(height=3.4)
axes = figure.subplots()
axes.barh([repr(candidate) for candidate in candidates], [math.exp(logprob) for logprob in logprobs])
axes.invert_yaxis()
axes.grid(False, axis="y")
axes.set_xlabel(text("probability"))
axes.set_title(" ".join(so_far.split()[-7:]) + " …")
plots.show(
    figure,
    alt=text(
        "Bars: the ten likeliest next tokens and their probabilities, at a place where the model wavers. The first has about 40 percent, the others much less."
    ),
)

# %% [markdown]
# These are the ten favourites for the next token, at a place where the model wavers: its first choice has about 40 percent. Each of the others would have led to another sentence, and the model would have carried on just as smoothly.
#
# ### Temperature
#
# Which token is drawn? That is what `temperature` $T$ decides. Each probability is raised to the power $1/T$, and all are scaled to sum to one again:
#
# $$p_i(T) = \frac{p_i^{1/T}}{\sum_j p_j^{1/T}}$$
#
# **Predict:** what happens to the bars for $T \to 0$, and what for a large $T$?


# %% tags=["demo"]
def with_temperature(logprobs: list[float], temperature: float) -> list[float]:
    """Return the probabilities of the candidates at this temperature; they sum to one."""
    weights = [math.exp(logprob / temperature) for logprob in logprobs]
    return [weight / sum(weights) for weight in weights]


figure = plots.figure(width=9, height=3.4)
for axes, temperature in zip(figure.subplots(1, 4, sharex=True, sharey=True), (0.2, 0.7, 1.0, 2.0), strict=True):
    axes.barh([repr(candidate) for candidate in candidates], with_temperature(logprobs, temperature))
    axes.set_title(f"T = {temperature}")
    axes.set_xlim(0, 1)
    axes.grid(False, axis="y")
axes.invert_yaxis()
figure.supxlabel(text("probability among the ten"), fontsize=10)
plots.show(
    figure,
    alt=text(
        "The same ten bars at four temperatures. At 0.2 the first token has nearly everything; the bars become more equal up to temperature 2."
    ),
)

# %% [markdown]
# Close to zero the favourite always wins: the same question gives the same answer, which is what you want for tests and for data. Larger values give variety, and nonsense. See for yourself:

# %% tags=["demo"]
for temperature in (0.0, 0.7, 2.0):
    for _attempt in range(2):
        reply = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Invent a name for a pump. Answer with the name only."}],
            temperature=temperature,
            max_tokens=12,
        )
        print(f"T = {temperature}: {reply.choices[0].message.content!r}")

# %% [markdown]
# ## Tokens are money
#
# Providers charge by the token, and tokens are not words. How many does a sentence have? The reply's `usage` says it. **Predict:** does the German sentence cost the same as the English one?

# %% tags=["demo"]
sentences = {
    "English": "The seal of the cooling water pump is leaking; please send a technician.",
    "Deutsch": "Die Dichtung der Kühlwasserpumpe ist undicht; bitte schicken Sie einen Techniker.",
}
for name, sentence in {"(nothing)": "", **sentences}.items():
    reply = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": sentence}], max_tokens=1)
    print(f"{name:10} {len(sentence.split()):3} words {reply.usage.prompt_tokens:4} tokens")

# %% [markdown]
# The first line is what the chat format itself needs (this model's adds a system message of its own); take it off the others. A model that read mostly English has short codes for English words and spells German ones out: the same message has nearly twice as many tokens.
#
# There is more to a bill than two numbers:
#
# * `prompt_tokens`: all that was sent. Some of it may have been sent before; the provider keeps such beginnings in a **cache** and charges less. `prompt_tokens_details.cached_tokens` says how many of the prompt's tokens these were.
# * `completion_tokens`: all that was written. Some models think in writing first; these `completion_tokens_details.reasoning_tokens` are part of the completion's tokens and cost the same, though you never see them.
#
# Both details, and the numbers in them, may be missing (`None`): look at the first reply above. Our embedded model reports cached tokens, but knows no reasoning, and so leaves `completion_tokens_details` out. And do not rely on `total_tokens`: it should be the sum of both counts, but some servers leave it at 0.

# %%
PRICES = {  # dollars for a million tokens: example prices, of the order that providers charge
    "input": Decimal("0.50"),
    "cached_input": Decimal("0.125"),
    "output": Decimal("3.50"),
}

# %% [markdown]
# ## Task 2: what a call costs
#
# Write `cost`: the dollars that one call costs, as a `Decimal`. Charge every token exactly once. Calculate exactly, and round once, at the end, to four decimal places (a hundredth of a cent); exactly half is rounded up.
#
# Why not `float`? Because 0.1 has no exact binary fraction: `0.1 + 0.2 == 0.3` is `False`. For money that is not good enough. A `Decimal` is rounded with `quantize`: `Decimal("2.675").quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)` is `Decimal("2.68")`.


# %% task="cost"
def cost(usage: CompletionUsage, prices: Mapping[str, Decimal]) -> Decimal:
    """Return what a call costs, in dollars, rounded half up to four decimal places.

    `prices` are dollars for a million tokens: "input", "cached_input" and "output".
    """
    ### BEGIN SOLUTION
    details = usage.prompt_tokens_details
    cached = (details.cached_tokens or 0) if details else 0
    fresh = usage.prompt_tokens - cached
    total = fresh * prices["input"] + cached * prices["cached_input"] + usage.completion_tokens * prices["output"]
    return (total / 1_000_000).quantize(Decimal("0.0001"), rounding=ROUND_HALF_UP)
    ### END SOLUTION


# %% check="cost"
check.cost(cost)

# %% [markdown]
# What does it mean for Harz Pumpen? Suppose each of the 300 daily messages becomes a dialogue. The model remembers nothing, so every request sends the whole dialogue again. **Predict:** if a dialogue gets twice as long, how much more does it cost?


# %% tags=["demo"]
def dialogue_cost(turns: int, budget: int | None = None) -> Decimal:
    """Return what a dialogue costs whose questions have 60 tokens and whose answers have 120."""
    total = Decimal(0)
    for turn in range(turns):
        sent = 40 + 180 * turn + 60
        usage = CompletionUsage(prompt_tokens=min(sent, budget or sent), completion_tokens=120, total_tokens=0)
        total += cost(usage, PRICES)
    return total


figure = plots.figure(height=3.2)
axes = figure.subplots()
turns = range(1, 41)
cents = [[100 * float(dialogue_cost(count, budget)) for count in turns] for budget in (None, 1500)]
axes.plot(turns, cents[0], color=plots.ORANGE)
axes.plot(turns, cents[1], color=plots.BLUE)
axes.text(40, cents[0][-1], text("everything sent again") + " ", ha="right", va="bottom", color=plots.ORANGE)
axes.text(40, cents[1][-1] - 2.2, text("at most 1,500 tokens sent"), ha="right", va="top", color=plots.BLUE)
axes.set_ylim(0, 1.15 * cents[0][-1])
axes.set_xlabel(text("questions in the dialogue"))
axes.set_ylabel(text("cents for the dialogue"))
for budget in (None, 1500):
    print(f"300 dialogues of 20 questions a day, budget {budget}: {300 * dialogue_cost(20, budget):.2f} dollars")
plots.show(
    figure,
    alt=text(
        "Cost of a dialogue against its length. Sending everything again, the cost grows with the square of the length; with a budget of 1,500 tokens it grows in a straight line."
    ),
)

# %% [markdown]
# A dialogue that is twice as long costs up to four times as much: the cost grows with the square of the length. A budget straightens the curve; you will build it in task 4.

# %% [markdown]
# ## Streaming
#
# The model writes one token after the other, so why wait for the last? With `stream=True` the reply comes as a stream of **chunks**. Here are the first three and the last two:

# %% tags=["demo"]
chunks = list(
    client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is a valve?"}],
        temperature=0,
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
)
for chunk in chunks[:3] + chunks[-2:]:
    print(chunk.model_dump_json(include={"choices": True, "usage": True}, exclude_none=True))

# %% [markdown]
# Look closely: the first chunk has no text (`content` is missing, which the client reads as `None`; some servers send an empty one), the last but one only says why the stream ends, and the last has the usage and **no choices at all**.
#
# ## Task 3: show it as it comes
#
# Write `stream`: like `ask`, but it yields the pieces of text, each as soon as it has arrived and before it waits for the next. It yields text only: no `None`, no empty pieces, and it does not stumble over a chunk without choices, wherever that comes.
#
# A reminder: a function with `yield` is a generator. It hands out a value and pauses there until the next one is asked for. And where a whole reply has `.message`, a chunk has `.delta`: only what is new.


# %% task="stream"
def stream(client: OpenAI, question: str, instructions: str = INSTRUCTIONS) -> Iterator[str]:
    """Ask MODEL one question and yield the text of its reply piece by piece, as it arrives."""
    ### BEGIN SOLUTION
    chunks = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": instructions}, {"role": "user", "content": question}],
        stream=True,
    )
    for chunk in chunks:
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content
    ### END SOLUTION


# %% check="stream"
check.stream(stream)

# %% [markdown]
# At work it looks like this. The picture below shows each token's arrival, and how long `ask` would have let the reader wait for the same answer. The **time to first token** is what a reader feels.

# %% tags=["demo"]
import time

QUESTION = "How do I find out why my pump is noisy?"
start = time.perf_counter()
arrivals = []
for piece in stream(client, QUESTION):
    arrivals.append(time.perf_counter() - start)
    print(piece, end="", flush=True)

figure = plots.figure(height=2.4)
axes = figure.subplots()
axes.barh(["ask"], [arrivals[-1]], color=plots.GREY, height=0.4)
axes.barh(["stream"], [arrivals[0]], color=plots.GREY, height=0.4)
axes.barh(["stream"], [arrivals[-1] - arrivals[0]], left=arrivals[0], color=plots.BLUE, alpha=0.25, height=0.4)
axes.vlines(arrivals, 0.8, 1.2, color=plots.BLUE, linewidth=1)
axes.text(arrivals[-1], -0.32, text("first word"), ha="right", va="bottom", fontsize=9)
axes.text(arrivals[0], 0.72, text("first word"), va="bottom", fontsize=9)
axes.set_ylim(1.5, -0.75)
axes.grid(False, axis="y")
axes.set_xlabel(text("seconds since the question (grey: waiting)"))
plots.show(
    figure,
    alt=text(
        "Two timelines. With ask, the reader waits until the whole answer is there. With stream, the first word comes after a small part of that time, and the others follow one by one."
    ),
)

# %% [markdown]
# ## Memory
#
# One last surprise. **Predict** the second answer:

# %% tags=["demo"]
print(ask(client, "Hello, I am Petra. My pump is called Bertha."))
print(ask(client, "What is my pump called?"))

# %% [markdown]
# The model remembers nothing: each request stands alone. A dialogue is an illusion that *you* create by sending all of it again, each text in its role. That costs more with every turn, as you have seen, and at some point it no longer fits into what the model can read, its context window. So a dialogue needs a budget.
#
# ## Task 4: a dialogue inside a budget
#
# Write the class `Conversation`. `conversation.ask(question)` sends to MODEL, in this order:
#
# 1. the instructions, as the system's message, always;
# 2. as many of the **latest exchanges** as fit. An exchange is a question and its answer; it is sent whole or not at all, and where one does not fit, all older ones are left out too;
# 3. the new question.
#
# What is sent has at most `budget` tokens: the sum of `count_tokens(content)` over its messages. (Real chat formats add a few tokens per message; here we leave them out.) `ask` returns the text of the reply and remembers the exchange for the next time.
#
# * If the instructions and the question alone are over the budget, `ask` raises `ValueError` and sends nothing.
# * If a question gets no answer (this error, or a server error, which you let through to the caller), the conversation is afterwards as if it had not been asked.


# %% task="conversation"
class Conversation:
    """A dialogue with MODEL that never sends more than `budget` tokens at once."""

    def __init__(self, client: OpenAI, instructions: str, budget: int, count_tokens: Callable[[str], int]) -> None:
        ### BEGIN SOLUTION
        self.client = client
        self.instructions = instructions
        self.budget = budget
        self.count_tokens = count_tokens
        self.exchanges: list[tuple[str, str]] = []
        ### END SOLUTION

    def ask(self, question: str) -> str:
        """Send the question with as much of the dialogue as fits, and return the text of the reply."""
        ### BEGIN SOLUTION
        room = self.budget - self.count_tokens(self.instructions) - self.count_tokens(question)
        if room < 0:
            raise ValueError(f"The question is {-room} tokens too long.")
        messages = [{"role": "user", "content": question}]
        for asked, replied in reversed(self.exchanges):
            room -= self.count_tokens(asked) + self.count_tokens(replied)
            if room < 0:
                break
            messages = [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": replied},
                *messages,
            ]
        messages = [{"role": "system", "content": self.instructions}, *messages]
        reply = self.client.chat.completions.create(model=MODEL, messages=messages)
        answer = reply.choices[0].message.content or ""
        self.exchanges.append((question, answer))
        return answer
        ### END SOLUTION


# %% check="conversation"
check.conversation(Conversation)

# %% [markdown]
# Does it remember Bertha now? For a budget, one token per four characters is a good enough estimate. And this client has a hook that shows what really goes over the wire, a good habit when a dialogue goes astray.


# %% tags=["demo"]
import json
from typing import Any

from openai import DefaultHttpxClient


def estimate_tokens(text: str) -> int:
    """Return roughly how many tokens an English text has."""
    return math.ceil(len(text) / 4)


def show_messages(request: Any) -> None:
    """Print the messages of a chat request."""
    for message in json.loads(request.content)["messages"]:
        print(f"    {message['role']:>9}: {message['content']}")


watched = OpenAI(http_client=DefaultHttpxClient(event_hooks={"request": [show_messages]}))
dialogue = Conversation(watched, INSTRUCTIONS, budget=500, count_tokens=estimate_tokens)
for question in ("Hello, I am Petra. My pump is called Bertha.", "What is my pump called?"):
    print(f"{dialogue.ask(question)}\n")

# %% [markdown]
# The second request has the first exchange in it: your code has done its part. Whether SmolLM2 makes something of it is another matter; with its 135 million parameters it finds Bertha more often than not. Run the cell a few times. Then you know two things that do not go away with larger models: memory is your job, and one good answer proves nothing.

# %% [markdown]
# ## The same code, another model
#
# Nothing in this notebook knows which model answers. The client reads two environment variables, and every provider with an OpenAI-compatible interface can take the embedded model's place. Set them before you start `kicourse lab`:
#
# ```sh
# export OPENAI_BASE_URL=https://api.openai.com/v1    # or another provider, or your company's own server
# export OPENAI_API_KEY=...                           # a secret: never write it into a notebook
# export OPENAI_MODEL=...                             # which of the provider's models to ask
# ```
#
# From then on calls leave your machine and cost money, and what you send is read elsewhere: before customers' data go out, ask the person in charge of data protection.

# %% tags=["demo"]
print(f"{MODEL} at {client.base_url}")

# %% [markdown]
# ## What you can do now
#
# * You can call a GPT from a program, with instructions, and know what came back.
# * You can explain where its words come from, and what temperature does to them.
# * You can stream, know what a call costs to a hundredth of a cent, and keep a dialogue inside a budget.
#
# **Where it breaks in production.** Networks fail in the middle of a stream, providers say "too many requests", and one slow call holds up the next: *Calls that survive production* is about that. The answers are text, and programs want data: *From text to data*. And nobody has checked yet whether the answers are any good; you have seen that they often are not: *Measure what a model can do*.
#
# **To read next:** the reference of the [chat completions interface](https://platform.openai.com/docs/api-reference/chat), and Andrej Karpathy's talk *Intro to Large Language Models*, an hour well spent.
