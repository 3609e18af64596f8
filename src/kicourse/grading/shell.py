"""An IPython shell without a kernel: cells behave as in Jupyter, and what they show is collected, within bounds."""

import asyncio
import contextvars
import os
import re
import select
import subprocess
import sys
import threading
import time
from contextlib import suppress
from io import TextIOBase
from typing import Any

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.profiledir import ProfileDir
from traitlets import Instance, Type
from traitlets.config import Config

Output = dict[str, Any]

MOST_PICTURE_BYTES = 5_000_000
MOST_OUTPUTS = 100
_PATIENCE = 0.5  # seconds that are waited at most for what is still to be collected of a cell
_KEPT_TYPES = ("text/plain", "image/png")
_IPYTHONS_OWN = re.compile(r"\A\s*[%!?,;/]|=\s*[%!]|\?\s*\Z")  # %magic, !command, name = !command, help?


class Outputs:
    """What a cell has shown, as nbformat's outputs in plain data; too much of it is cut, and says so."""

    def __init__(self, characters: int) -> None:
        self.characters = characters
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Begin anew, for the next cell."""
        self.items: list[Output] = []
        self._room, self._picture_room = self.characters, MOST_PICTURE_BYTES

    def stream(self, name: str, text: str) -> None:
        """Add text to a stream."""
        with self._lock:
            if not text or self._room <= 0:
                return
            kept, self._room = text[: self._room], self._room - len(text)
            kept = kept if self._room > 0 else kept + "\n... (more was printed)\n"
            if self.items and self.items[-1].get("name") == name:
                self.items[-1]["text"] += kept
            else:
                self._add({"output_type": "stream", "name": name, "text": kept})

    def data(self, kind: str, bundle: dict[str, Any]) -> None:
        """Add what was displayed: its text and its picture."""
        kept = {name: value for name, value in bundle.items() if name in _KEPT_TYPES and isinstance(value, str)}
        with self._lock:
            self._picture_room -= len(kept.get("image/png", ""))
            if self._picture_room < 0:
                kept.pop("image/png", None)
            if "text/plain" in kept:
                kept["text/plain"] = kept["text/plain"][: self.characters]
            self._add({"output_type": kind, "data": kept, "metadata": {}})

    def error(self, name: str, value: str, traceback: list[str]) -> None:
        """Add an error."""
        with self._lock:
            trace = [str(line)[:2_000] for line in traceback[-20:]]
            self._add({"output_type": "error", "ename": name[:200], "evalue": value[:2_000], "traceback": trace})

    def _add(self, output: Output) -> None:
        if len(self.items) < MOST_OUTPUTS:
            self.items.append(output)


class _Stream(TextIOBase):
    def __init__(self, outputs: Outputs, name: str, descriptor: int) -> None:
        self.outputs, self.name, self.descriptor = outputs, name, descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor

    def write(self, text: str) -> int:
        self.outputs.stream(self.name, str(text))
        return len(text)


class _Publisher(DisplayPublisher):
    def publish(self, data: Any, metadata: Any = None, **_: Any) -> None:
        self.shell.outputs.data("display_data", data)

    def clear_output(self, wait: bool = False) -> None:
        """Keep what was shown: there is no screen to clear."""


class _Hook(DisplayHook):
    def write_output_prompt(self) -> None:
        """Show no prompt."""

    def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
        self.shell.outputs.data("execute_result", format_dict)


class Transformer(TransformerManager):
    """Looks for IPython's own syntax only where there may be some: to find it takes a tokenizer written in Python."""

    def __init__(self) -> None:
        super().__init__()
        self._known = list(self.token_transformers)

    def do_token_transforms(self, lines: list[str]) -> list[str]:
        """Return the lines as Python."""
        needed = self.token_transformers != self._known or any(_IPYTHONS_OWN.search(line) for line in lines)
        transformed: list[str] = super().do_token_transforms(lines) if needed else lines
        return transformed


