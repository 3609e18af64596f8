"""A Hub of the tests' own: it serves a model's files as the Hugging Face Hub does, to the Hub's own client."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from kicourse.models.embedded import EmbeddedModel


class Address(str):
    """The Hub's address; `downloads` names the files that were fetched, in order."""

    downloads: list[str]


@contextmanager
def hub(model: EmbeddedModel, home: Path, forged: str = "") -> Iterator[Address]:
    """Serve a model from the cache in `home`; the file named `forged` with one byte changed."""
    folder = home / "hub" / f"models--{model.repository.replace('/', '--')}" / "snapshots" / model.revision
    prefix = f"/{model.repository}/resolve/{model.revision}/"

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            name = self.path.removeprefix(prefix)
            path = folder / name
            if not self.path.startswith(prefix) or not path.is_file():
                self.send_error(404)
                return
            content = bytearray(path.read_bytes())
            if name == forged:
                content[0] ^= 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", model.revision)
            self.end_headers()
            if with_body:
                self.wfile.write(content)
                address.downloads.append(name)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        address = Address(f"http://127.0.0.1:{server.server_port}")
        address.downloads = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield address
        finally:
            server.shutdown()
