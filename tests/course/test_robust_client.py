"""What is special about robust_client: time and jobs that a trial moves, secrets, demonstrations with real clients."""

import asyncio
import json
import random
import re
import time
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import openai
import pytest

from kicourse.answers.jobs import Jobs, cancel, described, run_within
from kicourse.checks import robust_client as check
from tests.course.alternatives import robust_client as honest
from tests.course.demonstrations import demonstrated


def failed(verdict: Any) -> list[str]:
    return [result.name for result in verdict.criteria if result.status != "passed"]


def messages(verdict: Any) -> str:
    return " ".join(result.message for result in verdict.criteria)


@pytest.mark.long
@pytest.mark.usefixtures("undiagnosed")
def test_a_mistake_costs_its_own_criterion_only() -> None:
    expected = {
        "own_retries": "counts_attempts",
        "retries_everything": "only_temporary",
        "no_jitter": "backs_off",
        "ignores_retry_after": "obeys_retry_after",
        "no_deadline": "keeps_deadline",
        "clipped": "keeps_deadline",
        "own_clock": "keeps_deadline",
        "own_wait_only": "keeps_deadline",
        "all_server_errors": "only_temporary",
        "changes_client": "counts_attempts",
        "only_digits": "obeys_retry_after",
        "read_by_int": "obeys_retry_after",
        "zero_is_none": "obeys_retry_after",
        "key_by_order": "same_request",
        "key_without_model": "other_request",
        "only_fields_sent": "same_request",
        "counted_early": "forgets",
        "handed_out": "not_spoilt keeps_no_error",  # the one opens the way to the other
        "errors_kept": "keeps_no_error",
        "batches": "keeps_going",
        "swallows": "stops",
        "first_failure": "survives_failures",
        "place_kept": "survives_failures",
        "without_retries": "asks_no_more",
        "falls_back_always": "own_faults",
        "names_first": "names_provider",
        "new_each_time": "stable",
        "replaces_longest_first": "leaves_alone",
        "not_escaped": "leaves_alone",
        "names_without_brackets": "leaves_alone",
        "not_longest_first": "takes_the_whole",
    }
    tasks = (
        check.with_retries,
        check.request_cache,
        check.gather_limited,
        check.first_available,
        check.pseudonymiser,
    )
    for task in tasks:
        for wrong in task.misconceptions:
            if wrong.name in expected:
                assert failed(task.run(wrong.build())) == expected.pop(wrong.name).split(), wrong.name
    assert not expected


def test_who_knows_no_limit_earns_nothing_for_places_that_are_never_empty() -> None:
    async def all_at_once(jobs: Any, limit: int) -> Any:
        return await asyncio.gather(*(job() for job in jobs), return_exceptions=True)

    assert {"at_most", "keeps_going"} <= set(failed(check.gather_limited.run(all_at_once)))


def test_who_never_tries_again_is_not_said_to_do_so_at_other_failures() -> None:
    def once(client: Any, messages: Any, **told: Any) -> Any:
        chat = client.with_options(max_retries=0).chat
        return chat.completions.create(model=honest.MODEL, messages=messages).choices[0].message.content

    assert "no second try" in check.with_retries.run(once).diagnosis


def test_retries_pass_no_real_time() -> None:
    def patient(client: Any, messages: Any, **told: Any) -> Any:
        before = time.monotonic()
        try:
            return honest.with_retries(client, messages, **told)
        finally:
            assert time.monotonic() - before < 4

    assert check.with_retries.run(patient).status == "passed"


def test_a_loop_without_end_is_ended() -> None:
    def stubborn(client: Any, messages: Any, *, sleep: Any, **told: Any) -> Any:
        while True:
            try:
                return client.chat.completions.create(model=honest.MODEL, messages=messages).choices[0].message.content
            except Exception:
                sleep(1.0)

    verdict = check.with_retries.run(stubborn)
    assert "only_temporary" in failed(verdict)
    assert verdict.points < 1


def test_a_retry_after_of_zero_needs_no_sleep() -> None:
    def eager(client: Any, messages: Any, *, sleep: Any, **told: Any) -> Any:
        return honest.with_retries(client, messages, sleep=lambda wait: wait and sleep(wait), **told)

    assert check.with_retries.run(eager).status == "passed"


