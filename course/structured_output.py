# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # From text to data
#
# Second week at Harz Pumpen. The service desk is pleased with your answers, but its software is not: it wants rows with a category, a priority and a serial number, and it crashes when you hand it a paragraph. "Can your model fill in the form?" asks the head of service. By the end of this unit a message becomes a checked record or a clear failure, never something in between; and you can say how often the record is right, and whether a new prompt is really better than the old one.

# %%
import kicourse
from kicourse.checks import structured_output as check

text = kicourse.start("structured_output")

# %%
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, TypeVar

from kicourse import plots
from kicourse.models import gpt
from openai import OpenAI
from pydantic import BaseModel, ConfigDict, Field, ValidationError

client = OpenAI()
MODEL = gpt.model()

# %% [markdown]
# Here is the route from a message to a record. Every coloured box is a few lines of code, and you will write most of them.

# %% tags=["demo"]
figure = plots.figure(width=9, height=2.9)
axes = figure.subplots()
boxes = [
    (0, 1, text("message"), plots.GREY),
    (2, 1, text("request\nwith schema"), plots.BLUE),
    (4, 1, text("reply"), plots.GREY),
    (6, 1, text("validate"), plots.BLUE),
    (8, 1, text("record"), plots.GREEN),
    (4, 0, text("repair, once"), plots.ORANGE),
    (8, 0, text("failure\nwith a name"), plots.RED),
]
for x, y, name, color in boxes:
    style = {"boxstyle": "round,pad=0.5", "facecolor": plots.PAPER, "edgecolor": color, "linewidth": 2}
    axes.text(x, y, name, ha="center", va="center", fontsize=9.5, bbox=style)
arrows = [((0.55, 1), (1.25, 1)), ((2.75, 1), (3.5, 1)), ((4.5, 1), (5.4, 1)), ((6.6, 1), (7.5, 1))]
arrows += [((5.9, 0.78), (4.85, 0.08)), ((3.2, 0.08), (2.2, 0.72)), ((6.3, 0.78), (7.35, 0.12))]
for start, end in arrows:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": plots.INK, "linewidth": 1.4})
axes.text(7.05, 1.12, text("valid"), ha="center", fontsize=9)
axes.text(4.85, 0.5, text("not valid"), ha="right", fontsize=9)
axes.text(7.1, 0.5, text("again not valid"), ha="left", fontsize=9)
axes.set_xlim(-0.7, 9)
axes.set_ylim(-0.4, 1.4)
axes.axis("off")
plots.show(
    figure,
    alt=text(
        "A flow from left to right: message, request with schema, reply, validate, record. From validate, a first invalid reply goes back through a repair to the request; a second one ends in a failure with a name."
    ),
)

# %% [markdown]
# ## Asking nicely
#
# First without any of it: just say what you want. (The prompts and messages are in English because SmolLM2 read almost nothing else.) **Predict:** how many of the three replies can `json.loads` read?

# %%
FORM = (
    "Turn the customer's message into a ticket: one JSON object with category (leak, noise, electrical, delivery or "
    "other), priority from 1 (can wait) to 5 (standstill), summary (a few words) and serial (HP- and four digits)."
)
MESSAGES = [
    "The pump in hall 3 (HP-2041) leaks at the shaft seal, oil is on the floor. Please send somebody today.",
    "We ordered twelve gaskets two weeks ago and nothing has arrived yet.",
    "Pump HP-7310 hums loudly since this morning, but it still works.",
]

# %% tags=["demo"]
for message in MESSAGES:
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": FORM}, {"role": "user", "content": message}],
        temperature=0,
        max_tokens=80,
    )
    print(f"{reply.choices[0].message.content!r}\n")

# %% [markdown]
# When we ran it: none. Larger models do better, and still wrap their JSON in a sentence, invent a sixth category or forget a comma, once in a hundred or once in a thousand times. With 300 messages a day that is three times a day, or twice a week.
#
# ## A type for a ticket
#
# So say precisely what a ticket is. In Python you do that with a type, and **pydantic** turns a type into a check. A class that inherits from `BaseModel` has fields, each with a name and a type. Its method `model_validate_json` reads JSON into an instance, or raises a `ValidationError`:


# %% tags=["demo"]
class Urgency(StrEnum):
    """How soon a van has to leave."""

    TODAY = "today"
    THIS_WEEK = "this week"


