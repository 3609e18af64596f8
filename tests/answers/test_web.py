"""The stage on which a trial plays: exact order, no network, and notes that say what happened."""

import threading
from typing import Any

from kicourse.answers import web


def ask(name: str, path: str) -> list[Any]:
    return ["ask", name, "GET", path, [], b""]


def kinds(notes: list[list[Any]]) -> list[str]:
    return [note[0] for note in notes]


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
    answerer = web.Answerer([{"text": "late", "sources": [], "held": True}])
    threads: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if await silent_lifespan(scope, receive, send):
            return
        if scope["path"] == "/slow":
            import anyio.to_thread

            def work() -> str:
                threads.append(threading.get_ident())
                return answerer("why").text

            await respond(send, (await anyio.to_thread.run_sync(work)).encode())
        else:
            await respond(send, b"quick")

    notes = web.play(app, answerer, [ask("slow", "/slow"), ask("quick", "/"), ["go"]])
    bodies = [note[1:] for note in notes if note[0] == "body"]
    assert bodies == [["quick", b"quick"], ["slow", b"late"]]
    assert threads != [threading.get_ident()]
    assert "blocks the loop" not in kinds(notes)


def test_blocking_the_loop_is_noted_and_blocks_nothing() -> None:
    answerer = web.Answerer([{"text": "x", "sources": [], "held": True}])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not await silent_lifespan(scope, receive, send):
            await respond(send, answerer("why").text.encode())

    assert "blocks the loop" in kinds(web.play(app, answerer, [ask("one", "/")]))


def test_one_who_leaves_hears_nothing_more_and_the_app_learns_of_it() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not await silent_lifespan(scope, receive, send):
            await receive()
            gone = await receive()
            await respond(send, gone["type"].encode())

    notes = web.play(app, None, [ask("one", "/"), ["leave", "one"]], patience=0.0)
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

    notes = web.play(app, None, [ask("one", "/")])
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

    notes = web.play(app, None, [ask("one", "/")], patience=0.05)
    assert ["cancelled", "one"] in notes
