"""What a learner's checks said, kept in the workspace: one JSON line a call, only ever appended."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

Kind = Literal["check", "reference"]

FIELDS = ("unit", "task", "points", "max_points", "status")
LOCK_SECONDS = 5.0


def workspace_root(start: Path | None = None) -> Path | None:
    """Return the workspace that holds `start` (default: the working directory), or None outside of any."""
    here = (start or Path.cwd()).resolve()
    return next((place for place in (here, *here.parents) if manifest(place).is_file()), None)


def manifest(root: Path) -> Path:
    """Return the file that makes a folder a workspace."""
    return root / ".kicourse" / "workspace.json"


def journal(root: Path) -> Path:
    """Return the file that holds the workspace's progress."""
    return root / ".kicourse" / "progress.jsonl"


def record(verdict: Mapping[str, Any], kind: Kind = "check") -> None:
    """Append a verdict to the workspace's progress.

    `verdict` has unit, task, points, max_points and status; kind "reference" says that the learner gave the
    task up. Outside of a workspace, and while nbgrader or `kicourse check` runs the notebook, nothing is
    recorded. Never raises: progress is not worth a broken check.
    """
    with suppress(Exception):
        is_graded = os.environ.get("NBGRADER_EXECUTION") or os.environ.get("KICOURSE_RECORD") == "0"
        root = None if is_graded else workspace_root()
        if root is not None:
            _append(journal(root), _line(verdict, kind))


def was_given_up(unit: str, task: str) -> bool:
    """Return whether the learner asked for this task's reference solution, in this notebook or an earlier one."""
    with suppress(Exception):
        root = workspace_root()
        lines = journal(root).read_bytes().splitlines() if root else []
        return any(_gives_up(line, unit, task) for line in lines if b'"reference"' in line)
    return False


def _gives_up(line: bytes, unit: str, task: str) -> bool:
    with suppress(ValueError, TypeError, AttributeError):
        entry = json.loads(line)
        return (entry.get("kind"), entry.get("unit"), entry.get("task")) == ("reference", unit, task)
    return False


def _line(verdict: Mapping[str, Any], kind: Kind) -> bytes:
    from kicourse import __version__

    entry = {"time": datetime.now(UTC).isoformat(timespec="seconds")}
    entry |= {field: verdict[field] for field in FIELDS}
    entry |= {"kind": kind, "version": __version__}
    return json.dumps(entry, ensure_ascii=False).encode() + b"\n"


def _append(path: Path, line: bytes) -> None:
    with locked(path):
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            # A kernel killed while it wrote leaves half a line; the next one starts on a line of its own.
            os.write(file, b"\n" + line if _is_torn(file) else line)
        finally:
            os.close(file)


def _is_torn(file: int) -> bool:
    size = os.fstat(file).st_size
    if not size:
        return False
    os.lseek(file, size - 1, os.SEEK_SET)
    return os.read(file, 1) != b"\n"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other writers of the progress file out.

    Where the file system has no locks, or nobody lets go of it in time, the work is done without: one small
    append is whole anyway, and losing it would be worse.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(f"{path}.lock", timeout=LOCK_SECONDS)
    with suppress(OSError, NotImplementedError, Timeout):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
