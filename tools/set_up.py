"""Set up .venv with everything that `make lab` (or, with --dev, `make test`) needs.

A second run finds nothing to do and ends at once. Several runs at the same time wait for each other. A run that was
cut off in the middle is repaired by the next one. Only the standard library is used, since nothing else is there yet.

TORCH_INDEX in the environment names one more package index for pip: where the default index offers PyTorch with
gigabytes of CUDA libraries only, give the address of PyTorch's own index of CPU builds here.
"""

import argparse
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
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
    if UNFINISHED.exists() or not works(PYTHON, "import pip"):
        print("Making .venv ...", flush=True)
        make_environment(lock)
    print("Installing packages; the first time takes a few minutes ...", flush=True)
    if sys.platform == "linux" and "TORCH_INDEX" not in os.environ:
        print(
            "(If pip starts to fetch gigabytes of CUDA: docs/learners.md says how to avoid that.)", flush=True
        )
    install(group, lock)
    print("Fetching the embedded models ...", flush=True)
    run(
        [KICOURSE, "models", "pull"],
        lock,
        "The models could not be fetched; the lines above say why. Then try again.",
    )
    stamp(group).write_text(fingerprint(), encoding="utf-8")
    print("kicourse is set up.", flush=True)


def is_set_up(group: str) -> bool:
    """Tell whether this very tree was set up before, and its interpreter still runs."""
    stamps = [stamp(group), stamp("dev")]
    done = any(path.is_file() and path.read_text(encoding="utf-8") == fingerprint() for path in stamps)
    return done and not UNFINISHED.exists() and works(PYTHON, "import kicourse")


def stamp(group: str) -> Path:
    """The file that says with which fingerprint a group was set up."""
    return ENVIRONMENT / f"set-up-{group}"


def fingerprint() -> str:
    """What an installation depends on: the pins, and the place (a moved environment points to the old one)."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def works(python: Path, statement: str) -> bool:
    """Tell whether an interpreter is there and can run a statement."""
    if not python.exists():
        return False
    return subprocess.run([python, "-c", statement], capture_output=True, check=False).returncode == 0


def make_environment(lock: int) -> None:
    """Make .venv anew; what a broken or half-made one contains is of no use to anyone."""
    if importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        fail(f"This Python cannot make environments. Debian, Ubuntu: sudo apt install python{version}-venv")
    if shutil.disk_usage(ROOT).free < NEEDED_BYTES:
        fail(f"There is too little disk space: free {NEEDED_BYTES // 2**30} GiB for {ROOT}, then try again.")
    run(
        [sys.executable, "-m", "venv", "--clear", ENVIRONMENT],
        lock,
        "The environment .venv could not be made.",
    )


def install(group: str, lock: int) -> None:
    """Install the package, editable, in the versions that constraints.txt pins."""
    command = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "-c", ROOT / "constraints.txt"]
    if index := os.environ.get("TORCH_INDEX"):
        command += ["--extra-index-url", index]
    target = f"{ROOT}[dev]" if group == "dev" else f"{ROOT}"
    # Removed only once pip has ended by itself: a pip that was killed leaves packages that merely look installed.
    UNFINISHED.touch()
    run(
        [*command, "-e", target],
        lock,
        "The packages could not be installed; pip says why above. Then try again.",
    )
    UNFINISHED.unlink()


def run(command: list[str | Path], lock: int, failure: str) -> None:
    """Run a command; end with `failure` when it fails.

    The command inherits the lock, so that it keeps others waiting even if this process is killed.
    """
    if subprocess.run(command, cwd=ROOT, pass_fds=[lock], check=False).returncode:
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
