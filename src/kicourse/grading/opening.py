"""Reading a learner's notebook file, with a clear word about what is wrong with it."""

import json
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from kicourse.errors import UsageError
from kicourse.language import SOURCE
from kicourse.syllabus import Unit, course

FORMAT = 4
ANEW = "`kicourse lab` puts a fresh copy of every notebook into a new folder; move your solutions over."


class UnreadableNotebookError(UsageError):
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
        raise UnreadableNotebookError(f"It has lost the metadata that say which unit it is. {ANEW}")
    language = about.get("lang")
    known = isinstance(language, str) and language in course().languages
    return OpenNotebook(path, course().unit(about["unit"]), str(language) if known else SOURCE, node)


def _node(path: Path) -> NotebookNode:
    import nbformat

    text = _text(path)
    _require_format(path, text)
    try:
        node = nbformat.v4.reads_json(text)
        nbformat.validate(node, relax_add_props=True)
    except Exception as error:  # whatever a damaged file makes nbformat stumble over
        raise UnreadableNotebookError(f"It is a damaged notebook ({_first_line(error)}). {ANEW}") from error
    return node


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UnreadableNotebookError(f"It cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UnreadableNotebookError("It is not a notebook: its content is not text.") from error


def _require_format(path: Path, text: str) -> None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableNotebookError(f"It is not a notebook: {_why_not_json(text)}") from error
    if not isinstance(content, dict) or "nbformat" not in content:
        raise UnreadableNotebookError("It is JSON, but not a notebook. Name a notebook of the course.")
    version = content["nbformat"]
    if version == FORMAT:
        return
    is_older = isinstance(version, int) and version < FORMAT
    convert = f"Convert it: jupyter nbconvert --to notebook --inplace {path}"
    advice = convert if is_older else f"Save it in format {FORMAT}, or update kicourse."
    raise UnreadableNotebookError(f"It is in notebook format {version}; kicourse reads format {FORMAT}. {advice}")


def _why_not_json(text: str) -> str:
    if not text.strip():
        return f"the file is empty. {ANEW}"
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(("<<<<<<<", ">>>>>>>")):
            return f"line {number} is a merge conflict of git. Settle the conflict and try again."
    return f"its content is not JSON. {ANEW}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
