"""Whatever is killed, interrupted, full or at work twice: every mark is there once, and is the right one."""

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from kicourse.grading.seeds import secret_of
from tests.grading.class_room import (
    DEADLINE,
    NOTHING,
    POINTS,
    UNIT,
    command,
    environment,
    grade,
    hand_in,
    marks,
    new_class,
    require_single_rows,
    solved,
    totals,
    wrong,
)

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")]

COUNT = 60
SERVER = "kicourse.grading.fork_server"
STRAY = "import subprocess\nsubprocess.Popen(['sleep', '600'], start_new_session=True)"

Marks = dict[str, dict[str, float]]


def some() -> Iterator[tuple[str, dict[str, str], list[tuple[str, str]], dict[str, float]]]:
    """Students, what they hand in, and the marks for it; all of it is graded quickly."""
    cost, stream = ({task: solved()[task]} for task in ("cost", "stream"))
    kinds: list[tuple[dict[str, str], dict[str, float]]] = [
        ({}, {}),
        (cost, {"cost": 2.5}),
        (cost | stream, {"cost": 2.5, "stream": 2.5}),
        (cost, {"cost": 2.5}),
    ]
    for number in range(COUNT):
        sources, points = (wrong(), {}) if number % 20 == 7 else kinds[number % 4]
        own = [("setup", STRAY)] if number % 20 == 5 else []
        yield f"student-{number:02}", sources, own, NOTHING | points


def expected(count: int = COUNT) -> Marks:
    return {student: points for student, _sources, _own, points in list(some())[:count]}


