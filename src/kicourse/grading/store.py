"""What has been graded, kept by what it was made of, so that nothing is graded twice and a killed run goes on."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import kicourse
from kicourse.errors import UserError
from kicourse.grading.job import Job, Outcome, read_outcome
from kicourse.syllabus import course_root

_PACKAGES = (
    *("fastapi", "httpx", "ipython", "msgpack", "numpy", "openai", "pandas", "prometheus-client", "pydantic"),
    *("safetensors", "scikit-learn", "scipy", "starlette", "tokenizers", "torch", "transformers"),
)
_ROOMS = ("answers", "checks", "data", "grading", "models", "language.py", "plots.py", "serving.py", "start.py")


class Store:
    """Outcomes in a folder, a file each; for each student and unit, which is written out, and what was given up."""

    def __init__(self, folder: Path) -> None:
        self.results, self.written, self.taken = folder / "results", folder / "written", folder / "references"

    def find(self, key: str) -> Outcome | None:
        """Return the outcome that is kept under a key, or None; a damaged file counts as none."""
        try:
            content = json.loads(self._path(key).read_text(encoding="utf-8"))
            return read_outcome(content | {"notebook": content["notebook"].encode()})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def keep(self, key: str, outcome: Outcome) -> None:
        """Keep an outcome; the file is there whole or not at all."""
        content = asdict(outcome) | {"notebook": outcome.notebook.decode()}
        _write(self._path(key), json.dumps(content, ensure_ascii=False))

    def is_written(self, student: str, unit: str, key: str, written: str) -> bool:
        """Whether what stands in gradebook and folders (`written`) is what came from this key."""
        try:
            return bool(written) and self._mark(student, unit).read_text(encoding="utf-8") == f"{key}\n{written}"
        except (OSError, ValueError):  # damaged, it counts as none
            return False

    def note_written(self, student: str, unit: str, key: str, written: str) -> None:
        """Note that the outcome under this key stands in gradebook and folders now, and looks like this there."""
        _write(self._mark(student, unit), f"{key}\n{written}")

    def knows(self, student: str, unit: str) -> bool:
        """Whether something was written for this student and unit, and noted."""
        return self._mark(student, unit).exists()

    def given_up(self, student: str, unit: str) -> tuple[str, ...]:
        """Return the tasks for which a student has taken the reference solution, whenever that was."""
        path = _place(self.taken, student, unit)
        try:
            return tuple(path.read_text(encoding="utf-8").split())
        except FileNotFoundError:
            return ()
        except ValueError as error:
            raise UserError(
                f"{path} is damaged: it names the tasks that {student} gave up. Mend or remove it."
            ) from error

    def note_given_up(self, student: str, unit: str, tasks: Sequence[str]) -> None:
        """Note that a student has taken the reference solutions of these tasks: that is for good."""
        if set(tasks) - set(self.given_up(student, unit)):
            _write(_place(self.taken, student, unit), "\n".join(tasks))

    def _path(self, key: str) -> Path:
        return self.results / key[:2] / f"{key[2:]}.json"

    def _mark(self, student: str, unit: str) -> Path:
        return _place(self.written, student, unit)


def _place(folder: Path, student: str, unit: str) -> Path:
    return folder / unit / hashlib.sha256(student.encode()).hexdigest()[:32]


def key_of(job: Job, release: bytes) -> str:
    """Return the key of a job's outcome: everything that it depends on."""
    parts: list[Any] = [
        [job.student, job.unit, job.language, job.sandboxed, job.references, asdict(job.limits), job.seeds],
        job.given_up,
        hashlib.sha256(job.notebook).hexdigest(),
        hashlib.sha256(release).hexdigest(),
        software(),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def software() -> Mapping[str, str]:
    """The versions, and the source, of everything that can change a mark or its page."""
    versions = {name: _version(name) for name in _PACKAGES} | {"kicourse": kicourse.__version__}
    versions["Python"] = ".".join(map(str, sys.version_info[:2]))
    package, digest = Path(kicourse.__file__).parent, hashlib.sha256()
    for place in (*(package / room for room in _ROOMS), course_root() / "course" / "locale"):
        for path in sorted(place.rglob("*") if place.is_dir() else [place]):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(path.relative_to(place.parent).as_posix().encode() + path.read_bytes())
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
