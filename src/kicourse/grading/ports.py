"""The few ports of this machine that a sandboxed submission may connect to: its trials' scripted servers."""

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from urllib.parse import urlsplit

COUNT = 12
_input_lock = threading.Lock()


class _Reserved(threading.local):
    def __init__(self) -> None:
        # Bound but not listening: nobody else gets the port, and only a server of a trial answers there.
        self.sockets = [_bound() for _ in range(COUNT)]


@cache
def _reserved() -> _Reserved:
    return _Reserved()


def reserved() -> list[int]:
    """Return the ports that are kept free for the trials of this thread's worker."""
    return [one.getsockname()[1] for one in _reserved().sockets]


def of_gpt(environment: Mapping[str, str]) -> list[int]:
    """Return the port of the embedded GPT that an environment leads to, if it leads to one."""
    place = urlsplit(environment.get("OPENAI_BASE_URL", ""))
    return [place.port] if place.hostname == "127.0.0.1" and place.port else []


def _bound() -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", 0))
    return one


@contextmanager
def as_standard_input(connection: socket.socket) -> Iterator[None]:
    """Let `connection` be descriptor 0 while a process is started that inherits it."""
    with _input_lock:
        before = os.dup(0) if _is_open(0) else None
        os.dup2(connection.fileno(), 0)
        try:
            yield
        finally:
            if before is None:
                os.close(0)
            else:
                os.dup2(before, 0)
                os.close(before)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
