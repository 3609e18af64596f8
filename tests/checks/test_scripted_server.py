import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import openai
import pytest

from kicourse.answers.probes import openai_client
from kicourse.checks.scripted_server import Broken, Completion, Failure, ScriptedServer, ToolCall

WAITS = """
import threading
from kicourse.checks.scripted_server import ScriptedServer
with ScriptedServer([], patience=1.0) as server:
    waiting = threading.Thread(target=server.wait_for_release)
    waiting.start()
    input("waiting\\n")
    server.release()
    waiting.join()
    print(server.overdue)
"""
"""A process with a server that waits for a release, until it is given a line."""

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def client_of(server: ScriptedServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="k", max_retries=0, timeout=5)


def ask(client: openai.OpenAI, question: str = "Hi") -> str | None:
    reply = client.chat.completions.create(model="m", messages=[{"role": "user", "content": question}])
    return reply.choices[0].message.content


def pieces(client: openai.OpenAI) -> openai.Stream[openai.types.chat.ChatCompletionChunk]:
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}], stream=True)


def test_replies_come_in_turn_and_requests_are_recorded() -> None:
    with ScriptedServer([Completion("Hel", "lo", usage=USAGE), Completion("again")]) as server:
        client = client_of(server)
        assert [ask(client, "one"), ask(client, "two")] == ["Hello", "again"]
    assert [request.body["messages"][0]["content"] for request in server.requests if request.body] == ["one", "two"]
    assert server.requests[0].headers["authorization"] == "Bearer k"
    assert server.observed()[0] == [
        "POST",
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "one"}]},
    ]


def test_a_request_too_many_fails_and_is_recorded() -> None:
    with ScriptedServer([]) as server, pytest.raises(openai.InternalServerError, match="no reply is left"):
        ask(client_of(server))
    assert len(server.requests) == 1


def test_a_failure_carries_status_and_retry_after() -> None:
    raised = pytest.raises(openai.RateLimitError, match="slow down")
    with ScriptedServer([Failure(429, "slow down", retry_after=2)]) as server, raised as caught:
        ask(client_of(server))
    assert caught.value.response.headers["Retry-After"] == "2"


def test_retry_after_may_be_any_text() -> None:
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    raised = pytest.raises(openai.InternalServerError)
    with ScriptedServer([Failure(503, retry_after=date)]) as server, raised as caught:
        ask(client_of(server))
    assert caught.value.response.headers["Retry-After"] == date


def test_a_late_reply_is_a_timeout_to_a_trials_client() -> None:
    with ScriptedServer([Broken(late=True), Completion("well")]) as server:
        client = openai_client(None, server.url)
        start = time.monotonic()
        with pytest.raises(openai.APITimeoutError):
            ask(client.with_options(timeout=60))
        assert time.monotonic() - start < 10
        assert ask(client) == "well"


def test_a_broken_reply_is_no_reply() -> None:
    with ScriptedServer([Broken(), Broken("<html>Bad gateway"), Completion("well")]) as server:
        with pytest.raises(openai.APIConnectionError):
            ask(client_of(server))
        with pytest.raises(ValueError, match="Expecting value"):
            ask(client_of(server))
        assert ask(client_of(server)) == "well"


def test_a_stream_ends_with_a_usage_chunk_that_has_no_choices() -> None:
    with ScriptedServer([Completion("a", "b", usage=USAGE)]) as server:
        chunks = list(pieces(client_of(server)))
    assert [chunk.choices[0].delta.content for chunk in chunks[:-1]] == ["", "a", "b", None]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 5


def test_an_uneven_stream_has_chunks_without_choices_and_ends_with_text() -> None:
    with ScriptedServer([Completion("a", "b", uneven=True)]) as server:
        chunks = list(pieces(client_of(server)))
    said = [chunk.choices[0].delta.content if chunk.choices else "no choices" for chunk in chunks]
    assert said == ["no choices", "", "a", "no choices", "b"]
    assert chunks[-1].choices[0].finish_reason == "stop"


CALLS = [ToolCall("a1", "stock", '{"part": "S-17"}'), ToolCall("b2", "stock", "{")]


