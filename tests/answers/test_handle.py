"""An answer reached through its handle, over a thread: what comes back, and what each fault looks like."""

import asyncio
import contextvars
import decimal
import gc
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from kicourse.answers import (
    AnswerRaised,
    AnswerRefused,
    AnswerTimedOut,
    Handle,
    NotStarted,
    Session,
    ThreadConnection,
)


@pytest.fixture
def reach() -> Iterator[Any]:
    sessions: list[Session] = []

    def make(answer: Any, seconds: float = 5.0) -> Handle:
        sessions.append(Session(ThreadConnection(answer), seconds))
        return Handle(sessions[-1], 0, "answer")

    yield make
    for session in sessions:
        session.connection.close()


def test_calls_send_data_and_return_data(reach: Any) -> None:
    assert reach(lambda x, k: x * k)([1, 2], k=2) == [1, 2, 1, 2]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of this kind")
def test_where_no_file_can_be_opened_answers_are_called_and_say_what_they_lack(
    reach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    async def twice(x: int) -> int:
        return 2 * x

    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # asyncio's half-made loop complains when it goes
    with pytest.raises(AnswerRaised):
        reach(lambda x: x.missing)(4)  # what describes an error is imported with the first one
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        assert reach(lambda x: 2 * x)(4) == 8
        with pytest.raises(AnswerRaised, match="open files"):
            reach(twice)(4)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        gc.collect()


def test_objects_stay_and_are_reached_again(reach: Any) -> None:
    class Counter:
        def __init__(self, start: int) -> None:
            self.value = start

        def add(self, other: "Counter") -> int:
            self.value += other.value
            return self.value

    counter = reach(Counter)
    one, two = counter.make(1), counter.make(2)
    assert one.attribute("add")(two) == 3
    assert one.attribute("value").data() == 3


def test_a_class_that_is_kept_is_shown_by_its_own_name(reach: Any) -> None:
    class Kind(type):
        pass

    class Ticket(metaclass=Kind):
        pass

    assert repr(reach(lambda: Ticket).make()) == "<Ticket>"
    assert repr(reach(Ticket).make()) == "<Ticket>"


def test_a_stream_is_asked_for_piece_by_piece(reach: Any) -> None:
    asked: list[int] = []

    def stream() -> Iterator[int]:
        for number in range(3):
            asked.append(number)
            yield number

    pieces = reach(stream).stream()
    assert next(pieces) == 0
    assert asked == [0]
    assert list(pieces) == [1, 2]


def test_an_endless_stream_is_refused(reach: Any) -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    with pytest.raises(AnswerRefused):
        list(reach(endless).stream())


def test_async_functions_and_streams(reach: Any) -> None:
    async def twice(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    async def count() -> Any:
        for number in range(3):
            yield number

    assert reach(twice)(4) == 8
    assert list(reach(count).stream()) == [0, 1, 2]


def test_lent_functions_run_on_the_checks_side_and_raise_builtins(reach: Any) -> None:
    seen: list[float] = []

    def sleep(seconds: float) -> None:
        seen.append(seconds)
        if len(seen) == 2:
            raise TimeoutError("enough")

    def answer(sleep: Any) -> str:
        sleep(0.5)
        try:
            sleep(1.5)
        except TimeoutError as error:
            return str(error)
        return ""

    assert reach(answer)(sleep) == "enough"
    assert seen == [0.5, 1.5]


def test_a_lent_function_may_be_handed_nan_and_the_conversation_goes_on(reach: Any) -> None:
    seen: list[float] = []
    handle = reach(lambda f: f(float("nan")))
    handle(lambda x: seen.append(x))
    assert seen[0] != seen[0]
    assert reach(lambda: 1)() == 1


def test_a_lent_function_called_with_an_object_is_the_answers_fault(reach: Any) -> None:
    handle = reach(lambda f, again: "back" if again else f(object()))
    with pytest.raises((AnswerRaised, AnswerRefused)):
        handle(lambda x: 1, False)
    assert handle(lambda x: 1, True) == "back"


def test_a_lent_function_that_breaks_the_rules_leaves_the_conversation_intact(reach: Any) -> None:
    def stop() -> None:
        raise StopIteration

    handle = reach(lambda f, again: "back" if again else f())
    with pytest.raises(TypeError):
        handle(stop, False)
    assert handle(stop, True) == "back"


def test_exceptions_carry_names_text_and_the_learners_line(reach: Any) -> None:
    def answer(values: list[int]) -> Any:
        return np.array(values).reshape(7, 7)  # the learner's line

    with pytest.raises(AnswerRaised) as caught:
        reach(answer)([1, 2])
    assert caught.value.type_names[0] == "ValueError"
    assert caught.value.location is not None
    assert caught.value.location.source.endswith("# the learner's line")


def test_an_exception_that_lies_about_its_text(reach: Any) -> None:
    class Sly(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def answer() -> None:
        raise Sly

    with pytest.raises(AnswerRaised) as caught:
        reach(answer)()
    assert caught.value.type_names[0] == "Sly"


def test_exit_is_an_answer_like_any_other(reach: Any) -> None:
    def answer() -> None:
        raise SystemExit(3)

    with pytest.raises(AnswerRaised, match="SystemExit"):
        reach(answer)()


def test_a_stub_is_not_started(reach: Any) -> None:
    def answer() -> None:
        raise NotImplementedError

    with pytest.raises(NotStarted):
        reach(answer)()


@pytest.mark.parametrize("stuck_in_compiled_code", [False, True])
def test_a_call_that_hangs_is_stopped_and_located(reach: Any, stuck_in_compiled_code: bool) -> None:
    def answer(hang: bool) -> str:
        if hang and stuck_in_compiled_code:
            time.sleep(3)  # hangs here
        while hang:
            pass  # hangs here
        return "back"

    handle = reach(answer, seconds=0.3)
    with pytest.raises(AnswerTimedOut) as caught:
        handle(True)
    assert caught.value.location is not None
    assert "hang" in caught.value.location.source
    assert handle(False) == "back"  # the conversation goes on


def test_results_that_are_no_data_are_refused(reach: Any) -> None:
    with pytest.raises(AnswerRefused, match="object"):
        reach(object)()
    with pytest.raises(AnswerRefused, match="nan"):
        reach(lambda: [1.0, float("nan")])()
    assert str(reach(lambda: float("nan")).allowing_nonfinite()()) == "nan"


def test_changed_arguments_are_noticed_by_name(reach: Any) -> None:
    def answer(kept: list[int], changed: Any) -> None:
        changed[0] = 9

    handle = reach(answer)
    handle([1], np.zeros(2))
    assert handle._session.changed == {"changed"}


def test_the_checks_own_data_never_change(reach: Any) -> None:
    mine = [1, 2]
    reach(lambda values: values.clear())(mine)
    assert mine == [1, 2]


def test_the_learners_context_holds(reach: Any) -> None:
    with decimal.localcontext() as context:
        context.prec = 4
        assert reach(lambda: decimal.Decimal(1) / decimal.Decimal(3))() == decimal.Decimal("0.3333")
    variable = contextvars.ContextVar("variable", default="default")
    variable.set("mine")
    assert reach(lambda: variable.get())() == "mine"
    with torch.no_grad():
        assert reach(lambda: torch.is_grad_enabled())() is False


def test_seeding_a_trial_gives_the_learners_generators_back(reach: Any) -> None:
    handle = reach(lambda: [random.random(), float(np.random.rand()), float(torch.rand(1))])
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = [random.random(), float(np.random.rand()), float(torch.rand(1))]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    handle._session.request(None, do="seed", seed=7)
    first = handle()
    handle._session.request(None, do="seed", seed=7)
    assert handle() == first
    handle._session.request(None, do="restore")
    assert [random.random(), float(np.random.rand()), float(torch.rand(1))] == expected


def test_a_function_is_built_from_its_source_and_reaches_what_is_lent(reach: Any) -> None:
    said: list[Any] = []

    def note(*words: str) -> int:
        said.append(words)
        return len(said)

    answer = reach(lambda tool: [tool("Öl"), tool.__name__, tool.__doc__])
    source = "def say(word: str, again: bool = True) -> int:\n    'Say it.'\n    return note(word, 'x')"
    assert answer(answer.build("function", "say", source, note=note)) == [1, "say", "Say it."]
    assert said == [("Öl", "x")]


def test_probes_run_beside_the_object(reach: Any) -> None:
    model = reach(torch.nn.Linear).make(2, 3)
    weights = model.probe("state_dict")
    assert weights["weight"].shape == (3, 2)
    x = torch.ones(1, 2)
    assert torch.allclose(model.probe("evaluate", x), x @ weights["weight"].T + weights["bias"])
