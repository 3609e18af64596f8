"""A wire whose other end is hostile: whatever it does, the judge's side comes back soon, and with the right error."""

import random
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kicourse.answers import (
    AnswerError,
    AnswerRaised,
    AnswerRefused,
    AnswerTimedOut,
    Handle,
    NotStarted,
    Session,
    remote,
)
from kicourse.answers.codec import Bounds, decode, encode
from kicourse.answers.errors import AnswerLost
from kicourse.answers.location import Location
from kicourse.answers.remote import RelayedThread, RemoteConnection, read_message, send_message
from kicourse.answers.wire import STAGE, TRIAL, Wire, WireError

LARGEST = 1 << 16
SECONDS = 0.3
"""What a call may take in these tests."""
BOUNDED = 8.0
"""Within so many seconds everything has ended: a call, an interrupt, and a busy machine's slack."""

Peer = Callable[[socket.socket], None]


@pytest.fixture(autouse=True, scope="module")
def _interrupts_are_short() -> Iterator[None]:
    """Wait less for an answer to be interrupted: many of these never are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "_INTERRUPT_SECONDS", 0.8)
        yield


def frame(kind: bytes, content: bytes) -> bytes:
    return struct.pack("!cI", kind, len(content)) + content


@contextmanager
def peer(act: Peer) -> Iterator[Wire]:
    """Our end of a wire at whose other end a thread does `act`, and hangs up then."""
    ours, theirs = socket.socketpair()

    def run() -> None:
        with theirs, suppress(OSError):
            act(theirs)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wire = Wire(ours, LARGEST, patience=1.0)
    try:
        yield wire
    finally:
        wire.close()
        thread.join(5)


def says(*pieces: bytes, then: Peer | None = None) -> Peer:
    """Send these bytes at once, whatever is asked."""

    def act(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)
        if then is not None:
            then(connection)

    return act


def stays(connection: socket.socket) -> None:
    """Say nothing more, and read what comes until we hang up."""
    with suppress(OSError):
        while connection.recv(1 << 16):
            pass


def reads_a_little(connection: socket.socket) -> None:
    connection.recv(10)


def deaf(connection: socket.socket) -> None:
    """Neither read nor say anything."""
    with suppress(OSError):
        while True:
            time.sleep(0.02)
            connection.send(b"", socket.MSG_DONTWAIT)
            if connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
                return


def floods(*frames: bytes) -> Peer:
    """Send these over and over."""

    def act(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"".join(frames))

    return act


def call(wire: Wire) -> Any:
    """What a check does with an answer, and how long that took."""
    session = Session(RemoteConnection(wire), SECONDS)
    return Handle(session, 0, "answer")([1, 2], key="value")


def bounded(act: Callable[[], Any]) -> Any:
    """Do it in a thread; fail if it does not end. Returns what it returned or raised."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(act())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(BOUNDED)
    assert found, f"it still has not ended after {BOUNDED:g} seconds"
    return found[0]


# Frames


def test_what_is_sent_arrives_whole_and_in_order() -> None:
    one, other = socket.socketpair()
    sender, receiver = Wire(one, 1 << 20), Wire(other, 1 << 20)
    contents = [b"", b"x", bytes(range(256)) * 1000]

    def send() -> None:
        for content in contents:
            sender.send(TRIAL, content)

    thread = threading.Thread(target=send)
    thread.start()
    assert [receiver.receive(5) for _ in contents] == [(TRIAL, content) for content in contents]
    thread.join()
    sender.close()
    with pytest.raises(WireError):
        receiver.receive(5)
    receiver.close()


def test_a_late_half_is_not_lost() -> None:
    whole = frame(TRIAL, b"abc")

    def hesitate(connection: socket.socket) -> None:
        time.sleep(0.3)
        connection.sendall(whole[4:])
        stays(connection)

    with peer(says(whole[:4], then=hesitate)) as wire:
        with pytest.raises(TimeoutError):
            wire.receive(0.05)
        assert wire.receive(5) == (TRIAL, b"abc")


@pytest.mark.parametrize("length", [LARGEST + 1, 2**31, 2**32 - 1])
def test_a_giant_length_is_refused_before_anything_is_kept(length: int) -> None:
    with peer(says(struct.pack("!cI", TRIAL, length), then=floods(b"\0" * 65536))) as wire:
        with pytest.raises(WireError, match="are allowed"):
            wire.receive(5)
        assert len(wire._buffer) < 100


def test_a_frame_of_the_largest_size_is_taken() -> None:
    with peer(says(frame(TRIAL, b"\0" * LARGEST))) as wire:
        assert len(wire.receive(5)[1]) == LARGEST


