"""One class of honest students and attackers, graded by the command that instructors use, and what is left after it."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import psutil

from kicourse.grading import class_folder
from kicourse.syllabus import course, course_root
from tests.hostile.corpus import ATTACKS, Target

UNITS = ("first_call", "maintenance", "mini_gpt")
SECONDS = {"first_call": 6, "maintenance": 20, "mini_gpt": 30}
"""What a cell may take: enough for honest ones, and short enough for endless ones."""
HONEST = {
    "ada": "first_call",
    "ben": "first_call",
    "cem": "first_call",
    "dora": "first_call",
    "emil": "maintenance",
    "fay": "mini_gpt",
}
"""Honest students, and the unit that each has handed in."""
_MINUTES = 20


@dataclass
class Graded:
    """A class that was graded."""

    folder: Path
    status: int
    printed: str
    outcomes: dict[tuple[str, str], dict[str, Any]]

    def notebook(self, student: str, unit: str) -> dict[str, Any]:
        """Return a graded notebook."""
        path = self.folder / "autograded" / student / unit / f"{unit}.ipynb"
        return dict(json.loads(path.read_text(encoding="utf-8")))

    def feedback(self, student: str, unit: str) -> str:
        """Return a feedback page."""
        return (self.folder / "feedback" / student / unit / f"{unit}.html").read_text(encoding="utf-8")


@dataclass
class Afterwards:
    """The class of all, the honest ones alone, and what an attack may have left on this machine."""

    alone: Graded
    together: Graded
    target: Target
    changed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    processes: list[str] = field(default_factory=list)
    contacts: list[str] = field(default_factory=list)


def afterwards(folder: Path) -> Afterwards:
    """Grade the honest ones alone, then with all attackers beside them, and look around."""
    template = class_folder.new(folder / "template", "en", UNITS)
    limits = "".join(f"[{unit}]\nseconds = {seconds}\n" for unit, seconds in SECONDS.items())
    (template / ".kicourse" / "limits.toml").write_text(limits)
    (template / ".kicourse" / "secret").write_text(secrets.token_hex(32))
    _hand_in_honest_work(template)
    alone, together = folder / "alone", folder / "together"
    shutil.copytree(template, alone)
    shutil.copytree(template, together)
    graded_alone = _grade(alone, folder / "scratch-alone")
    with _bystanders(folder) as bystanders:
        target = _target(together, folder, bystanders)
        _hand_in_attacks(together, target)
        guarded = [together / name for name in ("source", "release", "submitted", ".kicourse", "nbgrader_config.py")]
        before = snapshot([*guarded, folder / "canary"])
        graded = _grade(together, folder / "scratch")
        after = snapshot([*guarded, folder / "canary"])
        done = Afterwards(graded_alone, graded, target)
        done.changed = [path for path, was in before.items() if after.get(path) != was]
        done.changed += [path for path in after if path not in before and "/.kicourse/" not in path]
        done.left = list(_left(target, folder))
        _tidy(target, done.left)
        done.processes = list(_processes(target))
        done.contacts = bystanders.contacts()
    return done


def solved(unit: str) -> dict[str, str]:
    """Return the reference solution's task cells, by grade_id."""
    notebook = nbformat.read(course().unit(unit).solution("en"), 4)
    return {
        about.grade_id: cell.source
        for cell in notebook.cells
        if (about := cell.metadata.get("nbgrader", {})) and about.get("solution")
    }


def hand_in(folder: Path, student: str, unit: str, answers: Mapping[str, str]) -> None:
    """Put a notebook with these task cells where nbgrader puts what it collects."""
    notebook = deepcopy(_release(folder, unit))
    for cell in notebook.cells:
        cell.source = answers.get(cell.metadata.get("nbgrader", {}).get("grade_id", ""), cell.source)
    path = folder / "submitted" / student / unit / f"{unit}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)


def beside(name: str) -> tuple[str, str]:
    """Return the student who sits beside an attacker, and the honest one whose answers that student has found too."""
    alike = [student for student, unit in HONEST.items() if unit == ATTACKS[name].unit]
    return f"{name}-beside", alike[list(ATTACKS).index(name) % len(alike)]


def _honest_answers() -> dict[str, dict[str, str]]:
    right = solved("first_call")
    half = {**right, "stream": "def stream(client, question, instructions=INSTRUCTIONS):\n    yield 'Hello'"}
    half.pop("conversation")
    wrong = {
        "ask": "def ask(client, question, instructions=INSTRUCTIONS):\n    return 'A pump moves fluids.'",
        "cost": "def cost(usage, prices):\n    return Decimal(usage.total_tokens)",
        "stream": "def stream(client, question, instructions=INSTRUCTIONS):\n    return question",
        "conversation": "class Conversation:\n    pass",
    }
    features = {task: solved("maintenance")[task] for task in ("window_features", "split_by_pump")}
    attention = {task: solved("mini_gpt")[task] for task in ("causal_attention", "bits_per_character")}
    return {"ada": right, "ben": half, "cem": {}, "dora": wrong, "emil": features, "fay": attention}


def _hand_in_honest_work(folder: Path) -> None:
    for student, answers in _honest_answers().items():
        hand_in(folder, student, HONEST[student], answers)


