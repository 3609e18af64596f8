"""Reading a submission from a folder where anything may lie."""

import os
import socket
from pathlib import Path

import pytest

from kicourse.grading import submitted
from kicourse.grading.submitted import UnreadableSubmissionError, read

PARTS = ("ada", "mini_gpt", "mini_gpt.ipynb")
needs_posix = pytest.mark.skipif(os.name == "nt", reason="there are no pipes and no permissions of this kind")


@pytest.fixture(params=["walk", "look"])
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """The folder `submitted/`, for both ways to read from it: the second is for systems that lack the first."""
    if request.param == "look":
        monkeypatch.setattr(submitted, "_WALKS", False)
    elif not submitted._WALKS:
        pytest.skip("folders cannot be held open here")
    (tmp_path / "submitted" / "ada" / "mini_gpt").mkdir(parents=True)
    return tmp_path / "submitted"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Return a file of the instructor's, in folders like a submission's."""
    path = tmp_path.joinpath("instructor", *PARTS)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"secret")
    return path


def refused(root: Path, *parts: str) -> str:
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    with pytest.raises(UnreadableSubmissionError) as caught:
        read(root, *parts)
    assert len(before) == (len(os.listdir("/proc/self/fd")) if before else 0)
    return str(caught.value)


def test_a_regular_file_is_read(root: Path) -> None:
    root.joinpath(*PARTS).write_bytes(b"\0\xff\r\nabc")
    (root / "ada" / "mini_gpt" / "timestamp.txt").write_text("2026-03-01")
    assert read(root, *PARTS) == b"\0\xff\r\nabc"
    assert read(root, "ada", "mini_gpt", "timestamp.txt") == b"2026-03-01"


def test_the_trusted_root_may_be_a_link(root: Path) -> None:
    root.joinpath(*PARTS).write_bytes(b"x")
    (root.parent / "link").symlink_to(root)
    assert read(root.parent / "link", *PARTS) == b"x"


@pytest.mark.parametrize("parts", [PARTS, ("bob", *PARTS[1:]), ("ada", "other", "a.ipynb")])
def test_what_was_not_handed_in_is_missing(root: Path, parts: tuple[str, ...]) -> None:
    with pytest.raises(FileNotFoundError):
        read(root, *parts)


def test_a_link_to_a_file_is_refused(root: Path, secret: Path) -> None:
    root.joinpath(*PARTS).symlink_to(secret)
    assert refused(root, *PARTS) == "'mini_gpt.ipynb' is a link. Hand in the file itself, in a plain folder."


def test_a_dangling_link_is_a_link_not_a_missing_file(root: Path) -> None:
    root.joinpath(*PARTS).symlink_to("nowhere")
    assert "is a link" in refused(root, *PARTS)


def test_a_link_in_place_of_a_folder_is_refused(root: Path, secret: Path) -> None:
    (root / "bob").symlink_to(secret.parents[1])
    (root / "ada" / "other").symlink_to(secret.parent)
    assert "'bob' is a link" in refused(root, "bob", *PARTS[1:])
    assert "'other' is a link" in refused(root, "ada", "other", PARTS[-1])


@needs_posix
def test_a_pipe_is_refused_without_waiting_for_a_writer(root: Path) -> None:
    os.mkfifo(root.joinpath(*PARTS))
    assert "not a file but" in refused(root, *PARTS)


@needs_posix
def test_a_socket_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.joinpath(*PARTS[:-1]))  # the path of a socket has to be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(PARTS[-1])
        assert "not a file but" in refused(root, *PARTS)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="there is no such device")
def test_a_device_is_refused(root: Path) -> None:
    assert "not a file but" in refused(Path("/dev"), "zero")


def test_a_folder_is_refused(root: Path) -> None:
    root.joinpath(*PARTS).mkdir()
    assert "not a file but" in refused(root, *PARTS)


def test_a_file_in_place_of_a_folder_is_refused(root: Path) -> None:
    (root / "bob").write_text("x")
    assert "cannot be read" in refused(root, "bob", *PARTS[1:])


@needs_posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(root: Path) -> None:
    root.joinpath(*PARTS).write_bytes(b"x")
    root.joinpath(*PARTS).chmod(0)
    assert refused(root, *PARTS) == "It cannot be read: Permission denied."


@needs_posix
def test_a_name_that_no_file_can_have_is_refused(root: Path) -> None:
    assert refused(root, "x" * 5_000) == "It cannot be read: File name too long."


def test_a_file_may_be_so_large_and_no_larger(root: Path) -> None:
    path = root.joinpath(*PARTS)
    path.touch()
    os.truncate(path, submitted.LARGEST)
    assert len(read(root, *PARTS)) == 20 * 2**20
    os.truncate(path, submitted.LARGEST + 1)
    assert "larger than 20 MiB" in refused(root, *PARTS)


@pytest.mark.parametrize(
    "parts", [(), ("",), (".",), ("..", "x"), ("ada/mini_gpt", "x"), ("/etc", "passwd"), ("ada", "..")]
)
def test_parts_are_plain_names(root: Path, parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="plain names"):
        read(root, *parts)


@pytest.mark.skipif(not submitted._WALKS, reason="folders cannot be held open here")
def test_a_folder_exchanged_for_a_link_while_it_is_read_leads_nowhere(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "submitted" / "ada" / "mini_gpt"
    own.mkdir(parents=True)
    (own / PARTS[-1]).write_bytes(b"own")
    step = submitted._step

    def exchanging(part: str, flags: int, folder: int) -> int:
        if part == PARTS[-1]:
            own.rename(tmp_path / "away")
            own.symlink_to(secret.parent)
        return step(part, flags, folder)

    monkeypatch.setattr(submitted, "_step", exchanging)
    assert read(tmp_path / "submitted", *PARTS) == b"own"
