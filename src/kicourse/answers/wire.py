"""Frames over a socket, between two processes that do not trust each other.

A frame is a kind (one byte), a length (four bytes) and that many bytes. Every wait has a deadline: a peer that is
silent, or sends half a frame, is a TimeoutError; one that announces more than allowed is a WireError.
"""

import os
import select
import socket
import struct
import time

from kicourse.language import _

_HEAD = struct.Struct("!cI")
_AHEAD = 1 << 16  # bytes: most frames are smaller, and come whole
_READABLE, _WRITABLE = getattr(select, "POLLIN", 1), getattr(select, "POLLOUT", 4)

TRIAL = b"t"
"""A frame of the conversation between a check and an answer."""
STAGE = b"s"
"""A frame about the notebook around it: play this cell, this is my answer, interrupt."""


class WireError(Exception):
    """The peer has gone, or does not keep to the protocol."""


class Wire:
    """One end of a socket that carries frames."""

    def __init__(self, connection: socket.socket, largest: int, patience: float = 5.0) -> None:
        self.connection, self.largest, self.patience = connection, largest, patience
        # Two threads may share a wire, one for each direction, and a socket's own timeout is for both.
        connection.setblocking(False)
        self._buffer = bytearray()

    def send(self, kind: bytes, content: bytes) -> None:
        """Send a frame. Raises WireError if the peer does not take it within `patience` seconds, or has gone."""
        left = memoryview(_HEAD.pack(kind, len(content)) + content)
        deadline = time.monotonic() + self.patience
        try:
            while left:
                try:
                    left = left[self._write(left) :]
                except BlockingIOError:
                    self._wait(_WRITABLE, deadline)
        except (OSError, TimeoutError) as error:
            raise WireError(f"nobody takes what is sent ({type(error).__name__})") from error

    def receive(self, seconds: float | None) -> tuple[bytes, bytes]:
        """Return the next frame's kind and content.

        Raises TimeoutError if it is not there, whole, after `seconds`; what has come so far is kept. Raises WireError
        if the peer has gone or announces a frame that is too large.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        self._fill(_HEAD.size, deadline)
        kind, length = _HEAD.unpack_from(self._buffer)
        if length > self.largest:
            self._buffer.clear()
            raise WireError(f"a message of {length:,} bytes; {self.largest:,} are allowed")
        self._fill(_HEAD.size + length, deadline)
        content = bytes(self._buffer[_HEAD.size : _HEAD.size + length])
        del self._buffer[: _HEAD.size + length]
        return kind, content

    def close(self) -> None:
        """Hang up."""
        self.connection.close()

    def _fill(self, size: int, deadline: float | None) -> None:
        while len(self._buffer) < size:
            self._wait(_READABLE, deadline)
            try:
                piece = self._read(max(_AHEAD, min(size - len(self._buffer), 1 << 20)))
            except BlockingIOError:
                continue
            except OSError as error:
                raise WireError(f"the peer has gone ({type(error).__name__})") from error
            if not piece:
                raise WireError(_("the peer has gone"))
            self._buffer += piece

    def _wait(self, event: int, deadline: float | None) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        # A peer that never stops talking is no reason to go on listening.
        if (left is not None and left <= 0) or not _waited(self.connection, event, left):
            raise TimeoutError

    # In the sandbox, a supervisor looks at each `recv`, and `read` costs next to nothing. Windows knows no other way.

    def _read(self, most: int) -> bytes:
        return self.connection.recv(most) if os.name == "nt" else os.read(self.connection.fileno(), most)

    def _write(self, content: memoryview) -> int:
        return self.connection.send(content) if os.name == "nt" else os.write(self.connection.fileno(), content)


def _waited(connection: socket.socket, event: int, seconds: float | None) -> bool:
    """Wait until a connection is ready; return whether it is."""
    if not hasattr(select, "poll"):  # Windows
        reading, writing = ([connection], []) if event == _READABLE else ([], [connection])
        return any(select.select(reading, writing, [], seconds))
    poll = select.poll()
    poll.register(connection, event)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
