"""What `kicourse lab` promises about a learner's files: new ones arrive, no work is ever written over."""

import json
import os
import threading
from pathlib import Path

import pytest

from kicourse.errors import UsageError, UserError
from kicourse.syllabus import UnknownUnitError, course
from kicourse.workspace.editions import News
from kicourse.workspace.folder import Workspace

from .conftest import Publish

ANSWER = "def sample(): return 1\n"
NOTEBOOKS = {unit.slug: f"{unit.slug}.ipynb" for unit in course().finished}


@pytest.fixture
def folder(tmp_path: Path, publish: Publish) -> Path:
    Workspace.open_or_make(tmp_path / "work", "en")
    return tmp_path / "work"


def cells(folder: Path, name: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads((folder / name).read_bytes())["cells"]]


def work_on(folder: Path, name: str = "mini_gpt.ipynb") -> bytes:
    """Answer the task and save, as JupyterLab does."""
    notebook = json.loads((folder / name).read_bytes())
    notebook["cells"][1]["source"] = ANSWER
    content = json.dumps(notebook, indent=1).encode()
    (folder / name).write_bytes(content)
    return content


def run_only(folder: Path, name: str = "mini_gpt.ipynb") -> None:
    """Run the notebook and save: outputs and the kernel's name change, no cell does."""
    notebook = json.loads((folder / name).read_bytes())
    notebook["cells"][2] |= {"outputs": [{"output_type": "stream", "text": "hello"}], "execution_count": 3}
    notebook["metadata"]["kernelspec"] = {"name": "python3"}
    (folder / name).write_text(json.dumps(notebook))


def test_a_new_workspace_has_every_finished_unit(tmp_path: Path, publish: Publish) -> None:
    workspace = Workspace.open_or_make(tmp_path / "new" / "work", "de")
    assert workspace.notebooks == NOTEBOOKS
    for name in workspace.notebooks.values():
        assert News("added", name) in workspace.news
    assert cells(workspace.root, "mini_gpt.ipynb")[0] == "mini_gpt de first"
    assert (workspace.root / ".kicourse" / "language").read_text() == "de\n"


def test_opening_again_changes_nothing(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert Workspace.open_or_make(folder).news == ()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_work_is_left_alone(folder: Path) -> None:
    work = work_on(folder)
    workspace = Workspace.open_or_make(folder)
    assert (folder / "mini_gpt.ipynb").read_bytes() == work
    assert workspace.news == ()
    assert workspace.notebooks["mini_gpt"] == "mini_gpt.ipynb"


def test_a_deleted_notebook_comes_back(folder: Path) -> None:
    work_on(folder)
    (folder / "mini_gpt.ipynb").unlink()
    assert Workspace.open_or_make(folder).news == (News("added", "mini_gpt.ipynb"),)
    assert ANSWER not in cells(folder, "mini_gpt.ipynb")


def test_an_unchanged_notebook_follows_the_release(folder: Path, publish: Publish) -> None:
    run_only(folder)
    publish("second")
    assert News("updated", "mini_gpt.ipynb") in Workspace.open_or_make(folder).news
    assert cells(folder, "mini_gpt.ipynb")[0] == "mini_gpt en second"


def test_a_newer_release_is_put_beside_the_work_with_its_answers(folder: Path, publish: Publish) -> None:
    work = work_on(folder)
    publish("second")
    workspace = Workspace.open_or_make(folder)
    assert (folder / "mini_gpt.ipynb").read_bytes() == work
    assert News("beside", "mini_gpt-new.ipynb", kept="mini_gpt.ipynb") in workspace.news
    assert cells(folder, "mini_gpt-new.ipynb")[:2] == ["mini_gpt en second", ANSWER]
    assert workspace.notebooks["mini_gpt"] == "mini_gpt-new.ipynb"


def test_a_task_that_was_not_touched_gets_its_new_stub(folder: Path, publish: Publish) -> None:
    notebook = json.loads((folder / "mini_gpt.ipynb").read_bytes())
    notebook["cells"].append({"cell_type": "code", "metadata": {}, "source": "1 + 1"})
    (folder / "mini_gpt.ipynb").write_text(json.dumps(notebook))
    publish("second", stub="a better stub\n")
    Workspace.open_or_make(folder)
    assert cells(folder, "mini_gpt-new.ipynb")[1] == "a better stub\n"


def test_releases_do_not_pile_up(folder: Path, publish: Publish) -> None:
    work_on(folder)
    for release in ("second", "third"):
        publish(release)
        Workspace.open_or_make(folder)
    assert not (folder / "mini_gpt-new-2.ipynb").exists()
    work_on(folder, "mini_gpt-new.ipynb")
    (folder / "mini_gpt-new.ipynb").write_text((folder / "mini_gpt-new.ipynb").read_text() + "\n ")
    notebook = json.loads((folder / "mini_gpt-new.ipynb").read_bytes())
    notebook["cells"][1]["source"] = "other = 1\n"
    (folder / "mini_gpt-new.ipynb").write_text(json.dumps(notebook))
    publish("fourth")
    assert Workspace.open_or_make(folder).notebooks["mini_gpt"] == "mini_gpt-new-2.ipynb"
    assert cells(folder, "mini_gpt-new-2.ipynb")[1] == "other = 1\n"


def test_another_language_replaces_what_is_untouched_and_stands_beside_work(folder: Path) -> None:
    work = work_on(folder)
    german = Workspace.open_or_make(folder, "de")
    assert cells(folder, "first_call.ipynb")[0] == "first_call de first"
    assert (folder / "mini_gpt.ipynb").read_bytes() == work
    assert cells(folder, "mini_gpt-de.ipynb")[:2] == ["mini_gpt de first", ANSWER]
    assert german.notebooks["mini_gpt"] == "mini_gpt-de.ipynb"
    english = Workspace.open_or_make(folder, "en")
    assert english.notebooks == NOTEBOOKS
    untouched = [News("updated", name) for name in NOTEBOOKS.values() if name != "mini_gpt.ipynb"]
    assert list(Workspace.open_or_make(folder, "de").news) == untouched


def test_the_language_stays_until_another_is_asked_for(folder: Path) -> None:
    Workspace.open_or_make(folder, "de")
    assert Workspace.open_or_make(folder).language == "de"
    assert Workspace.open(folder).language == "de"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"files": {"mini_gpt.ipynb": {}}}'])
