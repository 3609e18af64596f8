"""Where a process cannot fork: a new one for each player and each judge, and no sandbox around it.

`multiprocessing` starts it and hands the sockets over, as it can on every system.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from kicourse.grading import processes, usage
from kicourse.grading.servers import (
    ENVIRONMENT,
    PLAYER_PRELOAD,
    START_SECONDS,
    WATCH_SECONDS,
    WorkerLostError,
    folders_of,
)
from kicourse.syllabus import Limits, Unit

# All that a submission gets of this process's environment: what systems need to start programs.
_KEPT = ("PATH", "PATHEXT", "SYSTEMROOT", "SYSTEMDRIVE", "COMSPEC", "PROCESSOR_ARCHITECTURE", "NUMBER_OF_PROCESSORS")


class Spawner:
    """Takes a fork server's place. Each process imports what its unit needs, while the other one does the same."""

    def __init__(
        self, role: str, modules: Sequence[str], environment: Mapping[str, str], stopped: threading.Event
    ) -> None:
        self.role, self.modules, self.environment, self.stopped = role, modules, dict(environment), stopped
        self._process: SpawnProcess | None = None

    @classmethod
    def of_judges(cls, unit: Unit, stopped: threading.Event) -> "Spawner":
        """Make processes that are trusted."""
        modules = [*unit.preload, "kicourse.grading.judge", f"kicourse.checks.{unit.slug}"]
        return cls("judge", modules, os.environ, stopped)

    @classmethod
    def of_players(cls, unit: Unit, environment: Mapping[str, str], stopped: threading.Event) -> "Spawner":
        """Make processes for submissions."""
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        modules = [*PLAYER_PRELOAD, *unit.preload, *unit.player_preload, "kicourse.grading.player"]
        return cls("player", modules, kept | dict(environment), stopped)

    def fork(self, sockets: list[socket.socket], folder: Path, limits: Limits, **settings: Any) -> None:
        """Start a process, and hand these sockets over. What it may use is watched, and not limited beforehand."""
        request = settings | {"folder": str(folder), "modules": self.modules}
        request["environment"] = self.environment | ENVIRONMENT | folders_of(folder) | settings["environment"]
        self._ready = processes.SPAWN.Event()
        self._process = processes.spawn(_work, self.role, request, sockets, self._ready)

    def await_fork(self) -> None:
        """Return when the process has imported everything. Raises WorkerLostError if that does not happen."""
        deadline = time.monotonic() + START_SECONDS
        while not self._ready.wait(WATCH_SECONDS):
            if not (self._process and self._process.is_alive()) or self.stopped.is_set() or time.monotonic() > deadline:
                raise WorkerLostError(f"the {self.role}'s process does not start")

    def import_(self, modules: Sequence[str]) -> None:
        """Import nothing beforehand: there is no process that the next one comes from."""

    def keep_to(self, core: int) -> None:
        """Leave that to the system."""

    def used(self) -> usage.Used:
        """Return what the process uses, with all it has started."""
        if self._process is None or not self._process.pid:
            return usage.Used()
        return usage.used(self._process.pid, itself=True)

    def exact_memory(self) -> int:
        """Return what the process uses: these share next to nothing."""
        return self.used().memory

    def unlinked(self) -> float:
        """Return nothing: where there are no forks, files without a name are not looked for."""
        return 0

    def held(self) -> AbstractContextManager[bool]:
        """Hold nothing: there is no sandbox here, and whoever is graded is trusted."""
        return nullcontext(False)

    def is_alive(self) -> bool:
        """Whether there can be another process: always."""
        return True

    def clear(self) -> bool:
        """Kill the process and whatever it started."""
        if self._process is not None:
            processes.end(self._process.pid or 0)
            self._process.join()
            self._process.close()
            self._process = None
        return True

    def close(self) -> None:
        """Leave nothing behind."""
        self.clear()


def _work(role: str, request: dict[str, Any], sockets: list[socket.socket], ready: Event) -> None:
    """Be the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for this one
    processes.end_with_parent()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    environment = request.pop("environment")
    os.environ.update({name: environment[name] for name in ENVIRONMENT})
    from kicourse.models import hub_cache  # which looks for the models where they are now

    os.environ["HF_HOME"] = environment["HF_HOME"] = str(hub_cache.home())
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    from kicourse.grading.fork_server import warm_up, work

    warm_up(request["modules"])
    ready.set()
    work(role, request, sockets)
