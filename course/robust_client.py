# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Calls that survive production
#
# Your assistant has been answering tickets at Harz Pumpen for two weeks, and everybody likes it. On Monday at nine it fell over: the provider said "too many requests", your program said `Traceback (most recent call last)`, and 41 customers got nothing. The same morning the data protection officer asks a friendly question: "What exactly do you send to that provider? Names too?"
#
# By the end of this unit your calls survive a bad Monday: they try again politely, never ask the same thing twice, run side by side without a stampede, switch providers when one is down, and send no name out of the house.

# %%
import kicourse
from kicourse.checks import robust_client as check

text = kicourse.start("robust_client")

# %%
import asyncio
import json
import random
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from kicourse import plots
from kicourse.models import gpt
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, OpenAI

client = OpenAI()
MODEL = gpt.model()

# %% [markdown]
# This is the path a ticket takes. You build the blue boxes, each as a piece that works on its own; near the end, three of them work together. Tasks 3 and 4 add what the picture has no box for: many tickets at once, and the choice between A and B. The dashed line is the wall of the house.

# %% tags=["demo"]
figure = plots.figure(width=9, height=2.7)
axes = figure.subplots()
boxes = [
    (0, 1, text("ticket"), plots.GREY),
    (1.75, 1, text("hide\nnames"), plots.BLUE),
    (3.5, 1, text("known\nalready?"), plots.BLUE),
    (5.25, 1, text("retry"), plots.BLUE),
    (7.6, 1, text("provider A"), plots.GREY),
    (7.6, 0.45, text("provider B"), plots.GREY),
    (3.5, 0, text("bring names\nback"), plots.BLUE),
    (0, 0, text("reply"), plots.GREEN),
]
for x, y, name, color in boxes:
    style = {"boxstyle": "round,pad=0.45", "facecolor": plots.PAPER, "edgecolor": color, "linewidth": 2}
    axes.text(x, y, name, ha="center", va="center", fontsize=9.5, bbox=style)
arrows = [((0.5, 1), (1.2, 1)), ((2.3, 1), (2.8, 1)), ((4.2, 1), (4.65, 1)), ((5.85, 1), (6.85, 1))]
arrows += [
    ((5.65, 0.88), (6.85, 0.5)),
    ((8.6, 0), (4.35, 0)),
    ((2.7, 0), (0.5, 0)),
    ((3.4, 0.62), (3.4, 0.32)),
    ((5, 0), (3.85, 0.62)),
]
for start, end in arrows:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": plots.INK, "linewidth": 1.4})
axes.plot([8.3, 8.6, 8.6], [1, 1, 0], color=plots.INK, linewidth=1.4)
axes.plot([8.3, 8.6], [0.45, 0.45], color=plots.INK, linewidth=1.4)
axes.axvline(6.25, color=plots.RED, linestyle="--", linewidth=1.4)
axes.text(6.15, 1.45, text("our house"), ha="right", fontsize=9, color=plots.RED)
axes.text(6.35, 1.45, text("the internet"), ha="left", fontsize=9, color=plots.RED)
axes.set_xlim(-0.7, 8.7)
axes.set_ylim(-0.4, 1.65)
axes.axis("off")
plots.show(
    figure,
    alt=text(
        "A flow: ticket, hide names, known already, retry, and then across the wall of the house to provider A, or if that is down to provider B. The reply comes back, names are brought back, and the customer gets it. It is remembered on its way, and what is known already takes a short cut back."
    ),
)

# %% [markdown]
# ## What goes wrong
#
# A real network fails when it likes. For learning we want one that fails when *we* like, so here is a small server of the course that replies whatever we script, and the real client that talks to it. **Predict** before you run it: which of these does the client turn into an exception, and does it look the same each time?

# %% tags=["demo"]
from kicourse.checks.scripted_server import Broken, Completion, Failure, ScriptedServer

QUESTION: list[Any] = [{"role": "user", "content": "Is the HP-2041 in stock?"}]
script = {
    "too many requests": Failure(429, "slow down", retry_after=2),
    "server down": Failure(503, "overloaded"),
    "our own mistake": Failure(400, "unknown parameter"),
    "wrong key": Failure(401, "who are you?"),
    "hung up": Broken(),
    "not JSON": Broken("<html>Bad gateway</html>"),
    "all well": Completion("Yes, seven pieces."),
}
with ScriptedServer(list(script.values())) as server:
    shaky = OpenAI(base_url=server.url, api_key="none", max_retries=0)
    for name in script:
        try:
            reply = shaky.chat.completions.create(model="any", messages=QUESTION)
            print(f"{name:18}{reply.choices[0].message.content}")
        except Exception as error:
            after = getattr(getattr(error, "response", None), "headers", {}).get("retry-after")
            family = " < ".join(kind.__name__ for kind in type(error).__mro__[:3])
            print(f"{name:18}{family}\n{'':18}{str(error)[:60]!r}, Retry-After: {after}")

# %% [markdown]
# Three families, and you need all three:
#
# * **A status came back.** `APIStatusError` with `error.status_code`. 4xx means "you did something wrong", 5xx "I did". 429 and 408 are special: nothing is wrong with the request, you only came too often or were too slow. The reply's headers may say when to come again: `error.response.headers.get("retry-after")` is a text, mostly seconds, or `None` where there is no such header (capital or small letters make no difference).
# * **Nothing came back.** `APIConnectionError`: refused, hung up, or too slow (`APITimeoutError` is one of them). There is no status, and no response to look into.
# * **Nonsense came back.** A body that claims to be JSON and is not: cut off, say, or a page of HTML from a gateway in between. What you get is not even an error of the client's, but Python's own `json.JSONDecodeError`. (A page that comes as `text/html` with status 200 is returned as a plain `str`, without any error; production code checks for that too.)
#
# The nastiest case belongs to the second family: nothing comes back, and *nothing happens either*, until the client gives up with an `APITimeoutError`. How long does it wait by default?

