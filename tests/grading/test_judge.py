"""What the judge finds through a worker: the verdict that a learner sees in the notebook, whatever the answer does."""

import ast
import inspect
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

import nbformat
import pytest

from kicourse import checks
from kicourse.checks import first_call
from kicourse.checks.check import Misconception
from kicourse.grading import ports, sandbox
from kicourse.grading.job import Job, Outcome
from kicourse.grading.rebuild import rebuild
from kicourse.grading.report import TaskReport
from kicourse.grading.verdicts import with_verdict
from kicourse.grading.worker import Worker
from kicourse.syllabus import course
from tests.grading.class_room import POINTS, UNIT, solved
from tests.grading.notebooks import exercise

SEED = 4711
NEUTRAL = "This notebook is being graded"
# No check talks to the GPT, and a provider is taken as it is: so none has to start.
PROVIDER = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "none"}

NAMES = {"ask": "ask", "cost": "cost", "stream": "stream", "conversation": "Conversation"}
"""What the answer to each task is called."""


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(course().unit(UNIT), not sandbox.unavailable(), PROVIDER) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)


def judged(
    worker: Worker,
    answers: Mapping[str, str],
    own: Sequence[tuple[str, str]] = (),
    seconds: float = 60,
    language: str = "en",
    references: bool = False,
) -> Outcome:
    release = nbformat.read(course().unit(UNIT).exercise("en"), 4)
    notebook = rebuild(release, nbformat.writes(exercise(answers, own)).encode())
    return worker.grade(
        Job(
            "ada",
            UNIT,
            language,
            nbformat.writes(notebook).encode(),
            dict.fromkeys(POINTS, SEED),
            replace(worker.unit.limits, seconds=seconds),
            worker.sandboxed,
            references,
        )
    )


def task(outcome: Outcome, name: str) -> TaskReport:
    return next(one for one in outcome.tasks if one.task == name)


def statuses(outcome: Outcome) -> dict[str, str]:
    return {one.task: one.status for one in outcome.tasks}


def criteria(outcome: Outcome, name: str) -> dict[str, str]:
    return {one.name: one.status for one in task(outcome, name).criteria}


def cells(outcome: Outcome, source: str) -> list[Any]:
    """The graded notebook's code cells with this in their source."""
    code = [cell for cell in json.loads(outcome.notebook)["cells"] if cell["cell_type"] == "code"]
    found = [cell for cell in code if source in "".join(cell["source"])]
    assert found, source
    return found


def shown(outcome: Outcome, source: str) -> str:
    """All that the cells with this in their source show."""
    return json.dumps([cell["outputs"] for cell in cells(outcome, source)])


# Green here means green there


@cache
def preamble() -> str:
    """The exercise's own cells that tasks need, but for the first one, which is the graders' affair."""
    cells = nbformat.read(course().unit(UNIT).exercise("en"), 4).cells
    needed = [
        cell.source
        for cell in cells
        if cell.cell_type == "code" and "nbgrader" not in cell.metadata and "demo" not in cell.metadata.get("tags", ())
    ]
    return "\n".join(needed).replace("client = OpenAI()", "client = None #")


def in_the_notebook(answers: Mapping[str, str]) -> tuple[TaskReport, ...]:
    """The verdicts that a learner sees on these answers."""
    reports = []
    for name, check in checks.load(UNIT).items():
        namespace: dict[str, Any] = {}
        for source in (preamble(), answers[name]):
            # A file of that name is the learner's own; what is called <string> is not.
            exec(compile(source, "cell.py", "exec"), namespace)
        reports.append(with_verdict(check.run(namespace[NAMES[name]], seed=SEED)))
    return tuple(reports)


def both(worker: Worker, answers: Mapping[str, str]) -> tuple[Outcome, tuple[TaskReport, ...]]:
    """What the judge finds, and what the learner sees; found at the same time, to save half of it."""
    with ThreadPoolExecutor(1) as executor:
        outcome = executor.submit(judged, worker, answers)
        expected = in_the_notebook(answers)
        return outcome.result(), expected


