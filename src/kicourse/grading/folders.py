"""Folders in which a submission may have made anything: how full they are, and away with them."""

import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

_TICK = 20_000_000  # nanoseconds, and more than the clock of a file system needs for one step


def used(folder: Path, most_files: int) -> tuple[int, int, bool]:
    """Return how many bytes and files lie below a folder, and whether nothing has moved while they were counted.

    Counting stops, as too many, when it cannot be finished, or where nobody can look.
    """
    size, count, certain = 0, 0, True
    waiting, seen = [str(folder)], []
    while waiting and count <= most_files:
        path = waiting.pop()
        try:
            seen.append((path, os.stat(path).st_ctime_ns))
            with os.scandir(path) as entries:
                for entry in entries:
                    count += 1
                    if count > most_files:
                        break
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:
            certain = False
        except OSError:  # too deep to have a name, or locked
            count += most_files
    return size, count, certain and not any(_has_changed(path, before) for path, before in seen)


def _has_changed(path: str, before: int) -> bool:
    """Whether a folder has other entries than before; of what is as new as a step of its clock nobody knows."""
    try:
        after = os.stat(path).st_ctime_ns
    except OSError:
        return True
    return after != before or time.time_ns() - after < _TICK


def remove(folder: Path) -> None:
    """Remove a folder and all in it, however deep and whatever its permissions."""
    with suppress(OSError, RecursionError):
        shutil.rmtree(folder)
        return
    for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        subprocess.run([*command, "--", str(folder)], stderr=subprocess.DEVNULL, check=False)
