"""The set-up behind `make`, tried on a project that is small but real: pip installs it into a real environment."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(os.name != "posix", reason="make is for Linux and macOS")

PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "kicourse"
version = "0.1.0"
optional-dependencies = { dev = [] }
"""

BACKEND = '''
"""Builds a wheel of two small files, and notes each time that it did."""

import time
import zipfile
from pathlib import Path

COMMAND = """
import sys
from pathlib import Path

def main():
    with Path("pulls").open("a") as log:
        log.write(" ".join(sys.argv[1:]) + chr(10))
    sys.exit(Path("no-network").exists())
"""
INFORMATION = {
    "METADATA": "Metadata-Version: 2.1\\nName: kicourse\\nVersion: 0.1.0\\nProvides-Extra: dev\\n",
    "WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    "entry_points.txt": "[console_scripts]\\nkicourse = kicourse:main\\n",
    "RECORD": "",
}


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    with Path("builds").open("a") as log:
        log.write("build\\n")
    time.sleep(float(Path("seconds").read_text()) if Path("seconds").exists() else 0)
    name = "kicourse-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory) / name, "w") as wheel:
        wheel.writestr("kicourse.py", COMMAND)
        for file, text in INFORMATION.items():
            wheel.writestr(f"kicourse-0.1.0.dist-info/{file}", text)
    return name


build_wheel = build_editable
'''


@dataclass(frozen=True)
class Project:
    """A folder that is set up like the course's own."""

    root: Path

    def set_up(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.root / "tools" / "set_up.py"), *arguments]

    def lines(self, log: str) -> list[str]:
        path = self.root / log
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "project")
    shutil.copytree(ROOT / "tools", made.root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    (made.root / "pyproject.toml").write_text(PROJECT)
    (made.root / "backend.py").write_text(BACKEND)
    (made.root / "constraints.txt").write_text("")
    return made


def test_the_second_run_finds_nothing_to_do_and_a_change_something(project: Project) -> None:
    first = project.set_up()
    assert first.returncode == 0, first.stdout + first.stderr
    assert project.lines("builds") == ["build"]
    assert project.lines("pulls") == ["models pull"]

    start = time.monotonic()
    assert project.set_up().stdout == ""
    assert time.monotonic() - start < 5
    assert project.lines("builds") == ["build"]

    (project.root / "constraints.txt").write_text("# other pins\n")
    assert project.set_up().returncode == 0
    assert project.lines("builds") == ["build"] * 2
    assert project.set_up("--dev").returncode == 0
    assert project.lines("builds") == ["build"] * 3
    assert project.set_up().stdout == "", "what tests need contains what the course needs"


@pytest.mark.long
def test_two_at_once_install_once(project: Project) -> None:
    (project.root / "seconds").write_text("2")
    one, two = (subprocess.Popen(project.command(), stdout=subprocess.PIPE, text=True) for _ in range(2))
    told = (one.communicate(timeout=120)[0], two.communicate(timeout=120)[0])
    assert (one.returncode, two.returncode) == (0, 0)
    assert project.lines("builds") == ["build"]
    assert sum("waiting for it" in text for text in told) == 1


@pytest.mark.long
def test_what_a_killed_run_left_is_made_anew(project: Project) -> None:
    (project.root / "seconds").write_text("60")
    killed = subprocess.Popen(project.command(), stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not project.lines("builds"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    half_installed = project.root / ".venv" / "half-installed"
    half_installed.touch()
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()

    (project.root / "seconds").write_text("0")
    again = project.set_up()
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Making .venv" in again.stdout
    assert not half_installed.exists()
    assert project.set_up().stdout == ""


@pytest.mark.long
def test_a_failed_download_is_told_and_tried_again(project: Project) -> None:
    (project.root / "no-network").touch()
    failed = project.set_up()
    assert failed.returncode == 1
    assert failed.stderr.strip() == "The models could not be fetched; see above, then try again."
    (project.root / "no-network").unlink()
    assert project.set_up().returncode == 0
    assert project.lines("pulls") == ["models pull"] * 2


@pytest.mark.long
def test_a_moved_folder_is_set_up_anew(project: Project) -> None:
    assert project.set_up().returncode == 0
    moved = Project(project.root.rename(project.root.with_name("moved")))
    assert "Making .venv" in moved.set_up().stdout
    script = (moved.root / ".venv" / "bin" / "kicourse").read_text()
    assert str(moved.root) in script


def run_python(*candidates: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHON": " ".join(candidates)}
    command = [str(ROOT / "tools" / "python"), "-c", "import sys; print(sys.version_info >= (3, 11))"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_python_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    assert run_python(str(old), "no-such-python", sys.executable).stdout == "True\n"
    refused = run_python(str(old))
    assert refused.returncode == 1
    assert "not a Python of version 3.11 or newer" in refused.stderr


def test_make_help_lists_every_public_target() -> None:
    listed = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "lab", "test", "lint", "bench", "build", "audit"):
        assert f"make {target} " in listed
