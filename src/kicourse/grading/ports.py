"""The few ports of this machine that a sandboxed submission may connect to: its trials' scripted servers."""

import socket
import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

COUNT = 12


_kept = threading.local()


def reserved() -> list[int]:
    """Return the ports that are kept free for the trials of this thread's worker."""
    if not hasattr(_kept, "sockets"):
        # Bound but not listening: nobody else gets the port, and only a server of a trial answers there.
        _kept.sockets = [_bound() for _ in range(COUNT)]
    return [one.getsockname()[1] for one in _kept.sockets]


def of_gpt(environment: Mapping[str, str]) -> list[int]:
    """Return the port of the embedded GPT that an environment leads to, if it leads to one."""
    place = urlsplit(environment.get("OPENAI_BASE_URL", ""))
    return [place.port] if place.hostname == "127.0.0.1" and place.port else []


def _bound() -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", 0))
    return one