class Visit(BaseModel):
    """A technician's visit."""

    model_config = ConfigDict(extra="forbid")

    urgency: Urgency
    gate: Literal["north", "south"]
    hours: int = Field(ge=1, le=8)
    contact: str = Field(min_length=1, max_length=30)
    room: str | None = Field(default=None, pattern=r"^[A-Z][0-9]{2}$")


print(Visit.model_validate_json('{"urgency": "today", "gate": "south", "hours": 2, "contact": "Frau Özdemir"}'))
for wrong in (
    '{"urgency": "soon", "gate": "south", "hours": 12, "contact": "Frau Özdemir", "room": "7B"}',
    '{"urgency": "today", "gate": "south", "hours": 2, "contact": "Frau Özdemir", "floor": 3}',
    '{"urgency": "today", "gate": "sou',
):
    try:
        Visit.model_validate_json(wrong)
    except ValidationError as error:
        print(f"\n{error}")

# %% [markdown]
# Read it slowly, every word of it does something:
#
# * A list of allowed values is an **enum** (`StrEnum`), or a `Literal` where it is short.
# * `Field` holds **constraints**: `ge` and `le` (greater or equal, less or equal), `min_length` and `max_length`, and `pattern`, a regular expression: `[A-Z]` is one capital letter, `[0-9]` one digit, and `{2}` says that there are exactly two of what stands before it. A pattern is *searched for*, so it needs `^` (begin) and `$` (end) around it.
# * **Optional means two things.** `str | None` says that the value may be null. Only a **default** says that the field may be missing. Without the default, `room` would have to be there each time, if only as null.
# * Where nothing is lost, pydantic **converts**: the text `"2"` becomes 2 in a field of type `int`. That is welcome here, since models quote their numbers now and then.
# * `extra="forbid"` refuses fields that the class does not know. Without this line they are dropped in silence.
#
# And look at the errors: each says where, what is wrong, and what was given instead. That is written for people, but keep it in mind: a model can read it too.
#
# ## Task 1: a ticket
#
# Write the class `Ticket`:
#
# | field | what it holds |
# | --- | --- |
# | `category` | one of `leak`, `noise`, `electrical`, `delivery`, `other` |
# | `priority` | a whole number from 1 to 5 |
# | `summary` | a text of 1 to 80 characters |
# | `serial` | `HP-` and exactly four digits, nothing before or after; or null. May be left out, which means null |
#
# The other three fields must be there, and no further fields are allowed. Write the class inside the function and return the class itself, not an instance.


# %% task="ticket"
def ticket_model() -> type[BaseModel]:
    """Return the class Ticket: a message to the service desk as a record."""

    ### BEGIN SOLUTION
    class Ticket(BaseModel):
        """A message to the service desk as a record."""

        model_config = ConfigDict(extra="forbid")

        category: Literal["leak", "noise", "electrical", "delivery", "other"]
        priority: int = Field(ge=1, le=5)
        summary: str = Field(min_length=1, max_length=80)
        serial: str | None = Field(default=None, pattern=r"^HP-[0-9]{4}$")

    return Ticket
    ### END SOLUTION


# %% check="ticket"
check.ticket(ticket_model)

# %% [markdown]
# Free text may be in any language, an allowed value may not. These two tickets come from a German colleague's hand; **predict** which of them is refused, and why.

# %% tags=["demo"]
Ticket = ticket_model()
for fields in (
    {"category": "leak", "priority": 4, "summary": "Wellendichtung undicht, Öl läuft in den Keller"},
    {"category": "Lärm", "priority": 2, "summary": "Pumpe brummt seit heute früh", "serial": "HP 7310"},
):
    try:
        print(repr(Ticket.model_validate_json(json.dumps(fields))))
    except ValidationError as error:
        print(f"\n{error}")

# %% [markdown]
# ## The schema, and a model that cannot break it
#
# pydantic can write a class down as a **JSON schema**, a description of JSON in JSON that every language and every provider reads:

# %% tags=["demo"]
print(json.dumps(Ticket.model_json_schema(), indent=2)[:700], "…")

# %% [markdown]
# Send the schema with the request, and something remarkable happens on the server. Remember that a GPT gives every token a probability, and one is drawn. The server reads along, and before each draw it strikes out every token with which the text could no longer become JSON of this schema. What is left is scaled to sum to one. This is **constrained decoding**.
#
# A picture of one such step, with an answer that must be one of five words. We work it out by hand here: from the twenty likeliest tokens we strike out those that begin none of the five (the server does it with all of them).

