"""A web app served from a notebook, on this machine only.

with serving(app) as url:
    httpx.get(f"{url}/healthz")
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

from kicourse.errors import UserError


class Server:
    """An app behind uvicorn, in a thread of this process; `url` is where. It ends with `stop()` or with the process."""

    def __init__(self, app: Any) -> None:
        import uvicorn

        self._socket = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="serving", daemon=True)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
            if not self._thread.is_alive():
                self._socket.close()
                raise UserError("The app does not start; its log says why.")

    def stop(self) -> None:
        """End the server and wait until it has ended."""
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an app while the context lasts; yield its URL. Raises UserError if it does not start."""
    server = Server(app)
    try:
        yield server.url
    finally:
        server.stop()