# %% tags=["demo"]
print(f"waits for {client.timeout.read:.0f} seconds, and tries {client.max_retries} more times")
try:
    client.with_options(timeout=0.001, max_retries=0).chat.completions.create(model=MODEL, messages=QUESTION)
except APIConnectionError as error:
    print(f"{type(error).__name__}: {error}")

# %% [markdown]
# Ten minutes, three times. No customer waits that long. So always set a `timeout`, once, where you make the client: `OpenAI(timeout=10)`; or with `client.with_options(...)`, which returns a copy of the client with other settings. (Our own `client` goes without: it talks to your machine, which may be slow.)
#
# The second number is a surprise too: **the client retries by itself**, twice. That is kind, but if your own code retries as well, the two multiply. Three attempts of yours, each of them three requests, are nine.
#
# ## Who should try again, and when?
#
# Trying again only helps where the failure is *temporary*. The same faulty request fails a second time; the same wrong key is wrong a second time.

# %%
TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})  # timeout, too many requests, and the server's own troubles

# %% [markdown]
# And when? At once is the worst moment: the server is down *because* too many came. So wait, and twice as long each time: this is **exponential backoff**. But if 200 clients failed in the same instant and all wait for exactly half a second, all 200 come back in the same instant. Let us see. Our simulated server can serve ten requests in a tenth of a second; 200 clients come at once; whoever is refused waits and comes again. **Predict** which of three ways of waiting needs the fewest requests, and which is done first. (In the picture, the vertical axis is logarithmic above 10.)

# %% tags=["demo"]
from collections import Counter


def stampede(wait: Callable[[int], float], clients: int = 200, capacity: int = 10) -> Counter[int]:
    """Return how many requests arrive in each tenth of a second until all clients are served."""
    arrivals = [(0.05, attempt) for attempt in [0] * clients]
    load: Counter[int] = Counter()
    tenth = 0
    while arrivals:
        now = [(when, attempt) for when, attempt in arrivals if when < (tenth + 1) / 10]
        later = [(when, attempt) for when, attempt in arrivals if when >= (tenth + 1) / 10]
        load[tenth] = len(now)
        refused = sorted(now)[capacity:]
        arrivals = later + [(when + wait(attempt), attempt + 1) for when, attempt in refused]
        tenth += 1
    return load


dice = random.Random(7)
ways = {
    text("one second each time"): lambda attempt: 1.0,
    text("doubling"): lambda attempt: min(8.0, 0.5 * 2**attempt),
    text("doubling, with full jitter"): lambda attempt: dice.random() * min(8.0, 0.5 * 2**attempt),
}
figure = plots.figure(width=9, height=5)
panels = figure.subplots(3, 1, sharex=True)
for axes, (name, wait), color in zip(panels, ways.items(), (plots.RED, plots.ORANGE, plots.BLUE), strict=True):
    load = stampede(wait)
    axes.bar([tenth / 10 for tenth in load], list(load.values()), width=0.1, align="edge", color=color)
    axes.axhline(10, color=plots.INK, linewidth=1, linestyle="--")
    axes.set_title(name)
    axes.set_xlim(0, 22)
    axes.set_yscale("symlog", linthresh=10)
    axes.set_yticks([0, 10, 100], ["0", "10", "100"])
    busy = [tenth for tenth, count in load.items() if count]
    line = text("{count:5} requests, the last one after {seconds:5.1f} s: {way}")
    print(line.format(count=sum(load.values()), seconds=busy[-1] / 10, way=name))
panels[1].set_ylabel(text("requests in a tenth of a second"))
panels[2].set_xlabel(text("seconds (dashed: what the server can do)"))
plots.show(
    figure,
    alt=text(
        "Three bar charts of requests over time. Waiting one second each time gives a high spike every second that shrinks slowly. Doubling gives fewer spikes, ever farther apart. Doubling with full jitter spreads the requests, and after two seconds there are fewer than the server can serve."
    ),
)

# %% [markdown]
# The same 200 clients needed 2,100 requests and 19 seconds waiting one second each time, just as many and 127.5 seconds doubling (most of it beyond the right edge), and 635 requests and 5 seconds doubling with jitter. Doubling alone saves nothing here; the randomness does it: those who come back together are refused together. **Full jitter** means: take the whole bound, $b_k = \min(\text{cap}, \text{base} \cdot 2^k)$ for the wait after attempt $k = 0, 1, 2, \dots$, and wait for a random part of it, $u \cdot b_k$ with $u$ drawn evenly between 0 and 1. Waiting a random time looks careless and is the most careful thing of all.
#
# Two things take precedence over your own dice. If the server says `Retry-After`, it knows better. And if the customer has gone, nothing helps any more: so there is a **deadline** for all of it together, requests and waits.
#
# ## Task 1: try again, politely
#
# Write `with_retries`. It asks MODEL through `client` and returns the text of the reply.
#
# * It tries again after a connection error, after a reply that is no JSON (`json.JSONDecodeError`), and after a status in `TEMPORARY`. Every other error goes on to the caller at once.
# * It sends at most `attempts` requests, counted at the server: so the client's own retries must be off, in a copy; leave the client as it is. If the last one fails too, its error goes on to the caller, as it is, without another wait.
# * After attempt number $k = 0, 1, 2, \dots$ it waits `jitter() * min(cap, base * 2**k)` seconds. If the reply has a `Retry-After` that is a number (such as `7` or `0.5`), it waits exactly that long instead, however long or short. A `Retry-After` that is no number (some servers send a date) counts as none.
# * `deadline` is in seconds from the start of the call. If a wait would not be over *before* the deadline, it does not wait, and raises the error at once.
#
# Dice, clock and sleep are parameters, and your code uses no others. (What stands after the `*` in the signature is passed by name only.) At work nobody passes them in; in a test they make thirty seconds pass in no time. (`with suppress(ValueError):`, imported above, is a `try` that drops this error, and no other, and goes on.)
#
# (A request that is under way is not interrupted by our deadline: ending it is the job of the client's `timeout`. In the worst case a call takes roughly deadline plus timeout; `timeout` limits each silence, not the whole request.)


