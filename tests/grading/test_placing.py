import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kicourse.errors import UserError
from kicourse.grading.placing import place_feedback, place_graded, safe_name

UNIT = "mini_gpt"
links = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not let everyone make links")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_files_lie_where_nbgrader_looks_for_them(tmp_path: Path) -> None:
    place_graded(tmp_path, "ada", UNIT, b"graded", "2026-03-01 10:00:00 UTC\n")
    path = place_feedback(tmp_path, "ada", UNIT, "a page: ü", "2026-03-01 10:00:00 UTC\n")
    assert path == tmp_path / "feedback" / "ada" / UNIT / f"{UNIT}.html"
    assert everything(tmp_path) == {
        f"{room}/ada/{UNIT}/{name}"
        for room, own in (("autograded", f"{UNIT}.ipynb"), ("feedback", f"{UNIT}.html"))
        for name in (own, "timestamp.txt")
    }
    assert (tmp_path / "autograded" / "ada" / UNIT / f"{UNIT}.ipynb").read_bytes() == b"graded"
    assert path.read_bytes() == "a page: ü".encode()
    assert path.with_name("timestamp.txt").read_bytes() == b"2026-03-01 10:00:00 UTC\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows only read-only")
def test_they_have_nbgraders_permissions(tmp_path: Path) -> None:
    graded = place_graded(tmp_path, "ada", UNIT, b"", "2026-03-01")
    page = place_feedback(tmp_path, "ada", UNIT, "", "2026-03-01")
    assert [mode(path) for path in (graded, graded.with_name("timestamp.txt"))] == [0o444, 0o444]
    assert [mode(path) for path in (page, page.with_name("timestamp.txt"))] == [0o644, 0o644]


def test_a_read_only_file_is_replaced(tmp_path: Path) -> None:
    first = place_graded(tmp_path, "ada", UNIT, b"first", "2026-03-01")
    with first.open("rb") as reader:
        place_graded(tmp_path, "ada", UNIT, b"second", "2026-03-02")
        assert reader.read() == b"first", "who reads the old file reads all of it"
    assert first.read_bytes() == b"second"
    assert first.with_name("timestamp.txt").read_text() == "2026-03-02"
    place_graded(tmp_path, "ada", UNIT, b"third")
    assert everything(tmp_path) == {f"autograded/ada/{UNIT}/{UNIT}.ipynb"}


@links
@pytest.mark.parametrize("link", ["ada", f"ada/{UNIT}"])
def test_nothing_is_written_through_a_link(tmp_path: Path, link: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for room in ("autograded", "feedback"):
        (tmp_path / room / link).parent.mkdir(parents=True)
        (tmp_path / room / link).symlink_to(elsewhere)
    with pytest.raises(UserError, match="is a link"):
        place_graded(tmp_path, "ada", UNIT, b"graded")
    with pytest.raises(UserError, match="is a link"):
        place_feedback(tmp_path, "ada", UNIT, "page")
    assert not list(elsewhere.iterdir())


@links
def test_a_link_in_a_files_place_is_replaced_and_what_it_points_to_is_not(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    place = tmp_path / "autograded" / "ada" / UNIT
    place.mkdir(parents=True)
    for name in (f"{UNIT}.ipynb", "timestamp.txt"):
        (place / name).symlink_to(tmp_path / "thesis.txt")
    place_graded(tmp_path, "ada", UNIT, b"graded", "2026-03-01")
    assert (tmp_path / "thesis.txt").read_text() == "all of it"
    assert (place / f"{UNIT}.ipynb").read_bytes() == b"graded"


@links
def test_the_rooms_themselves_may_be_links(tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "feedback").symlink_to(tmp_path / "large disk")
    place_feedback(tmp_path, "ada", UNIT, "page")
    assert everything(tmp_path / "large disk") == {f"ada/{UNIT}/{UNIT}.html"}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc", "a\\b", "a\0b", "a\nb", ".hidden", "\udcff", "x" * 129, "../../etc"]
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    assert not safe_name(name)
    for student, unit in ((name, UNIT), ("ada", name)):
        with pytest.raises(UserError, match="cannot be the name of a folder"):
            place_graded(tmp_path, student, unit, b"graded")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["ada", "o'neil, m.", "ada@example.org", "日本 Ω", "a..b", "-rf", "x" * 128])
def test_other_names_are_fine(tmp_path: Path, name: str) -> None:
    assert safe_name(name)
    if len(name.encode()) < 100:
        assert place_graded(tmp_path, name, UNIT, b"graded").parent.parent.name == name


@pytest.mark.parametrize("where", ["autograded", "autograded/ada", f"autograded/ada/{UNIT}/{UNIT}.ipynb/in the way"])
def test_what_is_in_the_way_is_a_users_error(tmp_path: Path, where: str) -> None:
    (tmp_path / where).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / where).write_text("mine")
    with pytest.raises(UserError, match="cannot be written"):
        place_graded(tmp_path, "ada", UNIT, b"graded")
    assert everything(tmp_path) == {where}
    assert (tmp_path / where).read_text() == "mine"


FULL_DISK = """
import resource, sys
from pathlib import Path
from kicourse.errors import UserError
from kicourse.grading.placing import place_graded

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    place_graded(Path(sys.argv[1]), "ada", "mini_gpt", b"x" * 100_000, "2026-03-02")
except UserError as error:
    print(error)
"""


@links
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = place_graded(tmp_path, "ada", UNIT, b"first", "2026-03-01")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True, env=os.environ
    )
    assert "cannot be written (File too large)" in done.stdout
    assert path.read_bytes() == b"first"
    assert path.with_name("timestamp.txt").read_text() == "2026-03-01"
    assert len(everything(tmp_path)) == 2


def test_no_space_left_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place_graded(tmp_path, "ada", UNIT, b"first")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left on device"):
        place_graded(tmp_path, "ada", UNIT, b"second")
    assert path.read_bytes() == b"first"
    assert len(everything(tmp_path)) == 1