# %% tags=["demo"]
WORDS = ("Leak", "Noise", "Electrical", "Delivery", "Other")
reply = client.chat.completions.create(
    model=MODEL,
    messages=[
        {"role": "system", "content": f"Sort the customer's message: {', '.join(WORDS)}. Answer with one word."},
        {"role": "user", "content": MESSAGES[0]},
    ],
    temperature=0,
    max_tokens=1,
    logprobs=True,
    top_logprobs=20,
)
found = reply.choices[0].logprobs.content[0].top_logprobs
shares = {token.token: math.exp(token.logprob) for token in found}
allowed = {token for token in shares if token and any(word.startswith(token) for word in WORDS)}
left = sum(shares[token] for token in allowed) or 1.0

figure = plots.figure(width=9, height=4)
free, bound = figure.subplots(1, 2, sharex=True, sharey=True)
names = [repr(token) for token in shares]
colors = [plots.BLUE if token in allowed else plots.GREY for token in shares]
free.barh(names, list(shares.values()), color=colors)
free.set_title(text("what the model would say"))
bound.barh(names, [shares[token] / left if token in allowed else 0 for token in shares], color=colors)
bound.set_title(text("what the schema leaves"))
free.invert_yaxis()
free.tick_params(axis="y", labelsize=8)
for axes in (free, bound):
    axes.grid(False, axis="y")
    axes.set_xlabel(text("probability of the first token"))
plots.show(
    figure,
    alt=text(
        "Two groups of bars for the same twenty tokens. Left, the model's probabilities: most of the likely tokens begin a sentence and are grey. Right, only the few blue tokens that begin one of the allowed words are left, scaled to sum to one."
    ),
)

# %% [markdown]
# The model wanted to begin a sentence. It is not allowed to, so it picks the likeliest token that is. Now our three messages, with the schema. **Predict:** how many are valid now? And how many are *right*?


# %%
def schema_format(schema: type[BaseModel]) -> Any:
    """Return what `response_format` takes, so that the reply is JSON of this schema."""
    return {"type": "json_schema", "json_schema": {"name": schema.__name__, "schema": schema.model_json_schema()}}


# %% tags=["demo"]
for message in MESSAGES:
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": FORM}, {"role": "user", "content": message}],
        temperature=0,
        max_tokens=200,
        response_format=schema_format(Ticket),
    )
    print(f"{message}\n{reply.choices[0].message.content}\n")

# %% [markdown]
# When we ran it, three of three were valid and none was right: each got priority 1, nearly all were leaks, and of the two serial numbers at least one was left out. (Yours may differ a little: even at temperature 0 a reply can depend on what the server computed before.) **Valid is not right.** A schema takes away the model's freedom to write nonsense in the wrong form; nonsense in the right form is still possible. The first half of this unit makes records valid, the second measures whether they are right.
#
# ## When the reply is not valid all the same
#
# Some servers know no schemas, some only promise to try, and even the strictest one is cut off in the middle of an object when `max_tokens` is reached. So you **validate** every reply. Here we cut one off on purpose:

# %% tags=["demo"]
reply = client.chat.completions.create(
    model=MODEL,
    messages=[{"role": "system", "content": FORM}, {"role": "user", "content": MESSAGES[0]}],
    temperature=0,
    max_tokens=25,
    response_format=schema_format(Ticket),
)
print(reply.choices[0].message.content)
try:
    Ticket.model_validate_json(reply.choices[0].message.content or "")
except ValidationError as error:
    print(f"\n{error}")

# %% [markdown]
# A reply that is no JSON at all fails in the same way as one that breaks the schema: `model_validate_json` raises a `ValidationError`. So if it fails, you have something better than to ask again and hope: you have the error. Show it to the model.
#
# Three lines first. `OPTIONS` is what the requests for our three tickets had: the likeliest tokens, and room for a record; `create(..., **OPTIONS)` passes both on. `Model` stands for any class that is made from `BaseModel`; with it the signature below says that what comes back is an instance of the very class that was passed in. And the failure gets a name of its own.

# %%
OPTIONS: Any = {"temperature": 0, "max_tokens": 200}
Model = TypeVar("Model", bound=BaseModel)