# %% task="with_retries"
def with_retries(
    client: OpenAI,
    messages: list[Any],
    *,
    attempts: int = 5,
    base: float = 0.5,
    cap: float = 8.0,
    deadline: float = 30.0,
    jitter: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Ask MODEL, try again where that can help, and return the text of the reply.

    `attempts` is at least 1. `jitter()` returns a number between 0 and 1, `clock()` the time in seconds. Raises the
    last error where trying again cannot help, or where there is no attempt or no time left.
    """
    ### BEGIN SOLUTION
    once = client.with_options(max_retries=0)
    end = clock() + deadline
    attempt = 0
    while True:
        try:
            reply = once.chat.completions.create(model=MODEL, messages=messages)
            return reply.choices[0].message.content or ""
        except (APIConnectionError, APIStatusError, json.JSONDecodeError) as error:
            wait = jitter() * min(cap, base * 2**attempt)
            if isinstance(error, APIStatusError):
                if error.status_code not in TEMPORARY:
                    raise
                with suppress(ValueError):  # a date, say
                    wait = float(error.response.headers.get("retry-after", wait))
            attempt += 1
            if attempt == attempts or clock() + wait >= end:
                raise
        sleep(wait)
    ### END SOLUTION


# %% check="with_retries"
check.with_retries(with_retries)

# %% [markdown]
# Here it is at work, with the real clock, against a server that fails four times in four ways.

# %% tags=["demo"]
waits: list[tuple[float, float]] = []


def noted_sleep(seconds: float) -> None:
    waits.append((time.perf_counter() - start, seconds))
    time.sleep(seconds)


failures = [Failure(429, retry_after=0.8), Failure(503), Broken(), Failure(500)]
with ScriptedServer([*failures, Completion("Yes, seven pieces.")]) as server:
    shaky = OpenAI(base_url=server.url, api_key="none")
    start = time.perf_counter()
    answer = with_retries(shaky, QUESTION, base=0.3, jitter=random.Random(5).random, sleep=noted_sleep)
    end = time.perf_counter() - start
print(f"{answer} ({len(server.requests)} requests, {end:.1f} s)")

figure = plots.figure(width=9, height=2.1)
axes = figure.subplots()
for (begin, seconds), name in zip(waits, ("429", "503", text("hung up"), "500"), strict=True):
    axes.barh(0, seconds, left=begin, height=0.3, color=plots.GREY, alpha=0.4)
    axes.plot(begin, 0, "X", color=plots.RED, markersize=11)
    axes.text(begin, 0.28, name, ha="center", color=plots.RED, fontsize=9)
axes.plot(end, 0, "o", color=plots.GREEN, markersize=11)
axes.text(end, 0.28, text("reply"), ha="center", color=plots.GREEN, fontsize=9)
axes.set_xlim(-0.15, 1.05 * end)
axes.set_ylim(-0.35, 0.55)
axes.set_yticks([])
axes.grid(False, axis="y")
axes.set_xlabel(text("seconds since the call (grey: waiting)"))
plots.show(
    figure,
    alt=text(
        "A timeline of one call. Four crosses mark failed requests: 429, 503, hung up and 500. Between them are grey bars for the waits, the first as long as the server asked for. A green dot at the end is the reply."
    ),
)

# %% [markdown]
# ### What retries cost
#
# If each request fails with probability $p$, independently of the others, then with $n$ attempts a call fails altogether with probability $p^n$, and sends on average
#
# $$1 + p + p^2 + \dots + p^{n-1} = \frac{1-p^n}{1-p}$$
#
# requests. With $p = 0.1$ and $n = 5$ that is 1.11 requests, and one call in 100,000 fails: wonderful. But failures are not independent. When a server is down, $p$ is 1, and you send $n$ requests for each call, just when it can bear them least.

# %% tags=["demo"]
figure = plots.figure(height=3.2)
axes = figure.subplots()
shares = [number / 100 for number in range(101)]
for attempts, name, color in (
    (3, text("3 attempts"), plots.BLUE),
    (5, text("5 attempts"), plots.GREEN),
    (15, text("5 attempts, each of 3"), plots.RED),
):
    sent = [sum(p**k for k in range(attempts)) for p in shares]
    axes.plot(shares, sent, color=color)
    axes.text(1.01, sent[-1], name, color=color, va="center")
axes.set_xlim(0, 1)
axes.set_ylim(0, 16)
axes.set_xlabel(text("share of requests that fail"))
axes.set_ylabel(text("requests for a call, on average"))
plots.show(
    figure,
    alt=text(
        "Requests for each call against the share of requests that fail, for 3 attempts, 5 attempts, and 5 attempts of 3 requests each. All three lie close together up to a share of a third, and at the right end they reach 3, 5 and 15."
    ),
)

# %% [markdown]
# So: few attempts, retries in *one* layer only, and a deadline. One more thing to know: a request that timed out may still have been worked on, and be on your bill. For a chat that costs money; for "order twelve gaskets" it would mean 24 gaskets. What changes the world needs more than retries (a key by which the server recognises the second try; ask your provider for *idempotency keys*).
#
# ### A stream that breaks off
#
# A stream can fail in the middle, when half of the answer is on the customer's screen:

# %% tags=["demo"]
with ScriptedServer([Completion("The pump ", "HP-2041 ", "costs ", "8 euros", cut_after=3)]) as server:
    shaky = OpenAI(base_url=server.url, api_key="none", max_retries=5)
    try:
        for chunk in shaky.chat.completions.create(model="any", messages=QUESTION, stream=True):
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    except APIConnectionError as error:
        print(f"… {type(error).__name__} after {len(server.requests)} request")

# %% [markdown]
# Look at the number of requests: the client would have retried five times, and did not. Once the stream has begun, the request counts as successful, and what follows is yours to handle. You cannot go on where it stopped, for a second answer would be worded differently. Either say honestly that the answer is incomplete, or delete what is there and begin anew. And never store half an answer as if it were a whole one.
#
# ## Do not ask twice
#
# The cheapest call is the one you do not make. Forty customers a day ask for the opening hours, and a program that is run again after a mistake asks everything again. A **cache** remembers replies. Three questions decide whether it is a blessing or a curse:
#
# * **Which requests are the same?** Those that ask the model for the same thing. So everything counts that changes its answer, and nothing else. These are the fields that our requests use; if yours have `tools`, `seed`, `top_p`, `stop` or `n`, those belong in the list too:

# %%
FIELDS = ("model", "messages", "temperature", "max_tokens", "response_format")

# %% [markdown]
# * **How long is a reply good for?** Opening hours for a day, stock for a minute. This is the **time to live**.
# * **Who may change it?** If the cache hands out its own dict, whoever changes the dict changes the cache. The request belongs to the caller in the same way: its list of messages grows while the chat goes on.
#
# A dictionary needs keys that do not change, and a request is a dict of lists of dicts. A text is a good key, if equal data always give the equal text. **Predict** the four lines:

# %% tags=["demo"]
one, other = {"role": "user", "content": "Hi"}, {"content": "Hi", "role": "user"}
print(one == other)
print(json.dumps(one) == json.dumps(other))
print(json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))
print(json.dumps([one, other]) == json.dumps([other, one]))

# %% [markdown]
# Dicts have no order that matters, but their texts do, unless `sort_keys` sorts them, at every depth. Lists have an order that matters: messages in another order are another chat.
#
# ## Task 2: a cache for requests
#
# Write `RequestCache`.
#
# * `create(**request)` takes what `client.chat.completions.create` takes (`stream=True` aside; `**request` collects the named arguments in a dict), and returns the reply as a dict, as `reply.model_dump()` makes it. Through the client it sends the request just as it was given.
# * Two requests are the same if they agree in all `FIELDS`, however they are written. A field that is missing is the same as one that is `None`. Other fields (`user`, say) make no difference.
# * A reply is used again while it is *younger* than `seconds`, counted from when it came. Using it does not make it younger.
# * An error goes on to the caller and is never kept: the next request is sent anew. No old reply takes its place.
# * Each cache has entries of its own, and whatever a caller does with a returned dict, later callers get the reply as it came.
#
# Two things may help: `reply.model_dump_json()` writes a reply as JSON text, and `copy.deepcopy` copies data with all that lies inside.


# %% task="request_cache"
class RequestCache:
    """Remembers replies for `seconds`, so that the same request is not sent twice; `clock()` is the time in seconds."""

    def __init__(self, client: OpenAI, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        ### BEGIN SOLUTION
        self.client = client
        self.seconds = seconds
        self.clock = clock
        self.entries: dict[str, tuple[float, str]] = {}
        ### END SOLUTION

    def create(self, **request: Any) -> dict[str, Any]:
        """Return the reply to a chat request as a dict, from the cache where it is known."""
        ### BEGIN SOLUTION
        key = json.dumps([request.get(field) for field in FIELDS], sort_keys=True)
        if key in self.entries:
            came, reply = self.entries[key]
            if self.clock() - came < self.seconds:
                return json.loads(reply)
        reply = self.client.chat.completions.create(**request).model_dump_json()
        self.entries[key] = (self.clock(), reply)
        return json.loads(reply)
        ### END SOLUTION


# %% check="request_cache"
check.request_cache(RequestCache)

# %% [markdown]
# Now with the real model. The second time the answer is not only faster, it is also word for word the same, although the temperature is high:

# %% tags=["demo"]
cache = RequestCache(client, seconds=60)
for _time in range(2):
    start = time.perf_counter()
    reply = cache.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Invent a slogan for a pump."}],
        temperature=1.5,
        max_tokens=24,
    )
    print(f"{1000 * (time.perf_counter() - start):7.1f} ms  {reply['choices'][0]['message']['content']!r}")

# %% [markdown]
# That is a decision, not a detail: with a cache, "ask again for another suggestion" no longer works. Where variety is wanted, do not cache. (Providers have a cache too, which you see in `cached_tokens`. It saves them the reading of equal beginnings; the answer is still written anew each time.)
#
# Ours grows without end. In operation you limit its size, or use one that is made for it: the package `cachetools`, or Redis where several machines share it. (This is a good place for a break.)
#
# ## Many at once
#
# Every night 400 tickets are to be summarised. If one call takes two seconds, nearly all of them are *waiting*: your program sits there while somebody else's machine computes. **asyncio** lets one program wait for many things at once. What you need of it fits on a page:
#
# * `async def` makes a **coroutine function**. Calling it does not run it; it returns a coroutine, which runs when somebody awaits it.
# * `await` means: I have to wait here; let others run meanwhile.
# * `asyncio.gather(a, b, c)` runs several and returns their results in the order in which you named them.

# %% tags=["demo"]


async def brew(drink: str, seconds: float) -> str:
    print(f"{drink} begins")
    await asyncio.sleep(seconds)  # stands for any waiting: a request, a file, a person
    print(f"{drink} is ready")
    return drink


start = time.perf_counter()
print(await asyncio.gather(brew("coffee", 0.6), brew("tea", 0.3), brew("cocoa", 0.4)))
print(f"{time.perf_counter() - start:.1f} s")

# %% [markdown]
# Three things at once, in the time of the longest. Ready first was tea; the results are in our order all the same.
#
# Everything runs in one **event loop**, which gives each coroutine its turn. In a script you start it with `asyncio.run(main())`. In a notebook that fails, and now you know why: a notebook *is* running in an event loop already, and there is only one at a time in a thread. So a notebook's cell may simply say `await`.

# %% tags=["demo"]
coroutine = brew("cold coffee", 1)
try:
    asyncio.run(coroutine)
except RuntimeError as error:
    print(f"RuntimeError: {error}")
finally:
    coroutine.close()

# %% [markdown]
# 400 requests in the same instant, though: that is the stampede again, and the provider answers 429. You need a limit on how many are in flight. The obvious way is batches of, say, three: start three, wait for all, start the next three. Here it is beside a better one, where the next starts as soon as a place is free. (Twelve jobs of different length; the picture is calculated.)

# %% tags=["demo"]
lengths = [2.9, 0.6, 0.8, 0.7, 2.4, 0.5, 0.9, 0.6, 3.0, 0.5, 0.8, 0.7]
figure = plots.figure(width=9, height=3.6)
for axes, in_batches in zip(figure.subplots(2, 1, sharex=True), (True, False), strict=True):
    free = [0.0, 0.0, 0.0]
    for number, length in enumerate(lengths):
        if in_batches and number % 3 == 0:
            free = [max(free)] * 3
        place = number % 3 if in_batches else free.index(min(free))
        color = plots.ORANGE if length > 1 else plots.BLUE
        axes.barh(place, length, left=free[place], height=0.8, color=color, edgecolor=plots.PAPER)
        free[place] += length
    axes.axvline(max(free), color=plots.INK, linewidth=1, linestyle="--")
    axes.set_title(text("in batches of three") if in_batches else text("the next one as soon as a place is free"))
    axes.set_yticks(range(3), ["1", "2", "3"])
    axes.set_ylabel(text("place"))
    axes.grid(False)
    axes.invert_yaxis()
    print(f"done after {max(free):.1f} s")
axes.set_xlabel(text("seconds"))
plots.show(
    figure,
    alt=text(
        "Two plans for the same twelve jobs in three places. In batches, two of the three places stand empty while a long job runs, and all is done after 9.1 seconds. When the next job starts as soon as a place is free, there are gaps only at the end, and all is done after 5.9 seconds."
    ),
)

# %% [markdown]
# For "at most three at once" asyncio has the **semaphore**: a gate with a fixed number of places. Whoever finds no place free waits at `async with`; whoever leaves makes room for the next. (The `*` hands `gather` each coroutine as an argument of its own.)

# %% tags=["demo"]
gate = asyncio.Semaphore(2)


async def brew_at_the_stove(drink: str) -> str:
    async with gate:
        return await brew(drink, 0.2)


print(await asyncio.gather(*(brew_at_the_stove(drink) for drink in ("coffee", "tea", "cocoa", "soup"))))

# %% [markdown]
# Two questions are left, and both are about bad days.
#
# **One of the jobs fails.** By default `gather` then raises that first exception at once, and the other 399 results are out of your reach, though those jobs go on running, and costing money. With `return_exceptions=True` it puts the exception where the result would be, and goes on.
#
# **The whole is called off**, because the customer closed the page or a deadline is over. asyncio then throws a `CancelledError` into the coroutine, at the `await` where it waits. It should stop, tidy up if it must, and let the error pass: whoever catches it and goes on cannot be stopped any more. To make that less likely, `CancelledError` is no `Exception`, only a `BaseException`: `except Exception` lets it pass. Awaiting `gather` hands a cancellation on to everything inside.

# %% tags=["demo"]


async def patient() -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("I was told to stop: tidying up")
        raise


task = asyncio.create_task(patient())  # runs beside us
await asyncio.sleep(0.1)
task.cancel()
try:
    await task
except asyncio.CancelledError:
    print(f"cancelled: {task.cancelled()}, an Exception: {issubclass(asyncio.CancelledError, Exception)}")

# %% [markdown]
# ## Task 3: many at once, but not too many
#
# Write `gather_limited`. A job is a coroutine function without arguments: `await job()` runs it. Run each job once, at most `limit` of them at the same time, and start the next one as soon as a place is free. Return a list with one entry for each job, in the order of the jobs: what it returned, or, if it raised an `Exception`, that exception itself. No jobs give an empty list.
#
# When `gather_limited` is cancelled, the jobs that run are cancelled too, no further job starts, and the `CancelledError` goes on to the caller.

# %%
T = TypeVar("T")  # stands for the type of what a job returns, whatever that is


# %% task="gather_limited"
async def gather_limited(jobs: Sequence[Callable[[], Awaitable[T]]], limit: int) -> list[T | BaseException]:
    """Run the jobs, at most `limit` (1 or more) at once; return their results or exceptions in the order of the jobs."""
    ### BEGIN SOLUTION
    gate = asyncio.Semaphore(limit)

    async def run(job: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await job()

    return await asyncio.gather(*(run(job) for job in jobs), return_exceptions=True)
    ### END SOLUTION


# %% check="gather_limited"
check.gather_limited(gather_limited)

# %% [markdown]
# Now with requests. `AsyncOpenAI` is the same client with `await` before its calls. Six questions to the embedded model, one at a time and then two. **Predict** how much faster two at a time are. Remember whose processor does the work here.

# %% tags=["demo"]
in_parallel = AsyncOpenAI()


def question_about(part: str) -> Callable[[], Awaitable[str]]:
    async def job() -> str:
        reply = await in_parallel.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": f"What is a {part}? Answer in one short sentence."}],
            temperature=0,
            max_tokens=40,
        )
        return reply.choices[0].message.content or ""

    return job


PARTS = ("valve", "gasket", "bearing", "shaft", "motor", "filter")
await question_about("pump")()  # not measured: the first call warms the model up
for limit in (1, 2):
    start = time.perf_counter()
    answers = await gather_limited([question_about(part) for part in PARTS], limit)
    print(f"limit {limit}: {time.perf_counter() - start:.1f} s")
for part, answer in zip(PARTS, answers, strict=True):
    print(f"{part:8} {answer!r}")

# %% [markdown]
# Hardly faster: here the model computes on your own processor, and two at once share it. Side by side only helps while you *wait*. With a provider the work is done elsewhere, and the waits overlap as in the picture; there the limit is what your contract allows.
#
# ## When one provider is down
#
# Retries help against seconds of trouble, not against hours. For that you need somebody else to ask. Nearly every provider, and many a server in your own cellar, speaks the same interface, so that another provider is just another client with another model's name.


# %%
class Provider(NamedTuple):
    """Somebody to ask."""

    name: str
    client: OpenAI
    model: str


class Answer(NamedTuple):
    """What was said, and by which provider (its name)."""

    text: str
    provider: str


class NoProviderError(Exception):
    """Nobody could be reached."""


# %% [markdown]
# ## Task 4: the first one that answers
#
# Write `first_available`. It asks the providers one after the other, calling `create` once on each one's client, for that provider's model, and returns the first reply's text with the name of the provider that gave it. After a reply nobody else is asked.
#
# It goes on to the next provider after the same failures as in task 1: a connection error, a reply that is no JSON, a status in `TEMPORARY`. Every other error is our own fault and goes on to the caller at once, as it is. If no provider is left (or there was none), it raises `NoProviderError`, whose text has the name of every provider in the list.
#
# (The clients come with settings of their own, retries too; leave them as they are.)


# %% task="first_available"
def first_available(providers: Sequence[Provider], messages: list[Any]) -> Answer:
    """Return the reply of the first provider that is available; raise NoProviderError if none is."""
    ### BEGIN SOLUTION
    failures = []
    for provider in providers:
        try:
            reply = provider.client.chat.completions.create(model=provider.model, messages=messages)
            return Answer(reply.choices[0].message.content or "", provider.name)
        except (APIConnectionError, APIStatusError, json.JSONDecodeError) as error:
            if isinstance(error, APIStatusError) and error.status_code not in TEMPORARY:
                raise
            failures.append(f"{provider.name}: {error}")
    raise NoProviderError(f"nobody answers ({'; '.join(failures)})")
    ### END SOLUTION


# %% check="first_available"
check.first_available(first_available)

# %% [markdown]
# The first provider here is a port where nobody listens:

# %% tags=["demo"]
nobody = OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0, timeout=2)
providers = [Provider("far away", nobody, "large-model"), Provider("in our cellar", client, MODEL)]
print(first_available(providers, [{"role": "user", "content": "What is a pump?"}]))
try:
    first_available(providers[:1], QUESTION)
except NoProviderError as error:
    print(f"NoProviderError: {error}")

# %% [markdown]
# Two warnings from practice. The second provider's model is not the first one's: measure your prompts on both, or you learn how bad the answers are on the day you need them. And while the first provider is down, every customer waits for its timeout first; a **circuit breaker** remembers for a minute that it is down, and skips it.
#
# ## What must not leave the house
#
# Now to the data protection officer. A ticket has names, addresses, phone numbers. In the EU the law asks for a contract before a provider may process them, and a good reason why it has to see them at all. Mostly it need not: to write "Dear Ms Weiß, your pump has been sent" the model does not have to know who Ms Weiß is. So we give people a **pseudonym** before the ticket leaves, and put the names back into what returns.
#
# A pseudonym means nothing to others but can be undone by us: the table with the way back stays in the house. (To the law such data are still *personal* data, since the table exists. It is a protection, and not a way out of the law. Anonymous would mean that nobody can find the way back.)
#
# In tickets, four things are looked for. Names come from the customer database; for the other three there are patterns:

# %%
PATTERNS = {
    "EMAIL": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "CUSTOMER": r"(?<!\w)K-[0-9]{5}(?!\w)",  # K-20417
    "PHONE": r"(?<!\w)(?:\+|0)[0-9](?:[ /-]?[0-9]){6,14}(?!\w)",  # +49 5321 123456, 05321/123456
}

# %% [markdown]
# These are regular expressions. If you know `[...]`, `+`, `?`, `{5}` and `|` (if not: Python's [Regular Expression HOWTO](https://docs.python.org/3/howto/regex.html)), four more things are enough:
#
# * `\w` is a letter (of any language), a digit or an underscore. `(?<!\w)` means "no such character before this", `(?!\w)` "none after it". Together they make a pattern match **whole words** only.
# * `(?:...)` is a group that only holds together what stands in it. `(?P<NAME>...)` is a group with a name; after a match, `match.lastgroup` is the name of the group that matched, and `match[0]` the text.
# * `re.escape(text)` makes a pattern that matches just this text, whatever dots and brackets are in it.
# * `pattern.sub(function, text)` calls the function for each match and puts what it returns in the match's place.
#
# Where two alternatives match at the same place, the one that stands first wins. **Predict** the second line:

# %% tags=["demo"]
animals = re.compile(r"(?P<SMALL>(?<!\w)cat(?!\w))|(?P<LARGE>cat ?fish|horse)")
print(animals.sub(lambda match: f"<{match.lastgroup}: {match[0]}>", "A cat, a catfish and a horse concatenate."))
print(animals.sub(lambda match: f"<{match.lastgroup}: {match[0]}>", "A cat fish."))

# %% [markdown]
# `cat` stands first, so of `cat fish` only half is found. With "Anna" and "Anna Weiß" in the customer database this would leave "Weiß" in the provider's log.
#
# And one trap on the way back. What does `"PERSON_12".replace("PERSON_1", "Anna")` give? `Anna2`. Placeholders are whole words too.
#
# ## Task 5: pseudonyms
#
# Write `Pseudonymiser`. `names` are the names to hide; each begins and ends with a letter, and the list may be empty.
#
# `pseudonymise(text)` returns the text in which each secret is replaced by a **placeholder**: its kind (`PERSON`, `EMAIL`, `PHONE` or `CUSTOMER`), an underscore and a whole number, as in `PERSON_1`. All else stays as it is.
#
# * A name is hidden where it stands as a whole word, spelt exactly as in the list, in the same case. The other kinds are what `PATTERNS` match.
# * Where one secret lies in another (a name in an e-mail address, a short name in a longer one), the whole is hidden: e-mail addresses go before names, longer names before shorter ones. (Where two only overlap, you decide which one is hidden.)
# * The same secret has the same placeholder wherever it stands, also in a later text of the same `Pseudonymiser`; two different secrets have different ones. Which numbers you give is up to you.
# * A text that has a placeholder already (as a whole word: one of the four kinds, an underscore, digits) is refused with a `ValueError`. Whoever writes `PHONE_1` into a ticket would otherwise get a stranger's number back.
#
# `restore(text)` puts the secrets back in place of their placeholders, where these stand as whole words: in the same text, or in any other. Each `Pseudonymiser` has a table of its own: placeholders that it never gave stay as they are.


# %% task="pseudonymiser"
class Pseudonymiser:
    """Hides who a ticket is about, and knows the way back."""

    def __init__(self, names: Sequence[str]) -> None:
        ### BEGIN SOLUTION
        parts = [f"(?P<{kind}>{pattern})" for kind, pattern in PATTERNS.items()]
        longest_first = sorted(names, key=len, reverse=True)
        parts += [f"(?P<PERSON>(?<!\\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\\w))"] if names else []
        self.secret = re.compile("|".join(parts))
        self.placeholder = re.compile(r"(?<!\w)(?:PERSON|EMAIL|PHONE|CUSTOMER)_[0-9]+(?!\w)")
        self.placeholders: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        ### END SOLUTION

    def pseudonymise(self, text: str) -> str:
        """Return the text with placeholders; raise ValueError if it has some already."""
        ### BEGIN SOLUTION
        if self.placeholder.search(text):
            raise ValueError("The text has placeholders of its own.")
        return self.secret.sub(self._hide, text)
        ### END SOLUTION

    def restore(self, text: str) -> str:
        """Return the text with the secrets in place of their placeholders."""
        ### BEGIN SOLUTION
        return self.placeholder.sub(lambda match: self.secrets.get(match[0], match[0]), text)

    def _hide(self, match: re.Match[str]) -> str:
        secret = match[0]
        if secret not in self.placeholders:
            placeholder = f"{match.lastgroup}_{len(self.placeholders) + 1}"
            self.placeholders[secret] = placeholder
            self.secrets[placeholder] = secret
        return self.placeholders[secret]
        ### END SOLUTION


# %% check="pseudonymiser"
check.pseudonymiser(Pseudonymiser)

# %% [markdown]
# Two tickets, as they come in and as they leave the house:

# %% tags=["demo"]
desk = Pseudonymiser(["Anna", "Anna Weiß", "Jürgen Özdemir", "Grace Young"])
TICKETS = (
    "Guten Tag, hier ist Anna Weiß (K-20417). Die HP-2041 ist undicht, ich weiß nicht weiter. "
    "Rückruf bitte unter 05321/123456 oder an Jürgen Özdemir, j.oezdemir@werk-nord.de.",
    "Hello, Grace Young here. Please tell Anna Weiß that pump HP-7310 hums again, and call +44 20 7946 0958.",
)
hidden = [desk.pseudonymise(ticket) for ticket in TICKETS]
print("\n\n".join(hidden))
assert [desk.restore(ticket) for ticket in hidden] == list(TICKETS)

# %% [markdown]
# And now three of them together: names are hidden, the cache asks a model that does not know whom it writes to, and the name is put back on our side. The cache holds no names either. (The draft is as clumsy as the model.) Two precautions: the instruction's example is a word that is never given as a placeholder, for a model may repeat its instruction; and at work each customer gets a `Pseudonymiser`, so that a placeholder which the model made up cannot bring back a stranger.

# %% tags=["demo"]
cache = RequestCache(client, seconds=3600)
reply = cache.create(
    model=MODEL,
    messages=[
        {
            "role": "system",
            "content": "Write a short and friendly reply. Keep words like PERSON_N exactly as they are.",
        },
        {"role": "user", "content": hidden[1]},
    ],
    temperature=0,
    max_tokens=60,
)
draft = reply["choices"][0]["message"]["content"]
print(f"{draft}\n\n{desk.restore(draft)}")

# %% [markdown]
# Does it find everything? **Predict** which of these lines still has a secret in it:

# %% tags=["demo"]
for ticket in (
    "Frau Weiß hat angerufen.",
    "Anna Weiss hat angerufen.",
    "Anna Weißs Pumpe ist undicht.",
    "ANNA WEISS HAT ANGERUFEN.",
    "An\u200bna Weiß called (there is a zero-width space in her name).",
    "Please call (05321) 123456 about the delivery of 01/03/2026.",
    "The lady who runs the bakery opposite the town hall called.",
):
    print(desk.pseudonymise(ticket))

# %% [markdown]
# All of them. The second and the third are the worst: the short name is found, and the rest of the name goes out beside its placeholder. The fourth is just a customer who likes capital letters; in the sixth a phone number stays, and a date is taken for one. The last one is beyond any list: context gives people away too. So measure: take a hundred tickets, count what slips through, and decide with the data protection officer whether that is few enough. Models for *named-entity recognition* find names that are on no list, and miss others. What is very sensitive should not go out at all; there are models that run in your own house, like the one on your machine now.
#
# ## In production
#
# You have built all of this by hand, so you know what to look for in the libraries that do it. The client's own retries, well set, are enough for many programs; `tenacity` is for everything else that can fail. **Predict** where each of them differs from your `with_retries`.

# %% tags=["demo"]
from tenacity import retry, retry_if_exception, stop_after_attempt, stop_before_delay, wait_random_exponential


def is_temporary(error: BaseException) -> bool:
    if isinstance(error, APIStatusError):
        return error.status_code in TEMPORARY
    return isinstance(error, (APIConnectionError, json.JSONDecodeError))


@retry(
    retry=retry_if_exception(is_temporary),
    wait=wait_random_exponential(multiplier=0.2, max=8),  # full jitter
    stop=stop_after_attempt(5) | stop_before_delay(30),
    reraise=True,
)
def with_tenacity(client: OpenAI, messages: list[Any]) -> str:
    reply = client.chat.completions.create(model=MODEL, messages=messages)
    return reply.choices[0].message.content or ""


failures = [Failure(429, retry_after=2), Failure(503), Broken("<html>")]
for name, ask in (
    ("with_retries", lambda shaky: with_retries(shaky, QUESTION, base=0.2)),
    ("tenacity", lambda shaky: with_tenacity(shaky.with_options(max_retries=0), QUESTION)),
    ("the client's own", lambda shaky: with_tenacity.__wrapped__(shaky.with_options(max_retries=4), QUESTION)),
):
    with ScriptedServer([*failures, Completion("Yes, seven pieces.")]) as server:
        start = time.perf_counter()
        try:
            outcome = ask(OpenAI(base_url=server.url, api_key="none"))
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        print(f"{name:18}{len(server.requests)} requests, {time.perf_counter() - start:.1f} s, {outcome}")

# %% [markdown]
# `tenacity` was too fast: it does not know of Retry-After unless you write it a `wait` function. The client obeys it (up to two minutes, in the version that we looked at; told to wait longer, it does not try again at all), takes off at most a quarter of each backoff of its own at random, has no deadline for the whole, and does not retry broken JSON. None of them is wrong; what is wrong is not to know which one you have.
#
# ## What you can do now
#
# * You know which failures pass and which do not, and your calls treat them differently.
# * You can keep a limit: of attempts, of time, of requests in flight.
# * You can say which requests are the same, who answered, and what left the house.
# * You can test all of it without waiting, since clock, sleep and dice are parameters.
#
# **Where it breaks in production.** A cache that several machines share, keys and limits for each customer, and traces that show where the time went: *Ship it as an API*. A provider whose answers are there, but worse than yesterday: *Measure what a model can do*. A model in your own house instead of pseudonyms: *Run models on your own machines*.
#
# **To read next:** Marc Brooker, [*Exponential Backoff And Jitter*](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), where full jitter comes from; the chapter *Addressing Cascading Failures* of Google's [*Site Reliability Engineering*](https://sre.google/sre-book/addressing-cascading-failures/); Python's pages on [coroutines and tasks](https://docs.python.org/3/library/asyncio-task.html); and the documentation of [tenacity](https://tenacity.readthedocs.io).