@pytest.mark.parametrize("cut", range(1, 8))
def test_half_a_frame_is_waited_for_no_longer_than_asked(cut: int) -> None:
    with peer(says(frame(TRIAL, b"abc")[:cut], then=stays)) as wire, pytest.raises(TimeoutError):
        wire.receive(0.05)
    with peer(says(frame(TRIAL, b"abc")[:cut])) as wire, pytest.raises(WireError):
        wire.receive(5)


def test_who_takes_nothing_is_given_up() -> None:
    with peer(deaf) as wire, pytest.raises(WireError, match="nobody takes"):
        wire.send(TRIAL, b"\0" * 2**24)


def test_a_frame_that_trickles_in_has_its_deadline() -> None:
    def trickle(connection: socket.socket) -> None:
        connection.sendall(struct.pack("!cI", TRIAL, 10_000))
        while True:
            connection.sendall(b"\0")
            time.sleep(0.001)

    with peer(trickle) as wire:
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            wire.receive(0.2)
        assert time.monotonic() - start < 3


@settings(max_examples=150)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_frames_or_errors(data: bytes, stay: bool) -> None:
    taken = b""
    with peer(says(data, then=stays if stay else None)) as wire:
        try:
            while True:
                kind, content = wire.receive(0.02)
                assert len(kind) == 1
                taken += frame(kind, content)
        except (WireError, TimeoutError):
            pass
    assert data.startswith(taken)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    with suppress(WireError):
        assert isinstance(read_message(data), dict)


# An answer at the other end


OUT_OF_TURN = {
    "a stage message": frame(STAGE, encode({"played": True, "outputs": [], "succeeded": True})),
    "another answer": frame(STAGE, encode({"answer": "again"})),
    "a location": frame(STAGE, encode({"where": [1, "x", "f"]})),
    "an unknown kind": frame(b"?", b""),
    "no kind": frame(b"\0", encode({"value": 1})),
}


@pytest.mark.parametrize("what", OUT_OF_TURN)
def test_a_message_out_of_turn_loses_the_answer(what: str) -> None:
    with peer(says(OUT_OF_TURN[what], then=stays)) as wire:
        session = Session(RemoteConnection(wire), SECONDS)
        assert isinstance(bounded(lambda: Handle(session, 0, "answer")(1)), AnswerLost)
        assert session.connection.lost  # type: ignore[attr-defined]
        start = time.monotonic()
        with pytest.raises(AnswerLost):
            Handle(session, 0, "answer")(1)
        assert time.monotonic() - start < 0.2, "nobody is waited for who is lost"


def test_a_peer_that_hangs_up_is_an_answer_that_is_lost() -> None:
    with peer(says()) as wire:
        assert isinstance(bounded(lambda: call(wire)), AnswerLost)
    with peer(reads_a_little) as wire:
        assert isinstance(bounded(lambda: call(wire)), AnswerLost)


def test_a_silent_peer_is_an_answer_that_takes_too_long_and_is_lost_then() -> None:
    with peer(stays) as wire:
        connection = RemoteConnection(wire)
        error = bounded(lambda: Handle(Session(connection, SECONDS), 0, "answer")(1))
        assert isinstance(error, AnswerTimedOut)
        assert error.location is None
        assert connection.lost


FLOODS = {
    "of replies": frame(TRIAL, encode({"value": 1})),
    "of stale replies after half a frame": struct.pack("!cI", TRIAL, 4) + b"xxxx" + frame(TRIAL, b"\xc1"),
    "of empty frames": frame(TRIAL, b""),
    "of garbage": frame(TRIAL, b"\xc1" * 100),
    "of stage messages": frame(STAGE, encode({"where": None})),
    "of calls of a function that was never lent": frame(TRIAL, encode({"lent": 7, "args": [], "kwargs": {}})),
    "of bytes": random.Random(1).randbytes(4096),
    "of zeros": b"\0" * 4096,
}


@pytest.mark.parametrize("what", FLOODS)
def test_a_flood_ends_in_bounded_time(what: str) -> None:
    with peer(floods(FLOODS[what])) as wire:

        def several() -> list[Any]:
            session = Session(RemoteConnection(wire), SECONDS)
            found: list[Any] = []
            for _ in range(5):
                try:
                    found.append(Handle(session, 0, "answer")([1], key="value"))
                except AnswerError as error:
                    found.append(error)
            return found

        assert len(bounded(several)) == 5


def lent_flood(connection: socket.socket) -> None:
    """Call the function that was lent, over and over, without waiting for what it returns."""
    threading.Thread(target=stays, args=(connection,), daemon=True).start()
    floods(frame(TRIAL, encode({"lent": 0, "args": [], "kwargs": {}})) * 50)(connection)


