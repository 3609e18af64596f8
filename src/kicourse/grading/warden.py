"""Keeps a sandbox: starts the player's fork server in it, and ends all that came from it when told, or left alone.

    python -m kicourse.grading.warden DESCRIPTOR

A process of its own, so that nothing is left when the coordinator is killed, and whoever grades (a Jupyter server, say)
has no sandbox's threads. The descriptor is a Unix socket: what to start arrives there, and its end is the end.
"""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from kicourse.grading import folders, processes, sandbox
from kicourse.grading.fork_server import adopt_orphans
from kicourse.models import hub_cache

_LARGEST_REQUEST = 256 * 1024


def main() -> None:
    """Start what is asked for, wait for the end, clear up."""
    line = socket.socket(fileno=int(sys.argv[1]))
    adopt_orphans()
    request = json.loads(line.recv(_LARGEST_REQUEST))
    process = _start(request)
    os.close(0)  # the control socket, which is the fork server's alone
    with suppress(OSError):  # who asked may have been killed already
        line.send(json.dumps({"pid": process.pid}).encode())
        line.recv(1)
    processes.clear(os.getpid())
    _reap()
    folders.remove(Path(request["remove"]))


def _start(request: dict[str, Any]) -> Any:
    """Start the command with this process's standard input, in a sandbox if that is asked for."""
    scratch, environment = Path(request["scratch"]), request["environment"]
    if not request["sandboxed"]:
        return subprocess.Popen(
            request["command"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment | {"PATH": os.environ.get("PATH", ""), "HF_HOME": str(hub_cache.home())},
            cwd=scratch,
        )
    from sandlock import StdioMode

    runtime = sandbox.make_runtime(scratch / "runtime")
    settings = environment | {"PATH": "/usr/bin:/bin"}
    policy = sandbox.policy(scratch, runtime, request["ports"], settings)
    return policy.popen(request["command"], stdin=StdioMode.INHERIT, stdout=StdioMode.NULL, stderr=StdioMode.NULL)


def _reap(seconds: float = 2.0) -> None:
    """Take note of every child's end, so that none of them is seen any more when this process has ended."""
    deadline = time.monotonic() + seconds
    with suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.002)


if __name__ == "__main__":
    main()