class ExtractionError(Exception):
    """No valid record came back, not even after a repair."""


# %% [markdown]
# ## Task 2: extract a record
#
# Write `extract`. It works with any pydantic class, not only with `Ticket`:
#
# 1. It sends `FORM` as the system's message and the customer's message as the user's to `MODEL`, and asks for the schema with `response_format=schema_format(schema)`. Add `**OPTIONS`; the check does not insist on these.
# 2. If the reply is valid, it returns the instance.
# 3. If not, it asks once more, with all of it in view: the same messages, then the faulty reply in the role of the assistant, then, as the user, what was wrong and in which field, in pydantic's own words; `str(error)` has them all. Send the schema again, too.
# 4. If that is not valid either, it raises `ExtractionError`. It never sends a third request.
#
# Only a faulty *reply* is repaired. An error of the server's is passed on to the caller.


# %% task="extract"
def extract(client: OpenAI, message: str, schema: type[Model]) -> Model:
    """Turn a customer's message into an instance of `schema`.

    Raises ExtractionError if two replies are not valid.
    """
    ### BEGIN SOLUTION
    messages: list[Any] = [{"role": "system", "content": FORM}, {"role": "user", "content": message}]
    wanted = schema_format(schema)
    for _attempt in range(2):
        completion = client.chat.completions.create(model=MODEL, messages=messages, response_format=wanted, **OPTIONS)
        reply = completion.choices[0].message.content or ""
        try:
            return schema.model_validate_json(reply)
        except ValidationError as error:
            messages.append({"role": "assistant", "content": reply})
            messages.append({"role": "user", "content": f"This is not valid. Mend it: {error}"})
    raise ExtractionError(f"no valid {schema.__name__} after a repair: {reply}")
    ### END SOLUTION


# %% check="extract"
check.extract(extract)

# %% [markdown]
# At work it looks like this. The last message has nothing to do with pumps; **predict** what your function makes of it.

# %% tags=["demo"]
for message in (MESSAGES[2], "Happy birthday to you."):
    try:
        print(repr(extract(client, message, Ticket)))
    except ExtractionError as error:
        print(f"ExtractionError: {error}")

# %% [markdown]
# It has to fill in the form, so it does. A schema can offer a way out (the category `other`, or a field of its own that says "this is no ticket"), but it cannot make the model take it: when we ran it, the birthday was a leak.
#
# ## Does the customer sound happy?
#
# Now to the question of whether the data are right. We take the smallest possible form, one field with two values: is a message positive or negative? And we take messages whose answer is known, in three sets that never mix:
#
# * **examples**, which may go into a prompt,
# * a **development set**, on which you try prompts out as often as you like,
# * a **test set**, which you touch once, at the end.


# %%
def labelled(lines: str) -> list[tuple[str, str]]:
    """Read one message a line, each after the sign of its label."""
    signs = {"+": "positive", "-": "negative"}
    return [(line[2:], signs[line[0]]) for line in lines.strip().splitlines()]


LABELS = ["positive", "negative"]
EXAMPLES = labelled("""
+ The new pump runs like clockwork, and everyone here is delighted.
- The pump failed again after two days, and nobody called us back.
+ Your technician was friendly, quick and explained everything.
- We have waited three weeks for a simple seal, and that is unacceptable.
+ Many thanks for the fast delivery, the parts fit perfectly.
- The invoice is wrong for the second time, and I am tired of it.
+ Excellent advice on the phone, we will order from you again.
- The motor burned out and your hotline hung up on me.
""")
DEVELOPMENT = labelled("""
+ We are very happy with the new pump.
- The repair was expensive and did not help at all.
+ Everything arrived on time and in perfect condition.
- I am disappointed: the seal leaks more than before.
+ What a quiet motor, we love it.
- Nobody answers the phone at your company.
+ The technician solved our problem in ten minutes.
- The delivery was late and half of it was missing.
+ Great service, thank you so much.
- This is the worst pump that we have ever bought.
+ The manual is clear and helpful.
- Your van damaged our gate and nobody apologised.
+ Our production has run smoothly ever since.
- The filter broke on the first day.
+ I can recommend this company to everybody.
- We will never order from you again.
""")
TEST = labelled("""
+ The new bearing works perfectly.
+ Thank you for the quick help on Sunday.
+ The pump is quiet, strong and easy to clean.
+ Your colleague was patient and very kind.
+ We are pleased with the repair.
+ The spare part came one day early, wonderful.
+ Best pump in our plant by far.
+ The training was interesting and well prepared.
+ The price was fair and the work was excellent.
+ The driver was polite and helped us to unload.
+ Everything works again, we are relieved and grateful.
+ A pleasure to work with your team.
+ The installation went smoothly.
+ I am impressed by the quality of the valve.
+ The offer came within an hour, fantastic.
+ Your hotline gave us exactly the right tip.
+ Ten years old and still running beautifully.
+ The new control panel is a joy to use.
+ Good advice, fast delivery, fair price.
+ The whole shift is thrilled with the new motor.
- The pump is loud, weak and leaks.
- We are angry about the delay.
- The wrong part was delivered, again.
- Your technician was rude and left a mess.
- The repair lasted one day, then it broke.
- I have called five times and got no answer.
- The valve is of poor quality.
- The installation was a disaster.
- We lost a whole day of production because of you.
- The manual is useless.
- The driver left the parts in the rain.
- This invoice is a bad joke.
- The seal was damaged when it arrived.
- The motor smells of burning, and nobody cares.
- We regret that we bought this pump.
- The support was slow and unfriendly.
- The new software crashes every morning.
- The quality has become worse every year.
- I want my money back.
- The promised call never came, how annoying.
""")

