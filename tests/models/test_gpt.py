import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from jupyter_client.manager import KernelManager
from openai import AuthenticationError, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from kicourse.errors import UserError
from kicourse.models import endpoints, gpt, server, weights

from .conftest import NOBODY

pytestmark = pytest.mark.xdist_group("models")

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
PRINT_MODEL = "from openai import OpenAI; print(OpenAI().models.list().data[0].id)"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """The real client, as a notebook makes it, and the real server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "KICOURSE_GPT_URL"):
            patch.delenv(name, raising=False)
        with gpt.running():
            yield OpenAI()


def test_it_chats(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=gpt.model(), messages=QUESTION, max_tokens=24, temperature=0)
    assert answer.model == gpt.MODEL
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 24


def test_it_streams(client: OpenAI) -> None:
    chunks = client.chat.completions.create(
        model=gpt.model(), messages=QUESTION, max_tokens=12, temperature=0, stream=True
    )
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) > 3


def test_it_gives_log_probabilities(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=gpt.model(), messages=QUESTION, max_tokens=3, temperature=0, logprobs=True, top_logprobs=4
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    for token in logprobs.content:
        others = [other.logprob for other in token.top_logprobs]
        assert len(others) == 4
        assert others == sorted(others, reverse=True)
        assert token.logprob == max(others) < 0  # greedy takes the likeliest


def test_it_keeps_to_a_json_schema(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "urgent": {"type": "boolean"}},
        "required": ["city", "urgent"],
        "additionalProperties": False,
    }
    for seed in range(3):
        answer = client.chat.completions.create(
            model=gpt.model(),
            messages=QUESTION,
            max_tokens=200,
            temperature=1.5,
            seed=seed,
            response_format={"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}},
        )
        value = json.loads(answer.choices[0].message.content or "")
        assert {key: type(item) for key, item in value.items()} == {"city": str, "urgent": bool}


def test_it_repeats_itself_with_the_same_seed(client: OpenAI) -> None:
    texts = {
        client.chat.completions.create(model=gpt.model(), messages=QUESTION, max_tokens=12, temperature=1.0, seed=7)
        .choices[0]
        .message.content
        for _ in range(3)
    }
    assert len(texts) == 1


def test_it_answers_nobody_without_the_key(client: OpenAI) -> None:
    with pytest.raises(AuthenticationError):
        client.with_options(api_key="guess").chat.completions.create(model=gpt.MODEL, messages=QUESTION)


def test_it_answers_through_this_machine_alone(client: OpenAI) -> None:
    # Units that were tested in this process before may have left a server of their own.
    servers = [child for child in psutil.Process().children() if "kicourse.models.server" in child.cmdline()]
    links = [link for server in servers for link in server.net_connections("inet")]
    assert {link.laddr.ip for link in links if link.status == psutil.CONN_LISTEN} == {"127.0.0.1"}


def test_importing_is_light() -> None:
    code = """
import sys
from kicourse.models import bert, gpt, weights
heavy = {"torch", "transformers", "xllamacpp", "openai", "huggingface_hub", "numpy"} & sys.modules.keys()
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_environment_is_as_before_when_it_has_ended() -> None:
    before = dict(os.environ)
    with gpt.running(announced=True) as url:
        assert os.environ["OPENAI_BASE_URL"] == url
        assert endpoints.find() is not None
    assert dict(os.environ) == before
    assert not endpoints.answers(url, "")
    assert endpoints.find() is None


def test_a_server_that_ends_soon_is_not_offered_to_others() -> None:
    with gpt.running():
        assert endpoints.find() is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, which tells another process's limits")
def test_its_memory_has_an_end() -> None:
    with gpt.apart() as (_, pid):
        process = psutil.Process(pid)
        room = process.rlimit(psutil.RLIMIT_DATA)[0] - process.memory_info().data
        assert 2**29 < room <= server.MOST_GROWTH_MIB * 2**20


def test_a_wanted_port_is_used_and_a_taken_one_is_no_problem() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with gpt.running(port) as url:
            assert url != f"http://127.0.0.1:{port}/v1"
            assert OpenAI().models.list().data[0].id == gpt.MODEL
    with gpt.running(port) as url:
        assert url == f"http://127.0.0.1:{port}/v1"


def test_a_free_port_stays_wanted() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert server.free_port(port) == port


def test_a_users_provider_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    children = len(psutil.Process().children())
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    assert gpt.ensure() == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "https://models.example/v1")
    assert gpt.ensure() == "https://models.example/v1"
    with gpt.running() as url:
        assert url == "https://models.example/v1"
    assert len(psutil.Process().children()) == children
    assert os.environ["OPENAI_API_KEY"] == "sk-mine"
    assert gpt.model() == gpt.MODEL
    monkeypatch.setenv("OPENAI_MODEL", "gpt-large")
    assert gpt.model() == "gpt-large"


def test_a_company_proxy_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, NOBODY)
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    with gpt.running():
        assert OpenAI().models.list().data[0].id == gpt.MODEL
        assert os.environ["NO_PROXY"] == "intranet.example,127.0.0.1"


def test_weights_that_cannot_be_loaded_are_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Weights of the right hash that llama.cpp of this version cannot read: the error comes from the server itself.
    (tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF but not really")
    monkeypatch.setattr(weights, "folder", lambda model: tmp_path)
    with pytest.raises(UserError, match=r"The embedded GPT does not start .*: run `kicourse models pull --force`"):
        gpt.ensure()


def test_a_server_that_is_killed_at_its_start_does_not_call_the_weights_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpt, "_START_SECONDS", 0.05)  # less than Python itself takes
    with pytest.raises(UserError, match=r"was ended by signal 9 while it started.* Close other programs"):
        gpt.ensure()


