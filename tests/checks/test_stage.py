"""The stage on which a trial plays: exact order, no network, and notes that say what happened."""

import time
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kicourse.answers import web
from kicourse.answers.handle import Handle, Session
from kicourse.answers.thread import ThreadConnection
from kicourse.checks.stage import Entry, Play, Stage, Step, as_json


def play(
    app: Any,
    backend: Any,
    steps: list[Step],
    script: Callable[[str], Entry] = lambda _question: {},
    patience: float = 5.0,
) -> list[list[Any]]:
    """Play in a thread of the app's own, as in a notebook."""
    connection = ThreadConnection((app, backend))
    try:
        pair = Handle(Session(connection), 0, "app and backend").attribute("__getitem__")
        return Stage(steps, script).play(pair.make(0), pair.make(1), patience).notes
    finally:
        connection.close()


def ask(name: str, path: str) -> list[Any]:
    return ["ask", name, "GET", path, [], b""]


def kinds(notes: list[list[Any]]) -> list[str]:
    return [note[0] for note in notes]


def late(question: str) -> Entry:
    return {"text": "late", "sources": [], "held": True}


async def respond(send: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def silent_lifespan(scope: Any, receive: Any, send: Any) -> bool:
    if scope["type"] != "lifespan":
        return False
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
    return True


def test_a_held_thread_lets_others_go_on() -> None:
    answerer = web.Answerer()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if await silent_lifespan(scope, receive, send):
            return
        if scope["path"] == "/slow":
            import anyio.to_thread

            found = await anyio.to_thread.run_sync(answerer, "why")
            await respond(send, found.text.encode())
        else:
            await respond(send, b"quick")

    notes = play(app, answerer, [ask("slow", "/slow"), ask("quick", "/"), ["go"]], late)
    bodies = [note[1:] for note in notes if note[0] == "body"]
    assert bodies == [["quick", b"quick"], ["slow", b"late"]]
    assert "blocks the loop" not in kinds(notes)


def test_blocking_the_loop_is_noted_and_blocks_nothing() -> None:
    answerer = web.Answerer()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not await silent_lifespan(scope, receive, send):
            await respond(send, answerer("why").text.encode())

    assert "blocks the loop" in kinds(play(app, answerer, [ask("one", "/")], late))


def test_one_who_leaves_hears_nothing_more_and_the_app_learns_of_it() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not await silent_lifespan(scope, receive, send):
            await receive()
            gone = await receive()
            await respond(send, gone["type"].encode())

    notes = play(app, None, [ask("one", "/"), ["leave", "one"], ask("two", "/")], patience=0.0)
    before = notes[: notes.index(["step", 1])]
    assert ["returned", "one"] not in before
    assert ["returned", "one"] in notes
    assert "status" not in kinds(notes)


def test_what_an_app_raises_or_logs_is_noted_also_where_it_starts() -> None:
    import logging

    async def app(scope: Any, receive: Any, send: Any) -> None:
        logging.getLogger("app").debug("on the way", extra={"key": "hp_1"})
        print("printed")
        raise ValueError("broken")

    notes = play(app, None, [ask("one", "/")])
    assert ["raised", "startup", "ValueError", "broken"] in notes
    assert ["raised", "one", "ValueError", "broken"] in notes
    logged = [note[2] for note in notes if note[0] == "logged"]
    assert "on the way hp_1" in logged
    assert any("printed" in text for text in logged)


def test_an_app_that_never_answers_is_left_after_its_time() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not await silent_lifespan(scope, receive, send):
            import asyncio

            await asyncio.Event().wait()

    start = time.monotonic()
    notes = play(app, None, [ask("one", "/"), ask("two", "/")], patience=0.05)
    assert ["step", 1] in notes
    assert "returned" not in kinds(notes)
    assert time.monotonic() - start < 10  # what a call may take in all


def streaming(steps: list[list[Any]]) -> Stage:
    return Stage(steps, lambda _question: {"pieces": ["one", "two"]})


def test_a_piece_leaves_the_check_only_when_it_is_asked_for() -> None:
    stage = streaming([ask("reader", "/")])
    assert stage.exchange([]) == [ask("0", "/")]
    assert stage.exchange([["called", 0, "why"], ["waits", 0]]) == [["give", 0, {"piece": "one"}]]
    sent = [["status", "0", 200, []], ["body", "0", b"one"]]
    assert stage.exchange([*sent, ["waits", 0]]) == [["give", 0, {"piece": "two"}]]
    assert stage.exchange([["waits", 0]]) == [["give", 0, {"text": "", "sources": []}]]
    assert stage.exchange([]) is None
    assert [play.reply("reader").body for play in Play(stage.notes).asking("why")] == [b"one", b"one"]


def test_only_one_who_asked_and_is_still_there_gets_something() -> None:
    stage = streaming([ask("reader", "/"), ["leave", "reader"], ask("next", "/")])
    stage.exchange([])
    stage.exchange([["body", "0", b"one"]])
    stage.exchange([["body", "0", b"two"]])
    assert Play(stage.notes).reply("reader").body == b"one"
    assert stage.exchange([["body", "startup", b"one"]]) is None
    assert not stage.makes_sense


def test_a_stream_counts_as_closed_once_and_only_if_there_was_one() -> None:
    stage = streaming([ask("reader", "/")])
    stage.exchange([])
    stage.exchange([["called", 0, "why"], ["closed", 0], ["closed", 0]])
    assert Play(stage.notes).closed() == {"why"}
    assert stage.exchange([["closed", 1]]) is None


DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.binary(max_size=3) | st.sampled_from(["0", "complete"]),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)
EVENTS = ["called", "waits", "left", "status", "body", "end", "socket", "raised", "error", "returned", "cancelled"]
EVENTS += ["startup", "logged", "closing", "closed"]


@given(
    st.lists(st.lists(DATA, max_size=3) | st.tuples(st.sampled_from(EVENTS), DATA, DATA, DATA).map(list), max_size=6)
)
def test_nonsense_ends_the_play_and_breaks_nothing(happened: list[Any]) -> None:
    stage = streaming([ask("reader", "/"), ["go"], ["fail", "x"]])
    stage.exchange([])
    for event in happened:
        if stage.exchange([event]) is None:
            break
    play = Play(stage.notes)
    play.behaviour()
    for name in ("reader", "startup"):
        str(play.reply(name))


def test_what_is_told_is_bounded() -> None:
    stage = streaming([ask(f"reader {number}", "/") for number in range(20)])
    stage.exchange([])
    bodies = 0
    while stage.exchange([["body", "0", bytes(2**22)]]) is not None:
        bodies += 1
    assert bodies < 5
    assert not stage.makes_sense


def test_json_that_is_nested_without_end_is_none() -> None:
    assert as_json("[" * 100_000) is None