def test_dice_and_sleep_of_ones_own_are_told_apart() -> None:
    def other_dice(client: Any, messages: Any, **told: Any) -> Any:
        return honest.with_retries(client, messages, **(told | {"jitter": random.random}))

    def real_sleep(client: Any, messages: Any, **told: Any) -> Any:
        return honest.with_retries(client, messages, **(told | {"sleep": lambda wait: time.sleep(wait / 100)}))

    verdict = check.with_retries.run(other_dice)
    assert failed(verdict) == ["backs_off"]
    assert "never calls `jitter()`" in messages(verdict)
    assert "without a call of `sleep`" in messages(check.with_retries.run(real_sleep))


def silent_at_the_deadline(client: Any, messages: Any, *, attempts: int, sleep: Any, **told: Any) -> Any:
    waits: list[float] = []

    def noted(seconds: float) -> None:
        waits.append(seconds)
        sleep(seconds)

    try:
        return honest.with_retries(client, messages, attempts=attempts, sleep=noted, **told)
    except openai.APIStatusError as error:
        if not honest.passes(error) or len(waits) == attempts - 1:
            raise
        return "Sorry, no time."


def hasty_at_the_deadline(client: Any, messages: Any, **told: Any) -> Any:
    clock, sleep = told["clock"], told["sleep"]
    end = clock() + told["deadline"]
    unhurried = told | {"sleep": lambda wait: sleep(wait) if clock() + wait < end else None}
    return honest.with_retries(client, messages, **(unhurried | {"deadline": float("inf")}))


def an_hour_for_a_date(client: Any, messages: Any, **told: Any) -> Any:
    def after(error: Any) -> float | None:
        header = getattr(getattr(error, "response", None), "headers", {}).get("retry-after")
        return check._after(error) if header is None or header[0].isdigit() else 3600.0

    return check._retrying(client, messages, told, after=after)


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (silent_at_the_deadline, "keeps_deadline"),
        (hasty_at_the_deadline, "keeps_deadline"),
        (an_hour_for_a_date, "obeys_retry_after"),
    ],
)
def test_retries_do_what_the_text_says_where_it_is_rare(wrong: Any, expected: str) -> None:
    for seed in range(3):
        assert failed(check.with_retries.run(wrong, seed=seed)) == [expected]


@pytest.mark.usefixtures("undiagnosed")
def test_retries_that_ask_another_model_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honest, "MODEL", "no-such-model")
    verdict = check.with_retries.run(honest.with_retries)
    assert failed(verdict) == ["counts_attempts"]
    assert "another model" in messages(verdict)


def test_a_new_client_in_place_of_a_copy_is_told_so() -> None:
    def new_client(client: Any, messages: Any, **told: Any) -> Any:
        bare = openai.OpenAI(base_url=client.base_url, api_key="trial", http_client=client._client)
        return honest.with_retries(bare, messages, **told)

    verdict = check.with_retries.run(new_client)
    assert failed(verdict) == ["counts_attempts"]
    assert "a new client has lost them" in messages(verdict)


def test_the_call_that_missed_its_deadline_is_shown() -> None:
    def without_deadline(client: Any, messages: Any, *, deadline: float, **told: Any) -> Any:
        return honest.with_retries(client, messages, deadline=float("inf"), **told)

    [missed] = [result for result in check.with_retries.run(without_deadline).criteria if result.status == "failed"]
    seconds = missed.message.split("The deadline is ")[1].split(" ")[0]
    assert f"deadline={seconds}," in missed.tried


def test_a_reply_that_is_not_returned_is_no_fault_of_the_server() -> None:
    def forgetful(client: Any, messages: Any, *, attempts: int, **told: Any) -> None:
        for _attempt in range(attempts):
            with suppress(openai.APIStatusError):
                client.chat.completions.create(model=honest.MODEL, messages=messages)

    verdict = check.with_retries.run(forgetful)
    assert "and your code went on" in messages(verdict)
    assert "script" not in messages(verdict)


def test_a_negative_sleep_raises_as_the_real_one_does() -> None:
    def eager(client: Any, messages: Any, *, sleep: Any, **told: Any) -> Any:
        sleep(-1.0)

    assert "negative" in messages(check.with_retries.run(eager))


def test_retries_without_a_request_are_told_so() -> None:
    assert check.with_retries.run(lambda client, messages, **told: "well").points == 0