def test_a_flood_of_calls_of_a_lent_function_ends_at_the_deadline() -> None:
    with peer(lent_flood) as wire:
        session = Session(RemoteConnection(wire), SECONDS)
        error = bounded(lambda: Handle(session, 0, "answer")(lambda: 1))
        assert isinstance(error, AnswerTimedOut | AnswerLost)


def test_a_flood_of_stale_frames_does_not_keep_an_interrupt_from_ending() -> None:
    with peer(floods(frame(TRIAL, encode({"value": 1})))) as wire:
        connection = RemoteConnection(wire)
        assert bounded(connection.interrupt) is None
        assert connection.lost


def test_a_peer_that_reads_nothing_does_not_hold_up_a_large_call() -> None:
    with peer(deaf) as wire:
        session = Session(RemoteConnection(wire), SECONDS)
        assert isinstance(bounded(lambda: Handle(session, 0, "answer")(b"\0" * 2**23)), AnswerError)


def test_a_reply_beyond_the_bounds_is_lost_and_one_within_is_refused() -> None:
    with peer(says(frame(TRIAL, b"\0" * (LARGEST - 1)), then=stays)) as wire:
        assert isinstance(bounded(lambda: call(wire)), AnswerRefused)
    with peer(says(frame(TRIAL, encode({"value": "x" * LARGEST})), then=stays)) as wire:
        assert isinstance(bounded(lambda: call(wire)), AnswerLost)
    nested = b"\x91" * 5000 + b"\xc0"
    with peer(says(frame(TRIAL, nested), then=stays)) as wire:
        assert isinstance(bounded(lambda: call(wire)), AnswerRefused)
    with peer(says(frame(TRIAL, encode({"value": float("nan")})), then=stays)) as wire:
        assert isinstance(bounded(lambda: call(wire)), AnswerRefused)


@settings(max_examples=100)
@given(st.binary(max_size=200), st.sampled_from([TRIAL, STAGE]))
def test_any_bytes_in_a_frame_are_an_answer_or_an_answer_error(content: bytes, kind: bytes) -> None:
    with peer(says(frame(kind, content))) as wire, suppress(AnswerError):
        call(wire)


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes_on_the_wire_are_an_answer_or_an_answer_error(data: bytes) -> None:
    with peer(says(data)) as wire, suppress(AnswerError):
        call(wire)


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(0, 3), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = (
    "value",
    "object",
    "type",
    "lent",
    "args",
    "kwargs",
    "raised",
    "refused",
    "changed",
    "stopped",
    "types",
    "text",
)
DESCRIPTION = st.dictionaries(st.sampled_from(("types", "text", "where")), ODD, max_size=3)
REPLY = st.dictionaries(st.sampled_from(FIELDS), ODD | DESCRIPTION | st.just(0), max_size=4)


@settings(max_examples=300)
@given(REPLY)
@example({})
@example({"value": 1, "changed": 5})
@example({"raised": None})
@example({"raised": {"types": [], "text": 1, "where": []}})
@example({"raised": {"types": 5, "text": "", "where": None}})
@example({"raised": {"types": ["E"], "text": "", "where": [10**9, 1]}})
@example({"lent": 0})
@example({"lent": 0, "args": 5, "kwargs": {}})
@example({"lent": 0, "args": [], "kwargs": {"1": 1}})
@example({"lent": 1, "args": [], "kwargs": {}})
@example({"lent": [], "args": [], "kwargs": {}})
@example({"lent": 0.0, "args": None, "kwargs": None})
@example({"stopped": True})
def test_any_reply_is_an_answer_or_an_answer_error(reply: dict[Any, Any]) -> None:
    """Whatever type a reply's parts have: an exception of another kind would be reported as a fault of the check."""
    with peer(says(frame(TRIAL, msgpack.packb(reply)))) as wire:
        session = Session(RemoteConnection(wire), SECONDS)
        with suppress(AnswerError):
            Handle(session, 0, "answer")(len, key=1)


@settings(max_examples=150)
@given(REPLY)
@example({"object": None, "type": "x"})
@example({"object": "x", "type": None})
@example({"type": "x"})
def test_any_reply_is_a_handle_or_an_answer_error(reply: dict[Any, Any]) -> None:
    with peer(says(frame(TRIAL, msgpack.packb(reply)))) as wire:
        session = Session(RemoteConnection(wire), SECONDS)
        with suppress(AnswerError):
            Handle(session, 0, "answer").make(1).attribute("name")


WHERE = [None, 5, "abc", [], [1], [1, 2, 3, 4], ["x", "y", "z"], {"a": 1, "b": 2, "c": 3}, [10**400, "", ""]]


@pytest.mark.parametrize("where", WHERE, ids=str)
def test_a_location_that_is_none_is_nowhere(where: Any) -> None:
    with peer(says(frame(STAGE, encode({"where": where})), then=stays)) as wire:
        connection = RemoteConnection(wire)
        place = bounded(connection.interrupt)
        assert place is None or isinstance(place, Location)


