"""What `kicourse doctor` looks at: is this machine fit for the course, and if not, how to mend it."""

import ctypes
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from kicourse.errors import UserError

State = Literal["fine", "note", "problem"]

OLDEST_PYTHON = (3, 11)
LAB_PORT = 8888
GIBIBYTE = 2**30
DISK_GIBIBYTES = 2
MEMORY_GIBIBYTES = 4

LANDLOCK_CREATE_RULESET = 444  # the system call's number, the same on every architecture
LANDLOCK_VERSION_FLAG = 1
LANDLOCK_COMPLETE = 6  # from this ABI on (Linux 6.12) signals and abstract sockets can be confined too

MARKS = {"fine": ("ok  ", "green"), "note": ("note", "yellow"), "problem": ("FIX ", "bold red")}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `mend` says what to do about it, where something is to be done.

    A "note" is worth knowing and keeps no learner from working; a "problem" does.
    """

    name: str
    state: State
    found: str
    mend: str = ""


def run() -> int:
    """Print what was found, as it is found; return 1 if there is a problem, else 0."""
    console = Console(highlight=False)
    problems = 0
    for finding in findings():
        mark, style = MARKS[finding.state]
        line = Text.assemble((mark, style), f"  {finding.name}: {finding.found}")
        console.print(line, soft_wrap=True)
        if finding.mend:
            console.print(Text(f"      {finding.mend}"), soft_wrap=True)
        problems += finding.state == "problem"
    console.print("Everything that the course needs is here." if not problems else f"To mend: {problems}.")
    return 1 if problems else 0


def examine() -> list[Finding]:
    """Look at everything and return what was found."""
    return list(findings())


def findings() -> Iterator[Finding]:
    """Look at one thing after the other."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        python, memory, disk, pytorch, jupyter, models, language_model, ports, sandbox, browser,
    )  # fmt: skip
    for look in looks:
        yield from look()


def python() -> Iterator[Finding]:
    """Is the interpreter new enough, and is it an environment of its own?"""
    found = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        yield Finding("Python", "problem", found, "Install Python 3.11 or newer and run `make setup` again.")
    elif sys.prefix == sys.base_prefix:
        advice = "Packages of other programs may get in the way: `python -m venv .venv` makes an environment."
        yield Finding("Python", "note", f"{found}, in no environment of its own", advice)
    else:
        yield Finding("Python", "fine", found)


def memory() -> Iterator[Finding]:
    """Is there enough memory for training and the language model at once?"""
    import psutil

    total = psutil.virtual_memory().total / GIBIBYTE
    found = f"{total:.0f} GiB on {os.cpu_count()} cores"
    if total < MEMORY_GIBIBYTES:
        yield Finding("Memory", "note", found, "Work with one notebook at a time, and shut down the others' kernels.")
    else:
        yield Finding("Memory", "fine", found)


def disk() -> Iterator[Finding]:
    """Is there room where notebooks and weights are written?"""
    from kicourse.models import hub_cache

    for name, folder in (("Disk, this folder", Path.cwd()), ("Disk, weights", hub_cache.home())):
        place = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(place).free / GIBIBYTE
        found = f"{free:.0f} GiB free in {folder}"
        if not os.access(place, os.W_OK):
            yield Finding(name, "problem", f"{place} cannot be written", "Make it yours, or choose another folder.")
        elif free < DISK_GIBIBYTES:
            yield Finding(name, "problem", found, f"Make room for {DISK_GIBIBYTES} GiB; HF_HOME moves the weights.")
        else:
            yield Finding(name, "fine", found)


def pytorch() -> Iterator[Finding]:
    """Does PyTorch compute, and is it the small build?"""
    try:
        import torch

        works = float(torch.ones(2) @ torch.ones(2)) == 2
    except Exception as error:
        yield Finding("PyTorch", "problem", f"{type(error).__name__}: {error}", "Run `make setup` again.")
        return
    threads = torch.get_num_threads()
    found = f"{torch.__version__}, {threads} thread{'s' * (threads > 1)}"
    if not works:
        yield Finding("PyTorch", "problem", f"{found}, computes wrongly", "Delete .venv and run `make setup`.")
    elif any(name.startswith("nvidia-") for name in requires("torch") or ()) and not torch.cuda.is_available():
        advice = "It works, and takes gigabytes more than it needs; docs/learners.md names the smaller build."
        yield Finding("PyTorch", "note", f"{found}, built for a GPU that is not here", advice)
    else:
        yield Finding("PyTorch", "fine", found)


