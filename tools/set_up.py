"""Set up .venv with everything that `make lab` (or, with --dev, `make test`) needs.

A second run finds nothing to do and ends at once. Several runs at the same time wait for each other. What a run
left half done is repaired by the next one. Only the standard library is used: there is nothing else yet.

TORCH_INDEX in the environment names one more package index for pip. Where the default index offers PyTorch only
with gigabytes of CUDA libraries, give the address of PyTorch's own index of CPU builds here.
"""

import argparse
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
KICOURSE = ENVIRONMENT / "bin" / "kicourse"
LOCK = ROOT / ".venv.lock"
UNFINISHED = ENVIRONMENT / "set-up-unfinished"
NEEDED_BYTES = 4 * 2**30


def main() -> None:
    """Set up what the command line asks for, unless it is there already."""
    parser = argparse.ArgumentParser(description="Set up .venv for kicourse.")
    parser.add_argument("--dev", action="store_true", help="with the tools for tests and style checks")
    group = "dev" if parser.parse_args().dev else "course"
    if is_set_up(group):
        return
    with only_one_at_a_time() as lock:
        if not is_set_up(group):
            set_up(group, lock)


def set_up(group: str, lock: int) -> None:
    """Make the environment, install into it, fetch the models, and note that all of this is done."""
    if not is_intact():
        print("Making .venv ...", flush=True)
        make_environment(lock)
    print("Installing packages; the first time takes a few minutes ...", flush=True)
    if sys.platform == "linux" and not os.environ.get("TORCH_INDEX"):
        print("(Does pip fetch gigabytes of CUDA? docs/learners.md says how to avoid that.)", flush=True)
    install(group, lock)
    print("Fetching the embedded models ...", flush=True)
    run([KICOURSE, "models", "pull"], lock, "The models could not be fetched; see above, then try again.")
    stamp(group).write_text(fingerprint(), encoding="utf-8")
    print("kicourse is set up.", flush=True)


def is_set_up(group: str) -> bool:
    """Tell whether this very tree was set up before, and its interpreter still runs."""
    stamps = [stamp(group), stamp("dev")]
    done = any(path.is_file() and path.read_text(encoding="utf-8") == fingerprint() for path in stamps)
    return done and not UNFINISHED.exists() and can_import("kicourse")


def stamp(group: str) -> Path:
    """Return the file that says with which fingerprint a group was set up."""
    return ENVIRONMENT / f"set-up-{group}"


def fingerprint() -> str:
    """Digest what an installation depends on: the pins, and the place, since no environment can be moved."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def is_intact() -> bool:
    """Tell whether .venv can be installed into: made here, not copied or moved, and not left half done."""
    configuration = ENVIRONMENT / "pyvenv.cfg"
    made_here = configuration.is_file() and str(ENVIRONMENT) in configuration.read_text(encoding="utf-8")
    return made_here and not UNFINISHED.exists() and can_import("pip")


def can_import(module: str) -> bool:
    """Tell whether the environment has an interpreter that runs and can import a module."""
    if not PYTHON.exists():
        return False
    return subprocess.run([PYTHON, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def make_environment(lock: int) -> None:
    """Make .venv anew; what a broken or half-made one contains is of no use to anyone."""
    if importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        fail(f"This Python cannot make environments. Debian, Ubuntu: sudo apt install python{version}-venv")
    if shutil.disk_usage(ROOT).free < NEEDED_BYTES:
        fail(f"Too little disk space: make room for {NEEDED_BYTES // 2**30} GiB in {ROOT}, then try again.")
    run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], lock, "Python could not make .venv.")


def install(group: str, lock: int) -> None:
    """Install the package, editable, in the versions that constraints.txt pins."""
    options = ["-c", "constraints.txt", "--disable-pip-version-check"]
    if index := os.environ.get("TORCH_INDEX"):
        options += ["--extra-index-url", index]
    package = ".[dev]" if group == "dev" else "."
    # Stays behind when pip fails or is killed half-way: packages may then look installed that are not.
    UNFINISHED.touch()
    pip_install = [PYTHON, "-m", "pip", "install", *options, "-e", package]
    run(pip_install, lock, "The packages could not be installed; see above, then try again.")
    UNFINISHED.unlink()


def run(command: Sequence[object], lock: int, failure: str) -> None:
    """Run a command; end with `failure` when it fails.

    The command inherits the lock, so that it keeps others waiting even if this process is killed.
    """
    if subprocess.run([str(part) for part in command], cwd=ROOT, pass_fds=[lock], check=False).returncode:
        fail(failure)


@contextmanager
def only_one_at_a_time() -> Iterator[int]:
    """Hold the lock that keeps two set-ups apart; yield its descriptor."""
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another set-up of this folder is running; waiting for it ...", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def fail(message: str) -> None:
    """End with a message."""
    sys.exit(message)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Interrupted; the next set-up repairs what is half done.")
