"""Running GPT servers: where they are, whether they answer, and how one process lets others find its own."""

import http.client
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

_SECONDS = 3.0


@dataclass(frozen=True)
class Endpoint:
    """A GPT server: its base URL for OpenAI clients, its key, and its process."""

    url: str
    key: str
    pid: int

    def answers(self) -> bool:
        """Whether a server answers there now, to this key."""
        return answers(self.url, self.key)


def answers(url: str, key: str) -> bool:
    """Whether an OpenAI-compatible server on this machine answers at `url` to `key`; never asks a proxy."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=_SECONDS)
    try:
        connection.request("GET", f"{place.path}/models", headers={"Authorization": f"Bearer {key}"})
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def announced(endpoint: Endpoint) -> Iterator[None]:
    """Let other processes of the same user find the endpoint, as long as the context lasts."""
    _folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    path = _folder() / f"{endpoint.pid}.json"
    fresh = path.with_suffix(".incomplete")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(asdict(endpoint), file)
    os.replace(fresh, path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def find() -> Endpoint | None:
    """Return an announced endpoint that answers; forget those that do not."""
    for path in sorted(_folder().glob("*.json")):
        endpoint = _read(path)
        if endpoint and endpoint.answers():
            return endpoint
        path.unlink(missing_ok=True)
    return None


def _read(path: Path) -> Endpoint | None:
    try:
        return Endpoint(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _folder() -> Path:
    return platformdirs.user_state_path("kicourse") / "gpt"
