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
        self._app, self._failure = app, "it gives no reason."
        config = uvicorn.Config(self._watched, interface="asgi3", log_level="critical", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="serving", daemon=True)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
            if not self._thread.is_alive():
                self._socket.close()
                raise UserError(f"The app does not start: {self._failure}")

    def _run(self) -> None:
        with contextlib.suppress(SystemExit):  # uvicorn ends like a program when an app does not start
            self._server.run([self._socket])

    async def _watched(self, scope: Any, receive: Any, send: Any) -> None:
        """Be the app, and keep what it says of a start that fails: the last line of a traceback."""

        async def sending(message: Any) -> None:
            if message["type"] == "lifespan.startup.failed":
                self._failure = message.get("message", "").strip().rpartition("\n")[2] or self._failure
            await send(message)

        await self._app(scope, receive, sending)

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
