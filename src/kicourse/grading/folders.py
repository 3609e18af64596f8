"""Folders in which a submission may have made anything: how full they are, and away with them."""

import errno
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path


def used(folder: Path, most_files: int) -> tuple[int, int]:
    """Return how many bytes and files lie below a folder; counting stops, as too many, when it cannot be finished."""
    size = count = 0
    waiting = [str(folder)]
    while waiting and count <= most_files:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    count += 1
                    if count > most_files:
                        break
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError as error:  # gone meanwhile, or too deep to have a name
            count += most_files if error.errno == errno.ENAMETOOLONG else 0
    return size, count


def remove(folder: Path) -> None:
    """Remove a folder and all in it, however deep and whatever its permissions."""
    with suppress(OSError, RecursionError):
        shutil.rmtree(folder)
        return
    for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        subprocess.run([*command, "--", str(folder)], stderr=subprocess.DEVNULL, check=False)
