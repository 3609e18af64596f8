"""The Hugging Face cache on disk: find a model's files there, and lay files into it as the Hub's own client would.

A repository's folder holds `blobs` (contents, named by hash), `snapshots/<revision>` (links into blobs, under the
files' real names) and `refs/main` (the revision that a name without a revision means).
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

from kicourse.models.embedded import EmbeddedModel, ModelFile

_CHUNK = 1 << 20


class WrongContentError(Exception):
    """A file is not the one that its name promises."""


def cannot_store(error: Exception) -> bool:
    """Whether an error means that the disk is full or may not be written to."""
    reasons = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
    return isinstance(error, OSError) and error.errno in reasons


def home() -> Path:
    """The folder of everything that Hugging Face's libraries keep: HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME)


def repository_folder(model: EmbeddedModel) -> Path:
    """The folder of a model's repository in the cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{model.repository.replace('/', '--')}"


def snapshot(model: EmbeddedModel) -> Path:
    """The folder that holds a model's files under their own names, at the revision that the course uses."""
    return repository_folder(model) / "snapshots" / model.revision


def missing(model: EmbeddedModel) -> list[ModelFile]:
    """The model's files that are not in the cache."""
    return [file for file in model.files if not (snapshot(model) / file.name).is_file()]


def corrupt(model: EmbeddedModel) -> list[ModelFile]:
    """The model's files that are in the cache but are not what they should be (read in full)."""
    paths = {file: snapshot(model) / file.name for file in model.files}
    return [file for file, path in paths.items() if path.is_file() and not matches(path, file)]


def matches(path: Path, file: ModelFile) -> bool:
    """Whether the file at `path` has the size and the SHA-256 of `file`."""
    if path.stat().st_size != file.size:
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256


def adopt(model: EmbeddedModel, file: ModelFile) -> bool:
    """Take a file over from another revision in the cache, if one has the very same content."""
    for path in (repository_folder(model) / "snapshots").glob(f"*/{file.name}"):
        if path.is_file() and matches(path, file):
            _link(path.resolve(), snapshot(model) / file.name)
            return True
    return False


def place(model: EmbeddedModel, file: ModelFile, content: IO[bytes], advance: Callable[[int], object] = int) -> None:
    """Lay a file into the cache from a stream; `advance` is told the bytes written, chunk by chunk.

    The file appears under its name only when it is complete and verified. Raises WrongContentError if the content is
    not the file's.
    """
    blobs = repository_folder(model) / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    incomplete = blobs / f"{file.sha256}.incomplete"
    try:
        blob = blobs / _copy(content, incomplete, file, advance)
        os.replace(incomplete, blob)
    finally:
        incomplete.unlink(missing_ok=True)
    _link(blob, snapshot(model) / file.name)


def make_default(model: EmbeddedModel) -> None:
    """Let the model's name without a revision mean a revision that is here, so that it loads without a network."""
    reference = repository_folder(model) / "refs" / "main"
    if reference.is_file():
        current = repository_folder(model) / "snapshots" / reference.read_text(encoding="ascii").strip()
        if all((current / file.name).is_file() for file in model.files):
            return
    reference.parent.mkdir(parents=True, exist_ok=True)
    written = reference.with_name("main.incomplete")
    written.write_text(model.revision, encoding="ascii")
    os.replace(written, reference)


def _copy(content: IO[bytes], target: Path, file: ModelFile, advance: Callable[[int], object]) -> str:
    """Write the content, check it, and return the name of its blob: SHA-256 for large files, git's hash for others."""
    sha256 = hashlib.sha256()
    git = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with target.open("wb") as stream:
        while chunk := content.read(_CHUNK):
            stream.write(chunk)
            sha256.update(chunk)
            git.update(chunk)
            advance(len(chunk))
        stream.flush()
        os.fsync(stream.fileno())
    if sha256.hexdigest() != file.sha256:
        raise WrongContentError(file.name)
    return file.sha256 if file.large else git.hexdigest()


def _link(blob: Path, pointer: Path) -> None:
    """Put `blob` under the name `pointer` in one step: a relative link, or what the file system can do instead."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    fresh = pointer.with_name(f"{pointer.name}.incomplete")
    fresh.unlink(missing_ok=True)
    try:
        # The links stay right when the whole cache is moved.
        fresh.symlink_to(os.path.relpath(blob.resolve(), pointer.parent.resolve()))
    except OSError:  # Windows without the right to make links
        try:
            fresh.hardlink_to(blob)
        except OSError:
            shutil.copyfile(blob, fresh)
    os.replace(fresh, pointer)
