"""Answers that lie about themselves."""

from tests.hostile.corpus.attack import Attack, attack, every_task


@attack("be equal to everything, have every attribute, be every number", safe_for_stock=True)
def universal_object() -> Attack:
    source = """
class Universal:
    def __init__(self, *args, **kwargs): pass
    def __getattr__(self, name): return self
    def __call__(self, *args, **kwargs): return self
    def __getitem__(self, key): return self
    def __iter__(self): return iter([self])
    def __len__(self): return 1
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __bool__(self): return True
    def __hash__(self): return 0
    def __int__(self): return 10
    __index__ = __int__
    def __float__(self): return 10.0
    def __add__(self, other): return self
    __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __abs__ = __add__
    def __abs__(self): return 0
    def __str__(self): return "10"
    __repr__ = __str__
    def __enter__(self): return self
    def __exit__(self, *args): return True

ANSWER = Universal()
"""
    return Attack(answers=every_task(source))


@attack("return subclasses of str, Decimal and int that are equal to everything", safe_for_stock=True)
def equal_subclasses() -> Attack:
    lying = """
class Same({base}):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0

"""
    text = lying.format(base="str")
    return Attack(
        answers={
            "ask": text + "ask = lambda *args, **kwargs: Same('x')",
            "cost": lying.format(base="Decimal") + "cost = lambda *args, **kwargs: Same('1.0000')",
            "stream": text + "stream = lambda *args, **kwargs: iter([Same('x')] * 3)",
            "conversation": text
            + "class Conversation:\n    def __init__(self, *args, **kwargs): pass\n"
            + "    def ask(self, question): return Same('x')",
        }
    )


@attack("lie about __class__, __module__ and the name of its type", safe_for_stock=True)
def lying_class() -> Attack:
    source = """
from decimal import Decimal

class Liar:
    def __init__(self, *args, **kwargs): pass
    @property
    def __class__(self): return str
    def __call__(self, *args, **kwargs): return self
    def __eq__(self, other): return True
    def __hash__(self): return 0
    def encode(self, *args): return b"10"

Liar.__name__ = Liar.__qualname__ = "str"
Liar.__module__ = "builtins"
ANSWER = Liar()
"""
    return Attack(answers=every_task(source))


@attack("pretend to be one of the codec's own types, by module and name, with methods that lie")
def codec_impostors() -> Attack:
    source = """
class Impostor:
    dtype = type("D", (), {"kind": "f", "str": "<f8"})()
    shape = (1,)
    def tobytes(self): return b"12345678"
    def isoformat(self): return "2020-01-01"
    def __str__(self): return "10"

impostors = []
for module, name in (("builtins", "int"), ("numpy", "ndarray"), ("decimal", "Decimal"), ("datetime", "date"),
                     ("builtins", "tuple"), ("pandas", "Series"), ("torch", "Tensor"), ("builtins", "complex")):
    impostors.append(type(name, (Impostor,), {"__module__": module, "__qualname__": name})())
turns = iter(impostors * 100)

class ANSWER:
    def __new__(cls, *args, **kwargs): return next(turns)
"""
    return Attack(answers=every_task(source))


@attack("be data whose fields change each time they are read")
def changing_records() -> Attack:
    source = """
from typing import NamedTuple
from enum import Enum

class Fields(NamedTuple):
    text: str
    def __eq__(self, other): return True

class Mark(Enum):
    FULL = 10
    def __eq__(self, other): return True
    def __hash__(self): return 0

class Model:
    model_fields = {"choices": 1, "content": 2}
    model_validate = True
    def __getattr__(self, name): return Fields("10")

turns = iter([Fields("x"), Mark.FULL, Model()] * 100)
ANSWER = lambda *args, **kwargs: next(turns)
"""
    return Attack(answers=every_task(source))


@attack("never end: iterators and generators without end, everywhere")
def endless_iterators() -> Attack:
    source = """
import itertools

class ANSWER:
    def __init__(self, *args, **kwargs): pass
    def __new__(cls, *args, **kwargs): return super().__new__(cls) if cls.__name__ == "Conversation" else itertools.repeat("")
    def ask(self, question): return itertools.count()
"""
    return Attack(answers=every_task(source))


@attack("return lists that contain themselves")
def self_containing() -> Attack:
    source = """
loop = []
loop.append(loop)
table = {"x": loop}
table["self"] = table
turns = iter([loop, table] * 100)
ANSWER = lambda *args, **kwargs: next(turns)
"""
    return Attack(answers=every_task(source))


