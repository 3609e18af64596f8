"""Running notebooks headless: what `kicourse check` does."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from kicourse.errors import UsageError
from kicourse.grading.opening import OpenNotebook, open_notebook
from kicourse.grading.report import NotebookReport, as_json, as_junit, show

AT_ONCE = 2


def check_notebooks(paths: Sequence[Path], json: Path | None = None, junit: Path | None = None) -> int:
    """Run notebooks, print how every task went, and return the exit status: 0 only if all have full marks.

    Demonstrations are skipped, errors do not stop a notebook, and neither the files nor the learner's progress are
    changed. A file that is no notebook of the course is reported, and the others run all the same. Raises UsageError
    for a path that is no file, and for a report that could not be written.
    """
    _require_files(paths)
    for target in (json, junit):
        if target is not None and not target.resolve().parent.is_dir():
            raise UsageError(f"{target} cannot be written: its folder does not exist. Make the folder first.")
    console = Console()
    with console.status(f"Running {len(paths)} notebook{'s' * (len(paths) > 1)} ..."):
        reports = run(paths)
    if not console.is_terminal:
        console.width = 160
    show(reports, console)
    if json is not None:
        json.write_text(as_json(reports), encoding="utf-8")
    if junit is not None:
        junit.write_text(as_junit(reports), encoding="utf-8")
    return 0 if all(report.has_full_marks for report in reports) else 1


def run(paths: Sequence[Path]) -> list[NotebookReport]:
    """Run notebooks, several at once, and return how each went, in their order."""
    opened = [_open(path) for path in paths]
    with _language_model(opened):
        return asyncio.run(_run_all(paths, opened))


def _require_files(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir():
            raise UsageError(f"{path} is a folder. Name notebooks: kicourse check {path / '*.ipynb'}")
        if not path.exists():
            raise UsageError(f"There is no file {path}. Name the notebooks to run.")


def _open(path: Path) -> OpenNotebook | UsageError:
    try:
        return open_notebook(path)
    except UsageError as error:
        return error


async def _run_all(paths: Sequence[Path], opened: Sequence[OpenNotebook | UsageError]) -> list[NotebookReport]:
    slots = asyncio.Semaphore(AT_ONCE)
    return await asyncio.gather(*(_run(str(path), one, slots) for path, one in zip(paths, opened, strict=True)))


async def _run(name: str, notebook: OpenNotebook | UsageError, slots: asyncio.Semaphore) -> NotebookReport:
    if isinstance(notebook, UsageError):
        return NotebookReport(name, "", error=str(notebook))
    from kicourse.grading.execution import KernelError, execute
    from kicourse.grading.reading import report_of

    async with slots:
        try:
            seconds = await execute(notebook)
        except KernelError as error:
            return NotebookReport(name, notebook.unit.slug, error=str(error))
    return report_of(notebook, name, seconds)


@contextmanager
def _language_model(opened: Sequence[OpenNotebook | UsageError]) -> Iterator[None]:
    """Have the embedded GPT answer while a unit needs it, once for all notebooks."""
    if not any(isinstance(one, OpenNotebook) and one.unit.gpt for one in opened):
        yield
        return
    from kicourse.models import gpt

    with gpt.running():
        yield