# %% [markdown]
# ## Examples in the prompt
#
# You can explain to a model what you want, or show it. **Few-shot** prompting shows: a few messages with their answers stand before the question, as a dialogue that never took place. The model continues it in the same manner.
#
# | role | content |
# | --- | --- |
# | system | the instructions |
# | user | the first example's message |
# | assistant | its label |
# | ... | ... |
# | user | **the question** |
#
# There is one trap. If the question itself is among the examples, the answer stands in the prompt, and you measure how well the model copies. With big collections of messages that happens quietly: customers send things twice.
#
# ## Task 3: a prompt with examples
#
# Write `few_shot_messages`. It returns the messages in the order of the table, with the first `count` examples of `pool` that are not the question itself; if there are fewer, with all of them. Two texts are the same if they differ at most in upper and lower case and in spaces and line breaks: `" ".join(message.casefold().split())` makes them equal. (`casefold` is `lower` for all languages: it turns `ß` into `ss`.)


# %% task="few_shot_messages"
def few_shot_messages(
    instructions: str, pool: Sequence[tuple[str, str]], question: str, count: int
) -> list[dict[str, str]]:
    """Return a chat with `count` examples from `pool`, pairs of a message and its label, before the question."""

    ### BEGIN SOLUTION
    def same(message: str) -> str:
        return " ".join(message.casefold().split())

    examples = [(message, label) for message, label in pool if same(message) != same(question)]
    messages = [{"role": "system", "content": instructions}]
    for message, label in examples[:count]:
        messages += [{"role": "user", "content": message}, {"role": "assistant", "content": label}]
    return [*messages, {"role": "user", "content": question}]
    ### END SOLUTION


# %% check="few_shot_messages"
check.few_shot_messages(few_shot_messages)

# %% [markdown]
# Let us use it: the embedded model classifies the development set, with no example, with one, with two and with eight. The reply is constrained to a JSON string, one of the two words in quotation marks, and the examples show their labels in the same way. **Predict:** how does the accuracy change with the number of examples? (It takes half a minute to two minutes; look at the next cells meanwhile.)


# %% tags=["demo"]
INSTRUCTIONS = "Classify the sentiment of the customer's message as positive or negative."
SENTIMENT = {"type": "json_schema", "json_schema": {"name": "Sentiment", "schema": {"enum": LABELS}}}
POOL = [(message, json.dumps(label)) for message, label in EXAMPLES]


def classify(question: str, count: int) -> str | None:
    """Return the model's label for a message, or None if the reply is no label."""
    reply = client.chat.completions.create(
        model=MODEL,
        messages=few_shot_messages(INSTRUCTIONS, POOL, question, count),
        temperature=0,
        max_tokens=8,
        response_format=SENTIMENT,
    )
    try:
        label = json.loads(reply.choices[0].message.content or "")
    except json.JSONDecodeError:
        return None
    return label if label in LABELS else None


