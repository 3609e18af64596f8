"""The syllabus: which units there are, in which order, and where their files lie."""

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kicourse.errors import UsageError


class UnknownUnitError(UsageError):
    """A unit, or a language, that does not exist; the message names the nearest one."""


@dataclass(frozen=True)
class Limits:
    """What one run of a unit may use in grading: a cell's seconds and printed characters, and what counts in all."""

    seconds: float = 120
    characters: int = 50_000
    mebibytes: int = 2048
    processes: int = 64
    threads: int = 256
    disk_mebibytes: int = 512
    files: int = 5_000


@dataclass(frozen=True)
class Unit:
    """One notebook of the curriculum.

    Titles are English; `kicourse.language.translate("syllabus", unit.title)` gives the reader's language.
    """

    slug: str
    title: str
    minutes: int
    part: str
    prerequisites: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    gpt: bool = False
    finished: bool = False
    limits: Limits = Limits()
    preload: tuple[str, ...] = ()
    player_preload: tuple[str, ...] = ()

    @property
    def source(self) -> Path:
        """The text file that its author writes."""
        return course_root() / "course" / f"{self.slug}.py"

    def catalogue(self, language: str) -> Path:
        """Its translation, a gettext catalogue."""
        return course_root() / "course" / "locale" / language / f"{self.slug}.po"

    def exercise(self, language: str) -> Path:
        """The built notebook that learners open."""
        return course_root() / "exercises" / language / f"{self.slug}.ipynb"

    def solution(self, language: str) -> Path:
        """The built notebook with its solutions."""
        return course_root() / "solutions" / language / f"{self.slug}.ipynb"


@dataclass(frozen=True)
class Part:
    """A part of the course: units that belong together, in order."""

    slug: str
    title: str
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class Course:
    """The whole course, in order."""

    title: str
    languages: tuple[str, ...]
    core_path: tuple[str, ...]
    roles: dict[str, str]
    parts: tuple[Part, ...]

    @property
    def units(self) -> tuple[Unit, ...]:
        """Every unit, announced ones included, in order."""
        return tuple(unit for part in self.parts for unit in part.units)

    @property
    def finished(self) -> tuple[Unit, ...]:
        """The units that a learner can work through today, in order."""
        return tuple(unit for unit in self.units if unit.finished)

    def unit(self, slug: str) -> Unit:
        """Return the unit `slug`, finished or a draft with a source of its own.

        Raises UnknownUnitError, naming the nearest one, if there is none.
        """
        for unit in self.units:
            if unit.slug == slug and (unit.finished or unit.source.is_file()):
                return unit
        if any(unit.slug == slug for unit in self.units):
            raise UnknownUnitError(f"The unit '{slug}' is announced but not written yet.")
        raise UnknownUnitError(_unknown("unit", slug, [unit.slug for unit in self.finished]))

    def language(self, code: str) -> str:
        """Return `code` if the course is written in it; raise UnknownUnitError otherwise."""
        if code in self.languages:
            return code
        raise UnknownUnitError(_unknown("language", code, list(self.languages)))


def _unknown(kind: str, name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    guess = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return f"There is no {kind} '{name}'.{guess} There are: {', '.join(known)}."


@cache
def course_root() -> Path:
    """The folder that holds course/, exercises/ and solutions/: beside the package in a wheel, above it in a clone."""
    package = Path(__file__).resolve().parent
    installed = package / "_course"
    return installed if installed.is_dir() else package.parent.parent


@cache
def course() -> Course:
    """Read course/syllabus.toml."""
    with (course_root() / "course" / "syllabus.toml").open("rb") as file:
        table = tomllib.load(file)
    return Course(
        title=table["course"]["title"],
        languages=tuple(table["course"]["languages"]),
        core_path=tuple(table["course"]["core_path"]),
        roles=table["roles"],
        parts=tuple(_part(part) for part in table["parts"]),
    )


def _part(table: dict[str, Any]) -> Part:
    units = tuple(_unit(unit, table["slug"]) for unit in table["units"])
    return Part(slug=table["slug"], title=table["title"], units=units)


def _unit(table: dict[str, Any], part: str) -> Unit:
    known: dict[str, Any] = dict(table)
    for name in ("prerequisites", "roles", "preload", "player_preload"):
        known[name] = tuple(table.get(name, ()))
    known["limits"] = Limits(**table.get("limits", {}))
    return Unit(part=part, **known)