class Shell(InteractiveShell):
    """Runs cells; `outputs` holds what the current one has shown.

    It can be made before a fork, and is started in the process whose cells it runs.
    """

    display_pub_class = Type(_Publisher)
    displayhook_class = Type(_Hook)
    input_transformer_manager = Instance(Transformer, ())

    def __init__(self) -> None:
        self.outputs = Outputs(0)
        history = {"enabled": False, "hist_file": ":memory:"}
        super().__init__(config=Config(HistoryManager=history, InteractiveShell={"colors": "nocolor"}))

    def show_an_error(self) -> None:
        """Show an error to nobody: the first one of a process looks for the files of all modules that are there."""
        try:
            raise NameError
        except NameError:
            self.showtraceback()
        self.outputs.clear()

    def start(self, characters: int) -> None:
        """Get ready to run cells in this process, and to collect what they write: so many characters of each."""
        self.outputs = Outputs(characters)
        self.init_ipython_dir(os.environ.get("IPYTHONDIR"))
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._context = contextvars.copy_context()
        sys.path.insert(0, os.getcwd())  # as in Jupyter: a cell may write a module
        self._capture()

    def init_profile_dir(self, profile_dir: Any) -> None:
        """Make none: few cells need one."""

    def _profile_dir_default(self) -> Any:
        # traitlets calls this, by its name, when somebody asks for the folder.
        return ProfileDir.create_profile_dir_by_name(self.ipython_dir, "default")

    def enable_gui(self, gui: str | None = None) -> None:
        """There is none; %matplotlib asks for it all the same."""

    def system(self, cmd: str) -> None:
        """Run a shell command (`!echo`); IPython's own way needs a terminal."""
        done = subprocess.run(self.var_expand(cmd, depth=1), shell=True, stdin=subprocess.DEVNULL, check=False)
        self.user_ns["_exit_code"] = done.returncode

    def play(self, source: str) -> tuple[list[Output], bool]:
        """Run a cell and return what it showed, and whether it ended without an error."""
        self.outputs.clear()
        self.events.trigger("pre_execute")
        self.events.trigger("pre_run_cell", None)
        # All cells share one context, as in Jupyter: how decimals are rounded, say, holds for the cells after.
        result = self._loop.run_until_complete(self._loop.create_task(self._run(source), context=self._context))
        self._settle()
        self.events.trigger("post_execute")
        self.events.trigger("post_run_cell", result)
        return self.outputs.items, bool(result.success)

    async def _run(self, source: str) -> Any:
        try:
            transformed, failure = self.transform_cell(source), None
        except Exception:
            transformed, failure = source, sys.exc_info()
        return await self.run_cell_async(
            source, store_history=True, transformed_cell=transformed, preprocessing_exc_tuple=failure
        )

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException, stb: list[str]) -> None:
        try:
            text = str(evalue)
        except Exception:
            text = ""
        self.outputs.error(etype.__name__, text, stb)

    def _capture(self) -> None:
        """Collect what is written to Python's streams, and to the descriptors behind them."""
        self._readers: list[int] = []
        self._reading = threading.Lock()
        sys.stdout, sys.stderr = (_Stream(self.outputs, name, d) for name, d in (("stdout", 1), ("stderr", 2)))
        if os.name == "nt":  # where nobody can wait for a pipe; what programs write there is not collected
            return
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            reader, writer = os.pipe()
            os.dup2(writer, descriptor)
            os.close(writer)
            self._readers.append(reader)
            threading.Thread(target=self._drain, args=(name, reader), daemon=True).start()

    def _drain(self, name: str, reader: int) -> None:
        while True:
            select.select([reader], [], [])
            with self._reading:  # so that whoever finds nothing left to read finds it among the outputs
                if not (piece := os.read(reader, 65536)):
                    return
                self.outputs.stream(name, piece.decode("utf-8", "replace"))

    def _settle(self) -> None:
        """Wait until what this cell has written to the descriptors is collected: the next cell has its own outputs."""
        deadline = time.monotonic() + _PATIENCE
        with suppress(OSError, ValueError):  # a cell has closed them
            while time.monotonic() < deadline:
                with self._reading:
                    if not select.select(self._readers, [], [], 0)[0]:
                        return
                time.sleep(0.001)
