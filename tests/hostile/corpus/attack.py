"""What an attack is, and how it becomes a file that is handed in.

Every attack solves nothing, so every attack must get zero points. Whatever it reaches that it should not, it says with
`reached(...)` or `attempt(...)`, or leaves a file or folder named TOKEN behind; the tests look for both. All of them
are bounded: if the sandbox failed, none would hurt the machine.
"""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

TASKS = {
    "first_call": ("ask", "cost", "stream", "conversation"),
    "mini_gpt": ("causal_attention", "transformer_block", "bits_per_character", "train", "sample"),
    "maintenance": (
        "window_features",
        "split_by_pump",
        "build_pipeline",
        "average_precision_interval",
        "best_threshold",
    ),
}
ANSWERS = {
    "conversation": "Conversation",
    "pseudonymiser": "Pseudonymiser",
    "request_cache": "RequestCache",
    "transformer_block": "TransformerBlock",
}
"""What a task's answer is called, where it is not called like the task."""


@dataclass(frozen=True)
class Target:
    """What an attacker knows, or could guess, of the machine that grades."""

    token: str
    """Marks whatever an attack leaves behind: part of file names, process names, contents."""
    class_folder: str = ""
    course: str = ""
    neighbour: str = ""
    outside: tuple[str, ...] = ()
    """Folders in which nobody may leave anything."""
    canary: str = ""
    """A folder with a file and a folder, in which nothing may change: content, mode, times, attributes."""
    port: int = 9
    """Somebody else's TCP service on this machine, and UDP under the same number."""
    socket: str = ""
    """Somebody else's Unix socket."""
    pids: tuple[int, ...] = ()
    """Processes of the same user that have nothing to do with the attacker."""


PREAMBLE = '''
import ctypes, gc, json, os, signal, socket, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(15, TOKEN[-15:].encode(), 0, 0, 0)  # forks keep this name, so that they are found if they survive

def reached(what, found=""):
    """Say that something worked that must not."""
    os.write(1, ("REA" + f"CHED {what}: {found!r}"[:300] + "\\n").encode())

def attempt(what, action):
    """Try something that must not work, or that must do nothing (return None)."""
    try:
        found = action()
    except BaseException as error:
        return error
    if found is not None:
        reached(what, found)

def call(name, *arguments):
    """A system call through libc; an error is raised."""
    result = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result
'''


@dataclass(frozen=True)
class Attack:
    """What is handed in.

    `cell` is an extra code cell in front of the first task, `answers` are the sources of task cells, by task, `change`
    does anything else to the notebook. `content` is a file as it is; `place` puts something odd where a file should be.
    """

    cell: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)
    change: Callable[[NotebookNode], Any] | None = None
    content: bytes | None = None
    place: Callable[[Path, Target], None] | None = None


@dataclass(frozen=True)
class Entry:
    """An attack in the corpus."""

    name: str
    theme: str
    tries: str
    build: Callable[[], Attack]
    unit: str
    fails: bool
    """The cell itself ends with an error on purpose."""
    safe_for_stock: bool
    """Harmless enough to be run without any sandbox."""

    def hand_in(self, folder: Path, release: NotebookNode, target: Target) -> None:
        """Put the attack where the file of a submission belongs: `folder` is submitted/STUDENT/UNIT."""
        made = self.build()
        path = folder / f"{self.unit}.ipynb"
        if made.place is not None:
            folder.parent.mkdir(parents=True, exist_ok=True)
            made.place(path, target)
            return
        folder.mkdir(parents=True)
        path.write_bytes(self.content(release, target))

    def content(self, release: NotebookNode, target: Target) -> bytes:
        """Return the bytes of the file that is handed in."""
        made = self.build()
        if made.content is not None:
            return made.content
        notebook = deepcopy(release)
        tasks = [cell for cell in notebook.cells if _about(cell).get("solution")]
        # One answer is handed in at least, so that a judge meets it; stubs take less time.
        first = TASKS[self.unit][0]
        answers = {first: f"{ANSWERS.get(first, first)} = lambda *args, **kwargs: True"} | dict(made.answers)
        for cell in tasks:
            cell.source = answers.get(_about(cell)["grade_id"], cell.source)
        if made.cell:
            place = notebook.cells.index(tasks[0])
            known = "\n".join(f"{name.upper()} = {value!r}" for name, value in vars(target).items())
            notebook.cells.insert(place, new_code_cell(f"{known}\n{PREAMBLE}", id="preamble"))
            notebook.cells.insert(place + 1, new_code_cell(made.cell.strip(), id="attack"))
        replaced = made.change(notebook) if made.change else None
        return replaced if isinstance(replaced, bytes) else json.dumps(notebook).encode()


ATTACKS: dict[str, Entry] = {}


def attack(
    tries: str, *, unit: str = "first_call", fails: bool = False, safe_for_stock: bool = False
) -> Callable[[Callable[[], Attack]], Callable[[], Attack]]:
    """Add an attack to the corpus; `tries` completes "it tries to"."""

    def add(build: Callable[[], Attack]) -> Callable[[], Attack]:
        name = build.__name__
        assert name not in ATTACKS, name
        theme = build.__module__.rpartition(".")[2]
        ATTACKS[name] = Entry(name, theme, tries, build, unit, fails, safe_for_stock)
        return build

    return add


def every_task(source: str, unit: str = "first_call") -> dict[str, str]:
    """Return this source for every task's cell, with ANSWER in it replaced by the name of what is handed in."""
    return {task: source.replace("ANSWER", ANSWERS.get(task, task)) for task in TASKS[unit]}


def _about(cell: NotebookNode) -> dict[str, Any]:
    return dict(cell.metadata.get("nbgrader", {}))
