"""course/ -> exercises/ and solutions/."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from kicourse import syllabus
from kicourse.authoring import catalogues, contents, notebooks
from kicourse.authoring.rules import problems
from kicourse.authoring.source import RefusedError, read, unit_checks
from kicourse.errors import UsageError
from kicourse.syllabus import Unit


def run(units: list[str] | None = None, check: bool = False, extract: bool = False) -> int:
    """Build as `build` does, say what changed, and return the exit status: 1 if something was out of date."""
    if check and extract:
        raise UsageError("--check writes nothing and --extract writes catalogues: use one of them.")
    for path in _extract(units) if extract else []:
        print(f"updated {_relative(path)}")
    changed = build(units, check)
    for path in changed:
        print(_outcome(path, check))
    if check and changed:
        print("Run `kicourse build` and commit what it writes.")
    return int(check and bool(changed))


def build(units: list[str] | None = None, check: bool = False) -> list[Path]:
    """Build the notebooks of these units, or of all finished ones, and the README of each language.

    Returns the files that changed, those of units that no longer exist included: they are removed. With `check`,
    nothing is written or removed, and the files returned are those that are out of date.
    Raises UnknownUnitError for a unit that does not exist and RefusedError for one that cannot be built.
    """
    chosen = [syllabus.course().unit(slug) for slug in units or [unit.slug for unit in syllabus.course().finished]]
    wanted: dict[Path, str] = {}
    for unit in chosen:
        wanted |= built(unit)
    for code in syllabus.course().languages:
        wanted[syllabus.course_root() / "exercises" / code / "README.md"] = contents.readme(code)
    leftover = [] if units else sorted(_leftover())
    changed = [path for path, text in wanted.items() if _content(path) != text]
    if not check:
        _write({path: wanted[path] for path in changed}, leftover)
    return changed + leftover


def built(unit: Unit) -> dict[Path, str]:
    """Return the text of each notebook of a unit. Raises RefusedError with everything that is wrong with it."""
    source, checks = read(unit), unit_checks(unit.slug)
    found = list(problems(source, checks))
    if unit.finished:
        found += catalogues.problems(unit.slug)
    if found:
        raise RefusedError(found)
    texts: dict[Path, str] = {}
    for code in syllabus.course().languages:
        solved = notebooks.solution(source, checks, code, catalogues.translator(unit.slug, code))
        texts[unit.solution(code)] = notebooks.render(solved)
        texts[unit.exercise(code)] = notebooks.render(notebooks.exercise(solved))
    return texts


def _extract(units: list[str] | None) -> list[Path]:
    domains = units or [*catalogues.SHARED, *(unit.slug for unit in syllabus.course().finished)]
    return [path for domain in domains for path in catalogues.extract(domain)]


def _outcome(path: Path, check: bool) -> str:
    if check:
        return f"out of date: {_relative(path)}"
    return f"built {_relative(path)}" if path.is_file() else f"removed {_relative(path)}"


def _relative(path: Path) -> str:
    return path.relative_to(syllabus.course_root()).as_posix()


def _leftover() -> Iterator[Path]:
    """Built notebooks whose unit or language is gone."""
    course = syllabus.course()
    expected = {
        path
        for unit in course.units
        if unit.source.is_file()
        for code in course.languages
        for path in (unit.exercise(code), unit.solution(code))
    }
    for room in ("exercises", "solutions"):
        for path in (syllabus.course_root() / room).rglob("*.ipynb"):
            if path not in expected and ".ipynb_checkpoints" not in path.parts:
                yield path


def _content(path: Path) -> str | None:
    return path.read_bytes().decode("utf-8", errors="replace") if path.is_file() else None


def _write(texts: Mapping[Path, str], leftover: list[Path]) -> None:
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    for path in leftover:
        path.unlink()
