"""The one that writes is a process that can be ended: whatever a submission holds, the class goes on."""

import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Any

from kicourse.errors import UserError
from kicourse.grading import processes
from kicourse.grading.job import Outcome
from kicourse.quick_imports import leave_grammar_out

_START_SECONDS = 120.0
_LOOK_SECONDS = 0.1
_ENDED = "the process that writes has ended"


class WritingProcess:
    """Has outcomes written as `Writer` does, each within `seconds`. Use it as a context manager.

    Where making a submission's page fails, or does not come to an end, the page has marks and verdicts, and a note
    where the student's own cells would be. What `Writer` raises as UserError is raised here.
    """

    def __init__(self, root: Path, db_url: str, seconds: float = 30.0) -> None:
        self.root, self.db_url, self.seconds = root, db_url, seconds
        self._patience = _START_SECONDS
        self._process: SpawnProcess | None = None
        self._left = threading.Event()

    def __enter__(self) -> "WritingProcess":
        """Start the process in the background, in its turn: it takes a second until it is ready."""
        self._beside = ThreadPoolExecutor(1)
        self._opening = self._beside.submit(self._open)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._left.set()
        self._end()
        self._beside.shutdown()
        self._end()

    def require_gradebook(self) -> None:
        """Wait until the process is ready. Raises UserError for a gradebook that cannot be used."""
        self._opening.result()

    def prepare(self, unit: str) -> None:
        """Do what the unit's first page would wait for; nobody waits for this."""
        self.require_gradebook()
        with suppress(OSError):
            self._connection.send(("prepare", unit))

    def write(self, outcome: Outcome, timestamp: str | None, page_only: bool = False) -> str:
        """Write marks, graded notebook and feedback of one submission, or its page; return what is `written` then."""
        failure, text = self._ask("write", outcome, timestamp, page_only)
        if failure:
            failure, text = self._ask("write", outcome, timestamp, page_only, False)
        if failure:
            raise UserError(
                f"What '{outcome.student}' has for '{outcome.unit}' cannot be written: {failure}. "
                "Run the command again: what is graded is kept."
            )
        return str(text)

    def written(self, student: str, unit: str) -> str:
        """Return what is written of a submission, as a text to compare; empty where gradebook or files lack it."""
        return str(self._read("written", student, unit))

    def has_marks(self, outcome: Outcome) -> bool:
        """Whether the gradebook has an outcome's marks, and the graded notebook is there."""
        return bool(self._read("has_marks", outcome))

    def marked_by_hand(self, units: Sequence[str], students: Sequence[str]) -> int:
        """Return how many submissions for these units, of these students or all, have a mark that a person gave."""
        return int(self._read("marked_by_hand", units, students))

    def _read(self, *request: Any) -> Any:
        failure, result = self._ask(*request)
        if failure:
            raise UserError(f"The gradebook cannot be read: {failure}. Run the command again: what is graded is kept.")
        return result

    def _open(self) -> None:
        while not processes.IMPORTS.acquire(timeout=_LOOK_SECONDS):
            if self._left.is_set():
                return
        try:
            self._start()
            failure, _ = self._try_twice("require_gradebook")
        finally:
            processes.IMPORTS.release()
        if failure:
            raise UserError(f"The gradebook cannot be opened: {failure}. Run the command again: nothing is lost.")

    def _ask(self, *request: Any) -> tuple[str, Any]:
        """Return why a request failed, or the empty string, and its result."""
        self.require_gradebook()
        return self._try_twice(*request)

    def _try_twice(self, *request: Any) -> tuple[str, Any]:
        failure, result = self._try(*request)
        # The process may have ended for a reason that has nothing to do with this request.
        return self._try(*request) if failure == _ENDED else (failure, result)

    def _try(self, *request: Any) -> tuple[str, Any]:
        try:
            self._connection.send(request)
            if self._connection.poll(self._patience):
                refusal, failure, result = self._connection.recv()
                self._patience = self.seconds
                if refusal:
                    raise UserError(refusal)
                return failure, result
            failure = f"it takes longer than {self._patience:g} seconds"
        except (OSError, EOFError):
            failure = _ENDED
        self._end()
        self._start()
        return failure, None

    def _start(self) -> None:
        if self._left.is_set():
            return
        self._connection, theirs = processes.SPAWN.Pipe()
        with theirs, processes.deaf_to_interrupts():  # Ctrl-C is for the process that waits for this one
            self._process = processes.spawn(_serve, theirs, self.root, self.db_url)
        self._patience = _START_SECONDS

    def _end(self) -> None:
        # Taken at once: on leaving, two threads may be here.
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.join()
            self._connection.close()


def _serve(connection: Any, root: Path, db_url: str) -> None:
    """Be the process: answer one request after the other until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be made deaf
    processes.end_with_parent()
    leave_grammar_out()  # as in the command line, which this process does not run
    from kicourse.grading.open_class import open_class
    from kicourse.grading.writing import Writer

    with suppress(EOFError, OSError):
        try:
            with Writer(open_class(root, db_url)) as writer:
                while True:
                    _answer(connection, writer, *connection.recv())
        except UserError as error:  # a gradebook that cannot be used
            while True:
                if connection.recv()[0] != "prepare":
                    connection.send((str(error), "", None))


def _answer(connection: Any, writer: Any, method: str, *arguments: Any) -> None:
    refusal = failure = ""
    result = None
    try:
        result = getattr(writer, method)(*arguments)
    except UserError as error:
        refusal = str(error)
    except Exception as error:  # whatever a submission makes the renderer stumble over
        failure = f"{type(error).__name__}: {error}"[:500]
    if method != "prepare":
        connection.send((refusal, failure, result))