COUNTS = (0, 1, 2, 8)
development = {count: [classify(message, count) for message, _label in DEVELOPMENT] for count in COUNTS}
for count, answers in development.items():
    right = sum(answer == label for answer, (_message, label) in zip(answers, DEVELOPMENT, strict=True))
    print(f"examples: {count}, {right} of {len(DEVELOPMENT)} right, {answers.count('positive')} times positive")

# %% [markdown]
# When we measured it: 9, 16, 7 and 8 of 16. A single example works wonders, and with two or eight the model calls nearly everything positive. On other sentences, forty that are not in this notebook, it was 28 with no example, 40 with two, 22 with four and 37 with eight: there another number was the best, and the lesson is the same. **More examples are not always better**, and nobody can tell beforehand which number is good. So do not believe in a prompt. Measure it.
#
# ## Measuring
#
# **Accuracy** is the share of right answers. Of what? Of *all* questions. If the model gives no usable answer (your `extract` raised its error, the label is not on the list), the customer got no help, so it counts as wrong.
#
# Sixteen sentences are few. With other sentences the number would be another, and an **interval** says how different it may well be. With accuracy $p$ on $n$ items and $z = 1.96$ for 95 percent, **Wilson's interval** is
#
# $$\frac{p + \frac{z^2}{2n} \pm z\sqrt{\frac{p(1-p)}{n} + \frac{z^2}{4n^2}}}{1 + \frac{z^2}{n}}$$
#
# The better known formula, Wald's $p \pm z\sqrt{p(1-p)/n}$, is fine for large $n$ and embarrassingly bad for small $n$: look at its two ends.

# %% tags=["demo"]
# Wilson's lower ends for 0 to 16 right answers of 16; the upper ends are their mirror images.
LOWER = [
    0.0,
    0.011,
    0.035,
    0.066,
    0.102,
    0.142,
    0.185,
    0.231,
    0.28,
    0.332,
    0.386,
    0.444,
    0.505,
    0.57,
    0.64,
    0.717,
    0.806,
]
figure = plots.figure(width=8, height=3.4)
axes = figure.subplots()
for right, lower in enumerate(LOWER):
    share = right / 16
    wald = 1.96 * math.sqrt(share * (1 - share) / 16)
    axes.plot([right - 0.13] * 2, [share - wald, share + wald], color=plots.ORANGE)
    axes.plot([right + 0.13] * 2, [lower, 1 - LOWER[16 - right]], color=plots.BLUE)
    axes.plot(right, share, "o", color=plots.INK, markersize=3.5)
axes.axhspan(1, 1.2, color=plots.GREY, alpha=0.2)
axes.axhspan(-0.2, 0, color=plots.GREY, alpha=0.2)
axes.set_ylim(-0.2, 1.2)
axes.text(0.4, 1.04, text("Wald"), color=plots.ORANGE)
axes.text(2.0, 1.04, text("Wilson"), color=plots.BLUE)
axes.set_xlabel(text("right answers of 16"))
axes.set_ylabel(text("accuracy"))
plots.show(
    figure,
    alt=text(
        "Two intervals for each number of right answers from 0 to 16. Wald's reach beyond zero and one, and shrink to a point at 0 and at 16 right answers. Wilson's stay between zero and one and have a width at the ends, too."
    ),
)

# %% [markdown]
# Sixteen of sixteen, says Wald, and you can be certain of 100 percent. Wilson says: somewhere between 81 and 100.
#
# Last, *which* mistakes? A **confusion matrix** counts: one row for each true label, one column for each label that the model gave. Right answers stand on the diagonal. We give it one more column at the end, for no usable answer.


# %%
@dataclass(frozen=True)
class Evaluation:
    """How good a prompt is on labelled items."""

    accuracy: float
    interval: tuple[float, float]  # 95 percent, Wilson
    confusion: list[list[int]]  # a row for each true label; the last column: no usable answer


# %% [markdown]
# ## Task 4: evaluate
#
# Write `evaluate`. `truth` has the true labels, `predicted` what the model said about the same items in the same order: a label, or something else; `None`, and any text that is not a label, count as no usable answer. Rows and columns are in the order of `labels`. There is at least one item.


