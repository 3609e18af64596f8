"""What a submission has written, counted from outside while it does what it can against that."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kicourse.grading import folders

COUNTS_AS_NOBODY_SPECIAL = """
import sys
from pathlib import Path
from kicourse.grading import folders, sandbox
sandbox._drop_capabilities()  # root would see everything
print(folders.used(Path(sys.argv[1]), 100))
"""


def test_bytes_and_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_bytes(bytes(100_000))
    assert not folders.used(tmp_path, 100)[2], "a clock has steps: what has just been made may be being made"
    time.sleep(0.05)
    size, count, certain = folders.used(tmp_path, 100)
    assert 100_000 <= size < 200_000
    assert (count, certain) == (2, True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: root gives its rights away")
def test_a_folder_into_which_nobody_may_look_counts_as_too_much(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(0o300)
    command = [sys.executable, "-c", COUNTS_AS_NOBODY_SPECIAL, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "(0, 101, True)\n"


def test_what_moves_while_it_is_counted_is_no_certain_sight(tmp_path: Path) -> None:
    (tmp_path / "a" / "inner").mkdir(parents=True)
    done = threading.Event()

    def rename() -> None:
        while not done.is_set():
            os.rename(tmp_path / "a", tmp_path / "b")
            os.rename(tmp_path / "b", tmp_path / "a")

    mover = threading.Thread(target=rename)
    mover.start()
    try:
        while folders.used(tmp_path, 100)[2]:
            pass
    finally:
        done.set()
        mover.join()
