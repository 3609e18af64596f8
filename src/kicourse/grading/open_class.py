"""A class folder that is being graded: its settings, its releases, and what was handed in."""

import math
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import kicourse
from kicourse import checks
from kicourse.errors import UsageError, UserError
from kicourse.grading import submitted
from kicourse.grading.placing import safe_name
from kicourse.grading.seeds import secret_of
from kicourse.language import _, translate
from kicourse.syllabus import Limits, UnknownUnitError, course

PLACE = ".kicourse"
_NOTEBOOK = ".ipynb"
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
_IS_LINK = "it is a link, and none is followed"
_UNUSABLE = re.compile("[?*[]|%[0-9A-Fa-f]{2}")  # in patterns of names, and in addresses
_HIGHEST_LIMIT = 1_000_000  # seconds are some days; the system counts milliseconds in 32 bits
_PASSWORD = re.compile(r"(?<=://)([^:/]*:)[^/]*@|([?&]password=)[^&]*")
# As nbgrader writes them, and as the guide does: to import nbgrader takes a second, and 40 MiB.
_USUAL_MOMENTS = ("%Y-%m-%d %H:%M:%S.%f UTC", "%Y-%m-%d %H:%M:%S UTC")
LONGEST_TIMESTAMP = 100  # characters: what reads dates takes minutes for a million digits


@dataclass(frozen=True)
class Release:
    """A unit of a class as its students got it."""

    unit: str
    content: bytes
    limits: Limits

    @cached_property
    def node(self) -> Any:
        """The notebook."""
        import nbformat

        return nbformat.reads(self.content.decode("utf-8"), as_version=4)


@dataclass(frozen=True)
class Submission:
    """What a student handed in for a unit: the file's content, or why there is none that can be read."""

    student: str
    unit: str
    content: bytes
    unreadable: str = ""
    timestamp: str | None = None

    def without_content(self) -> "Submission":
        """Return the same, without what takes memory."""
        return replace(self, content=b"")


