"""A course of its own for these tests, in a temporary folder."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from babel.messages.pofile import read_po, write_po

import kicourse.checks
import kicourse.language
import kicourse.syllabus
from kicourse.authoring import catalogues

from . import example


@dataclass(frozen=True)
class Desk:
    """An author's course: where its files lie, and how they are changed."""

    root: Path

    @property
    def source(self) -> Path:
        return self.root / "course" / "averages.py"

    @property
    def checks(self) -> Path:
        return self.root / "checks" / "averages.py"

    @property
    def catalogue(self) -> Path:
        return self.root / "course" / "locale" / "de" / "averages.po"

    def replace(self, file: Path, old: str, new: str) -> None:
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")
        forget()

    def translate(self, translations: dict[str, str]) -> None:
        """Bring the catalogue up to date and fill it in."""
        catalogues.extract("averages")
        with self.catalogue.open("rb") as file:
            catalogue = read_po(file)
        for message in catalogue:
            if message.id in translations:
                message.string = translations[message.id]
                message.flags.discard("fuzzy")
        with self.catalogue.open("wb") as file:
            write_po(file, catalogue)
        catalogues.extract("averages")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A course with one finished unit, translated."""
    desk = Desk(tmp_path)
    for file, text in (
        (desk.root / "course" / "syllabus.toml", example.SYLLABUS),
        (desk.source, example.UNIT),
        (desk.checks, example.CHECKS),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    monkeypatch.setattr(kicourse.syllabus, "course_root", lambda: desk.root)
    monkeypatch.setattr(kicourse.language, "course_root", lambda: desk.root)
    monkeypatch.setattr(kicourse.checks, "__path__", [*kicourse.checks.__path__, str(desk.checks.parent)])
    forget()
    desk.translate(example.GERMAN)
    yield desk
    forget()


def forget() -> None:
    kicourse.syllabus.course.cache_clear()
    kicourse.language.catalogue.cache_clear()
    sys.modules.pop("kicourse.checks.averages", None)
    vars(kicourse.checks).pop("averages", None)
