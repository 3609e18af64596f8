"""Reading what checks recorded, and mending the file when something else wrote into it."""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kicourse.checks.record import journal, locked


@dataclass(frozen=True)
class Entry:
    """One line of the progress file: what a check said, or (kind "reference") that a task was given up."""

    time: str
    unit: str
    task: str
    points: float
    max_points: float
    status: str
    kind: str
    version: str


def read(root: Path) -> list[Entry]:
    """Return every recorded entry of the workspace at `root`, oldest first.

    A last line without its end was being written, or its writer was killed: it is passed over. A file with
    broken lines is kept aside as `progress.corrupt-N.jsonl` and goes on with its good lines.
    """
    mend(root)
    good, _broken = _lines(journal(root))
    return [entry for line in good if (entry := _entry(line))]


def mend(root: Path) -> Path | None:
    """Keep a file with broken lines aside and go on with its good ones; return what was kept, None if all is well."""
    path = journal(root)
    if _lines(path)[1]:
        with suppress(OSError):  # where nothing can be written, reading still works
            return _set_aside(path)
    return None


def _lines(path: Path) -> tuple[list[bytes], list[bytes]]:
    """Return the file's finished lines, the good ones and the broken ones."""
    content = path.read_bytes() if path.is_file() else b""
    finished = [line for line in content.split(b"\n")[:-1] if line.strip()]
    good = [line for line in finished if _entry(line)]
    return good, [line for line in finished if not _entry(line)]


def _entry(line: bytes) -> Entry | None:
    try:
        fields = json.loads(line)
        entry = Entry(**{name: fields[name] for name in Entry.__dataclass_fields__})
        is_text = all(isinstance(text, str) for text in (entry.time, entry.unit, entry.task, entry.kind))
        return entry if is_text and 0 <= entry.points <= entry.max_points else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _set_aside(path: Path) -> Path | None:
    with locked(path):
        good, broken = _lines(path)
        if not broken:  # another process was faster
            return None
        number = 1
        while (aside := path.with_name(f"progress.corrupt-{number}.jsonl")).exists():
            number += 1
        shutil.copy2(path, aside)
        torn = path.read_bytes().rpartition(b"\n")[2]
        mended = path.with_suffix(".mended")
        mended.write_bytes(b"\n".join([*good, torn]))
        os.replace(mended, path)
        return aside
