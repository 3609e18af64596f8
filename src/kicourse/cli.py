"""The `kicourse` command. Each subcommand is a few lines that call a room of the package."""

import atexit
import gc
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kicourse import __version__
from kicourse.errors import UserError
from kicourse.quick_imports import leave_grammar_out

app = typer.Typer(
    name="kicourse",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A graded Jupyter curriculum for people who want to become AI developers.",
    epilog="Start with: kicourse lab",
)
models_app = typer.Typer(no_args_is_help=True, help="The embedded models: what is installed, fetch, serve.")
class_app = typer.Typer(no_args_is_help=True, help="A class folder, for instructors.")
app.add_typer(models_app, name="models")
app.add_typer(class_app, name="class")

Language = Annotated[str | None, typer.Option("--lang", help="Language of the notebooks: en or de.", metavar="en|de")]
Units = Annotated[list[str] | None, typer.Argument(help="Units by slug; all finished ones by default.", metavar="UNIT")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the results to this file, as JSON.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kicourse {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


@app.command(epilog="Example: kicourse lab ~/kicourse --lang de")
def lab(
    folder: Annotated[Path, typer.Argument(help="Your workspace; made if it does not exist.")] = Path("workspace"),
    language: Language = None,
    port: Annotated[int, typer.Option("--port", help="The port to try first.")] = 8888,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
) -> None:
    """Open the course: your workspace in JupyterLab, with the embedded GPT running."""
    from kicourse.workspace import lab

    raise typer.Exit(lab.run(folder, _language(language), port, browser))


@app.command(epilog="Example: kicourse check workspace/first_call.ipynb --junit report.xml")
def check(
    notebooks: Annotated[list[Path], typer.Argument(help="Notebooks to run.", metavar="NOTEBOOK")],
    json: JsonFile = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write the results to this file, for CI.")] = None,
) -> None:
    """Run notebooks without a browser and report every task; exit 0 only if all have full marks."""
    from kicourse.grading import runner

    raise typer.Exit(runner.check_notebooks(notebooks, json, junit))


@app.command(epilog="Example: kicourse grade my-class --unit mini_gpt --workers 4 --json marks.json")
def grade(
    folder: Annotated[Path, typer.Argument(help="The class folder.", metavar="DIR")],
    units: Annotated[list[str] | None, typer.Option("--unit", help="A unit to grade; all by default.")] = None,
    students: Annotated[list[str] | None, typer.Option("--student", help="A student to grade; all by default.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Submissions at once; 0: one for each core.")] = 0,
    scheduler: Annotated[str | None, typer.Option("--scheduler", help="Grade on this running Dask cluster.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Grade anew what is graded and unchanged, too.")] = False,
    json: JsonFile = None,
    database: Annotated[str | None, typer.Option("--db", help="The gradebook, if not DIR/gradebook.db.")] = None,
    sandbox: Annotated[
        bool, typer.Option("--sandbox/--no-sandbox", help="Without it, submissions run with all your rights.")
    ] = True,
) -> None:
    """Grade what was handed in: marks into the gradebook, graded notebooks, feedback."""
    from kicourse.grading import grade as grading

    chosen = grading.Settings(units or (), students or (), workers, scheduler, force, sandbox, database, json)
    raise typer.Exit(grading.grade(folder, chosen))


@app.command(epilog="Example: kicourse status ~/kicourse")
def status(
    folder: Annotated[Path, typer.Argument(help="Your workspace.")] = Path("workspace"),
) -> None:
    """Show your progress."""
    from kicourse.workspace import status

    status.show(folder)


@app.command(epilog="Example: kicourse build --check mini_gpt")
def build(
    units: Units = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a notebook is out of date.")] = False,
    extract: Annotated[bool, typer.Option("--extract", help="Bring the catalogues up to date first.")] = False,
) -> None:
    """Build the notebooks from the sources in course/."""
    from kicourse.authoring import build

    raise typer.Exit(build.run(units, check=check, extract=extract))


@app.command(epilog="Example: kicourse audit mini_gpt --json audit.json")
def audit(units: Units = None, json: JsonFile = None) -> None:
    """Try changed reference solutions against the checks, and show the changes that no check notices."""
    from kicourse.authoring import audit

    raise typer.Exit(audit.run(units, json))


@app.command(epilog="Example: kicourse doctor")
def doctor() -> None:
    """Look at this machine: what is fine, what is not, and how to mend it."""
    from kicourse import doctor

    raise typer.Exit(doctor.run())


@models_app.command("list", epilog="Example: kicourse models list")
def list_models() -> None:
    """Show the embedded models: what is installed, where it came from, its licence."""
    from kicourse.models import weights

    weights.show()


@models_app.command(epilog="Example: kicourse models pull --force")
def pull(
    force: Annotated[bool, typer.Option("--force", help="Fetch again, even if the files are there.")] = False,
) -> None:
    """Fetch the embedded models and verify them."""
    from kicourse.models import weights

    weights.pull(force=force)
    weights.show()


@models_app.command(epilog="Example: kicourse models serve --port 8080")
def serve(port: Annotated[int | None, typer.Option("--port", help="The port to try first.")] = None) -> None:
    """Serve the embedded GPT alone, until Ctrl-C."""
    from kicourse.models import gpt

    gpt.serve(port)


@class_app.command("new", epilog="Example: kicourse class new my-class --lang de --unit first_call --unit mini_gpt")
def new_class(
    folder: Annotated[Path, typer.Argument(help="The class folder to make.", metavar="DIR")],
    language: Language = None,
    units: Annotated[list[str] | None, typer.Option("--unit", help="A unit of this class; all by default.")] = None,
) -> None:
    """Make an nbgrader class folder with the units as assignments."""
    from kicourse.grading import class_folder

    class_folder.new(folder, _language(language), units)


def _language(code: str | None) -> Any:
    """Return a language that exists; None leaves the choice to the workspace, or English."""
    from kicourse.syllabus import course

    return None if code is None else course().language(code)


def main() -> None:
    """Run the command line; errors meant for users are one line on stderr."""
    leave_grammar_out()
    # Python looks through everything for garbage as it ends, which takes half a second; it all goes with the process.
    atexit.register(gc.freeze)
    try:
        app()
    except UserError as error:
        typer.echo(f"kicourse: {error}", err=True)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if not error.strerror:
            raise
        what = f"{error.filename} cannot be used: {error.strerror}" if error.filename else error.strerror
        typer.echo(f"kicourse: {what}. Mend that, and run the command again.", err=True)
        sys.exit(1)
