"""The reader's language, and the gettext catalogues that hold everything not written in English."""

import os
from functools import cache
from pathlib import Path

from kicourse.errors import UserError
from kicourse.syllabus import course, course_root

SOURCE = "en"
VARIABLE = "KICOURSE_LANG"


def language() -> str:
    """The reader's language: KICOURSE_LANG, else what the workspace or class folder says, else English.

    A folder says it in `.kicourse/language` (one line); a folder of the repository by its name, as in `exercises/de`.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen in course().languages:
        return chosen
    return _folder_language(Path.cwd())


@cache
def _folder_language(folder: Path) -> str:
    for place in (folder, *folder.parents):
        marker = place / ".kicourse" / "language"
        if marker.is_file() and (code := marker.read_text(encoding="utf-8").strip()) in course().languages:
            return code
        if place.parent.name in ("exercises", "solutions") and place.name in course().languages:
            return place.name
    return SOURCE


def _(message: str) -> str:
    """Mark a message of a check for the catalogues; it is translated when it is shown."""
    return message


def translate(domain: str, message: str, code: str | None = None) -> str:
    """Return `message` in the reader's language (or `code`); the message itself where the catalogue lacks it.

    A domain is a unit's slug, "syllabus", or "kicourse" for the words that all checks share.
    """
    code = code or language()
    return message if code == SOURCE else catalogue(code, domain).get(message, message)


class TranslatableError(UserError):
    """A UserError that can be told in any language: sentences of the catalogue, and the values that fill them in.

    As text it is English, as the command line is.
    """

    def __init__(self, *sentences: str, **values: object) -> None:
        super().__init__(*sentences)
        self.sentences, self.values = sentences, values

    def __str__(self) -> str:
        return self.told(SOURCE)

    def told(self, code: str) -> str:
        """Return the message in a language."""
        message = " ".join(translate("kicourse", sentence, code) for sentence in self.sentences)
        return message.format(**self.values)


@cache
def catalogue(code: str, domain: str) -> dict[str, str]:
    """The translations of one domain, read once; empty where there is no such catalogue."""
    path = course_root() / "course" / "locale" / code / f"{domain}.po"
    if not path.is_file():
        return {}
    from babel.messages.pofile import read_po

    with path.open("rb") as file:
        entries = read_po(file, locale=code)
    return {str(m.id): str(m.string) for m in entries if m.id and m.string and not m.fuzzy}


def read_catalogues() -> None:
    """Read what is needed of every finished unit now, for processes that are forked from this one."""
    for code in course().languages:
        for domain in ("kicourse", *(unit.slug for unit in course().finished)):
            catalogue(code, domain)