def test_a_cache_that_returns_the_reply_itself_is_told_so() -> None:
    class Objects(honest.request_cache):
        def create(self, **request: Any) -> Any:
            return self.ask(**request)

    verdict = check.request_cache.run(Objects)
    assert verdict.points == 0
    assert "ChatCompletion" in messages(verdict) or "requests" in messages(verdict)


@pytest.mark.usefixtures("undiagnosed")
def test_a_cache_that_keeps_a_part_of_the_reply_is_told_so() -> None:
    class Partial(honest.request_cache):
        def create(self, **request: Any) -> Any:
            reply = super().create(**request)
            content = reply["choices"][0]["message"]["content"]
            return {"model": reply["model"], "choices": [{"message": {"content": content}}]}

    verdict = check.request_cache.run(Partial)
    assert failed(verdict) == ["same_request"]
    assert "model_dump" in messages(verdict)


def test_a_key_that_is_the_callers_own_list_is_told_so() -> None:
    class Referring(honest.request_cache):
        def create(self, **request: Any) -> Any:
            key = [request.get(name) for name in ("model", "messages", "temperature", "max_tokens", "response_format")]
            for asked, _came, reply in self.known:
                if asked == key:
                    return deepcopy(reply)
            self.known.append((key, 0.0, self.ask(**request).model_dump()))
            return deepcopy(self.known[-1][2])

    verdict = check.request_cache.run(Referring)
    assert "other_request" in failed(verdict)
    assert "appended a message" in messages(verdict)


def test_a_cache_that_hands_out_what_cannot_be_changed_passes() -> None:
    class Frozen(honest.request_cache):
        """Returns a dict that nothing else holds."""

        def create(self, **request: Any) -> Any:
            return {**super().create(**request)}

    assert check.request_cache.run(Frozen).status == "passed"


def test_jobs_that_are_not_awaited_earn_nothing() -> None:
    async def lazy(jobs: Any, limit: int) -> Any:
        return list(jobs)

    assert check.gather_limited.run(lazy).points == 0


def test_jobs_that_are_not_called_are_told_so() -> None:
    async def uncalled(jobs: Any, limit: int) -> Any:
        async def wait_for(job: Any) -> Any:
            return await job

        return await asyncio.gather(*(wait_for(job) for job in jobs), return_exceptions=True)

    assert "can't be used in 'await'" in str(check.gather_limited.run(uncalled).criteria[0])


def test_what_nobody_awaited_is_named() -> None:
    async def gathering(jobs: Any, limit: int) -> Any:
        return asyncio.gather(*(job() for job in jobs))

    assert "`_GatheringFuture`" in messages(check.gather_limited.run(gathering))


def test_a_plain_function_that_returns_an_awaitable_passes() -> None:
    def plain(jobs: Any, limit: int) -> Any:
        return honest.gather_limited(jobs, limit)

    def future(jobs: Any, limit: int) -> Any:
        gate = asyncio.Semaphore(limit)

        async def run(job: Any) -> Any:
            async with gate:
                return await job()

        return asyncio.gather(*(run(job) for job in jobs), return_exceptions=True)

    assert check.gather_limited.run(plain).status == "passed"
    assert check.gather_limited.run(future).status == "passed"


def test_a_busy_wait_is_no_mistake() -> None:
    async def polling(jobs: Any, limit: int) -> Any:
        running: set[Any] = set()
        tasks = []
        try:
            for job in jobs:
                while len(running) >= limit:
                    await asyncio.sleep(0.001)
                    running = {task for task in running if not task.done()}
                tasks.append(asyncio.ensure_future(job()))
                running.add(tasks[-1])
            return list(await asyncio.gather(*tasks, return_exceptions=True))
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    assert check.gather_limited.run(polling).status == "passed"


def test_jobs_tell_when_they_begin_end_and_stop() -> None:
    events: list[Any] = []
    note = events.append
    jobs = Jobs([3, 1], lambda n: note(("begin", n)), lambda n: note(("end", n)), lambda n: note(("stopped", n)))

    async def both() -> None:
        await asyncio.gather(*(job() for job in jobs.as_list()))

    asyncio.run(both())
    assert events == [("begin", 0), ("begin", 1), ("end", 1), ("end", 0)]


def test_a_job_does_not_wait_for_ever_for_a_crowd() -> None:
    jobs = Jobs([0], lambda n: None, lambda n: "done", lambda n: None, crowd=[2], patience=0.01)
    assert asyncio.run(jobs.as_list()[0]()) == "done"  # type: ignore[arg-type]


