"""Plays a submission's cells where it can do no harm, and hands its answers in to the judge.

Nothing that happens here decides anything: whatever a submission does to this process, the judge keeps the score.
"""

import socket
from typing import Any

from kicourse.answers.remote import RelayedThread, read_message, send_message
from kicourse.answers.wire import STAGE, Wire, WireError
from kicourse.errors import UserError
from kicourse.grading import imports, stubs
from kicourse.grading.shell import Shell
from kicourse.syllabus import course

LARGEST_FRAME = 70 * 2**20


def before_forks() -> None:
    """Make once what every player needs."""
    Shell.instance().show_an_error()


class Player:
    """Plays cells as the judge asks for them."""

    def __init__(self, connection: socket.socket, characters: int) -> None:
        self.wire = Wire(connection, LARGEST_FRAME, patience=600)
        self.shell = Shell.instance()
        self.shell.start(characters)
        self.awaited: tuple[str, str] | None = None
        stubs.install(self, tuple(unit.slug for unit in course().units))

    def serve(self) -> None:
        """Play until the judge hangs up."""
        while True:
            try:
                kind, content = self.wire.receive(None)
            except WireError:
                return
            message = read_message(content) if kind == STAGE else {}
            if "source" in message:
                self._play(message["source"], message["awaited"])
            elif "modules" in message:
                send_message(self.wire, modules=imports.new())

    def _play(self, source: str, awaited: list[str] | None) -> None:
        self.awaited = (awaited[0], awaited[1]) if awaited else None
        outputs, succeeded = self.shell.play(source)
        send_message(self.wire, played=True, outputs=outputs, succeeded=succeeded)

    def hand_in(self, unit: str, task: str, answer: Any) -> bool:
        """Hand an answer in, if this is the check's own cell, and serve it until the check has ended."""
        if self.awaited != (unit, task):
            return False
        self.awaited = None
        name = getattr(answer, "__name__", task)
        send_message(self.wire, answer=name if isinstance(name, str) else task)
        RelayedThread(answer, self.wire).serve()
        return True

    def reference(self, unit: str, task: str) -> str:
        """Ask the judge for a reference solution. Raises UserError where the class has none to give."""
        send_message(self.wire, reference=task)
        _, content = self.wire.receive(None)
        source = read_message(content).get("source")
        if not isinstance(source, str):
            raise UserError("reference() is off in this class: ask your instructor, or try hint() first.")
        return source
