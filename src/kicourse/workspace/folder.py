"""The folder a learner works in."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from kicourse import __version__
from kicourse.checks.record import manifest
from kicourse.errors import UsageError, UserError
from kicourse.language import language as readers_language
from kicourse.syllabus import course
from kicourse.workspace.editions import Copy, News, Shelf, digest, write

# What a fresh clone of a learner's own repository may hold.
HARMLESS = ("readme", "license", ".")
# The running server's token stays on this machine.
GITIGNORE = b"lab.json\n*.lock\ntabs/\n"
LOCK_SECONDS = 60


@dataclass(frozen=True)
class Workspace:
    """A learner's folder: the course's notebooks in one language, and their progress in `.kicourse/`.

    `notebooks` names the file of each unit, `earlier` its other ones, which hold the learner's work on another
    edition; `news` is what the last update did to the folder.
    """

    root: Path
    language: str
    notebooks: dict[str, str]
    earlier: dict[str, tuple[str, ...]]
    news: tuple[News, ...] = ()

    @classmethod
    def open(cls, path: Path) -> "Workspace":
        """Open a workspace as it is. Raises UsageError if there is none at `path`."""
        root = path.resolve()
        if not manifest(root).is_file():
            raise UsageError(f"{path} is not a workspace. Make one there with: kicourse lab {path}")
        code = _language(root)
        return cls._look(Shelf(root, _copies(root)), code)

    @classmethod
    def open_or_make(cls, path: Path, language: str | None = None) -> "Workspace":
        """Open the workspace at `path`, brought up to date; make it if the folder is new or empty.

        Another `language` than before brings that language's edition of every notebook. No file that the
        learner changed is ever written over. Raises UsageError if `path` is something else than a workspace, or
        the language does not exist; UserError if the folder cannot be written.
        """
        root = path.resolve()
        code = course().language(language) if language else _language(root)
        _refuse_foreign(root, path)
        try:
            with _updating(root):
                return cls._update(root, code)
        except OSError as error:
            raise UserError(
                f"Cannot write to {path} ({error.strerror or error}). Name another folder: kicourse lab DIR"
            ) from error

    @classmethod
    def _update(cls, root: Path, code: str) -> "Workspace":
        write(root / ".kicourse" / ".gitignore", GITIGNORE)
        shelf = Shelf(root, _copies(root))
        _save(shelf)
        news = []
        for unit, release in _releases(code).items():
            news.append(shelf.bring(unit, code, release))
            _save(shelf)
        write(root / ".kicourse" / "language", f"{code}\n".encode())
        return cls._look(shelf, code, tuple(item for item in news if item))

    @classmethod
    def _look(cls, shelf: Shelf, code: str, news: tuple[News, ...] = ()) -> "Workspace":
        notebooks = _notebooks(shelf, code)
        earlier = {unit: tuple(other for other in shelf.of(unit) if other != name) for unit, name in notebooks.items()}
        return cls(shelf.root, code, notebooks, earlier, news)


def _language(root: Path) -> str:
    marker = root / ".kicourse" / "language"
    code = marker.read_text(encoding="utf-8").strip() if marker.is_file() else ""
    return code if code in course().languages else readers_language()


def _refuse_foreign(root: Path, named: Path) -> None:
    if not root.exists():
        return
    if not root.is_dir():
        raise UsageError(f"{named} is a file. Name a folder: kicourse lab DIR")
    is_foreign = any(not entry.name.lower().startswith(HARMLESS) for entry in root.iterdir())
    # In this order: another kicourse that makes a workspace here writes the manifest before anything else.
    if is_foreign and not manifest(root).is_file():
        raise UsageError(
            f"{named} holds other files and is not a workspace, so it was left alone. "
            "Name a new or an empty folder: kicourse lab DIR"
        )


@contextmanager
def _updating(root: Path) -> Iterator[None]:
    (root / ".kicourse").mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / ".kicourse" / "update.lock", timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        raise UserError(f"Another kicourse is busy updating {root}. Try again when it is done.") from error


def _releases(code: str) -> dict[str, bytes]:
    try:
        return {unit.slug: unit.exercise(code).read_bytes() for unit in course().finished}
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is not built. Build it with: kicourse build") from error


def _notebooks(shelf: Shelf, code: str) -> dict[str, str]:
    editions = {unit: Copy(unit, code, digest(release)) for unit, release in _releases(code).items()}
    return {unit: shelf.current(copy) or f"{unit}.ipynb" for unit, copy in editions.items()}


def _copies(root: Path) -> dict[str, Copy]:
    """Read the manifest; what it does not say any more is found again by comparing files."""
    try:
        files = json.loads(manifest(root).read_bytes())["files"]
        return {name: Copy(**copy) for name, copy in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _save(shelf: Shelf) -> None:
    files = {name: asdict(copy) for name, copy in sorted(shelf.copies.items())}
    content = json.dumps({"version": __version__, "files": files}, indent=1)
    write(manifest(shelf.root), f"{content}\n".encode())
