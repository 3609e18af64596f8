"""The judge: plays a rebuilt notebook through a player that nobody trusts, tries its answers, and keeps the score.

One process a submission, which never loads the submission's code and can be killed at any moment: what it has found so
far was reported on the way.
"""

import json
import os
import socket
import time
from dataclasses import asdict
from typing import Any

from babel.numbers import format_decimal

from kicourse import checks
from kicourse.answers.remote import RemoteConnection, read_message, send_message
from kicourse.answers.wire import STAGE, Wire, WireError
from kicourse.checks import Check
from kicourse.checks.help import reference_source
from kicourse.checks.render import as_html
from kicourse.errors import UserError
from kicourse.grading import imports
from kicourse.grading.harmless import Harmless
from kicourse.grading.player import LARGEST_FRAME
from kicourse.grading.verdicts import silent, with_verdict
from kicourse.language import VARIABLE, _, read_catalogues, translate
from kicourse.syllabus import course

_SLACK = 2.0  # seconds beyond a cell's own limit


def before_forks() -> None:
    """Make once what every judge needs."""
    read_catalogues()
    for code in course().languages:
        format_decimal(0, locale=code)  # babel reads its tables when they are asked for


def judge(player: socket.socket, coordinator: socket.socket) -> None:
    """Judge one submission: read the job from the coordinator, report each cell to it as it is done."""
    reports = Wire(coordinator, LARGEST_FRAME)
    _, content = reports.receive(60)
    job = json.loads(content)
    os.environ[VARIABLE] = job["language"]
    os.environ["KICOURSE_RECORD"] = "0"
    Judge(Wire(player, LARGEST_FRAME), reports, job).run()


class Judge:
    """Plays the cells of one job in order."""

    def __init__(self, player: Wire, reports: Wire, job: dict[str, Any]) -> None:
        self.player, self.reports, self.job = player, reports, job
        self.seconds = float(job["seconds"])
        self.checks = checks.load(job["unit"])
        self.given_up = set(job["given_up"])
        self.harmless = Harmless(job["characters"])
        self.errors: dict[str, list[dict[str, Any]]] = {}

    def run(self) -> None:
        """Play every cell; report "end", or, when the player is lost, in which cell."""
        done: dict[str, Any] = {}
        for cell in self.job["cells"]:
            self._report(**done, start=cell["number"])
            done = self._play(cell)
            if "lost" in done:
                self._report(**done)
                return
        players = self._players_modules() if self.job["rehearsal"] else []
        self._report(**done, end=True, modules=imports.new(), players_modules=players)

    def _players_modules(self) -> list[str]:
        """Ask the player what it has imported; only in a rehearsal, when it has played nothing but our own code."""
        send_message(self.player, modules=True)
        names = self._next(time.monotonic() + self.seconds)["modules"]
        return [str(name) for name in names]

    def _play(self, cell: dict[str, Any]) -> dict[str, Any]:
        """Play a cell and judge the answer it hands in, if it is a check's; return what there is to report."""
        task = cell["task"]
        verdict: dict[str, Any] | None = None
        deadline = time.monotonic() + self.seconds + _SLACK
        try:
            send_message(self.player, source=cell["source"], awaited=[self.job["unit"], task] if task else None)
            while True:
                message = self._next(deadline)
                if message.get("played") is True:
                    break
                if "answer" in message and task and verdict is None:
                    verdict = self._judge(self.checks[task], str(message["answer"])[:100])
                    deadline = time.monotonic() + self.seconds + _SLACK
                elif "reference" in message:
                    self._lend(str(message["reference"])[:100])
                else:
                    raise WireError(_("a message out of turn"))
            outputs = self.harmless.outputs(message.get("outputs"))
        except TimeoutError:
            why = _words(_("The cell took longer than {seconds} seconds.")).format(seconds=f"{self.seconds:g}")
            return self._lost(cell, why, ended=False)
        except Exception as error:  # whatever it says must not end the judge
            what = _words(str(error)) if isinstance(error, WireError | UserError) else type(error).__name__
            why = _words(_("The process of this notebook ended, or broke off, in this cell ({what})."))
            return self._lost(cell, why.format(what=what), ended=isinstance(error, WireError))
        errors = [output for output in outputs if output["output_type"] == "error"]
        if task and verdict is None:
            report = silent(self.checks[task], self.errors.get(task, []) + errors, self.job["lost"].get(task, ""))
            verdict = {"report": asdict(report), "html": ""}
        self.errors[cell["name"]] = errors
        return {"cell": cell["number"], "outputs": outputs, "verdict": verdict, "task": task}

    def _lost(self, cell: dict[str, Any], why: str, *, ended: bool) -> dict[str, Any]:
        return {"lost": cell["number"], "why": why, "ended": ended}

    def _next(self, deadline: float) -> dict[str, Any]:
        kind, content = self.player.receive(max(0.0, deadline - time.monotonic()))
        if kind != STAGE:
            raise WireError(_("a message out of turn"))
        return read_message(content)

    def _judge(self, check: Check, name: str) -> dict[str, Any]:
        """Try the answer that the player holds. Raises WireError if the player is lost on the way: no points."""
        connection = RemoteConnection(self.player)
        check.given_up = check.task in self.given_up
        verdict = check.run_over(connection, name, seed=self.job["seeds"][check.task])
        if connection.lost:
            raise WireError(connection.lost)
        return {"report": asdict(with_verdict(verdict)), "html": as_html(verdict)}

    def _lend(self, task: str) -> None:
        """Give a reference solution away where the class allows it: the task counts zero from then on."""
        source = None
        if self.job["references"] and task in self.checks:
            os.environ["KICOURSE_REFERENCE"] = "on"
            self.given_up.add(task)
            self._report(given_up=task)
            source = reference_source(self.job["unit"], task, self.job["language"])
        send_message(self.player, source=source)

    def _report(self, **report: Any) -> None:
        # A text may hold half a surrogate pair, which no file can.
        self.reports.send(STAGE, json.dumps(report, ensure_ascii=False).encode(errors="replace"))


def _words(message: str) -> str:
    return translate("kicourse", message)
