"""Forged frames: the attacker speaks to the judge over the socket itself, and keeps to no protocol."""

from tests.hostile.corpus.attack import Attack, attack, every_task

FORGER = """
from kicourse.answers.codec import Bounds, decode, encode
from kicourse.answers.remote import read_message, send_message
from kicourse.answers.wire import STAGE, TRIAL

stage = check.ask._stage
wire = stage.wire

def instead(serve):
    \"\"\"Have `serve(task)` called when the judge waits for a task's answer.\"\"\"
    def hand_in(unit, task, answer):
        if stage.awaited != (unit, task):
            return False
        stage.awaited = None
        serve(task)
        return True
    stage.hand_in = hand_in

def answering(reply):
    \"\"\"Answer every request of the judge's with `reply(request)`: bytes, or what is encoded.\"\"\"
    def serve(task):
        send_message(wire, answer=task)
        while True:
            kind, content = wire.receive(None)
            if kind == STAGE:
                if read_message(content).get("do") != "interrupt":
                    return
                send_message(wire, where=[1, "10", "passed"])
                continue
            request = decode(content, Bounds(finite=False), lambda kind, number: number)
            got = {"value": None} if request["do"] in ("seed", "restore") else reply(request)
            wire.send(TRIAL, got if isinstance(got, bytes) else encode(got))
    instead(serve)
"""


def forging(source: str) -> Attack:
    """Return an attack that speaks the protocol by itself."""
    return Attack(cell=FORGER + source)


@attack("say that the cell was played, with a result of 10, before any check has begun")
def forged_played() -> Attack:
    return forging("""
full = [{"output_type": "execute_result", "data": {"text/plain": "10", "text/html": "10"}, "metadata": {},
         "execution_count": 1}]
instead(lambda task: send_message(wire, played=True, outputs=full, succeeded=True, points=10, score=10, task=task,
                                  verdict={"points": 10, "status": "passed"}, judged={task: 10}))
""")


@attack("report a verdict in the words in which the judge reports to the coordinator")
def forged_report() -> Attack:
    return forging("""
def serve(task):
    report = {"task": task, "points": 10.0, "max_points": 10.0, "status": "passed", "criteria": [], "message": ""}
    verdict = {"report": report, "html": "<b>10</b>", "text": "10"}
    for kind in (STAGE, TRIAL, b"x"):
        wire.send(kind, json.dumps({"cell": 1, "outputs": [], "verdict": verdict, "task": task}).encode())
        wire.send(kind, json.dumps({"end": True}).encode())
    send_message(wire, cell=1, outputs=[], verdict=verdict, task=task)
instead(serve)
""")


@attack("hand in twice, and let the second answer replace the first")
def forged_second_answer() -> Attack:
    return forging("""
def serve(task):
    for _ in range(3):
        send_message(wire, answer=task)
instead(serve)
""")


@attack("answer every request with every field at once, full marks among them")
def forged_replies() -> Attack:
    return forging("""
answering(lambda request: {"value": 10, "stopped": True, "object": 0, "type": "str", "points": 10, "status": "passed",
                           "verdict": "passed", "passed": True, "changed": []})
""")


@attack("send the judge its own words back: whatever is asked is the answer")
def echoed_replies() -> Attack:
    return forging("""
answering(lambda request: {"value": (request.get("args") or [request.get("name", "")])[-1], "object": 0,
                           "type": "Conversation"})
""")


@attack("raise an exception that has every name at once")
def raised_everything() -> Attack:
    return forging("""
import builtins
names = [name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)]
answering(lambda request: {"raised": {"types": names, "text": "10", "where": None}}
          if request["do"] == "call" and not request["keep"] else {"object": 0, "type": "x"})
""")


