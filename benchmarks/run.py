"""Run every benchmark and write its table into RESULTS.md: `make bench`, or `python benchmarks/run.py NAME...`."""

import importlib
import os
import platform
import re
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).resolve().parent
NAMES = ("import_time", "unit_time", "verdict_latency", "gpt_speed", "mini_gpt_quality", "grading", "grading_units")
PACKAGES = ("kicourse", "torch", "transformers", "xllamacpp", "numpy", "scikit-learn")
RESULTS = FOLDER / "RESULTS.md"
HEAD = """# Benchmark results

Each table comes from one run on one machine. Run them again with `make bench`, on a machine that does nothing else.
"""
COLUMNS = ("what", "measured", "beside it", "aim")


def main(names: list[str]) -> None:
    """Measure, print tables and write them; with names, only those benchmarks, and what is known of others stays.

    Each row is written as soon as it is measured: a run that is interrupted keeps what it has.
    """
    sys.path.insert(0, str(FOLDER.parent))
    console = Console()
    sections = _sections()
    for name in names or NAMES:
        cells = []
        with console.status(f"measuring {name} ..."):
            for row in importlib.import_module(f"benchmarks.{name}").measure():
                cells.append((row.what, row.measured, row.beside, row.aim))
                sections[name] = _section(name, cells)
                _write(sections)
        table = Table(*COLUMNS, title=name)
        for cell in cells:
            table.add_row(*cell)
        console.print(table)
    console.print("Written to benchmarks/RESULTS.md")


def _write(sections: dict[str, str]) -> None:
    text = "\n".join([HEAD, *(sections[name] for name in NAMES if name in sections)])
    RESULTS.write_text(text, encoding="utf-8")


def _sections() -> dict[str, str]:
    """What RESULTS.md says of each benchmark, with its heading."""
    parts = re.split(r"^(?=## )", RESULTS.read_text(encoding="utf-8"), flags=re.MULTILINE) if RESULTS.exists() else []
    return {part.splitlines()[0].removeprefix("## "): part.rstrip() + "\n" for part in parts[1:]}


def _section(name: str, cells: list[tuple[str, str, str, str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (COLUMNS, ("---",) * len(COLUMNS), *cells)]
    return "\n".join([f"## {name}", "", _machine(), "", *lines, ""])


def _machine() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    day = datetime.now(UTC).date().isoformat()
    processor = platform.machine()
    return (
        f"Measured on {day}, {os.cpu_count()} cores ({processor}), {platform.system()}, "
        f"Python {platform.python_version()}, {versions}."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
