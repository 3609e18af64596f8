from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from kicourse.models import local_hub


def test_what_is_published_can_be_downloaded(tmp_path: Path) -> None:
    files = {"README.md": "---\nlicense: mit\n---\nTür".encode(), "adapter.safetensors": bytes(range(256))}
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    with local_hub.running() as endpoint:
        api = HfApi(endpoint=endpoint, token="any")
        api.create_repo("you/model")
        commit = api.create_commit("you/model", operations, commit_message="first")
        for name, content in files.items():
            path = hf_hub_download("you/model", name, endpoint=endpoint, cache_dir=tmp_path)
            assert Path(path).read_bytes() == content
            assert commit.oid in path
        siblings = api.model_info("you/model").siblings or []
        assert sorted(sibling.rfilename for sibling in siblings) == sorted(files)


def test_nothing_is_published_without_a_token_or_a_repository() -> None:
    operations = [CommitOperationAdd("README.md", b"---\nlicense: mit\n---\n")]
    with local_hub.running() as endpoint:
        with pytest.raises(HfHubHTTPError, match="401"):
            HfApi(endpoint=endpoint, token=False).create_repo("you/model")
        with pytest.raises(HfHubHTTPError, match="404"):
            HfApi(endpoint=endpoint, token="any").create_commit("you/other", operations, commit_message="first")
