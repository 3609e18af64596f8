"""Putting graded notebooks and feedback where nbgrader looks for them: each file whole, or as it was."""

import os
import re
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from kicourse.errors import UserError

GRADED_MODE = 0o444  # nbgrader's defaults
FEEDBACK_MODE = 0o644
LONGEST_NAME = 128  # what the gradebook's column for students holds

_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f\ud800-\udfff]")


def safe_name(student: str) -> bool:
    """Whether a student's name can be a folder of nbgrader's, and no way out of it.

    Names with a dot in front are refused too: nbgrader does not see such folders.
    """
    return 0 < len(student) <= LONGEST_NAME and not student.startswith(".") and not _UNSAFE.search(student)


def place_graded(folder: Path, student: str, unit: str, notebook: bytes, timestamp: str | None = None) -> Path:
    """Put a graded notebook into a class folder's autograded/, with the text of its timestamp.txt; return its path.

    Raises UserError where that cannot be done; a file that was there is then as it was.
    """
    return _place(folder / "autograded", student, unit, f"{unit}.ipynb", notebook, timestamp, GRADED_MODE)


def place_feedback(folder: Path, student: str, unit: str, page: str, timestamp: str | None = None) -> Path:
    """Put a feedback page into a class folder's feedback/, as `place_graded` does."""
    return _place(folder / "feedback", student, unit, f"{unit}.html", page.encode(), timestamp, FEEDBACK_MODE)


def _place(root: Path, student: str, unit: str, name: str, content: bytes, timestamp: str | None, mode: int) -> Path:
    place = root
    try:
        place = _folder(root, student, unit)
        _replace(place / name, content, mode)
        # Last: nbgrader takes a submission that is newer than this for one that is not graded yet.
        if timestamp is None:
            (place / "timestamp.txt").unlink(missing_ok=True)
        else:
            _replace(place / "timestamp.txt", timestamp.encode(), mode)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{place / name} cannot be written ({reason}). Mend that, and grade again.") from error
    return place / name


def _folder(root: Path, student: str, unit: str) -> Path:
    """Make the folder of a student's unit; a link on the way would lead files somewhere else."""
    for name in (student, unit):
        if not safe_name(name):
            raise UserError(f"{name!r} cannot be the name of a folder. Rename it under submitted/, and grade again.")
    root.mkdir(parents=True, exist_ok=True)
    for place in (root / student, root / student / unit):
        if place.is_symlink() or (hasattr(place, "is_junction") and place.is_junction()):
            raise UserError(f"{place} is a link, and nothing is written through it. Remove it, and grade again.")
        place.mkdir(exist_ok=True)
    return root / student / unit


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Write a file that appears whole or not at all, whatever was there."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, mode)
        if sys.platform == "win32":
            with suppress(FileNotFoundError):
                path.chmod(0o666)  # Windows replaces no read-only file
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
