"""Grades jobs that arrive at its standard input, a JSON line each: for nbgrader, whose process must not be forked.

python -m kicourse.grading.clerk
"""

import base64
import json
import select
import subprocess
import sys
from contextlib import closing, suppress
from dataclasses import asdict
from typing import Any

from kicourse.errors import UserError
from kicourse.grading import sandbox
from kicourse.grading.assembling import ungraded
from kicourse.grading.job import Job, Outcome, read_outcome
from kicourse.grading.pool import Desks
from kicourse.syllabus import Limits

_PATIENCE = 5.0  # seconds: from one submission to the next it takes nbgrader a fraction of one


class Clerk:
    """A process that grades one job after the other. It ends when it has had nothing to do for some seconds."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def grade(self, job: Job) -> Outcome:
        """Grade a job. Raises RuntimeError if the process ends meanwhile."""
        line = self._ask(job) or self._ask(job)  # the first one may have ended just then
        if not line:
            raise RuntimeError("the grading process ended")
        return read_outcome(_unpacked(json.loads(line)))

    def _ask(self, job: Job) -> str:
        """Return the process's answer, or the empty string if it has ended."""
        process = self._running()
        assert process.stdin
        assert process.stdout
        with suppress(OSError):
            process.stdin.write(json.dumps(_packed(asdict(job))) + "\n")
            process.stdin.flush()
        return process.stdout.readline()

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None or self._process.poll() is not None:
            # A process of its own, in a session of its own: neither Ctrl-C nor a server's threads reach it.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kicourse.grading.clerk"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        return self._process


def _packed(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"notebook": base64.b64encode(content["notebook"]).decode()}


def _unpacked(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"notebook": base64.b64decode(content["notebook"])}


def main() -> None:
    """Grade until the standard input ends, or nothing has come for a while."""
    with closing(Desks()) as desks:
        while select.select([sys.stdin], [], [], _PATIENCE)[0] and (line := sys.stdin.readline()):
            content = _unpacked(json.loads(line))
            job = Job(**content | {"limits": Limits(**content["limits"]), "given_up": tuple(content["given_up"])})
            print(json.dumps(_packed(asdict(_graded(desks, job)))), flush=True)


def _graded(desks: Desks, job: Job) -> Outcome:
    try:
        if job.sandboxed:
            sandbox.require()  # which forks to find out: nbgrader's own process must not
    except UserError as error:
        return ungraded(job, "error", str(error))
    return desks.grade(job)


if __name__ == "__main__":
    main()
