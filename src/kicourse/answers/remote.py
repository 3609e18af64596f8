"""An answer in another process: the judge's connection to it, and what serves it there."""

import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from kicourse.answers.channel import Channel
from kicourse.answers.codec import Bounds, RefusedError, decode, encode
from kicourse.answers.handle import text_of
from kicourse.answers.location import Location
from kicourse.answers.thread import ThreadConnection
from kicourse.answers.wire import STAGE, TRIAL, Wire, WireError

_INTERRUPT_SECONDS = 3.0
_LOOK_SECONDS = 0.05  # how often it is asked whether there is a message for a busy thread
_GLANCE_SECONDS = 0.001
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
        return Location(int(line), text_of(source, 200), text_of(function, 100))
    except Exception:  # any part may be of any type
        return None


class _Line:
    """The host's end of a conversation over a wire.

    The host's thread reads the wire itself: to hand each frame from one thread to another would cost more than to read
    it. A message about the stage is for others (`stage`) and is the last that is read; whoever waits for more waits for
    the goodbye.
    """

    def __init__(self, wire: Wire, stage: "SimpleQueue[bytes | WireError]") -> None:
        self.wire, self.stage = wire, stage
        self.ended = False
        self.abandoned = False
        self._goodbye = threading.Event()
        self._reading = threading.Lock()
        self._overheard: bytes | None = None

    def send(self, frame: bytes | None) -> None:
        if frame is not None and not self.abandoned:
            self.wire.send(TRIAL, frame)

    def receive(self, seconds: float | None) -> bytes | None:
        with self._reading:
            frame, self._overheard = self._overheard, None
            frame = self._read(seconds) if frame is None else frame
        if frame is None:
            self._goodbye.wait()
        return frame

    def overhear(self) -> None:
        """Read what has come while the host's thread is busy, in another thread."""
        if self._overheard is None and self._reading.acquire(blocking=False):
            try:
                with suppress(TimeoutError):
                    self._overheard = self._read(_GLANCE_SECONDS)
            finally:
                self._reading.release()

    def say_goodbye(self) -> None:
        self._goodbye.set()

    def _read(self, seconds: float | None) -> bytes | None:
        if self.ended:
            return None
        try:
            kind, content = self.wire.receive(seconds)
        except WireError as error:
            self.ended = True
            self.stage.put(error)
            return None
        if kind == TRIAL:
            return content
        self.ended = True
        self.stage.put(content)
        return None


class _Goodbye:
    """The other end of a line, to which there is only one thing left to say."""

    def __init__(self, line: _Line) -> None:
        self.line = line

    def send(self, frame: bytes | None) -> None:
        self.line.say_goodbye()

    def receive(self, seconds: float | None) -> bytes | None:
        raise NotImplementedError("what the host sends goes over the wire")


class RelayedThread(ThreadConnection):
    """An answer hosted in a thread of its own, as in a learner's kernel, whose check is at the other end of a wire."""

    def __init__(self, answer: Any, wire: Wire) -> None:
        self.wire = wire
        self._stage: SimpleQueue[bytes | WireError] = SimpleQueue()
        super().__init__(answer)

    def serve(self) -> None:
        """Let the host answer until the check ends. Raises WireError if it hangs up."""
        while read_message(self._about_the_stage()).get("do") == "interrupt":
            place = self.interrupt()
            where = None if place is None else [place.line, place.source, place.function]
            send_message(self.wire, where=where)
        self.close()

    def _about_the_stage(self) -> bytes:
        """Wait for a message that is not for the host, which may come while it is busy."""
        while True:
            try:
                message = self._stage.get(timeout=_LOOK_SECONDS)
            except Empty:
                self._line.overhear()
                continue
            if isinstance(message, WireError):
                self.close()
                raise message
            return message

    def interrupt(self) -> Location | None:
        """Stop the running call and return where it was; whatever its thread still says is dropped."""
        self._line.abandoned = True
        return super().interrupt()

    def _channels(self) -> tuple[Channel, Channel]:
        self._line = _Line(self.wire, self._stage)
        return _Goodbye(self._line), self._line
