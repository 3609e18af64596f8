"""Files that the command line is asked to write results to (`--json marks.json`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kicourse.errors import UsageError, UserError


def require_place(target: Path | None) -> None:
    """Raise UsageError if a file cannot be written there, before there is anything to write."""
    if target is not None and not target.resolve().parent.is_dir():
        raise UsageError(f"{target} cannot be written: its folder does not exist. Make the folder first.")
    if target is not None and target.is_dir():
        raise UsageError(f"{target} cannot be written: it is a folder. Name a file: {target / 'results.json'}")
    if target is not None and _is_of_others(target):
        raise UsageError(f"{target} is there already, and is no file of results. Name another one, or remove it.")


def _is_of_others(target: Path) -> bool:
    """Whether a file holds something else than results do: a gradebook, say, for which one letter is enough."""
    if not target.is_file():
        return False
    try:
        with target.open("rb") as file:
            beginning = file.read(200).lstrip()
    except OSError:  # `writing` says what is wrong with it
        return False
    return bool(beginning) and not beginning.startswith((b"[", b"<?xml"))


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn what keeps a report from being written into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror}). Name another file.") from error