def jupyter() -> Iterator[Finding]:
    """Are JupyterLab, nbgrader and this interpreter's kernel there?"""
    for package in ("jupyterlab", "nbgrader", "ipykernel"):
        try:
            yield Finding(package, "fine", version(package))
        except PackageNotFoundError:
            yield Finding(package, "problem", "not installed", "Run `make setup` again.")
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        yield Finding(
            "Kernel", "problem", "no kernel called python3", "Run `python -m ipykernel install --sys-prefix`."
        )
        return
    if Path(command).is_absolute() and Path(command).parent != Path(sys.executable).parent:
        advice = "Run `jupyter kernelspec remove python3`, which leaves the one that belongs to the course."
        yield Finding("Kernel", "problem", f"notebooks would run in another Python, {command}", advice)
    else:
        yield Finding("Kernel", "fine", "notebooks run in this Python")


def models() -> Iterator[Finding]:
    """Are the weights of the embedded models there, and whole?"""
    from kicourse.models import weights

    for model in weights.installed():
        name, found = f"Model {model.name}", f"{model.repository}, {model.licence}"
        if model.state == "ready":
            yield Finding(name, "fine", found)
        elif model.state == "missing":
            yield Finding(name, "problem", f"{found}: missing", "Run `kicourse models pull`.")
        else:
            yield Finding(name, "problem", f"{found}: corrupt", "Run `kicourse models pull --force`.")


def language_model() -> Iterator[Finding]:
    """Does a GPT answer?"""
    from kicourse.models import gpt

    is_set = bool(os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_KEY"))
    try:
        with gpt.running() as url:
            if is_set:
                advice = "OPENAI_BASE_URL or OPENAI_API_KEY says so; without them the embedded GPT answers."
                yield Finding("GPT", "note", f"notebooks call {url}", advice)
            else:
                yield Finding("GPT", "fine", f"the embedded one answers at {url}")
    except UserError as error:
        yield Finding("GPT", "problem", "the embedded one does not start", str(error))


def ports() -> Iterator[Finding]:
    """Can this machine listen to itself, and is JupyterLab's usual port free?"""
    if _can_bind(LAB_PORT):
        yield Finding("Ports", "fine", f"{LAB_PORT} is free")
    elif _can_bind(0):
        yield Finding("Ports", "fine", f"{LAB_PORT} is in use; `kicourse lab` takes the next one")
    else:
        advice = "Let programs listen on 127.0.0.1; a firewall or a container may forbid it."
        yield Finding("Ports", "problem", "none can be opened on 127.0.0.1", advice)


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        if os.name == "posix":  # on Windows this option would let two programs share a port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def sandbox() -> Iterator[Finding]:
    """Can submissions of others be run safely here? (Of interest to instructors only.)"""
    from kicourse.grading.sandbox import unavailable

    abi = landlock_abi()
    if reason := unavailable():
        advice = "Learners need none of this. Instructors grade on Linux 6.7 or newer, or in a virtual machine with it."
        yield Finding("Sandbox", "note", f"submissions cannot be graded safely here: {reason}", advice)
    elif abi < LANDLOCK_COMPLETE:
        found = f"submissions can be graded safely; signals between programs are not confined (Landlock {abi})"
        yield Finding("Sandbox", "note", found, "Linux 6.12 and newer confine those, too.")
    else:
        yield Finding("Sandbox", "fine", f"submissions can be graded safely (Landlock {abi})")


def landlock_abi() -> int:
    """Return the version of Linux's Landlock interface, 0 where there is none or it is switched off."""
    if sys.platform != "linux":
        return 0
    answer = ctypes.CDLL(None).syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_VERSION_FLAG)
    return max(0, int(answer))


def browser() -> Iterator[Finding]:
    """Are the browser and its driver there that the tests of the course map use?"""
    browsers = [name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)]
    if browsers and shutil.which("chromedriver"):
        yield Finding("Chromium", "fine", f"{browsers[0]} and chromedriver, for the course's own tests")
    else:
        advice = "Only the course's own tests need them: sudo apt install chromium chromium-driver"
        yield Finding("Chromium", "note", "chromium or chromedriver is missing", advice)
