"""An answer in another process: the judge's connection to it, and what serves it there."""

import time
from queue import SimpleQueue
from typing import Any

from kicourse.answers.channel import Channel
from kicourse.answers.codec import Bounds, RefusedError, decode, encode
from kicourse.answers.location import Location
from kicourse.answers.thread import ThreadConnection
from kicourse.answers.wire import STAGE, TRIAL, Wire, WireError

_INTERRUPT_SECONDS = 3.0
STAGE_BOUNDS = Bounds(size=8 * 2**20, items=20_000, nesting=12)
"""What one message about the stage may hold."""


def send_message(wire: Wire, **message: Any) -> None:
    """Send a message about the stage."""
    wire.send(STAGE, encode(message))


def read_message(content: bytes) -> dict[str, Any]:
    """Return a message about the stage. Raises WireError for anything else."""
    try:
        message = decode(content, STAGE_BOUNDS)
    except RefusedError as error:
        raise WireError(str(error)) from error
    if not isinstance(message, dict):
        raise WireError("a malformed message")
    return message


class RemoteConnection:
    """A judge's connection to an answer that lives at the other end of a wire.

    `lost` says why there is nobody there any more, the empty string as long as there is.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.lost = ""

    @property
    def channel(self) -> Channel:
        """The check's end of the conversation: this connection itself."""
        return self

    def send(self, frame: bytes | None) -> None:
        """Send a frame of the trial; None ends the conversation."""
        if self.lost:
            return
        try:
            if frame is None:
                send_message(self.wire, do="end")
            else:
                self.wire.send(TRIAL, frame)
        except WireError as error:
            self.lost = str(error)

    def receive(self, seconds: float | None) -> bytes | None:
        """Return the answer's next frame, None if there is nobody any more. Raises TimeoutError after `seconds`."""
        if self.lost:
            return None
        try:
            kind, content = self.wire.receive(seconds)
        except WireError as error:
            self.lost = str(error)
            return None
        if kind != TRIAL:
            self.lost = "a message out of turn"
            return None
        return content

    def interrupt(self) -> Location | None:
        """Stop the running call and return where it was; an answer that cannot be stopped is lost."""
        if self.lost:
            return None
        deadline = time.monotonic() + _INTERRUPT_SECONDS
        try:
            send_message(self.wire, do="interrupt")
            while True:
                kind, content = self.wire.receive(deadline - time.monotonic())
                if kind == STAGE:  # frames of the trial that were under way are stale
                    return _location(read_message(content).get("where"))
        except (WireError, TimeoutError) as error:
            self.lost = str(error) or "it could not be interrupted"
            return None

    def close(self) -> None:
        """End the conversation."""
        self.send(None)


def _location(where: Any) -> Location | None:
    try:
        line, source, function = where
        return Location(int(line), str(source)[:200], str(function)[:100])
    except (TypeError, ValueError):
        return None


class _Outgoing:
    """The host's end of a relayed conversation: what it sends goes over the wire, unless its thread was abandoned."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.incoming: SimpleQueue[bytes | None] = SimpleQueue()
        self.abandoned = False

    def send(self, frame: bytes | None) -> None:
        if frame is not None and not self.abandoned:
            self.wire.send(TRIAL, frame)

    def receive(self, seconds: float | None) -> bytes | None:
        return self.incoming.get(timeout=seconds)


class _Incoming:
    """The relay's end: what came over the wire is handed to the host."""

    def __init__(self, outgoing: _Outgoing) -> None:
        self.outgoing = outgoing

    def send(self, frame: bytes | None) -> None:
        self.outgoing.incoming.put(frame)

    def receive(self, seconds: float | None) -> bytes | None:
        raise NotImplementedError("what the host sends goes over the wire")


class RelayedThread(ThreadConnection):
    """An answer hosted in a thread of its own, as in a learner's kernel, whose check is at the other end of a wire."""

    def __init__(self, answer: Any, wire: Wire) -> None:
        self.wire = wire
        super().__init__(answer)

    def serve(self) -> None:
        """Pass frames to the host until the check ends. Raises WireError if it hangs up."""
        while True:
            kind, content = self.wire.receive(None)
            if kind == TRIAL:
                self.channel.send(content)
                continue
            if read_message(content).get("do") != "interrupt":
                self.close()
                return
            place = self.interrupt()
            where = None if place is None else [place.line, place.source, place.function]
            send_message(self.wire, where=where)

    def interrupt(self) -> Location | None:
        """Stop the running call and return where it was; whatever its thread still says is dropped."""
        self._outgoing.abandoned = True
        return super().interrupt()

    def _channels(self) -> tuple[Channel, Channel]:
        self._outgoing = _Outgoing(self.wire)
        return _Incoming(self._outgoing), self._outgoing
