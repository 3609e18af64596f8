"""Bringing the course's notebooks into a workspace without ever writing over a learner's work.

A notebook that the learner has not changed is replaced by a newer release, or by another language's edition.
A changed one stays as it is: the new one is put beside it, with the learner's answers carried over. What was
written is kept in `.kicourse/originals`, which is how a change is known; a saved output is not a change.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Copy:
    """Where a notebook of the workspace came from: its unit, language, and the digest of the release."""

    unit: str
    language: str
    release: str


@dataclass(frozen=True)
class News:
    """What happened to one file: it was "added", "updated", or put "beside" the one that holds the work."""

    what: str
    name: str
    kept: str = ""


class Shelf:
    """The notebooks of one workspace, and what is known of them."""

    def __init__(self, root: Path, copies: Mapping[str, Copy]) -> None:
        self.root = root
        self.copies = dict(copies)

    def bring(self, unit: str, language: str, release: bytes) -> News | None:
        """Make this edition of a unit available; return what was done, None if it was there already."""
        copy = Copy(unit, language, digest(release))
        if name := self.current(copy):
            self._adopt(name, copy)
            return None
        name = next(self._replaceable(copy), None)
        if name is not None:
            exists = (self.root / name).exists()
            self._write(name, copy, release)
            return News("updated" if exists else "added", name)
        worked_on = max(self.of(unit), key=lambda name: (self.root / name).stat().st_mtime)
        name = self._free_name(copy)
        self._write(name, copy, self._with_answers(release, worked_on))
        return News("beside", name, kept=worked_on)

    def current(self, copy: Copy) -> str | None:
        """Return the name of the file that holds this edition, changed or not; None if there is none."""
        names = self.of(copy.unit)
        known = (name for name in names if self.copies.get(name) == copy)
        equal = (name for name in names if digest((self.root / name).read_bytes()) == copy.release)
        return next(known, None) or next(equal, None)

    def of(self, unit: str) -> list[str]:
        """Return the names of all notebooks of a unit that are in the folder."""
        names = {f"{unit}.ipynb": None} | {name: None for name, copy in self.copies.items() if copy.unit == unit}
        return [name for name in names if (self.root / name).is_file()]

    def _adopt(self, name: str, copy: Copy) -> None:
        if self.copies.get(name) != copy:  # the manifest was lost, or the work on it was interrupted
            self._remember(name, copy, (self.root / name).read_bytes())

    def _replaceable(self, copy: Copy) -> Iterator[str]:
        main = f"{copy.unit}.ipynb"
        if not os.path.lexists(self.root / main):
            yield main
        same_language = [name for name in self.of(copy.unit) if self._language(name) == copy.language]
        for name in (*same_language, main):
            if self._is_untouched(name):
                yield name

    def _language(self, name: str) -> str:
        return self.copies[name].language if name in self.copies else ""

    def _is_untouched(self, name: str) -> bool:
        original = self._original(name)
        return original.is_file() and digest((self.root / name).read_bytes()) == digest(original.read_bytes())

    def _free_name(self, copy: Copy) -> str:
        is_translation = all(self._language(name) != copy.language for name in self.of(copy.unit))
        stem = f"{copy.unit}-{copy.language if is_translation else 'new'}"
        number, name = 1, f"{stem}.ipynb"
        while os.path.lexists(self.root / name):
            number += 1
            name = f"{stem}-{number}.ipynb"
        return name

    def _with_answers(self, release: bytes, name: str) -> bytes:
        mine, original = (_answers(path) for path in (self.root / name, self._original(name)))
        notebook = json.loads(release)
        for cell in notebook["cells"]:
            task = _task(cell)
            if task and mine.get(task, original.get(task)) != original.get(task):
                cell["source"] = mine[task].splitlines(keepends=True)
        return (json.dumps(notebook, ensure_ascii=False, indent=1) + "\n").encode()

    def _write(self, name: str, copy: Copy, content: bytes) -> None:
        write(self.root / name, content)
        self._remember(name, copy, content)

    def _remember(self, name: str, copy: Copy, content: bytes) -> None:
        write(self._original(name), content)
        self.copies[name] = copy

    def _original(self, name: str) -> Path:
        return self.root / ".kicourse" / "originals" / name


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def digest(notebook: bytes) -> str:
    """Return what identifies a notebook's cells; outputs and the editor's metadata do not count."""
    try:
        cells = [(cell["cell_type"], _source(cell)) for cell in json.loads(notebook)["cells"]]
        identity = json.dumps(cells).encode()
    except (ValueError, KeyError, TypeError):
        identity = notebook
    return hashlib.sha256(identity).hexdigest()


def _answers(path: Path) -> dict[str, str]:
    try:
        cells = json.loads(path.read_bytes())["cells"]
        return {task: _source(cell) for cell in cells if (task := _task(cell))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _task(cell: dict[str, Any]) -> str:
    nbgrader = cell.get("metadata", {}).get("nbgrader", {})
    return str(nbgrader.get("grade_id", "")) if nbgrader.get("solution") else ""


def _source(cell: dict[str, Any]) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)