@pytest.mark.parametrize("ends", [True, False])
def test_jobs_that_never_end_are_given_up(ends: bool) -> None:
    async def answer(jobs: Any, limit: int) -> Any:
        if not ends:
            await asyncio.Event().wait()
        return [await job() for job in jobs]

    jobs = Jobs([0], lambda n: None, lambda n: n, lambda n: None)
    assert run_within(answer, jobs, 1, 5 if ends else 0.01) == ([["value", 0]] if ends else None)


@pytest.mark.parametrize(("swallow", "how"), [(False, "cancelled"), (True, "ended")])
def test_a_cancellation_is_seen_or_missed(swallow: bool, how: str) -> None:
    events: list[Any] = []

    async def answer(jobs: Any, limit: int) -> Any:
        try:
            return await jobs[0]()
        except asyncio.CancelledError:
            if not swallow:
                raise

    jobs = Jobs([0], lambda n: None, lambda n: None, lambda n: events.append("stopped"), crowd=[2], patience=1)
    cancel(answer, jobs, 1, lambda: events.append("cancelling"), events.append)
    assert events == ["cancelling", "stopped", how]


def test_results_are_described_as_data() -> None:
    assert described([1, ValueError("no"), None]) == [["value", 1], ["exception", "ValueError", "no"], ["value", None]]


def test_a_secret_that_is_left_is_named() -> None:
    class Careless(honest.pseudonymiser):
        def pseudonymise(self, text: str) -> str:
            return text

    verdict = check.pseudonymiser.run(Careless)
    assert verdict.points == 0
    assert "is still in the text" in messages(verdict)


def test_a_table_that_all_pseudonymisers_share_is_told_so() -> None:
    table: list[Any] = []

    class Shared(honest.pseudonymiser):
        def __init__(self, names: Any) -> None:
            super().__init__(names)
            self.table = table

    verdict = check.pseudonymiser.run(Shared)
    assert failed(verdict) == ["leaves_alone"]
    assert "another `Pseudonymiser`" in messages(verdict)


class Hiding(honest.pseudonymiser):
    """Hides a secret under a number of its own choice."""

    def __init__(self, names: Any) -> None:
        super().__init__(names)
        self.back: dict[str, str] = {}

    def _number(self, kind: str, secret: str) -> str:
        placeholder = f"{kind}_{self.choose(kind, secret)}"
        self.back[placeholder] = secret
        return placeholder

    def choose(self, kind: str, secret: str) -> int:
        return int(super()._number(kind, secret).rpartition("_")[2])

    def restore(self, text: str) -> str:
        return re.sub(r"\b[A-Z]+_\d+\b", lambda match: self.back.get(match[0], match[0]), text)


def sharing(shared: str) -> Any:
    class Sharing(Hiding):
        def choose(self, kind: str, secret: str) -> int:
            return 0 if kind == shared else super().choose(kind, secret) + 1

    return Sharing


def forgetting(forgotten: str) -> Any:
    class Forgetting(Hiding):
        def choose(self, kind: str, secret: str) -> int:
            return len(self.back) + 1000 if kind == forgotten else super().choose(kind, secret)

    return Forgetting


class OnlyTheLatest(Hiding):
    def pseudonymise(self, text: str) -> str:
        self.back = {}
        return super().pseudonymise(text)


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    "wrong",
    [OnlyTheLatest, *(make(kind) for make in (sharing, forgetting) for kind in ("EMAIL", "PHONE", "CUSTOMER"))],
)
def test_every_kind_of_secret_has_placeholders_of_its_own_that_stay(wrong: Any) -> None:
    assert check.pseudonymiser.run(Hiding).status == "passed"
    for seed in range(5):
        assert failed(check.pseudonymiser.run(wrong, seed=seed)) == ["stable"]


def test_a_long_text_is_shown_where_it_differs() -> None:
    class Late(honest.pseudonymiser):
        def restore(self, text: str) -> str:
            return super().restore(text) + "the end"

    [wrong, *_others] = [one for one in check.pseudonymiser.run(Late).criteria if one.status == "failed"]
    assert "the end" in wrong.got
    assert "the end" not in wrong.expected


def retrying(**changed: Any) -> Any:
    return lambda client, messages, **told: check._retrying(client, messages, told, **changed)


def from_the_first_failure(client: Any, messages: Any, **told: Any) -> Any:
    times: list[float] = []

    def elapsed(passed: float, _slept: float) -> float:
        times.append(passed)
        return passed - times[0]

    return check._retrying(client, messages, told, elapsed=elapsed)


