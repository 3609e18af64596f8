"""An instructor's folder, in nbgrader's own layout: source, release, gradebook.db, nbgrader_config.py."""

import os
import re
import shlex
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

import kicourse
from kicourse.errors import UsageError, UserError
from kicourse.grading.open_class import require_usable_path
from kicourse.syllabus import Unit, course

CONFIGURATION = '''"""How nbgrader works in this class. Made by `kicourse class new`, and yours to change."""

from pathlib import Path

from kicourse.grading import class_folder

c = get_config()  # noqa: F821
folder = Path(__file__).resolve().parent
class_folder.prepare(folder)

c.CourseDirectory.root = str(folder)
c.CourseDirectory.course_id = "{course_id}"

# `nbgrader autograde` and the formgrader's button hand submissions to the judge: what was handed in is rebuilt from
# the release and runs in a sandbox, and nothing else of it is read or copied.
c.Autograde.exporter_class = "kicourse.grading.nbgrader_seam.JudgedNotebook"
c.Autograde.sanitize_preprocessors = []
c.Autograde.autograde_preprocessors = [
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
]
c.CourseDirectory.ignore = ["*"]
# `nbgrader generate_feedback` and its button make the same pages. No cell can hold them, or the formgrader's views, up.
c.GenerateFeedback.exporter_class = "kicourse.grading.pages.Pages"
c.HTMLExporter.filters = {{"highlight_code": "kicourse.grading.pages.Coloured"}}
'''

NEXT = """{folder} is a class folder with {count} assignment(s).
  release/ holds what students get; collect into submitted/STUDENT/{first}/{first}.ipynb, then:
  kicourse grade {folder}"""


def new(folder: Path, language: str | None = None, units: Sequence[str] | None = None) -> Path:
    """Lay out a class folder for the given units (default: every finished one), say what is next, and return it.

    nbgrader generates the release and registers the assignments, so that its commands work on the folder as it is.
    The folder appears complete or not at all. Raises UsageError for a folder that holds something already, for a
    unit or a language that does not exist; UserError where the folder cannot be written.
    """
    code = course().language(language or "en")
    chosen = [course().unit(slug) for slug in dict.fromkeys(units or ())] or list(course().finished)
    folder = folder.expanduser().resolve()
    _require_free(folder)
    require_usable_path(folder)
    console = Console(highlight=False)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            made = Path(scratch) / "class"
            _write(made, folder.name, code, chosen)
            with console.status("nbgrader makes the release ..."):
                _generate(made, chosen)
            if folder.exists():
                folder.rmdir()
            made.rename(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}). Choose another folder.") from error
    console.print(NEXT.format(folder=shlex.quote(str(folder)), count=len(chosen), first=chosen[0].slug), soft_wrap=True)
    return folder


def prepare(folder: Path) -> None:
    """Make nbgrader ready to work on a class folder; warn when it was made with another version of the course."""
    # nbgrader calls `alembic` by its name, which is found only where the environment is activated.
    scripts = sysconfig.get_path("scripts")
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    if "nbgrader" in sys.modules:  # `kicourse grade` reads these settings too, and starts its workers first
        from kicourse.grading import nbgrader_seam

        nbgrader_seam.prepare_nbgrader()
    made_with = (folder / ".kicourse" / "version").read_text(encoding="utf-8").strip()
    if made_with != kicourse.__version__:
        print(
            f"WARNING: this class folder was made with kicourse {made_with}, but {kicourse.__version__} is installed,"
            f" and may give other marks. To have the former: pip install kicourse=={made_with}",
            file=sys.stderr,
        )


def _require_free(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if (folder / "nbgrader_config.py").exists():
        raise UsageError(
            f"{folder} is a class folder already, and is left as it is. Name a folder that does not exist."
        )
    if folder.exists():
        raise UsageError(f"{folder} is not empty. Name a folder that does not exist.")


def _write(made: Path, name: str, language: str, units: Sequence[Unit]) -> None:
    """Write everything that nbgrader starts from."""
    for unit in units:
        source = unit.solution(language)
        if not source.is_file():
            raise UserError(f"The notebook of '{unit.slug}' is not built. Run `kicourse build {unit.slug}` first.")
        target = made / "source" / unit.slug / source.name
        target.parent.mkdir(parents=True)
        shutil.copyfile(source, target)
    marks = made / ".kicourse"
    marks.mkdir()
    (marks / "language").write_text(f"{language}\n", encoding="utf-8")
    (marks / "version").write_text(f"{kicourse.__version__}\n", encoding="utf-8")
    (made / "submitted").mkdir()
    configuration = CONFIGURATION.format(
        course_id=re.sub(r"\W+", "-", name).strip("-") or "course",
    )
    (made / "nbgrader_config.py").write_text(configuration, encoding="utf-8")


def _generate(made: Path, units: Sequence[Unit]) -> None:
    """Let nbgrader make release/ and register the assignments in gradebook.db."""
    from nbgrader.apps import NbGraderAPI
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import PyFileConfigLoader

    config: Any = PyFileConfigLoader("nbgrader_config.py", path=str(made)).load_config()
    api = NbGraderAPI(coursedir=CourseDirectory(config=config), config=config)
    for unit in units:
        outcome = api.generate_assignment(unit.slug)
        if not outcome["success"]:
            raise UserError(f"nbgrader could not make the release of '{unit.slug}': {_last_line(outcome)}")


def _last_line(outcome: dict[str, Any]) -> str:
    lines = str(outcome.get("log") or outcome["error"]).splitlines()
    # nbgrader's last lines only point to the traceback above them, whose last line says what happened.
    return next((line.strip() for line in reversed(lines) if line.startswith("    ") and line.strip()), lines[-1])