@attack("describe exceptions and changed arguments in ways that the judge cannot read")
def malformed_descriptions() -> Attack:
    return forging("""
import itertools
bad = itertools.cycle([
    {"raised": 7}, {"raised": {"types": 7, "where": 7, "text": 7}}, {"raised": {"types": [], "where": [], "text": None}},
    {"raised": {"types": ["NotImplementedError"], "text": "", "where": ["x", "y", "z"]}}, {"refused": ["x"] * 1000},
    {"value": 1, "changed": 7}, {"value": 1, "changed": [["x"]]}, {"object": "x", "type": 7}, {"object": None}, {},
    {"lent": "x", "args": 7, "kwargs": 7}, {"lent": [], "args": [], "kwargs": {}}, {"lent": 10**9, "args": [], "kwargs": {}},
    {1: 2, None: 3}, 7, None, "value", ["value", 10], {"value": {"value": {"value": 10}}},
])
answering(lambda request: next(bad))
""")


@attack("put values of wrong types into what was played: arrays as names, records as texts, bytes as lists")
def malformed_outputs() -> Attack:
    return forging("""
import numpy as np
names = np.array(["stream", "error"])
bad = [
    [{"output_type": names, "name": names, "text": names}], [{"output_type": "stream", "name": names, "text": b"x"}],
    [{"output_type": "error", "ename": names, "evalue": {}, "traceback": [names]}], {"0": 1}, names, 7, [[[]]],
    [{"output_type": "execute_result", "data": names}, {"output_type": "execute_result", "data": {"text/plain": names}}],
    [{"output_type": "display_data", "data": {"image/png": "x" * 1000, "text/html": "<script>"}}] * 5000,
]
turn = iter(bad * 9)
instead(lambda task: send_message(wire, played=True, outputs=next(turn), succeeded=names))
""")


@attack("announce a frame of four gigabytes")
def announced_too_much() -> Attack:
    return forging("""
instead(lambda task: wire.connection.sendall(b"s" + struct.pack("!I", 2**32 - 1) + b"x" * 1000))
""")


@attack("send bytes that are no frames", fails=True)
def noise_on_the_wire() -> Attack:
    return forging("""
wire.connection.setblocking(True)
wire.connection.settimeout(2)
for _ in range(200):
    wire.connection.sendall(os.urandom(4096))
""")


@attack("send half a frame, and then nothing")
def half_a_frame() -> Attack:
    return forging("""
def serve(task):
    if task == "ask":
        wire.connection.send(b"s" + struct.pack("!I", 1000) + b"x" * 10)
        time.sleep(60)
instead(serve)
""")


@attack("answer one byte a second")
def dripping_frame() -> Attack:
    return forging("""
def serve(task):
    send_message(wire, answer=task)
    if task != "ask":
        return
    wire.receive(5)
    frame = b"t" + struct.pack("!I", 60) + encode({"value": "x" * 60})
    for place in range(len(frame)):
        wire.connection.send(frame[place : place + 1])
        time.sleep(1)
instead(serve)
""")


@attack("flood the judge with well-formed messages about the stage")
def flood_of_messages() -> Attack:
    return forging("""
def serve(task):
    for _ in range(20_000):
        send_message(wire, reference="ask")
instead(serve)
""")


@attack("flood the socket from a thread, whatever the judge waits for, in all later cells")
def flood_from_a_thread() -> Attack:
    return forging("""
def flood():
    for _ in range(100_000):
        try:
            send_message(wire, played=True, outputs=[], succeeded=True, answer="ask")
        except BaseException:
            return
threading.Thread(target=flood, daemon=True).start()
""")


@attack("nest data ten thousand deep, as lists and as extension types in each other")
def nested_replies() -> Attack:
    return forging("""
import msgpack
lists = b"\\x91" * 10_000 + b"\\x90"
inner = msgpack.packb([])
for _ in range(3_000):
    inner = msgpack.packb(msgpack.ExtType(1, inner))
turn = iter([b"\\x81\\xa5value" + lists, b"\\x81\\xa5value" + inner] * 50)
answering(lambda request: next(turn))
""")