@attack("raise from __repr__, __str__, __hash__, __eq__, __name__, __len__, even SystemExit", safe_for_stock=True)
def raising_names() -> Attack:
    source = """
class Meta(type):
    @property
    def __name__(cls): raise SystemExit("no name")

class ANSWER(metaclass=Meta):
    def __init__(self, *args, **kwargs): pass
    def __call__(self, *args, **kwargs): return self
    def _no(self, *args, **kwargs): raise SystemExit("10")
    __repr__ = __str__ = __hash__ = __eq__ = __len__ = __bool__ = __iter__ = ask = _no

ANSWER = ANSWER()
"""
    return Attack(answers=every_task(source))


@attack("have names, texts and representations of fifty megabytes")
def huge_names() -> Attack:
    source = """
class Huge(Exception):
    def __str__(self): return "x" * (50 * 2**20)
    __repr__ = __str__

Huge.__name__ = Huge.__qualname__ = "N" * (20 * 2**20)

def ANSWER(*args, **kwargs):
    raise Huge()

ANSWER.__name__ = ANSWER.__qualname__ = "f" * (20 * 2**20)
"""
    return Attack(answers=every_task(source))


@attack("raise exceptions whose text, name and traceback lie or raise")
def lying_exceptions() -> Attack:
    source = """
class Sly(NotImplementedError):
    def __str__(self): raise KeyboardInterrupt
    @property
    def __traceback__(self): raise SystemExit(10)
    @property
    def __class__(self): return StopIteration

def ask(*args, **kwargs):
    raise Sly("10")
"""
    return Attack(answers={"ask": source})


@attack("return what pickle would run: __reduce__, __getstate__, __class_getitem__", safe_for_stock=True)
def pickles() -> Attack:
    source = """
import os, pickle

class Bomb:
    def __init__(self, *args, **kwargs): pass
    def __reduce__(self): return (os.system, ("touch /tmp/hostile-pickle",))
    def __getstate__(self): return pickle.dumps(self)
    def ask(self, question): return pickle.dumps(self)

turns = iter([Bomb(), pickle.dumps(Bomb()), b"cos\\nsystem\\n(S'touch /tmp/hostile-pickle'\\ntR."] * 50)
ANSWER = lambda *args, **kwargs: next(turns)
"""
    return Attack(answers=every_task(source))


@attack("raise StopIteration, GeneratorExit, KeyboardInterrupt and CancelledError where a value should come")
def control_exceptions() -> Attack:
    source = """
import asyncio, itertools

turns = itertools.cycle([StopIteration(10), GeneratorExit(), KeyboardInterrupt(), asyncio.CancelledError(), SystemExit(0),
                         MemoryError(), RecursionError(), NotImplementedError()])

def ANSWER(*args, **kwargs):
    raise next(turns)
"""
    return Attack(answers=every_task(source))


@attack("return awaitables that are awaited for ever, or that never were coroutines")
def awaitables() -> Attack:
    source = """
import asyncio

class Never:
    def __await__(self):
        while True:
            yield

class Odd:
    def __await__(self): return 10

def ANSWER(*args, **kwargs):
    return Odd() if "ANSWER" != "stream" else Never()
"""
    return Attack(answers=every_task(source))


@attack(
    "be right about everything that can be seen without trying: name, signature, doc, annotations", safe_for_stock=True
)
def right_look() -> Attack:
    return Attack(
        answers={
            "ask": "def ask(client: OpenAI, question: str, instructions: str = INSTRUCTIONS) -> str:\n    return ''",
            "cost": "def cost(usage, prices) -> Decimal:\n    return Decimal('0.0000')",
            "stream": "def stream(client, question, instructions=INSTRUCTIONS) -> Iterator[str]:\n    yield from ()",
            "conversation": "class Conversation:\n"
            "    def __init__(self, client, instructions, budget, count_tokens):\n        pass\n"
            "    def ask(self, question: str) -> str:\n        raise ValueError('The question is too long.')",
        }
    )


@attack("patch the client and the scripted server's library on its side, so that requests seem to have been sent")
def patched_client() -> Attack:
    source = """
from types import SimpleNamespace as N
from openai.resources.chat.completions import Completions

reply = N(choices=[N(message=N(content="10"), delta=N(content="10"))], usage=None)
Completions.create = lambda self, **kwargs: iter([reply]) if kwargs.get("stream") else reply

def ask(client, question, instructions=""):
    return client.chat.completions.create(messages=[{"role": "user", "content": question}]).choices[0].message.content

def cost(usage, prices):
    return Decimal("NaN")

def stream(client, question, instructions=""):
    for chunk in client.chat.completions.create(stream=True):
        yield chunk.choices[0].delta.content

class Conversation:
    def __init__(self, client, *args, **kwargs): self.client = client
    def ask(self, question): return ask(self.client, question)
"""
    return Attack(answers=every_task(source))