def _hand_in_attacks(folder: Path, target: Target) -> None:
    answers = _honest_answers()
    for name, entry in ATTACKS.items():
        place = folder / "submitted" / name / entry.unit
        place.parent.mkdir()
        entry.hand_in(place, _release(folder, entry.unit), target)
        # The next name of the alphabet: with two workers, the two are graded at the same time.
        student, alike = beside(name)
        hand_in(folder, student, entry.unit, answers[alike])


def _release(folder: Path, unit: str) -> Any:
    return nbformat.read(folder / "release" / unit / f"{unit}.ipynb", 4)


def _grade(folder: Path, scratch: Path) -> Graded:
    scratch.mkdir()
    marks = folder.with_suffix(".json")
    command = [str(Path(sys.executable).with_name("kicourse")), "grade", str(folder), "--json", str(marks)]
    done = subprocess.run(
        [*command, "--workers", "2"],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=60 * _MINUTES,
    )
    outcomes = json.loads(marks.read_text(encoding="utf-8")) if marks.exists() else []
    by_place = {(outcome["student"], outcome["unit"]): outcome for outcome in outcomes}
    return Graded(folder, done.returncode, done.stdout.decode("utf-8", "replace"), by_place)


# ---------------------------------------------------------------- what is watched


class _Bystanders:
    """Services and a process that have nothing to do with grading."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port = self.tcp.getsockname()[1]
        self.udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.udp.bind(("127.0.0.1", self.port))
        self.path = folder / "service"
        self.unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        self.unix.bind(str(self.path))
        self.unix.listen()
        program = "import signal, sys; signal.signal(signal.SIGWINCH, lambda *_: sys.exit('signalled')); signal.pause()"
        self.process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
        stack.callback(self.process.wait)
        stack.callback(self.process.kill)

    def contacts(self) -> list[str]:
        """Say what has reached them."""
        found = []
        for name, one in (("TCP", self.tcp), ("UDP", self.udp), ("Unix", self.unix)):
            one.setblocking(False)
            try:
                found.append(f"{name}: {one.recvfrom(100) if one is self.udp else one.accept()}")
            except BlockingIOError:
                continue
        if self.process.poll() is not None:
            found.append("a process was signalled")
        elif 4242 in psutil.Process(self.process.pid).rlimit(psutil.RLIMIT_MSGQUEUE):
            found.append("a process's limits were changed")
        return found


@contextmanager
def _bystanders(folder: Path) -> Iterator[_Bystanders]:
    with ExitStack() as stack:
        yield _Bystanders(folder, stack)


def _target(together: Path, folder: Path, bystanders: _Bystanders) -> Target:
    canary = folder / "canary"
    (canary / "folder").mkdir(parents=True)
    (canary / "file").write_text("canary")
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    outside = ["/tmp", "/var/tmp", "/dev/shm", str(Path.home()), str(course_root()), packages, str(canary)]
    outside += [str(folder), str(folder / "scratch"), str(together), str(together / ".kicourse")]
    outside += [str(together / "submitted" / next(iter(HONEST)) / "first_call"), str(together / "autograded")]
    return Target(
        token=f"hostile{secrets.token_hex(4)}",
        class_folder=str(together),
        course=str(course_root()),
        neighbour=next(iter(HONEST)),
        outside=tuple(outside),
        canary=str(canary),
        port=bystanders.port,
        socket=str(bystanders.path),
        pids=(bystanders.process.pid,),
    )


def snapshot(places: Iterable[Path]) -> dict[str, Any]:
    """Return what can be said about each file and folder, without following links."""
    found: dict[str, Any] = {}
    for place in places:
        for path in [place, *(sorted(place.rglob("*")) if place.is_dir() else ())]:
            status = path.lstat()
            is_folder = path.is_dir() and not path.is_symlink()
            attributes = None if path.is_symlink() else os.listxattr(path)
            # Whoever puts results into .kicourse changes the times of its folders.
            when = 0 if is_folder and ".kicourse" in path.parts else status.st_mtime_ns
            size = 0 if is_folder else status.st_size
            found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, size, when, attributes)
    return found


def _left(target: Target, folder: Path) -> Iterator[str]:
    for place in {*target.outside, *(sys.path)}:
        if os.path.isdir(place):
            yield from (os.path.join(place, name) for name in os.listdir(place) if target.token in name)
    for path in Path(target.class_folder).rglob(f"*{target.token}*"):
        yield str(path)
    yield from ("/tmp/hostile-pickle",) * os.path.lexists("/tmp/hostile-pickle")
    yield from (str(path) for path in (folder / "scratch").iterdir())


def _tidy(target: Target, left: Iterable[str]) -> None:
    """Remove what attacks have left, so that a machine survives a sandbox that failed."""
    for path in map(Path, left):
        if target.token in path.name:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _processes(target: Target) -> Iterator[str]:
    for process in psutil.process_iter(["name", "cmdline", "status"]):
        told = [process.info["name"] or "", *(process.info["cmdline"] or ())]
        if any(target.token[-15:] in one for one in told):
            yield f"{process.pid} {told} {process.info['status']}"