def test_a_completion_may_want_tools_to_be_called() -> None:
    with ScriptedServer([Completion(tool_calls=CALLS), Completion("I look.", tool_calls=CALLS[:1])]) as server:
        client = client_of(server)
        create = client.chat.completions.create
        choices = [create(model="m", messages=[{"role": "user", "content": "Hi"}]).choices[0] for _turn in range(2)]
    wanted = [choice.message.tool_calls or [] for choice in choices]
    assert [[call.model_dump(exclude_none=True) for call in calls] for calls in wanted] == [
        [call.as_dict() for call in CALLS],
        [CALLS[0].as_dict()],
    ]
    assert [choice.message.content for choice in choices] == [None, "I look."]
    assert {choice.finish_reason for choice in choices} == {"tool_calls"}


def test_a_stream_may_want_tools_to_be_called() -> None:
    with ScriptedServer([Completion("I look.", tool_calls=CALLS)]) as server:
        deltas = [chunk.choices[0].delta for chunk in pieces(client_of(server))]
    wanted = [call for delta in deltas for call in delta.tool_calls or []]
    assert [(call.index, call.id, call.function and call.function.arguments) for call in wanted] == [
        (0, "a1", '{"part": "S-17"}'),
        (1, "b2", "{"),
    ]


def test_how_a_message_is_written_is_a_matter_of_taste() -> None:
    with ScriptedServer([Completion("one"), Completion("two")]) as server:
        for message in ({"role": "user", "content": "Hi"}, {"content": "Hi", "name": None, "role": "user"}):
            httpx.post(f"{server.url}/chat/completions", json={"messages": [message]})
    one, other = (str(asked) for asked in server.observed())
    assert one == other


def test_a_held_piece_arrives_only_after_its_release() -> None:
    arrived: list[str] = []
    with ScriptedServer([Completion("a", "b", "c", held=True)], patience=20) as server:
        reader = threading.Thread(target=lambda: arrived.extend(texts(client_of(server))))
        reader.start()
        for expected in ("a", "b"):
            server.release()
            wait_until(lambda expected=expected: arrived[-1:] == [expected])  # type: ignore[misc]
        reader.join(0.2)
        assert arrived == ["a", "b"]
        server.release()
        reader.join(5)
    assert arrived == ["a", "b", "c"]
    assert not server.overdue


def texts(client: openai.OpenAI) -> Iterator[str]:
    for chunk in pieces(client):
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = threading.Event()
    for _ in range(500):
        if condition():
            return
        deadline.wait(0.01)
    raise AssertionError("waited for five seconds")


def test_a_held_stream_loses_patience_and_says_so() -> None:
    with ScriptedServer([Completion("a", "b", held=True)], patience=0.05) as server:
        assert list(texts(client_of(server))) == ["a", "b"]
    assert server.overdue


def test_the_end_of_the_server_ends_a_held_stream() -> None:
    with ScriptedServer([Completion("a", held=True)], patience=60) as server:
        stream = pieces(client_of(server))
        next(stream)
    with pytest.raises((openai.APIError, httpx.HTTPError)):
        list(stream)


def test_a_cut_stream_breaks_off() -> None:
    with ScriptedServer([Completion("a", "b", cut_after=1)]) as server:
        arriving = texts(client_of(server))
        assert next(arriving) == "a"
        with pytest.raises((openai.APIError, httpx.HTTPError)):
            next(arriving)


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with ScriptedServer([Completion("never")]) as server:
        reply = httpx.post(f"{server.url}/chat/completions", content=body)
    assert reply.status_code == 400
    assert server.requests[0].body is None


def test_there_is_nothing_else_to_ask_for() -> None:
    with ScriptedServer([Completion("never")]) as server:
        assert httpx.get(f"{server.url}/models").status_code == 404
        assert httpx.post(f"{server.url}/release", json={}).status_code == 404


def test_every_request_counts_whatever_it_asks() -> None:
    methods = ["PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "WHATEVER"]
    with ScriptedServer([Completion("never")]) as server:
        for method in methods:
            assert httpx.request(method, f"{server.url}/chat/completions").status_code == 501
        url = httpx.URL(server.url)
        with socket.create_connection((url.host, url.port)) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert b"400" in connection.recv(1_000)
    assert [request.method for request in server.requests[:-1]] == methods
    assert len(server.requests) == len(methods) + 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process and let it go on")
def test_an_answer_is_not_late_because_the_machine_stood_still() -> None:
    command = [sys.executable, "-c", WAITS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.stdin.write("\n")
        process.stdin.flush()
        process.send_signal(signal.SIGCONT)
        assert process.stdout.read() == "False\n"
