"""Whether the Hugging Face Hub can be reached, and what its libraries should do when it cannot."""

import os
import queue
import socket
import threading
import urllib.request
from urllib.parse import urlsplit

_SECONDS = 1.5


def offline_if_unreachable() -> None:
    """Tell Hugging Face's libraries to use their cache alone (HF_HUB_OFFLINE) if the Hub cannot be reached.

    Without that, loading a model that lies in the cache takes them one and a half minutes of retries when there is no
    network. Call it before they are imported. A setting of the user's is left alone.
    """
    if "HF_HUB_OFFLINE" not in os.environ and not _hub_is_reachable():
        os.environ["HF_HUB_OFFLINE"] = "1"


def _hub_is_reachable() -> bool:
    answer: queue.Queue[bool] = queue.Queue()
    # In a thread, since looking up a name knows no time limit.
    threading.Thread(target=lambda: answer.put(_connects()), daemon=True).start()
    try:
        return answer.get(timeout=_SECONDS)
    except queue.Empty:
        return False


def _connects() -> bool:
    hub = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    place = urlsplit(urllib.request.getproxies().get(hub.scheme) or hub.geturl())
    try:
        socket.create_connection((place.hostname or "", place.port or _port(place.scheme)), _SECONDS).close()
    except OSError:
        return False
    return True


def _port(scheme: str) -> int:
    return 80 if scheme == "http" else 443
