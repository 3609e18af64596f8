"""Reading a learner's notebook file, with a clear word about what is wrong with it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from kicourse.errors import UsageError
from kicourse.language import SOURCE, TranslatableError, _
from kicourse.syllabus import Unit, course

FORMAT = 4
MOST_DIGITS = 20
ANEW = _("`kicourse lab` puts a fresh copy of every notebook into a new folder; move your solutions over.")


class UnreadableNotebookError(TranslatableError, UsageError):
    """A file that is not a notebook of the course; the message says what it is, and what to do."""


@dataclass(frozen=True)
class OpenNotebook:
    """A notebook of the course, and the unit and language it says it is in."""

    path: Path
    unit: Unit
    language: str
    node: NotebookNode


def open_notebook(path: Path) -> OpenNotebook:
    """Read a notebook of the course.

    Raises UnreadableNotebookError for a file that is no notebook, is of another format version or has lost its
    metadata, and UnknownUnitError for one whose unit the course does not have.
    """
    node = _node(path)
    about = node.metadata.get("kicourse")
    if not isinstance(about, dict) or not isinstance(about.get("unit"), str):
        raise UnreadableNotebookError(_("It has lost the metadata that say which unit it is."), ANEW)
    language = about.get("lang")
    known = isinstance(language, str) and language in course().languages
    return OpenNotebook(path, course().unit(about["unit"]), str(language) if known else SOURCE, node)


def content(data: bytes, name: str) -> dict[str, Any]:
    """Return what a notebook file holds: JSON that says it is a notebook of the right format, and nothing more.

    It may come from anyone, and any part may be of any type. `name` is what advice calls the file. Raises
    UnreadableNotebookError, whose message quotes nothing from the file but a number.
    """
    text = _text(data)
    try:
        # Python writes NaN into outputs, and Python refuses numbers of many digits: neither spoils the cells.
        held = json.loads(text, parse_int=_whole_number, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise _not_json(text) from error
    version = held.get("nbformat") if isinstance(held, dict) else None
    if type(version) is not int:
        raise UnreadableNotebookError(_("It is JSON, but not a notebook. Choose a notebook of the course."))
    if version != FORMAT:
        convert = _("Convert it: jupyter nbconvert --to notebook --inplace {name}")
        advice = convert if version < FORMAT else _("Save it in format {readable}, or update kicourse.")
        problem = _("It is in notebook format {version}; kicourse reads format {readable}.")
        raise UnreadableNotebookError(problem, advice, version=version, readable=FORMAT, name=name)
    return dict(held)


def _node(path: Path) -> NotebookNode:
    import nbformat

    data = _data(path)
    content(data, str(path))
    try:
        node = nbformat.v4.reads_json(_text(data))
        nbformat.validate(node, relax_add_props=True)
    except Exception as error:  # whatever a damaged file makes nbformat stumble over
        problem = _("It is a damaged notebook ({error}).")
        raise UnreadableNotebookError(problem, ANEW, error=_first_line(error)) from error
    return node


def _data(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableNotebookError(_("It cannot be read: {error}."), error=error.strerror) from error


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableNotebookError(_("It is not a notebook: its content is not text."), ANEW) from error


def _whole_number(digits: str) -> int | None:
    return int(digits) if len(digits) <= MOST_DIGITS else None


def _not_json(text: str) -> UnreadableNotebookError:
    if not text.strip():
        return UnreadableNotebookError(_("It is not a notebook: the file is empty."), ANEW)
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(("<<<<<<<", ">>>>>>>")):
            problem = _("It is not a notebook: line {number} is a merge conflict of git.")
            return UnreadableNotebookError(problem, _("Settle the conflict and try again."), number=number)
    return UnreadableNotebookError(_("It is not a notebook: its content is not JSON."), ANEW)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