# %% task="evaluate"
def evaluate(truth: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]) -> Evaluation:
    """Compare predictions with the truth; whatever is no label counts as wrong."""
    ### BEGIN SOLUTION
    items, z = len(truth), 1.96
    confusion = [[0] * (len(labels) + 1) for _label in labels]
    right = 0
    for true, answer in zip(truth, predicted, strict=True):
        column = labels.index(answer) if answer in labels else len(labels)
        confusion[labels.index(true)][column] += 1
        right += true == answer
    p = right / items
    shrink = 1 + z**2 / items
    centre = (p + z**2 / (2 * items)) / shrink
    half = z * math.sqrt(p * (1 - p) / items + z**2 / (4 * items**2)) / shrink
    return Evaluation(p, (centre - half, centre + half), confusion)
    ### END SOLUTION


# %% check="evaluate"
check.evaluate(evaluate)

# %% [markdown]
# The development set again, now as an engineer looks at it: the accuracy of each prompt with its interval, and what the prompt without examples confuses.

# %% tags=["demo"]
truth = [label for _message, label in DEVELOPMENT]
results = {count: evaluate(truth, development[count], LABELS) for count in COUNTS}
figure = plots.figure(width=9, height=3.6)
left, right_side = figure.subplots(1, 2, width_ratios=(3, 2))
for place, result in enumerate(results.values()):
    left.plot([place] * 2, result.interval, color=plots.BLUE, linewidth=6, alpha=0.35)
    left.plot(place, result.accuracy, "o", color=plots.BLUE)
left.axhline(0.5, color=plots.GREY, linestyle="--", linewidth=1)
left.set_xticks(range(len(COUNTS)), [str(count) for count in COUNTS])
left.set_ylim(0, 1.02)
left.set_xlabel(text("examples in the prompt"))
left.set_ylabel(text("accuracy"))
matrix = results[0].confusion
right_side.imshow(matrix, cmap="Blues", vmin=0, vmax=2 * max(map(max, matrix)))
for row, counts in enumerate(matrix):
    for column, number in enumerate(counts):
        right_side.text(column, row, str(number), ha="center", va="center", fontsize=12)
right_side.set_xticks(range(3), [*LABELS, text("none")])
right_side.set_yticks(range(2), LABELS)
right_side.set_xlabel(text("the model's label (no examples)"))
right_side.set_ylabel(text("true label"))
right_side.grid(False)
plots.show(
    figure,
    alt=text(
        "Left: accuracy with its interval for 0, 1, 2 and 8 examples; the intervals are wide. Right: the confusion matrix of the prompt without examples, with two true labels as rows and three columns, the last one for no usable answer."
    ),
)

# %% [markdown]
# How wide these intervals are! The one of a single example lies above the others; those of the other three overlap. Does overlap mean that prompts are equally good?
#
# ## Better, or lucky?
#
# Not necessarily: overlapping intervals do not settle it, and to think so is a mistake that serious companies make. Suppose that on 40 messages the old prompt is right 33 times, and the new one 39 times. The intervals are 0.68 to 0.91 and 0.87 to 1.00: they overlap. But both prompts answered *the same* 40 messages. So look at them in pairs:

# %% tags=["demo"]
pairs = [(True, True)] * 33 + [(False, True)] * 6 + [(False, False)]
figure = plots.figure(width=9, height=2.1)
axes = figure.subplots()
for place, pair in enumerate(pairs):
    disagree = pair[0] != pair[1]
    for row, hit in enumerate(pair):
        color = plots.ORANGE if disagree else plots.GREY
        axes.barh(row, 0.86, left=place, height=0.8, color=color if hit else plots.PAPER, edgecolor=color)
axes.set_yticks([0, 1], [text("old prompt"), text("new prompt")])
axes.invert_yaxis()
axes.set_xlabel(text("40 messages (filled: answered correctly)"))
axes.set_xticks([])
axes.grid(False)
plots.show(
    figure,
    alt=text(
        "Two rows of forty squares, filled where a prompt was right. Both prompts agree on 34 messages, drawn in grey. On six messages, in orange, only the new prompt is right; on none only the old one."
    ),
)

