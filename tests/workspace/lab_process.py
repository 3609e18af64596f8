"""A real `kicourse lab`, as a learner starts it."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

START_SECONDS = 120


class Lab:
    """A running `kicourse lab --no-browser`; `url` is the address that it printed, with its token."""

    def __init__(self, folder: Path, *options: str, settings: Path, **environment: str) -> None:
        self.folder, self.settings = folder, settings
        program = Path(sys.executable).with_name("kicourse")
        command = [str(program), "lab", str(folder), "--no-browser", *options]
        # Jupyter's settings of whoever runs the tests are not part of the test.
        apart = {"JUPYTER_CONFIG_DIR": str(settings), "JUPYTER_RUNTIME_DIR": str(settings), "COLUMNS": "200"}
        self.log = settings / f"lab-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env={**os.environ, **apart, **environment}, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def url(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        while "/kicourse?token=" not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.1)
        return next(word for word in self.output.split() if "/kicourse?token=" in word)

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    @property
    def token(self) -> str:
        return parse_qs(urlsplit(self.url).query)["token"][0]

    def request(self, path: str, body: bytes | None = None, **headers: str) -> urllib.request.Request:
        headers = {"Authorization": f"token {self.token}"} | headers
        return urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body, headers=headers)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.request(path), timeout=30) as answer:
            return str(answer.read().decode())

    def end(self, how: signal.Signals = signal.SIGINT) -> int:
        """Press Ctrl-C; return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(60)
