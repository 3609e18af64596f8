"""An answer in the learner's own kernel: its host runs in a thread beside the check."""

import contextvars
import ctypes
import sys
import threading
from typing import Any

from kicourse.answers import location
from kicourse.answers.channel import Channel, QueueChannel
from kicourse.answers.host import Host

_GRACE = 0.3  # seconds that an interrupted call gets to unwind before its thread is abandoned


class _Interrupted(BaseException):
    """Raised inside the learner's code when its time is up; not an Exception, so `except Exception` lets it pass."""


class ThreadConnection:
    """Connects a check to an answer in the same process.

    A Python thread cannot be killed. A call that overstays is interrupted where it stands; one that is stuck in
    compiled code is left behind, and a new thread serves the same objects.
    """

    def __init__(self, answer: Any) -> None:
        self.host = Host(answer)
        self._start()

    def _start(self) -> None:
        self.host.ended = False
        self.channel, remote = self._channels()
        context = contextvars.copy_context()  # Decimal precision and np.errstate are the learner's
        grad_enabled = torch.is_grad_enabled() if (torch := sys.modules.get("torch")) else None

        def serve() -> None:
            if grad_enabled is not None:
                sys.modules["torch"].set_grad_enabled(grad_enabled)
            try:
                context.run(self.host.serve, remote)
            except _Interrupted:  # arrived just after the call had ended
                remote.send(None)

        self.thread = threading.Thread(target=serve, name="kicourse-answer", daemon=True)
        self.thread.start()

    def _channels(self) -> tuple[Channel, Channel]:
        """Make the check's end and the host's end of a new conversation."""
        return QueueChannel.pair()

    def interrupt(self) -> location.Location | None:
        """Stop the running call and return the line of the learner's code where it was."""
        identity = self.thread.ident
        assert identity is not None
        place = location.of_thread(identity)
        # The host's answer to the interrupt is an ordinary reply ("raised"), after which it would serve on; it is
        # told to end instead, because whether the call really unwound cannot be known.
        self.channel.send(None)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(identity), ctypes.py_object(_Interrupted))
        self.thread.join(_GRACE)
        self._start()
        return place

    def close(self) -> None:
        """End the thread, once its last call has returned."""
        self.channel.send(None)