# %% [markdown]
# 34 messages say nothing: both prompts did the same. What counts are the six on which they disagree, and all six speak for the new prompt. If both were equally good, each disagreement would be the toss of a coin. Six tosses that all fall on the same side, whichever it is: $2 \cdot 0.5^6 \approx 0.03$. That is rare enough (the usual limit is 0.05) to believe that the new prompt is better.
#
# This is the exact **McNemar test**. With $b$ messages gained (only the new prompt is right) and $c$ lost (only the old one is), $n = b + c$, its **p-value** is the probability, *if both prompts are equally good*, that coin tosses split at least as unevenly, on either side:
#
# $$p = \min\left(1,\; 2 \sum_{k=0}^{\min(b, c)} \binom{n}{k} \frac{1}{2^n}\right)$$
#
# $\binom{n}{k}$ is `math.comb(n, k)`. Where nothing disagrees, $n = 0$ and $p = 1$.
#
# And a second trap. If you try ten prompts and report the best result of the ten, luck is part of what you report. So **choose on the development set, and report on the test set**.


# %%
@dataclass(frozen=True)
class Comparison:
    """A challenger against the prompt in use, on the same items."""

    chosen: str
    gained: int  # items on which only the challenger is right
    lost: int  # items on which only the prompt in use is right
    p_value: float


# %% [markdown]
# ## Task 5: compare prompts
#
# Write `compare_prompts`. `development` and `test` map each prompt's name to a list that says, item by item, whether that prompt was right. `test` holds the baseline and the chosen challenger, and not always the others. `baseline` is the name of the prompt in use; all others are challengers. Choose the challenger with the most right answers on the development set (of several equal ones, any), and report how it does against the baseline on the test set.


# %% task="compare_prompts"
def compare_prompts(
    development: Mapping[str, Sequence[bool]], test: Mapping[str, Sequence[bool]], baseline: str
) -> Comparison:
    """Choose a challenger on the development set and compare it with the baseline on the test set."""
    ### BEGIN SOLUTION
    challengers = [name for name in development if name != baseline]
    chosen = max(challengers, key=lambda name: sum(development[name]))
    pairs = list(zip(test[baseline], test[chosen], strict=True))
    gained = sum(new and not old for old, new in pairs)
    lost = sum(old and not new for old, new in pairs)
    disagreements = gained + lost
    tail = sum(math.comb(disagreements, k) for k in range(min(gained, lost) + 1)) / 2**disagreements
    return Comparison(chosen, gained, lost, min(1.0, 2 * tail))
    ### END SOLUTION


# %% check="compare_prompts"
check.compare_prompts(compare_prompts)

# %% [markdown]
# Now open the test set, once: the prompt without examples is in use, the others are challengers. Only the baseline and the chosen one have to run on it. (Another half minute to two minutes.)


# %% tags=["demo"]
def hits(answers: Sequence[str | None], items: Sequence[tuple[str, str]]) -> list[bool]:
    """Return for each item whether its answer is right."""
    return [answer == label for answer, (_message, label) in zip(answers, items, strict=True)]


on_development = {f"examples: {count}": hits(development[count], DEVELOPMENT) for count in COUNTS}
best = max(COUNTS[1:], key=lambda count: sum(on_development[f"examples: {count}"]))
on_test = {
    f"examples: {count}": hits([classify(message, count) for message, _label in TEST], TEST) for count in (0, best)
}
for name, right in on_test.items():
    print(f"{name}, {sum(right)} of {len(right)} right on the test set")
print(compare_prompts(on_development, on_test, "examples: 0"))

# %% [markdown]
# When we ran it: 29 against 40 of 40, eleven gained and none lost, $p = 0.001$. For this model and these messages one example is better, and you can defend it in any meeting. You can also defend its limits: our sentences are short, easy to read, and written by one person. Real messages are not.
#
# A last idea for those who count the cost. You need not let the model *say* a label: you can read the probabilities of both labels from the log-probabilities of one token, and decide by a threshold that is tuned on other data. On the forty sentences that are not in this notebook this reached an accuracy of 0.95 to 1.00, at a third of the time.
#
# ## What you can do now
#
# * You can describe data as a type, and have a model fill it in: valid, or a failure with a name.
# * You can put examples into a prompt without giving the answers away.
# * You can say how good a prompt is, how sure you are of that, and whether another one is better.
#
# **Where it breaks in production.** Networks fail, and providers limit you: *Calls that survive production*. Accuracy is not all that counts, and labelled messages do not grow on trees: *Measure what a model can do*. And whoever fills in forms can be asked to press buttons: *Models that use tools*.
#
# **To read next:** the documentation of [pydantic](https://docs.pydantic.dev), your provider's page on structured outputs, and Agresti and Coull, *Approximate is better than "exact" for interval estimation of binomial proportions*, eight pages on why Wald's interval fails.
