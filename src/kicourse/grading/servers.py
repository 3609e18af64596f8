"""Where a worker's processes come from: servers that import what a unit needs once, and fork for each submission."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import psutil

from kicourse.grading import ports, processes, sandbox, usage
from kicourse.syllabus import Limits, Unit

START_SECONDS = 120
WATCH_SECONDS = 0.2
_SIGNAL_SECONDS = 5.0
_STOP_SECONDS = 0.1
ENVIRONMENT = {
    # After an operation with two threads, forks would hang for good.
    **dict.fromkeys(("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
    "JOBLIB_MULTIPROCESSING": "0",
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",  # it would read a file of every installed package
    "HF_HUB_OFFLINE": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "LANG": "C.UTF-8",
}
# Not matplotlib, which takes a second of each start: figures are demonstrations, and those are skipped.
PLAYER_PRELOAD = ("IPython", "kicourse.plots", "kicourse.models.gpt")


class WorkerLostError(Exception):
    """A fork server has gone: a new worker is needed."""


class Server(Protocol):
    """Makes one process after the other, of players or of judges."""

    def fork(self, sockets: list[socket.socket], folder: Path, limits: Limits, **settings: Any) -> None:
        """Make a process that has these sockets and works in this folder."""

    def await_fork(self) -> None:
        """Return when the process answers. Raises WorkerLostError if that does not happen."""

    def import_(self, modules: Sequence[str]) -> None:
        """Have modules imported before the next process is made."""

    def keep_to(self, core: int) -> None:
        """Let the next processes run on this core only, where the system can do that."""

    def used(self) -> usage.Used:
        """Return what the process uses with all it has started."""

    def exact_memory(self) -> int:
        """Return how many bytes of memory they use, where `used` counts what they share more than once."""

    def unlinked(self) -> float:
        """Return how many bytes are in files without a name that they hold."""

    def held(self) -> AbstractContextManager[bool]:
        """Let the process, and whatever it started, stand still meanwhile; yield whether it does."""

    def is_alive(self) -> bool:
        """Whether there can be another process."""

    def clear(self) -> bool:
        """Kill the process and whatever it started; return whether nothing is left."""

    def close(self) -> None:
        """End the server and everything that came from it."""


class ForkServer:
    """One of the two: a process of its own that forks on request."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", pid: int, control: socket.socket, stopped: threading.Event
    ) -> None:
        self.process, self.pid, self.control, self.stopped = process, pid, control, stopped
        self.data_bytes = _data_bytes(pid)

    @classmethod
    def of_judges(cls, unit: Unit, scratch: Path, trial_ports: Sequence[int], stopped: threading.Event) -> "ForkServer":
        """Start the judge's, which is trusted."""
        environment = os.environ | ENVIRONMENT | folders_of(scratch)
        environment |= {"KICOURSE_TRIAL_PORTS": ",".join(map(str, trial_ports))}
        control, theirs = socket.socketpair()
        with theirs:
            process = _spawn(_command("judge"), theirs, environment, scratch)
        server = cls(process, process.pid, control, stopped)
        with server._closed_if_it_fails():
            server.import_([*unit.preload, "kicourse.grading.judge", f"kicourse.checks.{unit.slug}"])
        return server

    @classmethod
    def of_players(
        cls, unit: Unit, scratch: Path, sandboxed: bool, environment: Mapping[str, str], stopped: threading.Event
    ) -> "ForkServer":
        """Start the player's, in a sandbox that a warden keeps."""
        request = {
            "command": _command("player"),
            "scratch": str(scratch / "sandbox"),
            "remove": str(scratch),
            "sandboxed": sandboxed,
            "ports": [*ports.reserved(), *ports.of_gpt(environment)],
            "environment": ENVIRONMENT | dict(environment) | folders_of(scratch / "sandbox"),
        }
        control, theirs = socket.socketpair()
        line, wardens = socket.socketpair()
        with theirs, wardens:
            command = [sys.executable, "-m", "kicourse.grading.warden", str(wardens.fileno())]
            process = _spawn(command, theirs, dict(os.environ), scratch, pass_fds=(wardens.fileno(),))
        server = cls(process, process.pid, control, stopped)  # the warden's, until there is more
        server.line = line
        server.walled = sandboxed and sandbox.keeps_signals_in()
        with server._closed_if_it_fails():
            server.pid = int(_exchange(line, request, [], START_SECONDS, stopped)["pid"])
            server.import_(
                [*PLAYER_PRELOAD, *unit.preload, *unit.player_preload, "sandlock", "kicourse.grading.player"]
            )
        return server

    line: socket.socket | None = None
    walled = False

    @contextmanager
    def _closed_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def fork(self, sockets: list[socket.socket], folder: Path, limits: Limits, **settings: Any) -> None:
        """Fork, and hand these sockets over."""
        request = {
            "folder": str(folder),
            "data_bytes": self.data_bytes + limits.mebibytes * 2**20,
            "file_bytes": limits.disk_mebibytes * 2**20,
            **settings,
        }
        self._ask(request, [one.fileno() for one in sockets], 30)

    def await_fork(self) -> None:
        """Return at once: a fork is as ready as its server."""

    def _ask(self, request: dict[str, Any], descriptors: list[int], seconds: float) -> None:
        _exchange(self.control, request, descriptors, seconds, self.stopped)

    def import_(self, modules: Sequence[str]) -> None:
        """Import modules once, instead of in each fork."""
        if modules:
            self._ask({"import": list(modules)}, [], START_SECONDS)
            self.data_bytes = _data_bytes(self.pid)

    def keep_to(self, core: int) -> None:
        """Let the server and its next forks run on this core only."""
        processes.keep_to(self.pid, core)

    def used(self) -> usage.Used:
        """Return what the forks use."""
        return usage.used(self.pid)

    def exact_memory(self) -> int:
        """Return what the forks use, and the server's memory for the part that it shares with them."""
        return usage.exact_memory(self.pid)

    def unlinked(self) -> float:
        """Return what the forks hold."""
        return usage.unlinked(self.pid)

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Let all forks stand still, once they are through with what the system does for them.

        That is possible where signals do not pass the sandbox's walls.
        """
        if not self.walled:
            yield False
            return
        try:
            held = self._send_to_all(signal.SIGSTOP)
            deadline = time.monotonic() + _STOP_SECONDS
            while held and not processes.stand_still(self.pid) and time.monotonic() < deadline:
                time.sleep(0.001)
                held = self._send_to_all(signal.SIGSTOP)
            yield held
        finally:
            self._send_to_all(signal.SIGCONT)

    def is_alive(self) -> bool:
        """Whether the server is there."""
        return processes.is_alive(self.pid)

    def clear(self) -> bool:
        """Kill every fork and whatever it started; return whether nothing is left."""
        killed = not self.walled
        with suppress(WorkerLostError):
            killed = killed or self._send_to_all(signal.SIGKILL)
        return processes.clear(self.pid) and killed

    def _send_to_all(self, number: int) -> bool:
        """Send a signal to all forks at once; return whether the server could."""
        request = {"signal": number, "outsider": os.getpid()}
        return _exchange(self.control, request, [], _SIGNAL_SECONDS, self.stopped).get("sent") is True

    def close(self) -> None:
        """End the process and everything that came from it."""
        self.clear()
        processes.end(self.pid)
        self.control.close()
        if self.line is not None:
            self.line.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            processes.end(self.process.pid)
            self.process.wait()


def _command(role: str) -> list[str]:
    return [sys.executable, "-m", "kicourse.grading.fork_server", role]


def _spawn(
    command: list[str], control: socket.socket, environment: dict[str, str], folder: Path, pass_fds: Sequence[int] = ()
) -> "subprocess.Popen[bytes]":
    """Start a process with the control socket as its standard input, out of reach of Ctrl-C."""
    return subprocess.Popen(
        command,
        stdin=control.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=folder,
        start_new_session=True,
        pass_fds=pass_fds,
    )


def _exchange(
    connection: socket.socket,
    request: dict[str, Any],
    descriptors: list[int],
    seconds: float,
    stopped: threading.Event,
) -> dict[str, Any]:
    """Send a request and return the answer. Raises WorkerLostError if there is none, or grading is stopped."""
    deadline = time.monotonic() + seconds
    try:
        connection.settimeout(WATCH_SECONDS)
        socket.send_fds(connection, [json.dumps(request).encode()], descriptors)
        while not stopped.is_set() and time.monotonic() < deadline:
            with suppress(TimeoutError):
                if answer := connection.recv(4096):
                    return dict(json.loads(answer))
                raise WorkerLostError("a process of the grader has ended")
        raise TimeoutError
    except (OSError, ValueError) as error:
        raise WorkerLostError(f"a process of the grader does not answer ({type(error).__name__})") from error


def folders_of(folder: Path) -> dict[str, str]:
    """Return the folders that programs write to, all of them the same private one."""
    names = ("HOME", "TMPDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "XDG_CONFIG_HOME")
    return dict.fromkeys(names, str(folder))


def _data_bytes(pid: int) -> int:
    info = psutil.Process(pid).memory_info()
    return int(getattr(info, "data", info.vms))
