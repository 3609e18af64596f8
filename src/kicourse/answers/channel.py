"""How frames travel between a check and an answer."""

from queue import Empty, SimpleQueue
from typing import Protocol


class Channel(Protocol):
    """A way to exchange whole frames."""

    def send(self, frame: bytes | None) -> None:
        """Send a frame; None says goodbye."""

    def receive(self, seconds: float | None) -> bytes | None:
        """Wait for a frame; None means that the other side said goodbye. Raises TimeoutError after `seconds`."""


class QueueChannel:
    """A channel between two threads."""

    def __init__(self, outgoing: "SimpleQueue[bytes | None]", incoming: "SimpleQueue[bytes | None]") -> None:
        self.outgoing, self.incoming = outgoing, incoming

    @classmethod
    def pair(cls) -> "tuple[QueueChannel, QueueChannel]":
        """Make the two ends."""
        there: SimpleQueue[bytes | None] = SimpleQueue()
        back: SimpleQueue[bytes | None] = SimpleQueue()
        return cls(there, back), cls(back, there)

    def send(self, frame: bytes | None) -> None:
        """Send a frame; None says goodbye."""
        self.outgoing.put(frame)

    def receive(self, seconds: float | None) -> bytes | None:
        """Wait for a frame; raises TimeoutError after `seconds`."""
        try:
            return self.incoming.get(timeout=seconds)
        except Empty:
            raise TimeoutError from None