def test_a_broken_manifest_costs_no_work(folder: Path, damage: str, publish: Publish) -> None:
    work = work_on(folder)
    (folder / ".kicourse" / "workspace.json").write_text(damage)
    publish("second")
    workspace = Workspace.open_or_make(folder)
    assert (folder / "mini_gpt.ipynb").read_bytes() == work
    assert cells(folder, workspace.notebooks["mini_gpt"])[:2] == ["mini_gpt en second", ANSWER]


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b'{"cells": [1]}', b"\xff\xfe"])
def test_a_notebook_that_is_none_is_left_alone(folder: Path, publish: Publish, content: bytes) -> None:
    (folder / "mini_gpt.ipynb").write_bytes(content)
    publish("second")
    workspace = Workspace.open_or_make(folder)
    assert (folder / "mini_gpt.ipynb").read_bytes() == content
    assert cells(folder, workspace.notebooks["mini_gpt"])[0] == "mini_gpt en second"


def test_two_at_once_make_one_workspace(tmp_path: Path, publish: Publish) -> None:
    made: list[Workspace] = []
    threads = [
        threading.Thread(target=lambda: made.append(Workspace.open_or_make(tmp_path / "work", "en"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(workspace.news) for workspace in made) == [0, 0, 0, len(NOTEBOOKS)]
    assert {path.name for path in (tmp_path / "work").glob("*.ipynb")} == set(NOTEBOOKS.values())


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path, publish: Publish) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="not a workspace, so it was left alone"):
        Workspace.open_or_make(tmp_path / "thesis", "en")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["thesis.tex"]


def test_a_fresh_clone_of_the_learners_own_repository_is_welcome(tmp_path: Path, publish: Publish) -> None:
    (tmp_path / "mine" / ".git").mkdir(parents=True)
    (tmp_path / "mine" / "README.md").write_text("mine")
    assert Workspace.open_or_make(tmp_path / "mine", "en").news
    assert (tmp_path / "mine" / "README.md").read_text() == "mine"


def test_a_file_is_refused(tmp_path: Path, publish: Publish) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        Workspace.open_or_make(tmp_path / "file", "en")
    with pytest.raises(UserError, match="kicourse lab DIR"):
        Workspace.open_or_make(tmp_path / "file" / "below", "en")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that nobody can write: /proc")
def test_a_folder_that_cannot_be_written_is_named(publish: Publish) -> None:
    with pytest.raises(UserError, match="Cannot write to /proc/kicourse"):
        Workspace.open_or_make(Path("/proc/kicourse"), "en")


def test_a_language_that_does_not_exist_names_the_nearest(tmp_path: Path, publish: Publish) -> None:
    with pytest.raises(UnknownUnitError, match="Did you mean 'de'"):
        Workspace.open_or_make(tmp_path / "work", "dee")
    assert not (tmp_path / "work").exists()


def test_opening_what_is_no_workspace_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="kicourse lab"):
        Workspace.open(tmp_path)
