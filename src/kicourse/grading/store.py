"""What has been graded, kept by what it was made of, so that nothing is graded twice and a killed run goes on."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import kicourse
from kicourse.errors import UserError
from kicourse.grading.job import Job, Outcome
from kicourse.grading.report import read_task

_PACKAGES = ("numpy", "pandas", "scikit-learn", "tokenizers", "torch", "transformers", "openai", "pydantic")


class Store:
    """Outcomes in a folder, a file each; and for each student and unit, which of them was written out last."""

    def __init__(self, folder: Path) -> None:
        self.results, self.written = folder / "results", folder / "written"

    def find(self, key: str) -> Outcome | None:
        """Return the outcome that is kept under a key, or None; a damaged file counts as none."""
        try:
            content = json.loads(self._path(key).read_text(encoding="utf-8"))
            tasks = tuple(read_task(task) for task in content.pop("tasks"))
            return Outcome(**content | {"tasks": tasks, "notebook": content["notebook"].encode()})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def keep(self, key: str, outcome: Outcome) -> None:
        """Keep an outcome; the file is there whole or not at all."""
        content = asdict(outcome) | {"notebook": outcome.notebook.decode()}
        _write(self._path(key), json.dumps(content, ensure_ascii=False))

    def is_written(self, student: str, unit: str, key: str, written: str) -> bool:
        """Whether what stands in gradebook and folders (`written`) is what came from this key."""
        try:
            return bool(written) and self._mark(student, unit).read_text(encoding="utf-8") == f"{key}\n{written}"
        except OSError:
            return False

    def note_written(self, student: str, unit: str, key: str, written: str) -> None:
        """Note that the outcome under this key stands in gradebook and folders now, and looks like this there."""
        _write(self._mark(student, unit), f"{key}\n{written}")

    def knows(self, student: str, unit: str) -> bool:
        """Whether something was written for this student and unit, and noted."""
        return self._mark(student, unit).exists()

    def forget_written(self, student: str, unit: str) -> None:
        """Note that somebody else may have written what a student has for a unit."""
        self._mark(student, unit).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.results / key[:2] / f"{key[2:]}.json"

    def _mark(self, student: str, unit: str) -> Path:
        return self.written / unit / hashlib.sha256(student.encode()).hexdigest()[:32]


def key_of(job: Job, release: bytes) -> str:
    """Return the key of a job's outcome: everything that it depends on."""
    parts: list[Any] = [
        [job.student, job.unit, job.language, job.sandboxed, job.references, asdict(job.limits), job.seeds],
        hashlib.sha256(job.notebook).hexdigest(),
        hashlib.sha256(release).hexdigest(),
        software(),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def software() -> Mapping[str, str]:
    """The versions, and the source of everything that can change a mark."""
    versions = {name: _version(name) for name in _PACKAGES} | {"kicourse": kicourse.__version__}
    package = Path(kicourse.__file__).parent
    digest = hashlib.sha256()
    for room in ("answers", "checks", "data", "grading"):
        for path in sorted((package / room).rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return versions | {"source": digest.hexdigest()}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path} cannot be written ({reason}). Mend that, and grade again: nothing is lost.") from error
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
