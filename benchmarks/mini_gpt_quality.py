"""What the GPT of the unit mini_gpt reaches with its budget of steps, beside n-gram models on the same tokens.

The unit's own code is run, its solution and the cells that only demonstrate, up to its last measurement. Quality is in
bits per character on held-out files, so less is better; the time is that of the process, on one thread.
"""

import ast
import contextlib
import io
import os
import time
from typing import Any

from benchmarks.row import Row
from kicourse.syllabus import course


def measure() -> list[Row]:
    """Train as the notebook does and compare."""
    os.environ.setdefault("MPLBACKEND", "agg")
    names: dict[str, Any] = {"__name__": "mini_gpt"}
    seconds = 0.0
    for cell in _cells_until("measured"):
        start = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(ast.parse(cell), "<mini_gpt>", "exec"), names)
        if "LiveCurve()" in cell:
            seconds = time.process_time() - start
    baselines = ", ".join(f"{order}-gram {bits:.2f}" for order, bits in names["baselines"].items())
    bits = f"{names['measured']:.2f} bits per character"
    steps = f"{names['STEPS']} steps, {seconds:.0f} s of one core"
    return [Row(f"mini_gpt after its training ({steps})", bits, baselines, "less than the 3-gram")]


def _cells_until(name: str) -> list[str]:
    """The code of the solution, up to the cell that assigns `name`; checks and task statements left out."""
    import jupytext

    source = jupytext.read(course().unit("mini_gpt").source)
    cells = [cell["source"] for cell in source["cells"] if cell["cell_type"] == "code"]
    cells = [cell for cell in cells if not cell.startswith("check.")]
    last = next(place for place, cell in enumerate(cells) if f"\n{name} = " in cell)
    return cells[: last + 1]
