"""Grades jobs that arrive at its standard input, a JSON line each: for nbgrader, whose process must not be forked.

python -m kicourse.grading.clerk
"""

import base64
import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict
from types import TracebackType
from typing import Any

from kicourse.grading.job import Job, Outcome
from kicourse.grading.pool import Desks
from kicourse.grading.report import read_task
from kicourse.syllabus import Limits, course


class Clerk:
    """A process that grades one job after the other."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "kicourse.grading.clerk"]
        # A process of its own, in a session of its own: neither Ctrl-C nor a server's threads reach it.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def __enter__(self) -> "Clerk":
        """The process is there already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the process end; its workers end with it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)

    def grade(self, job: Job) -> Outcome:
        """Grade a job. Raises RuntimeError if the process has gone."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(_packed(asdict(job))) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the grading process ended")
        content = _unpacked(json.loads(line))
        return Outcome(**content | {"tasks": tuple(read_task(task) for task in content["tasks"])})


def _packed(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"notebook": base64.b64encode(content["notebook"]).decode()}


def _unpacked(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"notebook": base64.b64decode(content["notebook"])}


def main() -> None:
    """Grade until the standard input ends."""
    environment: dict[str, str] = {}
    with ExitStack() as stack:
        desks = Desks(environment)
        stack.callback(desks.close)
        for line in sys.stdin:
            content = _unpacked(json.loads(line))
            job = Job(**content | {"limits": Limits(**content["limits"])})
            if course().unit(job.unit).gpt and not environment:
                from kicourse.models import gpt

                environment.update(stack.enter_context(gpt.apart()))
            print(json.dumps(_packed(asdict(desks.grade(job)))), flush=True)


if __name__ == "__main__":
    main()
