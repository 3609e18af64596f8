"""The gettext catalogues of the other languages: what they must hold, keeping them up to date, and what is missing.

A domain is a unit's slug, "syllabus" (titles) or "kicourse" (the words that all units share).
"""

import ast
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.pofile import PoFileError, read_po, write_po

from kicourse import syllabus
from kicourse.authoring import prose
from kicourse.authoring.source import RefusedError, read
from kicourse.language import SOURCE

SHARED = ("syllabus", "kicourse")
_HEADER = (
    'msgid ""\nmsgstr ""\n"Language: {language}\\n"\n"MIME-Version: 1.0\\n"\n'
    '"Content-Type: text/plain; charset=utf-8\\n"\n"Content-Transfer-Encoding: 8bit\\n"\n\n'
)


@dataclass(frozen=True)
class Phrase:
    """One message of the English edition.

    `place` is the file it stands in; `formatted` says that str.format may fill in its {placeholders}.
    """

    text: str
    place: str
    formatted: bool = False


def languages() -> list[str]:
    """The languages that need catalogues."""
    return [code for code in syllabus.course().languages if code != SOURCE]


def phrases(domain: str) -> list[Phrase]:
    """Everything that a catalogue of this domain must translate, in order."""
    if domain == "syllabus":
        return _syllabus_phrases()
    if domain == "kicourse":
        return _package_phrases()
    return _unit_phrases(domain)


def load(domain: str, language: str) -> dict[str, str]:
    """The translations of a domain as they lie on the disk; unsure ("fuzzy") and empty ones are left out."""
    entries = _read(domain, language)
    return {str(entry.id): str(entry.string) for entry in entries if entry.id and entry.string and not entry.fuzzy}


def translator(domain: str, language: str) -> Callable[[str], str]:
    """A function that translates a message of this domain, and leaves alone what has no translation."""
    found = {} if language == SOURCE else load(domain, language)
    return lambda text: found.get(text, text)


def extract(domain: str) -> list[Path]:
    """Bring the catalogues of a domain up to date; return those that changed.

    Translations are kept; new messages come in empty, or with the translation of the message they seem to replace,
    marked fuzzy; what no longer occurs goes.
    """
    wanted = phrases(domain)
    return [path for code in languages() if (path := _update(domain, code, wanted))]


def untranslated(domain: str, language: str = "de") -> list[str]:
    """The messages that have no translation, or an unsure one."""
    found = load(domain, language)
    return list(dict.fromkeys(phrase.text for phrase in phrases(domain) if phrase.text not in found))


def stale(domain: str, language: str = "de") -> list[str]:
    """The messages of the catalogue that occur nowhere any more."""
    wanted = {phrase.text for phrase in phrases(domain)}
    return [str(entry.id) for entry in _read(domain, language) if entry.id and entry.id not in wanted]


def mismatched(domain: str, language: str = "de") -> list[str]:
    """The messages whose {placeholders} differ from those of their translation."""
    found = load(domain, language)
    texts = dict.fromkeys(phrase.text for phrase in phrases(domain) if phrase.formatted)
    return [text for text in texts if text in found and _placeholders(text) != _placeholders(found[text])]


def problems(domain: str) -> Iterator[str]:
    """Every fault of a domain's catalogues, as lines for its author."""
    for code in languages():
        name = _place(_path(domain, code))
        for fault, messages in (
            ("not translated, or unsure (kicourse build --extract brings them in)", untranslated(domain, code)),
            ("no longer used (kicourse build --extract removes them)", stale(domain, code)),
            ("translated with other {placeholders}", mismatched(domain, code)),
        ):
            if messages:
                yield f"{name}: {len(messages)} {fault}; the first: {_short(messages[0])}"


def _path(domain: str, language: str) -> Path:
    return syllabus.course_root() / "course" / "locale" / language / f"{domain}.po"


