"""How long a whole unit takes: its solution, demonstrations included, as "Run All Cells" runs it.

The embedded GPT runs already, as it does in `kicourse lab`; the start of a kernel is part of the time.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.row import Row
from kicourse.models import gpt
from kicourse.syllabus import course


def measure() -> Iterator[Row]:
    """Run every finished unit, one after the other. Raises CalledProcessError if a cell fails."""
    program = Path(sys.executable).with_name("jupyter-execute")
    with gpt.apart() as (environment, _pid), tempfile.TemporaryDirectory() as folder:
        for unit in course().finished:
            start = time.monotonic()
            subprocess.run(
                [str(program), "--log-level=ERROR", str(unit.solution("en"))],
                cwd=folder,
                env=os.environ | environment | {"JUPYTER_PREFER_ENV_PATH": "1", "KICOURSE_RECORD": "0"},
                check=True,
            )
            yield Row(f"the whole solution of {unit.slug}", f"{time.monotonic() - start:.0f} s", "", "under 120 s")