@dataclass(frozen=True)
class OpenClass:
    """A class folder, opened for grading."""

    root: Path
    language: str
    db_url: str
    course_id: str
    config: Any
    releases: dict[str, Release]

    @property
    def place(self) -> Path:
        """The folder that is kicourse's own."""
        return self.root / PLACE

    @property
    def shown_db_url(self) -> str:
        """Where the gradebook is, without a password."""
        return without_password(self.db_url)

    @property
    def lock(self) -> Path:
        """The file that a grader locks while it is at work."""
        return self.place / "grading.lock"

    @cached_property
    def secret(self) -> bytes:
        """What the seeds of this class are derived from."""
        return secret_of(self.place / "secret")

    def chosen(self, units: Sequence[str]) -> list[Release]:
        """Return the releases of these units, or all. Raises UnknownUnitError for one that the class does not have."""
        for unit in units:
            if unit not in self.releases:
                raise UnknownUnitError(
                    f"This class does not have the unit '{unit}'. It has: {', '.join(self.releases)}."
                )
        return [self.releases[unit] for unit in dict.fromkeys(units or self.releases)]

    def students(self) -> list[str]:
        """Return everybody who handed something in."""
        return sorted(name for name in _folders(self.root / "submitted") if safe_name(name))

    def overlooked(self, units: Sequence[str], students: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield what lies in submitted/ and is not graded, as paths below it, with the reason.

        Of what somebody has chosen: with `students`, what is theirs; with `units`, no others.
        """
        place = self.root / "submitted"
        for name in _names(place.resolve()) if not students else ():  # submitted/ itself may be a link
            if (place / name).is_symlink():
                yield name, _IS_LINK
            elif not (place / name).is_dir():
                if not name.startswith("."):  # systems leave files of their own
                    yield name, f"a submission lies in submitted/STUDENT/UNIT/UNIT{_NOTEBOOK}"
            elif not safe_name(name):
                yield name, "its name can be no student's"
        for student in students or self.students():
            yield from self._overlooked_of(student, units)

    def _overlooked_of(self, student: str, units: Sequence[str]) -> Iterator[tuple[str, str]]:
        folder = self.root / "submitted" / student
        if not os.access(folder, os.R_OK | os.X_OK):
            yield student, "it cannot be read"
        for name in _names(folder):
            if name not in self.releases and (folder / name).is_symlink():
                yield f"{student}/{name}", _IS_LINK
            elif _is_notebook(name) and not (folder / name).is_dir():
                yield f"{student}/{name}", f"it belongs into a folder: {student}/UNIT/UNIT{_NOTEBOOK}"
            elif name.endswith(_ARCHIVES):
                yield f"{student}/{name}", f"unpack it: {student}/UNIT/UNIT{_NOTEBOOK}"
            elif name in self.releases:
                if not units or name in units:
                    yield from self._beside(student, name)
                stamped = os.path.lexists(folder / name / "timestamp.txt") and (not units or name in units)
                if stamped and self._timestamp(student, name) is None:
                    yield f"{student}/{name}/timestamp.txt", 'it names no time, as "2026-03-01 10:00:00 UTC" does'
            elif not units and not name.startswith(".") and (folder / name).is_dir():
                release = f"its release is missing: run `nbgrader generate_assignment {name}`"
                yield f"{student}/{name}", release if self._has_lost(name) else "the class does not have this unit"

    def _beside(self, student: str, unit: str) -> Iterator[tuple[str, str]]:
        """Yield what lies beside a submission and could be meant to be one."""
        names = _names(self.root / "submitted" / student / unit)
        for name in names if f"{unit}{_NOTEBOOK}" in names else ():  # otherwise the feedback names one
            if (_is_notebook(name) and name != f"{unit}{_NOTEBOOK}") or name.endswith(_ARCHIVES):
                yield f"{student}/{unit}/{name}", f"what counts is {unit}{_NOTEBOOK}"

    def has_ungraded(self, students: Sequence[str]) -> bool:
        """Whether these students (default: all) handed in a unit of the class whose release is missing."""
        handed_in = {name for one in students or self.students() for name in _folders(self.root / "submitted" / one)}
        return any(self._has_lost(name) for name in handed_in - self.releases.keys())

    def _has_lost(self, unit: str) -> bool:
        return (self.root / "source" / unit).is_dir()

    def require_students(self, students: Sequence[str]) -> None:
        """Raise UsageError for a student who handed nothing in."""
        everybody = set(self.students()) if students else set()
        for student in students:
            if student not in everybody:
                raise UsageError(
                    f"There is no folder '{student}' in {self.root / 'submitted'}. Check the student's ID."
                )

    def submissions(self, units: Sequence[str], students: Sequence[str]) -> Iterator[Submission]:
        """Yield what these students (default: all) handed in for these units (default: all), unit by unit.

        Raises UsageError for a student who handed nothing in.
        """
        self.require_students(students)
        for release in self.chosen(units):
            for student in sorted(set(students)) if students else self.students():
                if os.path.lexists(self.root / "submitted" / student / release.unit):
                    yield self.submission(student, release.unit)

    def submission(self, student: str, unit: str) -> Submission:
        """Read what a student handed in for a unit."""
        content, unreadable = b"", ""
        try:
            content = submitted.read(self.root / "submitted", student, unit, f"{unit}.ipynb")
        except submitted.UnreadableSubmissionError as error:
            unreadable = error.told(self.language)
        except FileNotFoundError:
            unreadable = self._missing(student, unit)
        return Submission(student, unit, content, unreadable, self._timestamp(student, unit))

    def _missing(self, student: str, unit: str) -> str:
        names = list(filter(_is_notebook, _names(self.root / "submitted" / student / unit)))
        message = _("There is no {wanted} in what was handed in. Hand it in again.")
        if names:
            message = _("There is no {wanted} in what was handed in, but {found}. Hand it in again under that name.")
        template = translate("kicourse", message, self.language)
        return template.format(wanted=f"{unit}{_NOTEBOOK}", found=repr(names[0])[:80] if names else "")

    def _timestamp(self, student: str, unit: str) -> str | None:
        """Return what nbgrader's timestamp.txt says of when a submission was handed in, if that can be read."""
        try:
            text = submitted.read(self.root / "submitted", student, unit, "timestamp.txt").decode("utf-8")
        except (FileNotFoundError, submitted.UnreadableSubmissionError, ValueError):
            return None
        return text if len(text) <= LONGEST_TIMESTAMP and moment_of(text) else None


def without_password(url: str) -> str:
    """Return a database's address as it may be shown."""
    return _PASSWORD.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", url)


def moment_of(timestamp: str | None) -> datetime | None:
    """Return the moment (UTC) that a timestamp.txt names; None if it names none."""
    text = (timestamp or "").strip()
    if not text:
        return None
    for form in _USUAL_MOMENTS:
        with suppress(ValueError):
            return datetime.strptime(text, form)
    from nbgrader.utils import parse_utc

    try:
        moment: datetime | None = parse_utc(text)
    except (ValueError, OverflowError, TypeError):
        return None
    return moment


def open_class(root: Path, db_url: str | None = None) -> OpenClass:
    """Open a class folder made by `kicourse class new`.

    Raises UsageError for a folder that is none, UserError for one made with another version of the course, or whose
    settings cannot be read.
    """
    if db_url == "":
        raise UsageError("--db has no address. Give one, or leave it out: the class has a gradebook of its own.")
    root = root.expanduser().resolve()
    _require_class(root)
    require_usable_path(root)
    if (root / "submitted").is_dir() and not os.access(root / "submitted", os.R_OK | os.X_OK):
        raise UserError(f"{root / 'submitted'} cannot be read. Make the folder readable.")
    _require_version(_said(root / PLACE / "version"))
    config = _nbgrader_config(root)
    language = _said(root / PLACE / "language")
    return OpenClass(
        root=root,
        language=course().language(language),
        db_url=db_url or config.CourseDirectory.get("db_url") or f"sqlite:///{root / 'gradebook.db'}",
        course_id=config.CourseDirectory.get("course_id") or "default_course",
        config=config,
        releases=_releases(root),
    )


def _require_class(root: Path) -> None:
    missing = [name for name in ("nbgrader_config.py", "release", f"{PLACE}/version") if not (root / name).exists()]
    if missing:
        what = "There is no folder" if not root.exists() else f"No class folder (it lacks {', '.join(missing)}):"
        new = root if not root.exists() else "FOLDER"
        raise UsageError(f"{what} {root}. Make one: kicourse class new {new}")


def _said(path: Path) -> str:
    """Return what a file of one line says."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). Take it from a new class: kicourse class new") from error


def _require_version(made_with: str) -> None:
    if made_with != kicourse.__version__:
        raise UserError(
            f"This class was made with kicourse {made_with}, but {kicourse.__version__} is installed, and may give"
            f" other marks. Install the former (pip install kicourse=={made_with}), or, if all are to be graded anew"
            f" with this one, write {kicourse.__version__} into {PLACE}/version."
        )


def require_usable_path(root: Path) -> None:
    """Raise UsageError for a folder whose path means something else to nbgrader and to the address of a gradebook."""
    if found := _UNUSABLE.search(str(root)):
        raise UsageError(
            f"nbgrader cannot work in {root}: in a path, it takes '{found[0]}' for something else. Choose another name."
        )


def _nbgrader_config(root: Path) -> Any:
    """Return what nbgrader's configuration says: the class's own, before the user's and the machine's."""
    from jupyter_core.paths import jupyter_config_path
    from traitlets.config import Config, ConfigFileNotFound, JSONFileConfigLoader, PyFileConfigLoader

    config: Any = Config()
    for place in (*reversed(jupyter_config_path()), str(root)):
        for load, name in ((PyFileConfigLoader, "nbgrader_config.py"), (JSONFileConfigLoader, "nbgrader_config.json")):
            try:
                config.merge(load(name, path=place).load_config())
            except ConfigFileNotFound:
                continue
            except Exception as error:
                raise UserError(
                    f"{Path(place) / name} cannot be read: {error}. Mend it, or take it from a new class."
                ) from error
    return config


def _releases(root: Path) -> dict[str, Release]:
    own = _own_limits(root)
    known = {unit.slug: unit for unit in course().finished}
    releases = {}
    for slug, unit in known.items():
        path = root / "release" / slug / f"{slug}.ipynb"
        if path.is_file():
            release = Release(slug, path.read_bytes(), replace(unit.limits, **own.get(slug, {})))
            _require_notebook(path, release)
            releases[slug] = release
    if not releases:
        raise UsageError(
            f"{root / 'release'} holds no unit of the course. Run `nbgrader generate_assignment UNIT` in {root}."
        )
    return releases


def _require_notebook(path: Path, release: Release) -> None:
    import nbformat

    try:
        nbformat.validate(release.node)
        about = [cell.metadata.get("nbgrader", {}) for cell in release.node.cells]
        points = {str(one["grade_id"]): float(one["points"]) for one in about if one.get("grade")}
        known = {f"{task}-check": check.points for task, check in checks.load(release.unit).items()}
        if known.keys() - points.keys() or release.node.metadata["kicourse"]["unit"] != release.unit:
            raise ValueError("it is another notebook")
    except Exception as error:  # whatever a damaged file makes nbformat stumble over
        raise UserError(
            f"{path} is not what nbgrader has made any more. Make it anew: nbgrader generate_assignment {release.unit}"
            " --force"
        ) from error
    for cell, right in known.items():
        if points[cell] != right:
            raise UserError(
                f"{path} gives {points[cell]:g} points for '{cell}', whose check gives {right:g}. Write {right:g} in"
                f" source/ again, and run `nbgrader generate_assignment {release.unit} --force`; weigh tasks in"
                " grades.csv."
            )


def _own_limits(root: Path) -> dict[str, dict[str, Any]]:
    """Return the limits that an instructor has set in .kicourse/limits.toml, by unit."""
    path = root / PLACE / "limits.toml"
    if not path.is_file():
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Limits)}
        for slug, limits in table.items():
            if slug not in {unit.slug for unit in course().units}:
                raise ValueError(f"there is no unit {slug}")
            if not isinstance(limits, dict) or (unknown := sorted(set(limits) - known)):
                what = unknown[0] if isinstance(limits, dict) else slug
                raise ValueError(f"there is no limit {what}, but {', '.join(sorted(known))}")
            if any(type(value) not in (int, float) or not 0 < value < math.inf for value in limits.values()):
                raise ValueError(f"the limits of {slug} are no positive numbers")
            if any(value > _HIGHEST_LIMIT for value in limits.values()):
                raise ValueError(f"the limits of {slug} are higher than {_HIGHEST_LIMIT:,}")
            if any(name != "seconds" and not isinstance(value, int) for name, value in limits.items()):
                raise ValueError(f"the limits of {slug}, but for seconds, are no whole numbers")
    except (ValueError, TypeError) as error:
        raise UserError(f'{path} cannot be read ({error}). Write: [first_call] and below it "seconds = 60".') from error
    return table


def _names(place: Path) -> list[str]:
    """Return what lies in a folder; nothing if it cannot be read, or is a link."""
    try:
        return [] if place.is_symlink() else sorted(os.listdir(place))
    except OSError:
        return []


def _is_notebook(name: str) -> bool:
    return name.endswith(_NOTEBOOK) and not name.startswith(".")  # systems hide copies of their own


def _folders(place: Path) -> list[str]:
    try:
        with os.scandir(place) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
