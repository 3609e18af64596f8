"""A process that imports what a unit needs once, and forks itself for each submission.

    python -m kicourse.grading.fork_server player

There are two of them: the player's runs in the sandbox, the judge's outside of it. What to do arrives at descriptor 0,
a Unix socket: first what to import, then a line of JSON for each fork, with the descriptors that it is to have.
"""

import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from typing import Any

from kicourse.answers.host import seed_generators
from kicourse.grading import imports

_LARGEST_REQUEST = 64 * 1024
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> None:
    """Serve until the control socket closes."""
    role = sys.argv[1]
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    adopt_orphans()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends here is gone at once, and is nobody to wait for
    while (request := _next_request(control)) is not None:
        content, descriptors = request
        if "import" in content:
            with imports.with_few_calls():
                warm_up(content["import"])
                if prepare := getattr(sys.modules.get(f"kicourse.grading.{role}"), "before_forks", None):
                    prepare()
            gc.collect()
            gc.freeze()  # what a collector never touches, forks share with this process
            control.send(b"{}\n")
            continue
        if "signal" in content:
            control.send(json.dumps({"sent": send_to_all(content["signal"], content["outsider"])}).encode())
            continue
        pid = os.fork()
        if pid == 0:
            control.close()
            _run(role, content, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(json.dumps({"pid": pid}).encode() + b"\n")


def adopt_orphans() -> None:
    """Let whatever comes from this process, by any number of forks, be found below it for good."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def send_to_all(number: int, outsider: int) -> bool:
    """Send a signal to everybody else whom this process may signal, at once, so that nobody forks in between.

    That is for a sandbox whose walls signals do not pass. Without them it would be a disaster, so it is tried first:
    return whether `outsider`, a process of the same user, is out of reach. Of those who are killed, wait for the end.
    """
    try:
        os.kill(outsider, 0)
        return False
    except ProcessLookupError:
        return False
    except PermissionError:
        with suppress(ProcessLookupError):  # there is nobody else
            os.kill(-1, number)
        if number == signal.SIGKILL:
            with suppress(ChildProcessError):
                os.waitpid(-1, 0)
        return True


def warm_up(modules: list[str]) -> None:
    """Import what the submissions of a unit need; a module that is not there will be missed by those who use it."""
    gc.disable()  # a fifth of the time goes into looking for garbage where there is next to none
    for module in modules:
        with suppress(Exception):
            importlib.import_module(module)
    gc.enable()
    if torch := sys.modules.get("torch"):
        # After an operation with two threads in this process, its forks would hang for good.
        torch.set_num_threads(1)
    seed_generators(0)  # the first time, NumPy imports what it needs for that
    if "sklearn" in sys.modules:
        _show_data_to_sklearn()
    imports.note_known()


def _show_data_to_sklearn() -> None:
    """Let scikit-learn find out what is a DataFrame: it asks every installed package about that, once a process."""
    import pandas as pd
    from sklearn.preprocessing import StandardScaler

    frame = pd.DataFrame({"vibration": [0.0, 1.0]})
    for data in (frame, frame.to_numpy()):
        StandardScaler().fit(data)


def _next_request(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Wait for a request; None when the other side has gone."""
    content, descriptors, _, _ = socket.recv_fds(control, _LARGEST_REQUEST, 4)
    return (json.loads(content), descriptors) if content else None


def _run(role: str, request: dict[str, Any], descriptors: list[int]) -> None:
    """Be the fork: do the role's work, and end."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        kept = _only(descriptors)
        _limit(request)
        work(role, request, [socket.socket(fileno=descriptor) for descriptor in kept])
        status = 0
    except BaseException:
        with suppress(Exception):
            sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def work(role: str, request: dict[str, Any], sockets: list[socket.socket]) -> None:
    """Play or judge one submission in this process, which is there for nothing else."""
    os.environ.update(request.get("environment", {}))
    os.chdir(request["folder"])
    tempfile.tempdir = None  # this process's own choice, made before it had a folder
    seed_generators(request["seed"])  # forks of one process would otherwise share their numbers
    if role == "player":
        _play(request, *sockets)
    else:
        from kicourse.grading.judge import judge

        judge(*sockets)


def _play(request: dict[str, Any], judge: socket.socket) -> None:
    from kicourse.grading.player import Player

    if request["confined"]:
        from kicourse.grading.sandbox import confine

        confine(request["folder"])
    Player(judge, request["characters"]).serve()


def _only(descriptors: list[int]) -> list[int]:
    """Close every descriptor but the standard ones and these, which get the numbers from 3 on."""
    import resource  # which Windows lacks

    high = [os.dup2(descriptor, 200 + place, inheritable=False) for place, descriptor in enumerate(descriptors)]
    os.closerange(3, 200)
    low = [os.dup2(descriptor, 3 + place, inheritable=False) for place, descriptor in enumerate(high)]
    os.closerange(3 + len(low), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return low


def _limit(request: dict[str, Any]) -> None:
    """Bound what this process may use, and let it end with its parent."""
    import resource  # which Windows lacks

    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for what, most in (
        (resource.RLIMIT_DATA, request["data_bytes"]),
        (resource.RLIMIT_FSIZE, request["file_bytes"]),
        (resource.RLIMIT_CORE, 1),  # with 0, a program that takes cores from a pipe would get them
        (resource.RLIMIT_NOFILE, 1024),
        (getattr(resource, "RLIMIT_SIGPENDING", -1), 1024),  # signals that wait: Linux has so many for a user in all
    ):
        with suppress(ValueError, OSError):
            resource.setrlimit(what, (most, most))


def _prctl(option: int, value: int) -> None:
    """Tell Linux something about this process; elsewhere there is nothing of the kind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