def test_texts_that_come_back_are_cut() -> None:
    long = "x" * 10_000
    with peer(says(frame(STAGE, encode({"where": [3, long, long]})), then=stays)) as wire:
        place = bounded(RemoteConnection(wire).interrupt)
        assert len(place.source) <= 200
        assert len(place.function) <= 100


# An honest answer at the other end


@contextmanager
def served(answer: Any) -> Iterator[Handle]:
    """An answer served by a relayed thread, as in a player, and a check's handle on it."""
    ours, theirs = socket.socketpair()
    far, near = Wire(theirs, 1 << 24), Wire(ours, 1 << 24)

    def serve() -> None:
        with suppress(WireError):
            RelayedThread(answer, far).serve()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    session = Session(RemoteConnection(near), SECONDS)
    try:
        yield Handle(session, 0, "answer")
    finally:
        session.connection.close()
        thread.join(5)
        assert not thread.is_alive(), "it serves until the check ends, and no longer"
        near.close()
        far.close()


def test_an_answer_is_called_over_the_wire_as_in_a_thread() -> None:
    with served(lambda function, *numbers: [function(number) for number in numbers]) as answer:
        assert answer(lambda number: number + 1, 1, 2) == [2, 3]
    with served(lambda: 1 / 0) as answer:
        with pytest.raises(AnswerRaised) as caught:
            answer()
        assert caught.value.type_names[0] == "ZeroDivisionError"
        assert caught.value.location is not None


def endless(turn: int) -> int:
    while turn:
        pass
    return 1


def test_a_lent_function_ends_with_the_time_of_the_call() -> None:
    finished: list[bool] = []

    def slow() -> None:
        for _ in range(600):
            time.sleep(0.1)
        finished.append(True)

    with served(lambda function: function()) as answer:
        for _ in range(2):
            with pytest.raises(AnswerTimedOut):
                answer(slow)
        assert not finished
        assert answer(lambda: 5) == 5
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def stub() -> None:
    raise NotImplementedError()


def test_an_interrupt_over_the_wire_tells_the_line_and_the_answer_goes_on() -> None:
    with served(endless) as answer:
        for _ in range(2):
            error = bounded(lambda: answer(1))
            assert isinstance(error, AnswerTimedOut)
            assert error.location is not None
            assert error.location.function == "endless"
            assert error.location.source in ("while turn:", "pass")
            assert answer(0) == 1


def test_an_interrupt_finds_an_answer_that_waits_for_a_lent_function() -> None:
    def failing() -> None:
        raise StopIteration  # which no lent function may: the check's own fault ends the call

    def asking(function: Any) -> Any:
        return function()

    with served(asking) as answer:
        for _ in range(2):
            assert isinstance(bounded(lambda: answer(failing)), TypeError)
        assert answer(lambda: 7) == 7


def test_a_request_that_comes_while_the_answer_is_busy_is_kept_for_it() -> None:
    ours, theirs = socket.socketpair()
    far, near = Wire(theirs, LARGEST), Wire(ours, LARGEST)

    def slow(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    thread = threading.Thread(target=RelayedThread(slow, far).serve)
    thread.start()
    for seconds in (0.3, 0.0):
        call = {"do": "call", "target": 0, "args": [seconds], "kwargs": {}, "keep": False}
        near.send(TRIAL, encode(call))
    assert [decode(near.receive(SECONDS + 5)[1], Bounds())["value"] for _ in range(2)] == [0.3, 0.0]
    send_message(near, do="end")
    thread.join(5)
    assert not thread.is_alive()
    near.close()
    far.close()


def test_a_call_that_cannot_be_interrupted_is_left_behind() -> None:
    woken = threading.Event()
    with served(lambda wait: woken.wait(20) if wait else "still here") as answer:
        assert isinstance(bounded(lambda: answer(True)), AnswerTimedOut)
        assert answer(False) == "still here"
        woken.set()
        time.sleep(0.2)
        assert answer(False) == "still here", "what an abandoned call says is no reply to a later one"


def test_a_stub_is_not_started_over_the_wire_too() -> None:
    with served(stub) as answer, pytest.raises(NotStarted):
        answer()


def test_messages_about_the_stage_travel() -> None:
    ours, theirs = socket.socketpair()
    one, other = Wire(ours, LARGEST), Wire(theirs, LARGEST)
    send_message(one, source="x = 1", awaited=["unit", "task"])
    kind, content = other.receive(5)
    assert kind == STAGE
    assert read_message(content) == {"source": "x = 1", "awaited": ["unit", "task"]}
    one.close()
    other.close()
