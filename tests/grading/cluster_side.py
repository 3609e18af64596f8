"""What the tests have Dask workers do; imported there, so that it imports little."""

import os
import signal
from typing import Any

import psutil
from distributed import WorkerPlugin, versions
from huggingface_hub import constants

import kicourse
from kicourse.grading import cluster, pool, sandbox
from kicourse.grading.assembling import ungraded
from kicourse.grading.job import Job, Outcome

_own_version, _own_unavailable, _own_dask = kicourse.__version__, sandbox.unavailable, versions._version_cached
_own_models = constants.HF_HUB_CACHE
_own_grade = pool.Desks.grade


def set_up(version: str = _own_version, no_sandbox: str = "", dask: str = "", models: str = "") -> None:
    """Let this process have another kicourse, no sandbox, another Dask, or its models in another folder.

    Without arguments, all is as before.
    """
    constants.HF_HUB_CACHE = models or _own_models
    cluster._require_gpt.cache_clear()
    kicourse.__version__ = version
    sandbox.unavailable = (lambda: no_sandbox) if no_sandbox else _own_unavailable  # type: ignore[assignment]
    versions._version_cached = (lambda _: dask) if dask else _own_dask


class StandIn(WorkerPlugin):
    """While it is there, jobs are not graded but answered at once, and a worker dies of the student `killer`."""

    name = "stand-in"

    def setup(self, worker: Any) -> None:
        pool.Desks.grade = _answer  # type: ignore[method-assign, assignment]

    def teardown(self, worker: Any) -> None:
        pool.Desks.grade = _own_grade  # type: ignore[method-assign]


def _answer(_desks: pool.Desks, job: Job) -> Outcome:
    if job.student == "killer":
        os.kill(os.getpid(), signal.SIGKILL)
    return ungraded(job, "graded", "answered")


def family() -> tuple[int, list[int]]:
    """Return the numbers of this process and of all that have come from it."""
    return os.getpid(), [one.pid for one in psutil.Process().children(recursive=True)]
