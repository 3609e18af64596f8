"""The embedded GPT behind an OpenAI-compatible server, so that `OpenAI()` answers with no account and no network.

Who brings a provider (OPENAI_BASE_URL or OPENAI_API_KEY) reaches that instead, and nothing embedded starts.
"""

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from kicourse.errors import UserError
from kicourse.models import endpoints, network, weights
from kicourse.models.embedded import GPT
from kicourse.models.endpoints import Endpoint

MODEL = "SmolLM2-135M-Instruct"
"""The embedded model's name for `client.chat.completions.create(model=...)`."""

_URL, _KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
_EMBEDDED = "KICOURSE_GPT_URL"
"""Marks an OPENAI_BASE_URL in the environment as the course's own, for the processes that inherit it."""
_OPENAI = "https://api.openai.com/v1"
_START_SECONDS = 120
"""A server that has not started by then is ended; half a second is usual."""


def model() -> str:
    """The model to ask for: the embedded one, or OPENAI_MODEL when the user brings a provider."""
    return os.environ.get("OPENAI_MODEL") or MODEL if _provider() else MODEL


def torch_path() -> Path:
    """The folder from which `transformers` loads the same model for PyTorch; made on first use, in half a minute.

    Raises UserError if the weights are missing or corrupt.
    """
    return weights.torch_folder()


def ensure() -> str:
    """Make `OpenAI()` work in this process and its children, and return the base URL that it will call.

    A user's own provider is left alone. Otherwise a running server is used, or one is started that ends with this
    process. Raises UserError if the weights are missing or corrupt, or if the server does not start.
    """
    network.offline_if_unreachable()
    if url := _reachable():
        return url
    endpoint = endpoints.find()
    if endpoint is None:
        endpoint, process = _start(port=0)
        # Not announced: it ends with this process, whoever else uses it by then.
        atexit.register(process.kill)
    os.environ.update(_environment(endpoint))
    return endpoint.url


@contextmanager
def running(port: int | None = None, *, announced: bool = False) -> Iterator[str]:
    """Serve the GPT while the context lasts; yield the base URL, with the environment set for `OpenAI()`.

    With `announced`, notebooks opened elsewhere find the server too: only for one that stays as long as they do.

    Another port is chosen if `port` is taken. A user's own provider, or a server whose environment this process
    inherited, is used as it is. Raises UserError if the weights are missing or corrupt, or if the server does not
    start.
    """
    if url := _reachable():
        yield url
        return
    with _served(port or 0, announced) as (endpoint, _process), _set(_environment(endpoint)):
        yield endpoint.url


@contextmanager
def apart() -> Iterator[tuple[dict[str, str], int]]:
    """Serve the embedded GPT for others alone; yield what they need in their environment, and the server's process.

    This process's own environment, with a provider's key perhaps, has nothing to do with it. Raises UserError as
    `running` does.
    """
    with _served(0, announced=False) as (endpoint, process):
        yield {_URL: endpoint.url, _KEY: endpoint.key, _EMBEDDED: endpoint.url, "NO_PROXY": "127.0.0.1"}, process.pid


def serve(port: int | None = None) -> None:
    """Serve the GPT in the foreground until Ctrl-C, and print what to set to use it elsewhere.

    Another port is chosen if `port` is taken. Raises UserError as `running` does, and if the server ends by itself.
    """
    from rich.console import Console

    console = Console(highlight=False)
    with _served(port or 0, announced=True) as (endpoint, process):
        if port and f":{port}/" not in endpoint.url:
            console.print(f"Port {port} is taken; another one was chosen.")
        console.print(f"[bold]{MODEL}[/bold] answers at {endpoint.url}. To use it elsewhere:", soft_wrap=True)
        console.print(f"  export {_URL}={endpoint.url}", soft_wrap=True)
        console.print(f"  export {_KEY}={endpoint.key}", soft_wrap=True)
        console.print("Notebooks of the course find it by themselves. Ctrl-C ends it.")
        try:
            status = process.wait()
        except KeyboardInterrupt:
            console.print("The server has ended.")
            return
    raise UserError(f"The GPT server ended by itself with status {status}: run `kicourse doctor`.")


def _provider() -> bool:
    """Whether the environment names a provider that is not the course's own server."""
    url = os.environ.get(_URL, "")
    return bool(url or os.environ.get(_KEY)) and url != os.environ.get(_EMBEDDED)


def _reachable() -> str | None:
    """The base URL that the environment already leads to, unless it is a server of the course that has gone."""
    url = os.environ.get(_URL, "")
    if _provider():
        return url or _OPENAI
    return url if url and endpoints.answers(url, os.environ.get(_KEY, "")) else None


@contextmanager
def _served(port: int, announced: bool) -> Iterator[tuple[Endpoint, "subprocess.Popen[str]"]]:
    endpoint, process = _start(port)
    try:
        with endpoints.announced(endpoint) if announced else nullcontext():
            yield endpoint, process
    finally:
        process.kill()
        process.wait()


def _start(port: int) -> "tuple[Endpoint, subprocess.Popen[str]]":
    file = weights.folder(GPT) / GPT.files[0].name
    command = [sys.executable, "-m", "kicourse.models.server", "--weights", str(file), "--name", MODEL]
    command += ["--port", str(port), "--owner", str(os.getpid())]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # An interrupt meant for a cell, or Ctrl-C in the terminal, is not meant for the server.
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    assert process.stdout is not None
    patience = threading.Timer(_START_SECONDS, process.kill)
    patience.daemon = True
    patience.start()
    with process.stdout as output:
        report = json.loads(output.read() or "{}")
    patience.cancel()
    if "url" not in report:
        status = process.wait()
        if status < 0 and "error" not in report:
            raise UserError(
                f"The embedded GPT was ended by signal {-status} while it started, as happens where memory is short or"
                f" a start takes {_START_SECONDS} s. Close other programs, and try again."
            )
        reason = report.get("error", f"it ended with status {status}")
        raise UserError(f"The embedded GPT does not start ({reason}): run `kicourse models pull --force`.")
    return Endpoint(**report), process


def _environment(endpoint: Endpoint) -> dict[str, str]:
    settings = {_URL: endpoint.url, _KEY: endpoint.key, _EMBEDDED: endpoint.url}
    for name in ("NO_PROXY", "no_proxy"):
        # A company's proxy cannot reach a server on this machine.
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        settings[name] = ",".join(dict.fromkeys([*hosts, "127.0.0.1"]))
    return settings


@contextmanager
def _set(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
