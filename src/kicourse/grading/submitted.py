"""Reading what was handed in, from folders where anything may lie: links, pipes, devices, files without end."""

import errno
import os
import stat
from contextlib import ExitStack
from pathlib import Path, PurePath

from kicourse.language import TranslatableError, _

LARGEST = 20 * 2**20

# Windows lacks some of these, and needs O_BINARY.
_COMMON = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = _COMMON | getattr(os, "O_DIRECTORY", 0)
# Without O_NONBLOCK, opening a pipe waits for someone to write into it.
_FILE = _COMMON | _NOFOLLOW | getattr(os, "O_NONBLOCK", 0)
_WALKS = os.open in os.supports_dir_fd and os.stat in os.supports_dir_fd and _NOFOLLOW != 0
_JUNCTION = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", -1)

CLEAR_OUTPUTS = _("Clear its outputs (in JupyterLab: Edit, Clear Outputs of All Cells) and hand it in again.")
_LINK = _("{name} is a link. Hand in the file itself, in a plain folder.")


class UnreadableSubmissionError(TranslatableError):
    """What was handed in cannot be graded; the message says why, to the student and to the instructor."""


def read(root: Path, *parts: str) -> bytes:
    """Return the content of a submitted file: `read(folder / "submitted", student, unit, "unit.ipynb")`.

    `root` is trusted, and may be a link; nothing below it is, and no link below it is followed.
    Raises FileNotFoundError for a file that was not handed in, UnreadableSubmissionError for one that is no regular
    file, is reached through a link, is larger than LARGEST or cannot be read, and ValueError for parts that are not
    plain names.
    """
    if not parts or any(part in ("", ".", "..") or PurePath(part).name != part for part in parts):
        raise ValueError(f"{parts} are not the plain names of folders and a file")
    try:
        with ExitStack() as opened:
            descriptor = _walk(root, parts, opened) if _WALKS else _look_then_open(root, parts, opened)
            return _content(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableSubmissionError(_("It cannot be read: {error}."), error=error.strerror or error) from error


def _walk(root: Path, parts: tuple[str, ...], opened: ExitStack) -> int:
    """Open part after part, each one inside the folder that is open already: nothing can be exchanged meanwhile."""
    folder = _closing(os.open(root, _FOLDER), opened)
    for part in parts[:-1]:
        folder = _closing(_step(part, _FOLDER | _NOFOLLOW, folder), opened)
    return _closing(_step(parts[-1], _FILE, folder), opened)


def _step(part: str, flags: int, folder: int) -> int:
    try:
        return os.open(part, flags, dir_fd=folder)
    except OSError as error:
        # Systems differ in how they refuse a link; whatever it is by now, it stays refused.
        if error.errno != errno.ENOENT and stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode):
            raise UnreadableSubmissionError(_LINK, name=repr(part)) from error
        if error.errno == errno.ENXIO:  # a socket, or a device that nobody serves
            raise _not_regular() from error
        raise


def _look_then_open(root: Path, parts: tuple[str, ...], opened: ExitStack) -> int:
    """Where a folder cannot be held open: look first. What is exchanged in between goes unnoticed."""
    path = root
    for part in parts:
        path = path / part
        status = path.lstat()
        is_junction = getattr(status, "st_reparse_tag", 0) == _JUNCTION
        if stat.S_ISLNK(status.st_mode) or is_junction:
            raise UnreadableSubmissionError(_LINK, name=repr(part))
    if not path.is_file():  # Windows cannot open a folder to see what it is
        raise _not_regular()
    return _closing(os.open(path, _FILE), opened)


def _closing(descriptor: int, opened: ExitStack) -> int:
    opened.callback(os.close, descriptor)
    return descriptor


def _content(descriptor: int) -> bytes:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise _not_regular()
    with open(descriptor, "rb", closefd=False) as file:
        content = file.read(LARGEST + 1)  # whatever size it claims to have
    if len(content) > LARGEST:
        raise UnreadableSubmissionError(
            _("It is larger than {mebibytes} MiB."), CLEAR_OUTPUTS, mebibytes=LARGEST // 2**20
        )
    return content


def _not_regular() -> UnreadableSubmissionError:
    return UnreadableSubmissionError(_("It is not a file but a folder, a pipe or a device. Hand in the file itself."))