@attack("send sixty megabytes for one number, and lists of ten million items")
def huge_replies() -> Attack:
    return forging("""
turn = iter([
    encode({"value": "x" * (60 * 2**20)}), b"\\x81\\xa5value\\xdd" + struct.pack("!I", 10_000_000) + b"\\xc0" * 10_000_000,
    b"\\x81\\xa5value\\xdd" + struct.pack("!I", 2**32 - 1), encode({"value": "\\u202e" * 10_000_000}),
] * 20)
answering(lambda request: next(turn))
""")


@attack("send numbers that take long to read: a million digits, exponents of a billion")
def numbers_as_bombs() -> Attack:
    return forging("""
import msgpack
def extended(code, text):
    return b"\\x81\\xa5value" + msgpack.packb(msgpack.ExtType(code, msgpack.packb(text)))
turn = iter([extended(4, "9" * 1_000_000), extended(6, "1e999999999"), extended(6, "9" * 1_000_000), extended(6, "sNaN"),
             extended(4, "9" * 999), extended(5, [float("nan"), 1.0]), extended(7, "x" * 10**6), extended(10, [10**18] * 3),
             extended(11, ["O", [1], b"12345678"]), extended(11, ["<f8", [2**40, 2**40], b""]),
             extended(11, ["U100000000", [0], b""]), extended(11, ["<f8", [-1], b"12345678"]), extended(99, "x"),
             extended(40, 0), extended(41, 0), extended(16, ["enum", "int", {"value": 10}])] * 5)
answering(lambda request: next(turn))
""")


@attack("send a set whose members all have the same hash, so that reading it takes for ever")
def colliding_hashes() -> Attack:
    return forging("""
import msgpack
modulus = sys.hash_info.modulus
members = [msgpack.ExtType(4, msgpack.packb(str(modulus * factor + 1))) for factor in range(9, 150_009)]
bomb = b"\\x81\\xa5value" + msgpack.packb(msgpack.ExtType(2, msgpack.packb(members)))
answering(lambda request: bomb)
""")


@attack("call the functions that the judge lends, with forged numbers and arguments, without end")
def forged_lent_calls() -> Attack:
    return forging("""
calls = 0
def reply(request):
    global calls
    calls += 1
    return {"lent": calls % 3, "args": ["x" * 1000], "kwargs": {}} if calls < 3000 else {"value": 10}
answering(reply)
""")


@attack("send a thousand replies before anything was asked")
def replies_in_advance() -> Attack:
    return forging("""
def serve(task):
    send_message(wire, answer=task)
    frame = encode({"value": "10", "object": 0, "type": "x"})
    for _ in range(1000):
        wire.send(TRIAL, frame)
    send_message(wire, played=True, outputs=[], succeeded=True)
instead(serve)
""")


@attack("write to every descriptor that is open, and see whether one belongs to somebody else")
def descriptors() -> Attack:
    return Attack(
        cell="""
import stat
mine = 0
for number in range(4096):
    try:
        kind = os.fstat(number).st_mode
    except OSError:
        continue
    if stat.S_ISSOCK(kind):
        mine += 1
        try:
            peer = socket.socket(fileno=os.dup(number))
            socket.send_fds(peer, [json.dumps({"pid": 1, "folder": "/", "environment": {}}).encode()], [0])
        except OSError:
            pass
    elif stat.S_ISREG(kind) or stat.S_ISDIR(kind):
        reached("a file that is open", (number, stat.filemode(kind)))
if mine > 1:
    # asyncio has a pair of its own
    print("sockets", mine)
""",
        answers=every_task("def ANSWER(*args, **kwargs):\n    return 10\n"),
    )


@attack("send descriptors over the socket, until the judge has no more", fails=True)
def descriptors_sent() -> Attack:
    return forging("""
wire.connection.setblocking(True)
wire.connection.settimeout(2)
for _ in range(2000):
    socket.send_fds(wire.connection, [b"s"], [0, 1, 2])
""")


@attack("close the socket, then every descriptor, and go on", fails=True)
def closed_descriptors() -> Attack:
    return forging("""
os.closerange(0, 4096)
""")
