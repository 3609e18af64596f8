"""Grading on a Dask cluster gives the marks of one machine, whatever dies; what would give others is refused."""

import gc
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from distributed import Client, LocalCluster

import kicourse
from kicourse.errors import UserError
from kicourse.grading import cluster as grading_cluster
from kicourse.grading import sandbox
from kicourse.grading.cluster import AHEAD, ClusterPool
from kicourse.grading.grade import Settings, prepare
from kicourse.grading.job import Job, Outcome
from kicourse.grading.open_class import open_class
from kicourse.grading.seeds import secret_of
from tests.grading import cluster_side
from tests.grading.class_room import (
    DEADLINE,
    command,
    environment,
    grade,
    grade_for_json,
    half,
    hand_in,
    marks,
    new_class,
    require_single_rows,
    solved,
    wrong,
)

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(sandbox.unavailable()), reason=sandbox.unavailable())]

HANDED_IN = {
    "ada": solved(),
    "ben": {},
    "cem": half(),
    "dea": wrong(),
    "eva": {},
    "fay": half(),
    "gil": wrong(),
    "hal": solved(),
}
WORKERS = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Client]:
    """A client of a cluster of two processes that are started again when they die."""
    with ExitStack() as stack:
        settings = {
            # Twice as many deaths as needed would only take twice as long.
            "distributed.scheduler.allowed-failures": 1,
            # On a busy machine, a worker takes longer to come back than the 15 seconds after which it is given up.
            "distributed.deploy.lost-worker-timeout": f"{DEADLINE}s",
        }
        stack.enter_context(dask.config.set(settings))
        started = stack.enter_context(LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None))
        yield stack.enter_context(Client(started, set_as_default=False))


@pytest.fixture
def address(cluster: Client) -> Iterator[str]:
    """The scheduler's address; what a test has changed on the workers is as before for the next one."""
    cluster.wait_for_workers(WORKERS, timeout=DEADLINE)
    yield cluster.scheduler.address
    cluster.wait_for_workers(WORKERS, timeout=DEADLINE)
    cluster.run(cluster_side.set_up)