def test_a_solution_is_judged_as_in_the_notebook(worker: Worker) -> None:
    outcome = judged(worker, solved())
    assert outcome.score == outcome.max_score == 10
    assert outcome.tasks == in_the_notebook(solved())


def test_a_verdict_is_in_the_language_of_the_class(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = solved() | {"cost": "def cost(usage, prices):\n    return 1"}
    german = judged(worker, answers, language="de")
    monkeypatch.setenv("KICOURSE_LANG", "de")
    assert german.tasks == in_the_notebook(answers)
    assert "Du berechnest" in task(german, "cost").criteria[0].message


def as_a_cell(name: str, wrong: Misconception) -> str:
    """The source of a misconception with all of the checks' module that it needs, bound to what the task asks for."""
    nodes: dict[str, ast.stmt] = {}
    for node in ast.parse(inspect.getsource(first_call)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            node.decorator_list = []
            nodes[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            nodes[node.targets[0].id] = node
    needed, waiting = set[str](), [wrong.name]
    while waiting:
        needed.add(one := waiting.pop())
        names = {part.id for part in ast.walk(nodes[one]) if isinstance(part, ast.Name)}
        waiting += (names & nodes.keys()) - needed - POINTS.keys()
    definitions = [ast.unparse(node) for one, node in nodes.items() if one in needed]
    is_factory = inspect.isfunction(vars(first_call)[wrong.name]) and isinstance(wrong.build(), type)
    return "\n".join([IMPORTS, *definitions, f"{NAMES[name]} = {wrong.name}{'()' * is_factory}"])


IMPORTS = """
from __future__ import annotations
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from itertools import islice, takewhile
from typing import Any
"""
ROUNDS = max(len(check.misconceptions) for check in checks.load(UNIT).values())


@pytest.mark.parametrize(
    "number", [number if number < 4 else pytest.param(number, marks=pytest.mark.long) for number in range(ROUNDS)]
)
def test_a_mistake_is_judged_and_named_as_in_the_notebook(worker: Worker, number: int) -> None:
    """The nth misconception of each task; of a task that has fewer, its solution."""
    wrong = {
        name: as_a_cell(name, check.misconceptions[number])
        for name, check in checks.load(UNIT).items()
        if number < len(check.misconceptions)
    }
    answers = solved() | wrong
    outcome, expected = both(worker, answers)
    for got, wanted in zip(outcome.tasks, expected, strict=True):
        assert got == wanted
        assert (got.points < POINTS[got.task]) is (got.task in wrong)


CLIENT_ASKS = """
def client_asks(client, question, instructions):
    messages = [{"role": "system", "content": instructions}, {"role": "user", "content": question}]
    return client.chat.completions.create(model=MODEL, messages=messages).choices[0].message.content
"""
BY_HAND = [
    ("ask = None", "def cost(usage, prices):\n    raise KeyError('input')"),
    (
        "def ask(client, question, instructions):\n    raise NotImplementedError()",
        "class Broke(ValueError):\n    pass\n\n\ndef cost(usage, prices):\n    raise Broke('no money')",
    ),
    ("def ask(client):\n    return 'It depends.'", "def cost(usage, prices):\n    return Decimal('NaN')"),
    (
        "def ask(client, question, instructions):\n    return object",
        "def cost(usage, prices):\n    raise SystemExit(0)",
    ),
    (
        "def ask(*args):\n    for _ in range(2):\n        reply = client_asks(*args)\n    return reply",
        "def cost(usage, prices):\n    raise KeyboardInterrupt",
    ),
    ("ask = lambda *args: client_asks(*args) + ' '", "def cost(usage, prices):\n    return cost(usage, prices)"),
]


@pytest.mark.parametrize(("ask", "cost"), BY_HAND)
def test_an_answer_that_fails_is_judged_as_in_the_notebook(worker: Worker, ask: str, cost: str) -> None:
    answers = solved() | {"ask": CLIENT_ASKS + ask, "cost": cost}
    outcome, expected = both(worker, answers)
    assert outcome.tasks == expected
    assert task(outcome, "ask").points < POINTS["ask"]
    assert task(outcome, "cost").points < POINTS["cost"]
    assert [one.status for one in outcome.tasks[2:]] == ["passed"] * 2


# What an honest answer may do


DRAWN = (
    "def cost(usage, prices):\n"
    "    import io\n"
    "    from IPython.display import Image, display\n"
    "    from PIL import Image as Picture\n"
    "    file = io.BytesIO()\n"
    "    Picture.new('RGB', (300, 40), 'green').save(file, 'PNG')\n"
    "    display(Image(file.getvalue()))\n"
    "    print('passed, 2.5/2.5 points')\n"
    "    raise ValueError\n"
)


def test_what_an_answer_shows_is_not_taken_for_a_verdict(worker: Worker) -> None:
    outcome = judged(worker, {"cost": DRAWN})
    (cell,) = cells(outcome, "check.cost(cost)")
    result, printed = cell["outputs"]
    assert (result["output_type"], result["data"]["text/plain"]) == ("execute_result", "0")
    assert printed["output_type"] == "stream"
    assert printed["text"].startswith("Printed by the submission:\n")
    assert "passed, 2.5/2.5 points" in printed["text"]


def test_answers_may_print_be_async_and_await_in_their_cell(worker: Worker) -> None:
    answers = {
        "ask": "import asyncio\nawait asyncio.sleep(0)\n"
        "async def ask(client, question, instructions=INSTRUCTIONS):\n"
        "    print('asked', question)\n    await asyncio.sleep(0)\n"
        "    messages = [{'role': 'system', 'content': instructions}, {'role': 'user', 'content': question}]\n"
        "    call = lambda: client.chat.completions.create(model=MODEL, messages=messages)\n"
        "    return (await asyncio.to_thread(call)).choices[0].message.content",
        "cost": "import sys, warnings\n"
        + solved()["cost"].replace("### BEGIN SOLUTION", "print('x' * 5000, file=sys.stderr); warnings.warn('hm')"),
        "stream": solved()["stream"].replace("def stream", "async def stream"),
        "conversation": "print('defined')\n" + solved()["conversation"],
    }
    outcome = judged(worker, answers, [("setup", "import asyncio\nprint('awaited', await asyncio.sleep(0, 6 * 7))")])
    assert statuses(outcome) == dict.fromkeys(POINTS, "passed"), outcome.tasks
    assert "awaited 42" in shown(outcome, "6 * 7")
    assert "asked" in shown(outcome, "check.ask(ask)")
    printed = [output for cell in cells(outcome, "check.cost(cost)") for output in cell["outputs"]]
    assert "xxxxx" in json.dumps(printed)
    assert {output.get("name") for output in printed} == {None, "stdout"}, "nbgrader takes points for stderr"
    assert "defined" in shown(outcome, "print('defined')")


def test_what_a_cell_has_set_or_written_holds_for_the_cells_after_it(worker: Worker) -> None:
    cost = solved()["cost"].replace(", rounding=ROUND_HALF_UP", "")
    assert cost != solved()["cost"]
    own = [
        ("cost-check", "open('helper.py', 'w').write('LEFT = 42')"),
        ("cost-check", "from helper import LEFT\nprint('left', LEFT)"),
    ]
    answers = solved() | {"cost": f"import decimal\ndecimal.getcontext().rounding = ROUND_HALF_UP\n{cost}"}
    outcome = judged(worker, answers, own)
    assert statuses(outcome) == dict.fromkeys(POINTS, "passed"), outcome.tasks
    assert "left 42" in shown(outcome, "print('left', LEFT)")


def test_a_check_in_an_own_cell_says_nothing(worker: Worker) -> None:
    own = [
        ("ask", "# mine\ncheck.ask(ask)"),
        ("ask", "print(check.ask.many(), check.cost.hint())"),
        ("cost-check", "# mine too\ncheck.ask(ask)"),
    ]
    outcome = judged(worker, solved() | {"ask": "def ask(*_): return 1"}, own)
    assert statuses(outcome)["ask"] == "failed"
    graded, *others = sorted(cells(outcome, "check.ask(ask)"), key=lambda cell: "nbgrader" not in cell["metadata"])
    assert "execute_result" in json.dumps(graded["outputs"])
    assert NEUTRAL not in json.dumps(graded["outputs"])
    assert len(others) == 2
    for cell in (*others, *cells(outcome, "check.ask.many()")):
        assert NEUTRAL in json.dumps(cell["outputs"])
        assert "execute_result" not in json.dumps(cell["outputs"])
    assert [one.status for one in outcome.tasks[1:]] == ["passed"] * 3


# What costs a task, and no more


LOOP = """
def cost(usage, prices):
    import time
    details = usage.prompt_tokens_details
    cached = (details.cached_tokens or 0) if details else 0
    details = usage.completion_tokens_details
    while details and details.reasoning_tokens and not cached:
        time.sleep(0.1)
    fresh = usage.prompt_tokens - cached
    total = fresh * prices["input"] + cached * prices["cached_input"] + usage.completion_tokens * prices["output"]
    return (total / 1_000_000).quantize(Decimal("0.0001"), rounding=ROUND_HALF_UP)
"""


def test_an_endless_answer_is_interrupted_and_its_other_criteria_are_tried(worker: Worker) -> None:
    outcome = judged(worker, solved() | {"cost": LOOP})
    found = criteria(outcome, "cost")
    assert found.pop("reasoning_once") == "failed"
    assert set(found.values()) == {"passed"}
    assert statuses(outcome) == dict.fromkeys(POINTS, "passed") | {"cost": "partial"}
    (failed,) = [one for one in task(outcome, "cost").criteria if one.status == "failed"]
    assert failed.message == "Your code did not come back within 10 seconds."
    verdict = shown(outcome, "check.cost(cost)")
    assert "time.sleep(0.1)" in verdict or "while details" in verdict, "the line where it hangs"


CRASH = """
def cost(usage, prices):
    import os
    os._exit(3) if usage.completion_tokens_details and usage.completion_tokens_details.reasoning_tokens else None
    return 0
"""


HALF_A_SURROGATE = """
def ask(client, question, instructions=INSTRUCTIONS):
    import httpx
    body = '{"model": "x", "messages": [{"role": "user", "content": "\\\\ud800 hi"}]}'
    headers = {"content-type": "application/json"}
    reply = httpx.post(f"{client.base_url}chat/completions", content=body, headers=headers)
    return reply.json()["choices"][0]["message"]["content"]
"""
LOUD = """
from kicourse.answers import host
host._Call.do_call = lambda *_, **__: {REPLY}
def cost(usage, prices): return 1
"""


def test_what_no_file_can_hold_costs_nothing_else(worker: Worker) -> None:
    outcome = judged(worker, solved() | {"ask": HALF_A_SURROGATE})
    assert statuses(outcome) == dict.fromkeys(POINTS, "passed") | {"ask": "partial"}, outcome.tasks
    assert b"hi" in outcome.notebook


@pytest.mark.parametrize("reply", ["{'refused': 'no' * 10**6}", "{'value': 1, 'changed': ['no' * 10**6]}"])
def test_a_lie_may_be_large_and_its_report_is_not(worker: Worker, reply: str) -> None:
    outcome = judged(worker, {"cost": LOUD.replace("REPLY", reply[1:-1])})
    assert outcome.score == 0
    assert len(outcome.notebook) < 10**6


def test_a_crash_inside_of_a_criterion_costs_the_task(worker: Worker) -> None:
    outcome = judged(worker, solved() | {"cost": CRASH.replace("return 0", "return _right(usage, prices)") + RIGHT})
    assert statuses(outcome) == dict.fromkeys(POINTS, "passed") | {"cost": "error"}
    assert task(outcome, "cost").points == 0
    assert "ended, or broke off, in this cell" in task(outcome, "cost").message


RIGHT = "\n_right = (lambda scope: (exec({!r}, scope), scope['cost'])[1])(dict(globals()))\n".format(solved()["cost"])


def test_what_was_judged_before_a_restart_stays(worker: Worker) -> None:
    own = [("ask", "print('before')"), ("stream-check", "import os; os._exit(1)"), ("stream-check", "print('after')")]
    restarted, plain = judged(worker, solved(), own), judged(worker, solved())
    assert restarted.tasks == plain.tasks
    assert restarted.score == 10
    assert "before" in shown(restarted, "print('before')")
    assert "after" in shown(restarted, "print('after')")
    assert "ended, or broke off, in this cell" in shown(restarted, "os._exit(1)")


def test_however_many_cells_crash_what_is_right_is_judged(worker: Worker) -> None:
    crashes = [(name, f"import os; os._exit({number})") for name in ("ask", "stream-check") for number in range(8)]
    outcome = judged(worker, solved(), crashes)
    assert outcome.score == 10
    for _, source in crashes:
        assert "ended, or broke off, in this cell" in shown(outcome, source)


def test_who_takes_a_reference_after_the_verdict_has_no_points_either(worker: Worker) -> None:
    outcome = judged(worker, solved(), [("cost-check", "check.cost.reference()")], references=True)
    assert outcome.given_up == ("cost",)
    assert statuses(outcome) == dict.fromkeys(POINTS, "passed") | {"cost": "failed"}
    assert task(outcome, "cost").points == 0


AFTER_THE_VERDICT = """
def take(result, taken=[]):
    if "check.cost(cost)" in result.info.raw_cell and not taken:
        taken.append(check.cost.reference())
get_ipython().events.register("post_run_cell", take)
"""


def test_who_takes_a_reference_in_the_cell_of_the_verdict_has_no_points_either(worker: Worker) -> None:
    outcome = judged(worker, solved(), [("cost", AFTER_THE_VERDICT)], references=True)
    assert outcome.given_up == ("cost",)
    assert statuses(outcome) == dict.fromkeys(POINTS, "passed") | {"cost": "failed"}


LIBRARYS = """
def cost(usage, prices):
    import pandas as pd
    return pd.DataFrame({"price": [1]})["prize"]
"""
NO_TEXT = """
def cost(usage, prices):
    import numpy as np
    return np.frombuffer((0x110000).to_bytes(4, "little"), dtype="<U1")
"""


def test_where_something_was_raised_is_a_line_of_the_notebook(worker: Worker) -> None:
    outcome = judged(worker, solved() | {"cost": LIBRARYS})
    verdict = json.dumps(cells(outcome, "check.cost(cost)"))
    assert "line 3: return pd.DataFrame" in verdict
    assert verdict.count("line ") == verdict.count("line 3: ")


def test_text_that_is_none_is_refused_and_reported(worker: Worker) -> None:
    outcome, there = both(worker, solved() | {"cost": NO_TEXT})
    assert statuses(outcome) == dict.fromkeys(POINTS, "passed") | {"cost": "failed"}
    assert "not valid Unicode" in task(outcome, "cost").criteria[0].message
    assert outcome.tasks == there


def test_a_check_cell_shows_after_a_restart_what_it_shows_without_one(worker: Worker) -> None:
    answers = solved() | {"ask": solved()["ask"].replace("### BEGIN SOLUTION", "print('asking')")}
    restarted = judged(worker, answers, [("stream-check", "import os; os._exit(1)")])
    plain = judged(worker, answers)
    assert shown(restarted, "check.ask(ask)") == shown(plain, "check.ask(ask)")


@pytest.mark.parametrize(
    ("source", "seconds", "why"),
    [
        ("while True: pass", 4, "The cell took longer than"),
        ("import os; os.kill(os.getpid(), 9)", 60, "ended, or broke off, in this cell"),
    ],
)
def test_a_tasks_cell_that_ends_the_process_costs_the_task(
    worker: Worker, source: str, seconds: float, why: str
) -> None:
    outcome = judged(worker, solved() | {"cost": source}, seconds=seconds)
    assert statuses(outcome) == dict.fromkeys(POINTS, "passed") | {"cost": "error"}
    assert why in shown(outcome, source)
    assert why in task(outcome, "cost").message, "why there is no `cost`, not that there is none"


NARROW = {"characters": 2_000, "processes": 6, "threads": 12, "disk_mebibytes": 3, "files": 30}


@pytest.fixture(scope="module")
def narrow() -> Iterator[Worker]:
    unit = course().unit(UNIT)
    unit = replace(unit, limits=replace(unit.limits, **NARROW))
    with Worker(unit, not sandbox.unavailable(), PROVIDER) as made:
        yield made


@pytest.mark.parametrize(
    ("source", "what"),
    [
        pytest.param("print('x' * 100_000)", "(more was printed)", id="characters"),
        pytest.param("import threading, time\nfor _ in range(20): threading.Thread(target=time.sleep, args=(30,))"
                     ".start()\ntime.sleep(30)", "it used more than 12 threads", id="threads"),
        pytest.param("import time\nfor n in range(40): open(str(n), 'w').close()\ntime.sleep(30)",
                     "it wrote more than 3 MiB or 30 files", id="files"),
        pytest.param("import time\nfor n in '123': open(n, 'wb').write(bytes(2_000_000))\ntime.sleep(30)",
                     "it wrote more than 3 MiB or 30 files", id="disk"),
        pytest.param("import os, time\nfor _ in range(20): os.fork() or (time.sleep(30), os._exit(0))\ntime.sleep(30)",
                     "it had more than 6 processes", id="processes"),
    ],
)  # fmt: skip
def test_a_units_own_limits_hold(narrow: Worker, source: str, what: str) -> None:
    outcome = judged(narrow, {"cost": solved()["cost"]}, [("ask", source)])
    assert what in shown(outcome, source)
    assert len(shown(outcome, source)) < 2 * NARROW["characters"] + 3_000
    assert statuses(outcome)["cost"] == "passed"


def test_workers_that_start_together_have_ports_of_their_own() -> None:
    """A worker asks twice, for its judge and for its player: with other ports, no honest answer reaches its server."""
    ports_of: list[tuple[list[int], list[int]]] = []
    code = inspect.getsource(ports)
    for _ in range(50):
        fresh: dict[str, Any] = {"__name__": "fresh"}  # as in a process that has just started
        exec(code, fresh)
        together = threading.Barrier(2)

        def work(reserved: Any = fresh["reserved"], together: threading.Barrier = together) -> None:
            together.wait()
            ports_of.append((reserved(), reserved()))
            together.wait()

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for judges, players in ports_of[-2:]:
            assert judges == players
        assert not set(ports_of[-1][0]) & set(ports_of[-2][0])


def test_a_worker_goes_on_after_all_that(worker: Worker) -> None:
    assert judged(worker, solved()).score == 10
    assert judged(worker, {}).tasks == tuple(
        with_verdict(check.run(_stub, seed=SEED)) for check in checks.load(UNIT).values()
    )


def _stub(*_args: Any, **_kwargs: Any) -> None:
    raise NotImplementedError()
