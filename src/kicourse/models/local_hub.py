"""A Hub on this machine: the few addresses of huggingface.co that publishing and downloading a model need.

    with local_hub.running() as endpoint:
        api = HfApi(endpoint=endpoint, token="a token")
        api.create_repo("you/model")
        api.create_commit("you/model", operations=[...], commit_message="first")
        hf_hub_download("you/model", "README.md", endpoint=endpoint)

It keeps what is published in memory, asks for a token and believes any, and ends with the context.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Repositories = dict[str, dict[str, bytes]]


@contextmanager
def running() -> Iterator[str]:
    """Serve an empty Hub while the context lasts; yield its address for `endpoint=`."""
    repositories: Repositories = {}
    handler = type("Handler", (_Handler,), {"repositories": repositories})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    repositories: Repositories

    def do_POST(self) -> None:
        """Create a repository, say how files are to be sent, or take a commit."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self._path()
        if not self.headers.get("Authorization"):
            self._json({"error": "Invalid username or password."}, 401)
        elif path == ["api", "repos", "create"]:
            wanted = json.loads(body)
            name = "/".join(filter(None, (wanted.get("organization") or "you", wanted["name"])))
            self.repositories.setdefault(name, {})
            self._json({"url": f"http://{self.headers['Host']}/{name}", "name": name})
        elif path == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif path[:2] == ["api", "models"] and path[4:5] == ["preupload"]:
            sent = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            self._json({"files": [{**file, "shouldIgnore": False, "oid": None} for file in sent]})
        elif path[:2] == ["api", "models"] and path[4:5] == ["commit"] and "/".join(path[2:4]) in self.repositories:
            name = "/".join(path[2:4])
            self._commit(name, [json.loads(line) for line in body.splitlines()])
        else:
            self._json({"error": "Not found"}, 404)

    def do_GET(self) -> None:
        """Send a file, or what a repository holds."""
        path = self._path()
        files = self.repositories.get("/".join(path[2:4] if path[:2] == ["api", "models"] else path[:2]))
        if files is not None and path[:2] == ["api", "models"]:
            self._json({"id": "/".join(path[2:4]), "sha": _commit_of(files), "siblings": _siblings(files)})
        elif files is not None and path[2:3] == ["resolve"] and "/".join(path[4:]) in files:
            self._file(files, files["/".join(path[4:])])
        else:
            self._json({"error": "Not found"}, 404)

    def do_HEAD(self) -> None:
        """Say what a GET would send."""
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _path(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = self.repositories[name]
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commit = _commit_of(files)
        address = f"http://{self.headers['Host']}/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": address})

    def _file(self, files: dict[str, bytes], content: bytes) -> None:
        tag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        self._send(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": _commit_of(files)})

    def _json(self, answer: dict[str, Any], status: int = 200) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _commit_of(files: dict[str, bytes]) -> str:
    """A name for this state of a repository: the same files, the same name."""
    return hashlib.sha1(repr(sorted(files.items())).encode(), usedforsecurity=False).hexdigest()


def _siblings(files: dict[str, bytes]) -> list[dict[str, str]]:
    return [{"rfilename": name} for name in sorted(files)]