def no_wait_is_never_late(client: Any, messages: Any, **told: Any) -> Any:
    said: list[float | None] = []

    def after(error: Any) -> float | None:
        said.append(check._after(error))
        return said[-1]

    return check._retrying(
        client, messages, told, after=after, late=lambda finish, end: finish >= end and said[-1] != 0
    )


def cache_by(key: Callable[[dict[str, Any]], Any]) -> Any:
    return check._caching(key=lambda request: json.dumps(key(request), sort_keys=True))


def emptied_by_each(made: Any, *stores: Any) -> Any:
    """Let each new object empty what all of them share."""

    class Emptying(made):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            for store in stores:
                store.clear()

    return Emptying


def one_cache() -> Any:
    store: dict[str, Any] = {}
    return emptied_by_each(check._caching(shared=store), store)


class TwoEntries(check._caching()):  # type: ignore[misc]
    def create(self, **request: Any) -> Any:
        reply = super().create(**request)
        self.entries: dict[str, Any] = dict(list(self.entries.items())[-2:])
        return reply


def sorted_outside(request: dict[str, Any]) -> Any:
    """Sort the fields of a request and of its messages, but not what lies deeper."""
    form = sorted((request.get("response_format") or {}).items())
    messages = [sorted(message.items()) for message in request["messages"]]
    return repr([check._key(request | {"messages": [], "response_format": None}), messages, form])


async def empty_for_nothing(jobs: Any, limit: int) -> Any:
    return [result or "" for result in await honest.gather_limited(jobs, limit)]


async def only_value_errors(jobs: Any, limit: int) -> Any:
    async def run(job: Any) -> Any:
        try:
            return await job()
        except ValueError as error:
            return error

    return await check._through(jobs, limit, run)


def falling_back(
    temporary: Callable[[int, Exception], bool] = lambda _place, error: check._temporary(error),
    sent: Callable[[int, Any], Any] = lambda _place, messages: messages,
    named: Callable[[Exception], bool] = lambda _error: True,
) -> Any:
    """Build a `first_available` that decides by the provider's place, or names not everybody."""

    def first_available(providers: Any, messages: Any) -> Any:
        names = []
        for place, provider in enumerate(providers):
            try:
                reply = check._reply(provider.client, sent(place, messages), provider.model)
                return honest.Answer(reply.choices[0].message.content, provider.name)
            except Exception as error:
                if not temporary(place, error):
                    raise
                names += [provider.name] * named(error)
        raise honest.NoProviderError(", ".join(names))

    return first_available


def whatever_the_request_raises(providers: Any, messages: Any) -> Any:
    """Fall back after every error of `create` but a status that is final."""
    for provider in providers:
        try:
            reply = check._reply(provider.client, messages, provider.model)
        except Exception as error:
            if getattr(error, "status_code", 503) not in check._TEMPORARY:
                raise
        else:
            return honest.Answer(reply.choices[0].message.content, provider.name)
    raise honest.NoProviderError(", ".join(provider.name for provider in providers))


PLACEHOLDER = "(?:PERSON|EMAIL|PHONE|CUSTOMER)_"
IN_A_LINE = r"(?=[\s,.!;]|$)"  # what may follow a word, for who thinks of no brackets and no quotation marks


def one_table() -> Any:
    stores: tuple[dict[Any, str], dict[str, str]] = ({}, {})

    class Shared(check._hiding()):  # type: ignore[misc]
        def __init__(self, names: Any) -> None:
            super().__init__(names)
            self.placeholders, self.originals = stores

    return emptied_by_each(Shared, *stores)


def refusing(pattern: str) -> Any:
    class Refusing(check._hiding(refuse=False)):  # type: ignore[misc]
        def pseudonymise(self, text: str) -> Any:
            if re.search(pattern, text):
                raise ValueError("placeholders of its own")
            return super().pseudonymise(text)

    return Refusing


def changing(change: Callable[[str], str]) -> Any:
    class Changing(check._hiding()):  # type: ignore[misc]
        def pseudonymise(self, text: str) -> Any:
            return super().pseudonymise(change(text))

    return Changing