def python(code: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def server_of(pid: int) -> psutil.Process:
    (process,) = (
        child for child in psutil.Process(pid).children(recursive=True) if "kicourse.models.server" in child.cmdline()
    )
    return process


def ended(process: psutil.Process) -> bool:
    """Whether a process has ended; who should collect it may be slow to do so."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def run(kernel: KernelManager, code: str) -> str:
    """Run a cell in a real kernel and return what it printed."""
    client = kernel.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    printed: list[str] = []

    def note(message: dict[str, dict[str, str]]) -> None:
        printed.append(message["content"].get("text", ""))

    reply = client.execute_interactive(code, timeout=120, output_hook=note)
    client.stop_channels()
    assert reply["content"]["status"] == "ok", reply
    return "".join(printed).strip()


@pytest.fixture
def kernel() -> Iterator[KernelManager]:
    manager = KernelManager()
    manager.start_kernel()
    yield manager
    manager.shutdown_kernel(now=True)


def kernel_pid(kernel: KernelManager) -> int:
    return int(run(kernel, "import os; print(os.getpid())"))


def test_a_kernel_gets_a_server_that_survives_interrupts_and_ends_with_it(kernel: KernelManager) -> None:
    first = run(kernel, "from kicourse.models import gpt; print(gpt.ensure())")
    pid = kernel_pid(kernel)
    process = server_of(pid)
    assert run(kernel, PRINT_MODEL) == gpt.MODEL
    kernel.interrupt_kernel()
    assert run(kernel, "print(gpt.ensure())") == first
    assert server_of(pid) == process
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: ended(process))


def test_a_server_that_died_is_replaced_by_the_first_cell(kernel: KernelManager) -> None:
    first = run(kernel, "from kicourse.models import gpt; print(gpt.ensure())")
    server_of(kernel_pid(kernel)).kill()
    second = run(kernel, "print(gpt.ensure())")
    assert first != second
    assert run(kernel, PRINT_MODEL) == gpt.MODEL


def test_a_notebook_opened_elsewhere_finds_the_running_server() -> None:
    code = f"from kicourse.models import gpt; print(gpt.ensure()); {PRINT_MODEL}"
    with gpt.running(announced=True) as url:
        environment = {key: value for key, value in os.environ.items() if "OPENAI" not in key and "KICOURSE" not in key}
        found = subprocess.run(
            [sys.executable, "-c", code], text=True, capture_output=True, env=environment, check=True
        )
    assert found.stdout.split() == [url, gpt.MODEL]


def test_what_an_announcer_left_behind_when_it_was_killed_is_forgotten() -> None:
    process = python(
        "from kicourse.models import gpt\n"
        "with gpt.running(announced=True) as u: print(u, flush=True); import time; time.sleep(60)"
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert endpoints.find() is not None
    process.kill()
    process.communicate()
    assert wait_until(lambda: not endpoints.answers(url, ""))
    assert wait_until(lambda: endpoints.find() is None)


def test_serve_prints_what_to_set_and_ends_on_ctrl_c() -> None:
    process = python("from kicourse.models import gpt; gpt.serve()")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    settings = dict(line.split("export ")[1].strip().split("=", 1) for line in lines[1:])
    child = server_of(process.pid)
    client = OpenAI(base_url=settings["OPENAI_BASE_URL"], api_key=settings["OPENAI_API_KEY"])
    assert client.models.list().data[0].id == gpt.MODEL
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert not errors
    assert ended(child)


def test_serve_says_so_when_the_server_ends_by_itself() -> None:
    process = python("from kicourse.models import gpt; gpt.serve()")
    assert process.stdout is not None
    process.stdout.readline()
    server_of(process.pid).kill()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "UserError: The GPT server ended by itself" in errors


@pytest.mark.long
def test_pytorch_computes_the_same_model(client: OpenAI) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gpt.torch_path())
    model = AutoModelForCausalLM.from_pretrained(gpt.torch_path())
    assert model.dtype == torch.float32
    answer = client.chat.completions.create(
        model=gpt.MODEL, messages=QUESTION, max_tokens=1, temperature=0, logprobs=True, top_logprobs=20
    )
    tokens = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    assert answer.usage is not None
    assert tokens.shape[1] == answer.usage.prompt_tokens
    with torch.no_grad():
        logprobs = model(tokens).logits[0, -1].log_softmax(-1)
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.content is not None
    served = answer.choices[0].logprobs.content[0].top_logprobs
    ours = [logprobs[tokenizer.encode(token.token)[0]].item() for token in served]
    # llama.cpp also rounds activations to 8 bits; the ranking's top may swap, the numbers stay close.
    assert max(abs(a - b.logprob) for a, b in zip(ours, served, strict=True)) < 0.5


def test_texts_become_the_same_tokens_in_pytorch_and_in_the_server(client: OpenAI) -> None:
    import httpx
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gpt.torch_path())
    for text in ("Pump 4711 isn't leaking.", "  Größe: 3,5 mm\n\n\tÖl", "def f(x):\n    return x**2  # ok", "日本 🚀"):
        reply = httpx.post(
            f"{str(client.base_url).removesuffix('/v1/')}/tokenize",
            json={"content": text},
            headers={"Authorization": f"Bearer {client.api_key}"},
        )
        assert tokenizer.encode(text) == reply.json()["tokens"]
