"""Running a notebook's cells in a kernel of their own."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from subprocess import DEVNULL
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode

from kicourse.errors import UserError
from kicourse.grading.opening import OpenNotebook
from kicourse.language import VARIABLE

DEMO = "demo"
TIMED_OUT = "CellTimeoutError"
KERNEL_DIED = "KernelDied"


class KernelError(UserError):
    """A kernel does not start, so nothing could be run."""


async def execute(notebook: OpenNotebook) -> float:
    """Run every cell that is not a demonstration, errors or not, and return the seconds it took.

    Each cell may take as long as the unit's limits say. The outputs are put into `notebook.node`; its file is not
    touched, and no progress is recorded. When the kernel dies or cannot be interrupted, the cell at fault gets an
    error as its output and the cells after it none. Raises KernelError if there is no kernel to begin with.
    """
    start = time.monotonic()
    for cell in _code(notebook.node):
        cell.outputs, cell.execution_count = [], None
    async with _client(notebook) as client:
        for index, cell in enumerate(notebook.node.cells):
            if not await _run(client, cell, index):
                break
    return time.monotonic() - start


async def _run(client: NotebookClient, cell: NotebookNode, index: int) -> bool:
    """Run one cell; tell whether the kernel can go on."""
    try:
        await client.async_execute_cell(cell, index)
    except DeadKernelError:
        cell.outputs.append(_error(KERNEL_DIED, "The kernel died in this cell."))
        return False
    errors = [output.ename for output in cell.get("outputs", ()) if output.output_type == "error"]
    # A cell that heeds the interrupt says so; one that does not would hold up every cell after it.
    return TIMED_OUT not in errors or "KeyboardInterrupt" in errors


def _note_timeout(cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
    """Put a timeout among the outputs, where nbclient leaves no trace of it."""
    content = execute_reply["content"]
    if content["ename"] == TIMED_OUT:
        cell.outputs.append(_error(TIMED_OUT, content["evalue"]))


@asynccontextmanager
async def _client(notebook: OpenNotebook) -> AsyncIterator[NotebookClient]:
    """Yield a client with a fresh kernel, which is gone afterwards, come what may."""
    # nbclient would start the kernel itself, but then takes SIGINT for one notebook alone.
    manager = AsyncKernelManager(kernel_name="python3")
    _use_this_interpreter(manager)
    environment = os.environ | {VARIABLE: notebook.language, "KICOURSE_RECORD": "0"}
    seconds = round(notebook.unit.limits.seconds)
    too_slow = {"ename": TIMED_OUT, "evalue": f"The cell took longer than {seconds} seconds.", "traceback": []}
    client = NotebookClient(
        notebook.node,
        km=manager,
        timeout=seconds,
        interrupt_on_timeout=True,
        error_on_timeout=too_slow,
        on_cell_error=_note_timeout,
        allow_errors=True,
        skip_cells_with_tag=DEMO,
        log=_silent(),
    )
    try:
        await _start(client, str(notebook.path.resolve().parent), environment)
        yield client
    finally:
        if client.kc is not None:
            client.kc.stop_channels()
        await manager.shutdown_kernel(now=True)


async def _start(client: NotebookClient, folder: str, environment: dict[str, str]) -> None:
    try:
        await client.km.start_kernel(cwd=folder, env=environment, stdout=DEVNULL, stderr=DEVNULL)
        await client.async_start_new_kernel_client()
    except (OSError, RuntimeError) as error:
        raise KernelError(f"Its kernel does not start ({error}). Run `kicourse doctor`.") from error


def _use_this_interpreter(manager: AsyncKernelManager) -> None:
    """Let the kernel be this Python: a kernel of the same name in the user's home may be any other."""
    from ipykernel.kernelspec import make_ipkernel_cmd

    if manager.kernel_spec is not None:
        manager.kernel_spec.argv = make_ipkernel_cmd()


def _silent() -> Any:
    import logging

    logger = logging.getLogger("kicourse.execution")
    logger.setLevel(logging.CRITICAL + 1)
    return logger


def _code(node: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in node.cells if cell.cell_type == "code"]


def _error(name: str, value: str) -> NotebookNode:
    from nbformat.v4 import new_output

    return new_output("error", ename=name, evalue=value, traceback=[])