def restored_in_a_line(text: str, originals: Any) -> str:
    return re.sub(rf"(?<!\S){PLACEHOLDER}[0-9]+{IN_A_LINE}", lambda match: originals.get(match[0], match[0]), text)


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    ("task", "wrong", "expected"),
    [
        (
            "with_retries",
            retrying(temporary=lambda error: check._temporary(error) or isinstance(error, TypeError)),
            "only_temporary",
        ),
        (
            "with_retries",
            retrying(temporary=lambda error: getattr(error, "status_code", 503) in check._TEMPORARY),
            "only_temporary",
        ),
        (
            "with_retries",
            retrying(
                after=lambda error: check._after(error) if getattr(error, "status_code", 0) in (429, 503) else None
            ),
            "obeys_retry_after",
        ),
        (
            "with_retries",
            retrying(wait=lambda attempt, told, after: min(60.0, check._usual_wait(attempt, told, after))),
            "obeys_retry_after",
        ),
        ("with_retries", retrying(late=lambda finish, end: finish >= min(end, 60.0)), "obeys_retry_after"),
        ("with_retries", from_the_first_failure, "keeps_deadline"),
        ("with_retries", no_wait_is_never_late, "keeps_deadline"),
        (
            "request_cache",
            cache_by(lambda request: {name: request[name] for name in check._FIELDS if request.get(name)}),
            "other_request",
        ),
        ("request_cache", one_cache(), "other_request"),
        ("request_cache", TwoEntries, "other_request"),
        ("request_cache", cache_by(sorted_outside), "same_request"),
        (
            "request_cache",
            cache_by(
                lambda request: check._key(
                    request | {"response_format": (request.get("response_format") or {}).get("type")}
                )
            ),
            "other_request",
        ),
        (
            "request_cache",
            cache_by(
                lambda request: check._key(
                    request
                    | {"messages": [*request["messages"][:1], len(request["messages"]), request["messages"][-1]]}
                )
            ),
            "other_request",
        ),
        ("gather_limited", empty_for_nothing, "keeps_order"),
        ("gather_limited", only_value_errors, "survives_failures"),
        (
            "first_available",
            falling_back(lambda _place, error: getattr(error, "status_code", 503) in check._TEMPORARY),
            "own_faults",
        ),
        ("first_available", whatever_the_request_raises, "own_faults"),
        ("first_available", falling_back(lambda place, error: place > 0 or check._temporary(error)), "own_faults"),
        (
            "first_available",
            falling_back(sent=lambda place, messages: messages[-1:] if place else messages),
            "falls_back",
        ),
        ("first_available", falling_back(named=lambda error: hasattr(error, "status_code")), "nobody_answers"),
        ("pseudonymiser", one_table(), "leaves_alone"),
        ("pseudonymiser", check._hiding(word=lambda name: rf"(?<!\S){re.escape(name)}{IN_A_LINE}"), "stable"),
        ("pseudonymiser", check._hiding(restore=restored_in_a_line), "comes_back"),
        (
            "pseudonymiser",
            check._hiding(word=lambda name: rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])"),
            "leaves_alone",
        ),
        (
            "pseudonymiser",
            check._hiding(word=lambda name: rf"(?<!\w){name.replace('.', '[.]')}(?!\w)"),
            "leaves_alone",
        ),
        ("pseudonymiser", check._hiding(kinds=("CUSTOMER", "PHONE", "EMAIL")), "takes_the_whole"),
        ("pseudonymiser", refusing(rf"(?<!\S){PLACEHOLDER}[0-9]+{IN_A_LINE}"), "refuses"),
        ("pseudonymiser", refusing(rf"\b{PLACEHOLDER}[0-9]{{1,2}}\b"), "refuses"),
        ("pseudonymiser", changing(lambda text: unicodedata.normalize("NFC", text)), "leaves_alone"),
        ("pseudonymiser", changing(lambda text: text.replace("\u00a0", " ")), "leaves_alone"),
        ("pseudonymiser", changing(lambda text: text.replace("\r\n", "\n")), "leaves_alone"),
    ],
)
def test_what_the_text_says_is_tried_where_it_is_rare(task: str, wrong: Any, expected: str) -> None:
    for seed in range(4):
        assert failed(getattr(check, task).run(wrong, seed=seed)) == [expected], seed


@pytest.mark.long
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_demonstration_runs_with_the_embedded_gpt(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = demonstrated("robust_client", language, tmp_path, monkeypatch)
    assert len(shown.figures) == 5
    assert shown.figures[0].startswith("Ein Ablauf") == (language == "de")