@pytest.fixture(scope="module")
def full_class(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class that nobody has graded, with its secret: copies of it meet the same data."""
    folder = new_class(tmp_path_factory, tmp_path_factory.mktemp("full") / "class")
    secret_of(folder / ".kicourse" / "secret")
    for student, sources, own, _points in some():
        hand_in(folder, student, sources, own)
    return folder


@pytest.fixture(scope="module")
def undisturbed(full_class: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same class, graded without any accident."""
    folder = Path(shutil.copytree(full_class, tmp_path_factory.mktemp("undisturbed") / "class"))
    with Grader(folder) as grader:
        grader.ends(0)
    return folder


def part(full_class: Path, place: Path, count: int = COUNT) -> Path:
    """A copy of the class with its first students."""
    folder = Path(shutil.copytree(full_class, place))
    for student in list(expected())[count:]:
        shutil.rmtree(folder / "submitted" / student)
    return folder


class Grader:
    """A running `kicourse grade`, all of whose processes can be told from others'. Use it as a context manager.

    They have the name of a folder that is their own in their environment, or work in it.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.place = folder.parent / f"{folder.name}.tmp"
        self.place.mkdir(exist_ok=True)
        self.log = folder.parent / f"{folder.name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command(folder, *arguments),
                env=environment(TMPDIR=str(self.place)),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.processes():
            with suppress(psutil.Error):
                one.kill()
        self.process.wait()

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def processes(self) -> list[psutil.Process]:
        """Every live process of this run, whoever its parent is by now."""
        return [one for one in psutil.process_iter() if self._is_ours(one)]

    def _is_ours(self, process: psutil.Process) -> bool:
        mark = str(self.place)
        with suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return any(mark in value for value in process.environ().values()) or process.cwd().startswith(mark)
        return False

    def workers(self, role: str, *, forks: bool) -> list[psutil.Process]:
        """The fork servers of a role, or their forks."""
        found = []
        if role == "writer":
            for one in self.process_children():
                with suppress(psutil.Error):
                    if "spawn_main" in " ".join(one.cmdline()):
                        found.append(one)
            return found
        for one in self.processes():
            with suppress(psutil.Error):
                parent = one.parent()
                is_fork = parent is not None and SERVER in parent.cmdline()
                if one.cmdline()[-2:] == [SERVER, role] and is_fork == forks:
                    found.append(one)
        return found

    def process_children(self) -> list[psutil.Process]:
        with suppress(psutil.Error):
            return psutil.Process(self.process.pid).children()
        return []

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert self.process.poll() is None, f"it ended before {what}: {self.said}"
            assert time.monotonic() < deadline, f"no {what}: {self.said}"
            time.sleep(0.02)

    def done(self) -> int:
        """How many submissions have been graded and written."""
        return len(list((self.folder / "feedback").glob(f"*/{UNIT}/{UNIT}.html")))

    def ends(self, status: int) -> None:
        """Fail unless it ends with this status, and leaves neither a process nor a scratch folder."""
        assert self.process.wait(DEADLINE) == status, self.said
        assert "Traceback" not in self.said, self.said
        self.leaves_no_process()
        assert not list(self.place.iterdir()), "a scratch folder is left"

    def leaves_no_process(self) -> None:
        deadline = time.monotonic() + 30
        while left := self.processes():
            assert time.monotonic() < deadline, [(one.pid, one.ppid(), one.cmdline()) for one in left]
            time.sleep(0.1)


def require_complete(folder: Path, marks_expected: Marks) -> None:
    assert marks(folder) == marks_expected
    require_single_rows(folder)
    for student in marks_expected:
        assert (folder / "autograded" / student / UNIT / f"{UNIT}.ipynb").is_file()
        assert "</html>" in (folder / "feedback" / student / UNIT / f"{UNIT}.html").read_text(encoding="utf-8")
    half_written = [path for path in folder.rglob(".*") if re.search(r"\.(html|ipynb|json)\.", path.name)]
    assert not half_written


def test_the_undisturbed_run(undisturbed: Path) -> None:
    require_complete(undisturbed, expected())
    assert set(totals(undisturbed).values()) == {0, 2.5, 5}


def kill(process: psutil.Process) -> bool:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


VICTIMS = [("judge", True), ("player", True), ("judge", False), ("player", False), ("writer", False)]


@pytest.mark.parametrize("seed", [1])
def test_workers_are_killed(full_class: Path, undisturbed: Path, tmp_path: Path, seed: int) -> None:
    """A judge, a player, their servers and who writes are killed from outside, as by a machine out of memory."""
    rng = random.Random(seed)
    folder = part(full_class, tmp_path / "class")
    planned = VICTIMS * 2
    rng.shuffle(planned)
    killed = []
    with Grader(folder, "--workers", "2") as grader:
        grader.wait_for(grader.done, "first mark")
        for role, forks in planned:
            time.sleep(rng.uniform(0.1, 1.0))
            while True:
                victims: list[psutil.Process] = []

                def there(victims: list[psutil.Process] = victims, role: str = role, forks: bool = forks) -> bool:
                    victims[:] = grader.workers(role, forks=forks)
                    return bool(victims)

                grader.wait_for(there, f"{role} to kill")
                if kill(rng.choice(victims)):
                    killed.append((role, forks, grader.done()))
                    break
        grader.ends(0)
    assert len(killed) == len(planned)
    assert marks(folder) == marks(undisturbed), killed
    require_complete(folder, expected())


@pytest.mark.parametrize("seed", [2])
def test_the_coordinator_is_killed(full_class: Path, undisturbed: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    folder = part(full_class, tmp_path / "class")
    enough = 0
    for _ in range(3):
        enough += rng.randrange(5, 16)
        with Grader(folder) as grader:
            grader.wait_for(lambda enough=enough, grader=grader: grader.done() >= enough, f"{enough} marks")  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.5))
            grader.process.kill()
            grader.process.wait()
            grader.leaves_no_process()
        require_single_rows(folder)
        assert marks(folder).items() <= expected().items(), "what is there is right"
    unchanged = re.search(r"^(\d+) graded before", grade(folder), re.MULTILINE)
    assert unchanged, "what was graded before is not graded again"
    assert enough - 3 <= int(unchanged[1]) < COUNT
    assert marks(folder) == marks(undisturbed)
    require_complete(folder, expected())


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):  # it has just ended
        return process.name()
    return ""


def test_a_submissions_own_processes_end_with_a_killed_coordinator(full_class: Path, tmp_path: Path) -> None:
    folder = part(full_class, tmp_path / "class", 1)
    hand_in(folder, "student-00", {}, [("setup", f"{STRAY}\nimport time\ntime.sleep(100)")])

    def strays() -> list[psutil.Process]:
        return [one for one in grader.processes() if _name(one) == "sleep"]

    with Grader(folder, "--workers", "1") as grader:
        grader.wait_for(strays, "process of the submission's own")
        grader.process.kill()
        grader.process.wait()
        grader.leaves_no_process()


def test_an_interrupt_breaks_nothing(full_class: Path, tmp_path: Path) -> None:
    """Ctrl-C in a terminal goes to every process of the group."""
    folder = part(full_class, tmp_path / "class", 16)
    with Grader(folder) as grader:
        grader.wait_for(lambda: grader.done() >= 4, "four marks")
        os.killpg(grader.process.pid, signal.SIGINT)
        grader.ends(130)
    assert 4 <= len(marks(folder)) < 16, "it was interrupted in the middle"
    assert "Stopped. What is graded is kept" in grader.said
    require_single_rows(folder)
    grade(folder)
    require_complete(folder, expected(16))


def test_an_interrupt_at_the_start_breaks_nothing(full_class: Path, tmp_path: Path) -> None:
    folder = part(full_class, tmp_path / "class", 1)
    with Grader(folder, "--workers", "1") as grader:
        grader.wait_for(lambda: grader.workers("judge", forks=False), "fork server")
        os.killpg(grader.process.pid, signal.SIGINT)
        grader.ends(130)
    assert marks(folder) == {}


def test_an_interrupt_is_no_affair_of_the_process_that_writes(full_class: Path, tmp_path: Path) -> None:
    """Not even while Python itself is starting there."""
    folder = part(full_class, tmp_path / "class", 1)
    for milliseconds in (0, 50, 100, 200, 300):
        with Grader(folder, "--workers", "1") as grader:
            grader.wait_for(lambda: grader.workers("writer", forks=False), "the process that writes")
            time.sleep(milliseconds / 1000)
            os.killpg(grader.process.pid, signal.SIGINT)
            grader.ends(130)
            assert "Traceback" not in grader.said
    assert marks(folder) == {}


def test_two_graders_at_once(full_class: Path, tmp_path: Path) -> None:
    folder = part(full_class, tmp_path / "class", 8)
    with Grader(folder) as grader:
        grader.wait_for(lambda: grader.workers("judge", forks=False), "fork server")
        said = grade(folder, status=1)
        assert f"{folder} is being graded now, by another command" in said
        assert len(said.strip().splitlines()) == 1
        grader.ends(0)
    require_complete(folder, expected(8))


# ---------------------------------------------------------------- a disk that is full


@contextmanager
def small_disk(place: Path, mebibytes: float) -> Iterator[Callable[[float], None]]:
    """Mount a small disk, and yield what changes its size. Skips the test where nobody may."""

    def mount(*options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", *options, "tmpfs", str(place)], check=True, capture_output=True)

    place.mkdir()
    try:
        mount(f"size={mebibytes * 1024:.0f}k")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk needs the right to mount one: {error}")
    try:
        yield lambda mebibytes: mount(f"remount,size={mebibytes * 1024:.0f}k")
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, capture_output=True)


def size_of(folder: Path) -> float:
    """Mebibytes that the files of a folder fill on a disk, generously."""
    return sum(path.lstat().st_size + 8192 for path in folder.rglob("*")) / 2**20


@pytest.mark.parametrize("room", [0.0, 0.3, 3.0])
def test_a_full_disk(full_class: Path, undisturbed: Path, tmp_path: Path, room: float) -> None:
    """It becomes full at once, at the first files, or after some: the gradebook is whole, and a later run completes.

    The results of the undisturbed run lie there, but for those of the last students, so that only writing takes time.
    """
    count = 16
    prepared = part(full_class, tmp_path / "prepared", count)
    if room:
        shutil.copytree(undisturbed / ".kicourse" / "results", prepared / ".kicourse" / "results")
    else:
        for student in expected(count):
            hand_in(prepared, student).write_text("no notebook")  # this is graded without results
    with small_disk(tmp_path / "disk", size_of(prepared) * 2 + 8) as resize:
        folder = Path(shutil.copytree(prepared, tmp_path / "disk" / "class"))
        free = shutil.disk_usage(folder).free / 2**20
        ballast = tmp_path / "disk" / "ballast"
        ballast.write_bytes(bytes(max(0, int((free - room) * 2**20) // 4096 * 4096)))
        said = grade(folder, status=1)
        assert "kicourse: " in said
        assert "o space left" in said or "disk is full" in said or "I/O error" in said, said
        require_single_rows(folder)
        wanted = expected(count) if room else dict.fromkeys(expected(count), NOTHING)
        assert marks(folder).items() <= wanted.items()
        assert len(marks(folder)) < count
        ballast.unlink()
        resize(200)
        grade(folder)
        require_complete(folder, wanted)


def test_files_that_may_not_grow(full_class: Path, tmp_path: Path) -> None:
    """The same for those who may not mount a disk: every file is limited to less than a feedback page needs."""
    folder = part(full_class, tmp_path / "class", 2)
    for student in expected(2):
        hand_in(folder, student).write_text("no notebook")
    largest = 100_000
    assert (folder / "gradebook.db").stat().st_size > largest
    done = subprocess.run(
        command(folder),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY)),
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("kicourse: ")
    require_single_rows(folder)
    grade(folder)
    require_complete(folder, dict.fromkeys(expected(2), dict.fromkeys(POINTS, 0.0)))
