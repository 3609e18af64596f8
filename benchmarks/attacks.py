"""What attacks earn from stock nbgrader and from kicourse: `python benchmarks/attacks.py` runs both and says so.

It writes the whole table to ATTACKS.md and what stock nbgrader falls for into the README. The attacks are those of
tests/hostile that solve nothing and are harmless enough to be run without kicourse's judge. Stock nbgrader runs each in
a class folder of its own, out of which Landlock lets it write nothing.
"""

import json
import os
import re
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nbformat
from rich.progress import track

from benchmarks.grading import BIN, STOCK
from kicourse import checks
from kicourse.grading import class_folder, processes
from kicourse.syllabus import course_root
from tests.hostile.corpus import ATTACKS, Target

UNIT = "first_call"
CHOSEN = {name: entry for name, entry in ATTACKS.items() if entry.safe_for_stock and entry.unit == UNIT}
POINTS = sum(check.points for check in checks.load(UNIT).values())
SECONDS = 120
"""How long stock nbgrader may take for one submission; an honest one takes it about ten."""
WITHIN = """
import os, sys, sandlock
from kicourse.grading.sandbox import _degraded
sandlock.confine(sandlock.Sandbox(fs_readable=["/"], fs_writable=[sys.argv[1], "/dev/null"], **_degraded()))
os.execv(sys.argv[2], sys.argv[2:])
"""
FOLDER = Path(__file__).resolve().parent
README = FOLDER.parent / "README.md"
MARKS = ("<!-- attacks -->\n", "<!-- end of attacks -->")
HEADER = "| it tries to | stock nbgrader | kicourse |\n| --- | --- | --- |\n"


def main() -> None:
    """Run both, and write the tables."""
    with tempfile.TemporaryDirectory(prefix="kicourse-attacks-") as name:
        place = Path(name)
        template = class_folder.new(place / "template", "en", [UNIT])
        _hand_in(template)
        ours = _kicourse(Path(shutil.copytree(template, place / "kicourse")))
        with ThreadPoolExecutor(2) as pool:
            runs = pool.map(lambda attack: _stock(place / "stock", template, attack), CHOSEN)
            stocks = dict(zip(CHOSEN, track(runs, "stock nbgrader", len(CHOSEN)), strict=True))
    rows = {name: f"| {entry.tries} | {stocks[name]} | {ours[name]} |" for name, entry in CHOSEN.items()}
    fooled = [row for name, row in rows.items() if not stocks[name].startswith("0 of")]
    about = (
        f"{len(CHOSEN)} attacks that solve nothing of `{UNIT}` ({POINTS:g} points), run by stock "
        f"nbgrader {version('nbgrader')} and by kicourse with `python benchmarks/attacks.py`"
    )
    (FOLDER / "ATTACKS.md").write_text(f"# Attacks\n\n{about}.\n\n{HEADER}" + "\n".join([*rows.values(), ""]))
    before, _, rest = README.read_text(encoding="utf-8").partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not end:
        raise SystemExit(f"README.md has no place for the table: {MARKS[0]}{MARKS[1]}")
    told = (
        f"{about}. These {len(fooled)} got points, or kept\n"
        "nbgrader from giving a mark ([all of them](benchmarks/ATTACKS.md)):\n"
    )
    README.write_text(
        f"{before}{MARKS[0]}\n{told}\n{HEADER}" + "\n".join(fooled) + f"\n\n{end}{after}", encoding="utf-8"
    )


def _hand_in(folder: Path) -> None:
    target = Target(
        token=f"attack{secrets.token_hex(4)}",
        class_folder=str(folder),
        course=str(course_root()),
        neighbour="nobody",
        outside=(str(folder.parent),),
        canary=str(folder.parent / "canary"),
    )
    for name, entry in CHOSEN.items():
        release = nbformat.read(folder / "release" / UNIT / f"{UNIT}.ipynb", 4)
        entry.hand_in(folder / "submitted" / name / UNIT, release, target)


def _kicourse(folder: Path) -> dict[str, str]:
    marks = folder / "marks.json"
    subprocess.run([str(BIN / "kicourse"), "grade", str(folder), "--json", str(marks)], check=True)
    return {
        one["student"]: _told(one["score"], folder / "autograded" / one["student"])
        for one in json.loads(marks.read_text(encoding="utf-8"))
    }


def _stock(place: Path, template: Path, student: str) -> str:
    folder = place / student
    shutil.copytree(template, folder, ignore=lambda path, names: names if Path(path).name == "submitted" else [])
    shutil.copytree(template / "submitted" / student, folder / "submitted" / student)
    (folder / "nbgrader_config.py").write_text(STOCK.format(root=str(folder)))
    private = ("HOME", "TMPDIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR")
    command = [sys.executable, "-c", WITHIN, str(folder), str(BIN / "nbgrader"), "autograde", UNIT]
    process = subprocess.Popen(
        [*command, "--student", student],
        cwd=folder,
        env=os.environ | dict.fromkeys(private, str(folder)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        return f"no mark: it does not end in {SECONDS} s"
    finally:
        processes.end(process.pid)  # its kernel, too
        process.wait()
    graded = folder / "autograded" / student
    if process.returncode or not graded.exists():
        return "no mark: it stops with an error"
    with sqlite3.connect(folder / "gradebook.db") as book:
        scores = book.execute(
            "select coalesce(g.manual_score, g.auto_score, 0) from grade g "
            "join submitted_notebook n on n.id = g.notebook_id join submitted_assignment s on s.id = n.assignment_id "
            "where s.student_id = ?",
            (student,),
        ).fetchall()
    return _told(sum(score for (score,) in scores), graded)


def _told(score: float, graded: Path) -> str:
    shown = "".join(path.read_text(encoding="utf-8", errors="replace") for path in graded.rglob("*.ipynb"))
    reached = ", and it reaches what is not its own" * bool(re.search("REACHED", shown))
    return f"{score:g} of {POINTS:g}{reached}"


if __name__ == "__main__":
    main()