@pytest.fixture(scope="module")
def full_class(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class that nobody has graded, with its secret: copies of it meet the same data."""
    folder = new_class(tmp_path_factory, tmp_path_factory.mktemp("cluster") / "class")
    secret_of(folder / ".kicourse" / "secret")
    for student, sources in HANDED_IN.items():
        hand_in(folder, student, sources)
    return folder


@pytest.fixture(scope="module")
def marked_here(full_class: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """The marks of a run on this machine alone."""
    return points(grade_for_json(shutil.copytree(full_class, tmp_path_factory.mktemp("here") / "class")))


def points(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    return {student: {task["task"]: task["points"] for task in result["tasks"]} for student, result in results.items()}


def jobs_of(folder: Path) -> list[Job]:
    opened = open_class(folder)
    return [prepare(opened, submission, Settings()).job for submission in opened.submissions((), ())]


def points_of(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    assert set(Counter(outcome.student for outcome in outcomes).values()) == {1}
    assert {outcome.status for outcome in outcomes} == {"graded"}
    return {outcome.student: {task.task: task.points for task in outcome.tasks} for outcome in outcomes}


@contextmanager
def stand_in(cluster: Client) -> Iterator[None]:
    cluster.register_plugin(cluster_side.StandIn())
    try:
        yield
    finally:
        cluster.unregister_worker_plugin("stand-in")


def wait_until(true: Callable[[], bool], seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.2)


def all_ended(pids: Sequence[int]) -> bool:
    def alive(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return not any(map(alive, pids))


def helpers(cluster: Client) -> list[int]:
    """Every process that has come from a worker."""
    return [pid for _, children in cluster.run(cluster_side.family).values() for pid in children]


def test_an_interrupted_run_goes_on_and_its_marks_are_those_of_one_machine(
    cluster: Client, address: str, full_class: Path, tmp_path: Path, marked_here: dict[str, dict[str, float]]
) -> None:
    folder = shutil.copytree(full_class, tmp_path / "class")
    running = subprocess.Popen(command(folder, "--scheduler", address), env=environment())
    wait_until(lambda: any((folder / ".kicourse" / "written").glob("*/[!.]*")))
    running.send_signal(signal.SIGINT)
    assert running.wait(DEADLINE) == 130
    wait_until(lambda: not any(cluster.processing().values()))
    # The workers keep nothing of a run that has ended; what only idles would be ended after 300 seconds.
    wait_until(lambda: not helpers(cluster), 100)
    said = grade(folder, "--scheduler", address)
    assert re.search(r"^\d graded before and unchanged", said, re.MULTILINE), said
    assert marks(folder) == marked_here
    require_single_rows(folder)


def test_a_worker_that_is_killed_costs_no_mark_and_leaves_nothing(
    cluster: Client, address: str, full_class: Path, marked_here: dict[str, dict[str, float]]
) -> None:
    with ClusterPool(address) as pool:
        outcomes = pool.run(iter(jobs_of(full_class)))
        come = [next(outcomes)]
        victim, children = next(iter(cluster.run(cluster_side.family).values()))
        assert children, "it is grading"
        os.kill(victim, signal.SIGKILL)
        come += outcomes
        assert points_of(come) == marked_here
    wait_until(lambda: all_ended(children))


def test_no_more_is_read_ahead_than_the_cluster_has_use_for(cluster: Client, address: str, full_class: Path) -> None:
    job, read = jobs_of(full_class)[0], 0

    def jobs() -> Iterator[Job]:
        nonlocal read
        for number in range(60):
            read += 1
            yield replace(job, student=f"student-{number}")

    with stand_in(cluster), ClusterPool(address) as pool:
        come: list[str] = []
        for outcome in pool.run(jobs()):
            assert read - len(come) <= WORKERS * AHEAD
            come.append(outcome.student)
    assert sorted(come) == sorted(f"student-{number}" for number in range(60))


def test_a_submission_that_workers_die_of_is_given_up_and_the_others_are_graded(
    cluster: Client, address: str, full_class: Path
) -> None:
    job = jobs_of(full_class)[0]
    students = [*"abcdefgh", "killer", *"ijklmnopqrst"]
    with stand_in(cluster), ClusterPool(address) as pool:
        come = list(pool.run(replace(job, student=student) for student in students))
    assert sorted(outcome.student for outcome in come) == sorted(students)
    given_up = {outcome.student: outcome for outcome in come if outcome.status == "error"}
    assert set(given_up) == {"killer"}
    assert "die" in given_up["killer"].message
    assert given_up["killer"].score == 0


def test_a_large_notebook_goes_without_a_warning(
    cluster: Client, address: str, full_class: Path, recwarn: pytest.WarningsRecorder
) -> None:
    job = jobs_of(full_class)[0]
    large = replace(job, notebook=job.notebook + b" " * (19 * 2**20))
    with stand_in(cluster), ClusterPool(address) as pool:
        assert [outcome.status for outcome in pool.run(iter([large]))] == ["graded"]
    assert not [str(one.message) for one in recwarn if "graph" in str(one.message)]


UNFIT: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "version": ({"version": "9.8.7"}, ("9.8.7", kicourse.__version__, "pip install", "start the worker again")),
    "sandbox": ({"no_sandbox": "it is made of sand"}, ("it is made of sand", "--no-sandbox")),
    "models": ({"models": "/nonexistent"}, ("has no GPT", "kicourse models pull")),
    "dask": ({"dask": "2019.4.1"}, ("2019.4", "pip install 'distributed==")),
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_worker_that_is_not_fit_is_named_before_anything_is_graded(what: str, cluster: Client, address: str) -> None:
    worker = sorted(cluster.nthreads())[1]
    changes, told = UNFIT[what]
    cluster.run(cluster_side.set_up, **changes, workers=[worker])
    with pytest.raises(UserError) as caught, ClusterPool(address, gpt=True):
        pass
    for part in (worker, *told):
        assert part in str(caught.value)


def test_without_a_sandbox_none_is_asked_for(cluster: Client, address: str) -> None:
    cluster.run(cluster_side.set_up, no_sandbox="it is made of sand")
    with ClusterPool(address, sandboxed=False):
        pass


@pytest.mark.parametrize("what", ["version", "sandbox"])
def test_a_worker_that_is_no_longer_fit_grades_nothing(
    what: str, cluster: Client, address: str, full_class: Path
) -> None:
    changes, told = UNFIT[what]
    with ClusterPool(address) as pool:
        cluster.run(cluster_side.set_up, **changes)
        with pytest.raises(UserError) as caught:
            list(pool.run(iter(jobs_of(full_class))))
    assert told[0] in str(caught.value)
    assert any(worker in str(caught.value) for worker in cluster.nthreads())


def test_a_cluster_that_restarts_stops_the_run(cluster: Client, address: str, full_class: Path) -> None:
    with ClusterPool(address) as pool:
        outcomes = pool.run(iter(jobs_of(full_class)))
        next(outcomes)
        cluster.restart()
        with pytest.raises(UserError, match=r"stopped or restarted.*goes on where it stopped"):
            list(outcomes)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(grading_cluster, "_CONNECT_SECONDS", 1)
    yield
    # A client that has failed takes a lock of Dask's when it is collected, and waits for ever if that is while another
    # one, in the same thread, holds it. So it is collected now.
    gc.collect()


@pytest.mark.usefixtures("hurried")
def test_a_scheduler_that_does_not_answer_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        for place in (silent, deaf):
            address = f"tcp://127.0.0.1:{place.getsockname()[1]}"
            with pytest.raises(UserError, match=f"No Dask scheduler answers at {address}") as caught:
                ClusterPool(address).__enter__()
            assert "Give the address" in str(caught.value)


@pytest.mark.usefixtures("hurried")
def test_a_server_of_another_kind_is_told() -> None:
    def greet() -> None:
        with suppress(OSError):
            while True:
                server.accept()[0].send(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(UserError, match="what listens there speaks another protocol"):
            ClusterPool(f"tcp://127.0.0.1:{server.getsockname()[1]}").__enter__()


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:1", "my:address", ""])
def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises(UserError, match="No Dask scheduler answers at"):
        ClusterPool(address).__enter__()


def test_a_cluster_without_workers_is_told() -> None:
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as empty,
        pytest.raises(UserError, match=r"has no workers. Start some .*dask worker"),
    ):
        ClusterPool(empty.scheduler_address).__enter__()


def test_without_dask_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"pip install 'kicourse\[cluster\]'"):
        ClusterPool("tcp://127.0.0.1:1").__enter__()


WITHOUT_KICOURSE = "import sys; sys.modules['kicourse'] = None; "


def dask_command(what: str, *arguments: str, before: str = "") -> "subprocess.Popen[bytes]":
    code = f"{before}from distributed.cli.dask_{what} import main; main()"
    return subprocess.Popen([sys.executable, "-c", code, *arguments, "--no-dashboard"], stderr=subprocess.DEVNULL)


def test_workers_need_kicourse_and_the_scheduler_does_not(full_class: Path, tmp_path: Path) -> None:
    found = tmp_path / "scheduler.json"
    arguments = ("--scheduler-file", str(found))
    running = [dask_command("scheduler", "--port", "0", *arguments, before=WITHOUT_KICOURSE)]
    try:
        wait_until(found.exists)
        with Client(scheduler_file=str(found), set_as_default=False, timeout=DEADLINE) as client:
            address = client.scheduler.address
            bare = dask_command("worker", address, "--no-nanny", before=WITHOUT_KICOURSE)
            running.append(bare)
            client.wait_for_workers(1, timeout=DEADLINE)
            with pytest.raises(UserError, match=r"cannot import kicourse.*Install it there") as caught:
                ClusterPool(address).__enter__()
            assert next(iter(client.nthreads())) in str(caught.value)
            bare.terminate()
            bare.wait(DEADLINE)
            wait_until(lambda: not client.nthreads())
            running.append(dask_command("worker", address, "--nthreads", "1"))
            client.wait_for_workers(1, timeout=DEADLINE)
            job = next(job for job in jobs_of(full_class) if job.student == "cem")
            with ClusterPool(address) as pool:
                assert [outcome.score for outcome in pool.run(iter([job]))] == [5]
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(DEADLINE)
