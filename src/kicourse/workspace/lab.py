"""`kicourse lab`: the workspace in JupyterLab, opened at the course map, with the embedded GPT beside it."""

import asyncio
import json
import logging
import os
import signal
import threading
import time
import webbrowser
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from kicourse.errors import UserError
from kicourse.language import _, translate
from kicourse.workspace import journal, status
from kicourse.workspace.editions import News
from kicourse.workspace.folder import Workspace

# Jupyter's settings for the learner's desk: the map is on, the instructor's extensions are off.
JUPYTER_SETTINGS = Path(__file__).parent / "jupyter"
PORTS_TO_TRY = 50
START_SECONDS = 120

MADE = _("Your workspace is ready: {folder}")
UPDATED = _("{name} is brought up to date.")
BESIDE = _("{kept} holds your work and stays as it is. Its new edition, with your answers, is {name}.")
STARTING = _("Starting JupyterLab ...")
OPEN_AT = _("The course is open at {url}")
HOW_TO_END = _("To end it, press Ctrl-C here. Your work is saved in {folder}")
ALREADY_OPEN = _("This workspace is open already at {url}")
ENDED = _("The course has ended. Open it again with: kicourse lab {folder}")


def run(folder: Path, language: str | None = None, port: int = 8888, open_browser: bool = True) -> int:
    """Open the course in the workspace `folder` until Ctrl-C; return the exit status.

    The workspace is made or brought up to date first. If it is open already, its address is shown instead. The next
    free port is taken if `port` is in use. Raises UserError for a folder that is none, or cannot be written.
    """
    workspace = Workspace.open_or_make(folder, language)
    desk = _Desk(workspace, folder)
    lock = FileLock(workspace.root / ".kicourse" / "lab.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return desk.point_to_running(open_browser)
    with lock:
        return desk.open(port, open_browser)


class _Desk:
    """One workspace, about to be opened."""

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self.workspace, self.folder = workspace, folder
        self.address = workspace.root / ".kicourse" / "lab.json"
        self.console = Console(highlight=False, soft_wrap=True)

    def open(self, port: int, open_browser: bool) -> int:
        """Run JupyterLab and the GPT, and end both together."""
        from kicourse.models import gpt, weights

        self._tell_news()
        weights.pull()
        with gpt.running(announced=True):
            self._say(STARTING)
            server = _server(self.workspace.root, port, open_browser)
            server.io_loop.add_callback(self._announce, server.display_url.splitlines()[0].strip())
            try:
                server.start()
                _finish(server.io_loop.asyncio_loop)
            finally:
                self.address.unlink(missing_ok=True)
        self._say(ENDED, folder=self.folder)
        return 0

    def point_to_running(self, open_browser: bool) -> int:
        """Show where the workspace is open; one that is just starting is waited for."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                url = json.loads(self.address.read_bytes())["url"]
            except (OSError, ValueError):
                time.sleep(0.2)
                continue
            self._say(ALREADY_OPEN, url=url)
            if open_browser:
                webbrowser.open(url)
            return 0
        raise UserError(f"Another `kicourse lab` is starting in {self.folder} and is not done. End it first.")

    def _announce(self, url: str) -> None:
        # The address holds the server's token: it is for this user's eyes only.
        with open(os.open(self.address, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"url": url, "pid": os.getpid()}, file)
        self._say(OPEN_AT, url=url)
        self._say(HOW_TO_END, folder=self.folder)

    def _tell_news(self) -> None:
        self._say(MADE, folder=self.folder)
        if aside := journal.mend(self.workspace.root):
            self._say(status.MENDED, name=aside.name)
        for news in self.workspace.news:
            self._tell(news)

    def _tell(self, news: News) -> None:
        if news.what == "updated":
            self._say(UPDATED, name=news.name)
        elif news.what == "beside":
            self._say(BESIDE, name=news.name, kept=news.kept)

    def _say(self, message: str, **values: object) -> None:
        text = translate("kicourse", message, self.workspace.language).format(**values)
        self.console.print(text, markup=False)


def _server(root: Path, port: int, open_browser: bool) -> Any:
    """Return a Jupyter server that will listen at the first free port from `port` on."""
    paths = [str(JUPYTER_SETTINGS), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(path for path in paths if path)
    # Notebooks run in the Python that kicourse is installed in, whatever kernels the user has elsewhere.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    pressed = _notice_interrupts()
    from jupyterlab.labapp import LabApp  # type: ignore[import-untyped]

    server = LabApp.initialize_server(_arguments(root, port, open_browser))
    # Jupyter calls its address critical; ours is said once, in the learner's language.
    server.log.addFilter(lambda line: line.levelno < logging.CRITICAL)
    _listen(server)

    def stop(*_: object) -> None:
        server.stop(from_signal=True)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)
    if pressed.is_set():
        raise KeyboardInterrupt
    return server


def _notice_interrupts() -> threading.Event:
    """Return what Ctrl-C sets from now on, as it interrupts: among so many imports, the exception may be swallowed."""
    pressed = threading.Event()

    def interrupt(*_: object) -> None:
        pressed.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    return pressed


def _listen(server: Any) -> None:
    """Take the port that Jupyter has found free.

    Left alone, it would do so when it starts, and end if another program (a second course, say) has been faster.
    """

    async def next_turn() -> None:
        """Jupyter takes its port in the loop's next turn."""

    for _attempt in range(PORTS_TO_TRY):
        try:
            server.io_loop.run_sync(next_turn)
            return
        except SystemExit:
            server.init_httpserver()  # which finds another port
    raise UserError("Other programs take every port that JupyterLab finds free. Name another one with `--port`.")


def _finish(loop: asyncio.AbstractEventLoop) -> None:
    """Let go of what the server left undone; threads that wait for it would keep the process alive."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())


def _arguments(root: Path, port: int, open_browser: bool) -> list[str]:
    # As arguments, they hold against whatever a user's own Jupyter configuration says.
    arguments = [
        f"--ServerApp.root_dir={root}",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        f"--ServerApp.port_retries={PORTS_TO_TRY}",
        f"--ServerApp.open_browser={open_browser}",
        "--ServerApp.answer_yes=True",  # Ctrl-C ends it without a question
        "--Application.log_level=ERROR",
        "--LabApp.default_url=/kicourse",
        # Which notebooks are open is kept with the work; Jupyter would open those of the user's other folders.
        f"--LabApp.workspaces_dir={root / '.kicourse' / 'tabs'}",
        f"--LabApp.extra_labextensions_path={JUPYTER_SETTINGS / 'labextensions'}",
        # What notebook and kernel say to each other is nobody else's on a shared machine.
        "--KernelManager.transport_encryption=auto",
    ]
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return arguments + ["--ServerApp.allow_root=True"] * is_root
