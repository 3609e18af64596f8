"""`kicourse lab` from the outside: one server a workspace, its own port, a locked door, a clean end."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from jupyter_client import BlockingKernelClient

from kicourse.checks import load
from kicourse.syllabus import course

from .lab_process import Lab

# With a provider of the learner's own nothing embedded starts, which keeps these tests quick.
OWN_PROVIDER = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "own"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    settings = tmp_path_factory.mktemp("settings")
    lab = Lab(tmp_path_factory.mktemp("desk") / "work", settings=settings, **OWN_PROVIDER)
    yield lab
    lab.end()


def test_the_map_names_every_unit_and_task_in_order(lab: Lab) -> None:
    page = lab.get("/kicourse")
    places = [page.index(f'id="unit-{unit.slug}"') for unit in course().units]
    assert places == sorted(places)
    for unit in course().finished:
        assert f'href="/lab/tree/{unit.slug}.ipynb"' in page
        tasks = [page.index(f'id="task-{unit.slug}-{task}"') for task in load(unit.slug)]
        assert tasks == sorted(tasks)


def test_a_role_sees_its_own_path(lab: Lab) -> None:
    page = lab.get("/kicourse?path=researcher")
    assert 'id="unit-mini_gpt"' in page
    assert 'id="unit-maintenance"' not in page
    assert 'id="unit-maintenance"' in lab.get("/kicourse?path=no-such-role")


def test_the_map_is_behind_the_token(lab: Lab) -> None:
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    opener = urllib.request.build_opener(Stay)
    for path in ("/kicourse", "/kicourse/progress"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            opener.open(f"http://127.0.0.1:{lab.port}{path}", timeout=30)
        assert refused.value.code in (302, 403)
        assert "/login" in refused.value.headers.get("Location", "/login")
    strange = urllib.request.Request(f"http://127.0.0.1:{lab.port}/kicourse", data=b"language=de")
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(strange, timeout=30)
    assert refused.value.code == 403


def test_a_language_that_does_not_exist_is_refused(lab: Lab) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(lab.request("/kicourse", b"language=fr"), timeout=30)
    assert refused.value.code == 400


def test_the_instructors_tools_are_not_on_the_learners_desk(lab: Lab) -> None:
    page = lab.get("/lab")
    start = page.index('type="application/json">', page.index('id="jupyter-config-data"'))
    config = json.loads(page[page.index("{", start) : page.index("</script>", start)])
    assert "@jupyter/nbgrader" in config["disabledExtensions"]
    with pytest.raises(urllib.error.HTTPError):
        lab.get("/formgrader/api/assignments")


def test_the_servers_address_is_for_its_user_only(lab: Lab) -> None:
    assert lab.url
    address = lab.folder / ".kicourse" / "lab.json"
    assert json.loads(address.read_text())["url"] == lab.url
    assert stat.S_IMODE(address.stat().st_mode) == 0o600


def test_which_notebooks_are_open_is_kept_with_the_work(lab: Lab) -> None:
    tabs = json.dumps({"data": {}, "metadata": {"id": "default"}}).encode()
    request = lab.request("/lab/api/workspaces/default", tabs)
    request.method = "PUT"
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 204
    assert list((lab.folder / ".kicourse" / "tabs").iterdir())


def test_a_second_lab_points_to_the_first(lab: Lab, tmp_path: Path) -> None:
    second = Lab(lab.folder, settings=tmp_path, **OWN_PROVIDER)
    assert second.process.wait(60) == 0
    assert second.url == lab.url
    assert lab.get("/kicourse/progress")


def test_ctrl_c_ends_everything_and_a_taken_port_is_no_problem(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        lab = Lab(tmp_path / "work", "--port", str(port), settings=tmp_path)  # the embedded GPT runs here
        assert lab.port != port
    try:
        start_kernel(lab)
        family = psutil.Process(lab.process.pid).children(recursive=True)
        assert len(family) >= 2  # the kernel and the GPT
    finally:
        status = lab.end()
    assert status == 0
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert not (tmp_path / "work" / ".kicourse" / "lab.json").exists()
    assert "Traceback" not in lab.output


SWALLOWED = """
import os, signal, sys
from contextlib import suppress
from pathlib import Path
from kicourse.workspace import lab
listen = lab._listen
def press_ctrl_c_and_listen(server):
    with suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    listen(server)
lab._listen = press_ctrl_c_and_listen
try:
    lab.run(Path(sys.argv[1]), open_browser=False)
except KeyboardInterrupt:
    sys.exit(130)
"""
"""Opens a workspace; while it starts Ctrl-C is pressed, of which nothing is heard."""

TAKEN = """
import socket, sys
from pathlib import Path
from jupyterlab.labapp import LabApp
from kicourse.workspace import lab

initialize_server = LabApp.initialize_server

def initialize_and_lose(arguments):
    server = initialize_server(arguments)
    faster = socket.create_server(("127.0.0.1", server.port))
    print(server.port)
    kept.append(faster)
    return server

kept, LabApp.initialize_server = [], initialize_and_lose
print(lab._server(Path(sys.argv[1]), 8888, False).port)
"""


def test_a_port_that_another_program_takes_at_the_last_moment_is_no_problem(tmp_path: Path) -> None:
    own = {"JUPYTER_CONFIG_DIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    command = [sys.executable, "-c", TAKEN, str(tmp_path)]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=True)
    found, taken = done.stdout.split()
    assert found != taken
    assert done.stderr == ""


def test_a_closed_terminal_ends_it_too(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "work", settings=tmp_path, **OWN_PROVIDER)
    assert lab.url
    assert lab.end(signal.SIGHUP) == 0


def test_after_a_kill_nothing_is_left_and_the_workspace_opens_again(tmp_path: Path) -> None:
    first = Lab(tmp_path / "work", settings=tmp_path)
    start_kernel(first)
    family = psutil.Process(first.process.pid).children(recursive=True)
    first.end(signal.SIGKILL)
    assert psutil.wait_procs(family, timeout=20)[1] == []
    second = Lab(tmp_path / "work", settings=tmp_path, **OWN_PROVIDER)
    try:
        assert second.url != first.url
    finally:
        second.end()


def test_ctrl_c_while_it_starts(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "work", settings=tmp_path)
    while "JupyterLab" not in lab.output:
        time.sleep(0.05)
    lab.end()
    assert "Traceback" not in lab.output
    assert not (tmp_path / "work" / ".kicourse" / "lab.json").exists()


@pytest.mark.parametrize("terminal", [True, False])
def test_ctrl_c_that_a_library_swallows_while_it_starts(tmp_path: Path, terminal: bool) -> None:
    """In a terminal, Jupyter would ask first, and go on when nobody answers."""
    own = {"JUPYTER_CONFIG_DIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path)} | OWN_PROVIDER
    command = [sys.executable, "-c", SWALLOWED, str(tmp_path / "work")]
    ours, theirs = os.openpty()
    stdin = theirs if terminal else subprocess.DEVNULL
    try:
        done = subprocess.run(command, env=os.environ | own, stdin=stdin, check=False, timeout=120)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == (0 if terminal else 130)


def start_kernel(lab: Lab) -> None:
    with urllib.request.urlopen(lab.request("/api/kernels", b'{"name": "python3"}'), timeout=60) as answer:
        kernel = json.load(answer)["id"]
    client = BlockingKernelClient(connection_file=str(lab.settings / f"kernel-{kernel}.json"))
    client.load_connection_file()
    client.start_channels(hb=False)  # a client takes a kernel that is too busy for one heartbeat for dead
    client.wait_for_ready(60)
    client.stop_channels()