def _read(domain: str, language: str) -> Catalog:
    path = _path(domain, language)
    if not path.is_file():
        return Catalog(locale=language)
    with path.open("rb") as file:
        try:
            return read_po(file, locale=language, abort_invalid=True)
        except PoFileError as error:
            raise RefusedError([f"{_place(path)}: this is not a gettext catalogue: {error}."]) from None


def _update(domain: str, language: str, wanted: list[Phrase]) -> Path | None:
    template = Catalog()
    for phrase in wanted:
        message = template.add(phrase.text, locations=[(phrase.place, None)])
        # Babel guesses from the text; prose with a percent sign or braces is no format.
        message.flags -= {"python-format", "python-brace-format"}
        message.flags |= {"python-brace-format"} if phrase.formatted and "{" in phrase.text else set()
    catalogue = _read(domain, language)
    catalogue.update(template)
    for message in catalogue:
        message.flags = {"fuzzy"} & message.flags | template[message.id].flags if message.id else message.flags
    return _write(_path(domain, language), _render(catalogue, language))


def _render(catalogue: Catalog, language: str) -> bytes:
    file = BytesIO()
    write_po(file, catalogue, width=100, omit_header=True, ignore_obsolete=True, include_lineno=False)
    return _HEADER.format(language=language).encode() + file.getvalue().strip() + b"\n"


def _write(path: Path, content: bytes) -> Path | None:
    if path.is_file() and path.read_bytes() == content:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _syllabus_phrases() -> list[Phrase]:
    course = syllabus.course()
    titles = [course.title, *course.roles.values()]
    for part in course.parts:
        titles += [part.title, *(unit.title for unit in part.units)]
    return [Phrase(title, "course/syllabus.toml") for title in titles]


def _package_phrases() -> list[Phrase]:
    """What the package says, the checks of the units left out: those are in their units' catalogues."""
    units = {unit.slug for unit in syllabus.course().units}
    found: list[Phrase] = []
    for path in sorted(_package().rglob("*.py")):
        if not (path.parent.name == "checks" and path.stem in units):
            found += _marked(ast.parse(path.read_text(encoding="utf-8")), "_", _place(path))
    return found


def _unit_phrases(slug: str) -> list[Phrase]:
    source = read(syllabus.course().unit(slug))
    name = f"course/{slug}.py"
    found: list[Phrase] = []
    for cell in source.cells:
        if cell.kind == "markdown":
            found += [Phrase(block, name) for block in prose.blocks(cell.text)]
        else:
            found += _marked(cell.tree, "text", name)
    checks = _checks_file(slug)
    return found + _marked(ast.parse(checks.read_text(encoding="utf-8")), "_", _place(checks))


def _marked(tree: ast.Module, marker: str, place: str) -> list[Phrase]:
    """The strings in calls of `marker`. Raises RefusedError where it is called with something else than a string."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_name(node.func, marker)]
    found = []
    for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
        match call.args:
            case [ast.Constant(str(text))]:
                found.append(Phrase(text, place, formatted=True))
            case _:
                code = ast.unparse(call)
                raise RefusedError(
                    [f'{place}: {code} cannot be translated: write {marker}("...") with a plain string.']
                )
    return found


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _package() -> Path:
    """The package's own folder."""
    return Path(__file__).resolve().parent.parent


def _checks_file(slug: str) -> Path:
    from importlib.util import find_spec

    spec = find_spec(f"kicourse.checks.{slug}")
    if spec is None or spec.origin is None:
        raise RefusedError([f"The unit '{slug}' has no checks: write src/kicourse/checks/{slug}.py."])
    return Path(spec.origin)


def _place(path: Path) -> str:
    """A file's name in the repository, wherever the package is installed."""
    if path.is_relative_to(_package()):
        return f"src/kicourse/{path.relative_to(_package()).as_posix()}"
    return path.relative_to(syllabus.course_root()).as_posix()


def _placeholders(text: str) -> set[str] | None:
    """The names in braces, or None if the braces do not match."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError:
        return None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:79]}…"
