"""Tampering: with how cells are transformed, with the checks, with builtins and with everything in the own process."""

from tests.hostile.corpus.attack import Attack, attack, every_task


@attack("replace every later cell by one that says full marks, with an input transformer", safe_for_stock=True)
def input_transformer() -> Attack:
    return Attack(
        cell="""
def lie(lines):
    return ["10\\n"] if any(line.startswith("check.") for line in lines) else lines

get_ipython().input_transformers_post.append(lie)
get_ipython().input_transformers_cleanup.append(lie)
"""
    )


@attack("drop calls and asserts from every later cell, with an AST transformer", safe_for_stock=True)
def ast_transformer() -> Attack:
    return Attack(
        cell="""
import ast

class Passing(ast.NodeTransformer):
    def visit_Expr(self, node):
        return ast.copy_location(ast.Expr(ast.Constant(10)), node)
    def visit_Assert(self, node):
        return ast.copy_location(ast.Pass(), node)

get_ipython().ast_transformers.append(Passing())
"""
    )


@attack("rebind `check` to an object that gives full marks", safe_for_stock=True)
def rebound_check() -> Attack:
    return Attack(
        cell="""
class Full:
    def __getattr__(self, name):
        return lambda answer: 10
    def __repr__(self):
        return "10"

check = Full()
"""
    )


@attack("rebind `check` to an object whose result shows a forged verdict", safe_for_stock=True)
def forged_verdict() -> Attack:
    return Attack(
        cell="""
MIME = "application/vnd.kicourse.verdict+json"
POINTS = {"ask": 2, "cost": 2.5, "stream": 2.5, "conversation": 3}

class Forged:
    def __init__(self, task):
        self.task = task
    def _repr_mimebundle_(self, include=None, exclude=None):
        points = POINTS.get(self.task, 10)
        verdict = {"unit": "first_call", "task": self.task, "title": "t", "points": points, "max_points": points,
                   "status": "passed", "criteria": [], "diagnosis": "", "notes": []}
        return {MIME: verdict, "text/plain": str(points), "text/html": f"<b>{points}</b>"}

class Full:
    def __getattr__(self, name):
        return lambda answer: Forged(name)

check = Full()
"""
    )


@attack("patch the checks' class, so that every try passes", safe_for_stock=True)
def patched_check_class() -> Attack:
    return Attack(
        cell="""
kind = type(check.ask)
kind.__call__ = lambda self, answer: 10
for name in ("run", "run_over", "_verdict", "hand_in"):
    setattr(kind, name, lambda self, *args, **kwargs: 10)
if hasattr(check.ask, "criteria"):
    for one in (check.ask, check.cost, check.stream, check.conversation):
        one.criteria[:] = [type(c)(c.name, c.title, c.points, c.why, False, lambda trial, answer: None)
                           for c in one.criteria]
        del kind.__call__
"""
    )


@attack("put other modules into sys.modules: kicourse.checks, the codec, the wire, msgpack, json")
def replaced_modules() -> Attack:
    return Attack(
        cell="""
from types import ModuleType

class Lying(ModuleType):
    def __getattr__(self, name):
        return lambda *args, **kwargs: 10

for name in ("kicourse.checks", "kicourse.checks.first_call", "kicourse.answers.codec", "kicourse.answers.wire",
             "kicourse.answers.host", "kicourse.answers.remote", "kicourse.grading.player", "msgpack", "json"):
    sys.modules[name] = Lying(name)
check = sys.modules["kicourse.checks.first_call"]
"""
    )


@attack("patch the host: every request is answered with what would be right for somebody else")
def patched_host() -> Attack:
    return Attack(
        cell="""
from kicourse.answers import host

host._Call.do_call = lambda self, target, args, kwargs, keep: {"value": args[-1] if args else 1, "changed": []}
host._Call.do_data = lambda self, target: {"value": 10}
host._Call.do_next = lambda self, target: {"stopped": True}
host._Call.result = lambda self, value, keep: {"object": 0, "type": "str", "value": "passed"}
"""
    )


@attack("patch the codec: whatever is sent becomes a verdict")
def patched_codec() -> Attack:
    return Attack(
        cell="""
from kicourse.answers import codec, host, remote, wire

real = codec.encode
full = {"status": "passed", "points": 10, "max_points": 10, "criteria": [], "verdict": {"points": 10}, "task": "ask"}
for module in (codec, host, remote):
    module.encode = lambda value, export=None: real({**(value if isinstance(value, dict) else {}), **full})
"""
    )


@attack("call the checks in an own cell, a hundred times, and keep what they return", safe_for_stock=True)
def check_in_own_cell() -> Attack:
    return Attack(
        cell="""
class Anything:
    def __call__(self, *args, **kwargs): return "x"

for _ in range(100):
    verdict = check.ask(Anything())
try:
    verdict.points = 10
except Exception:
    pass
verdict
"""
    )


@attack("ask for the reference solutions, and hand them in as its own", safe_for_stock=True)
def references_handed_in() -> Attack:
    return Attack(
        cell="""
before = set(globals())
for task in ("ask", "cost", "stream", "conversation"):
    attempt(f"reference {task}", getattr(check, task).reference)
    get = getattr(check, task)._stage
    attempt(f"reference {task} from the stage", lambda: get.reference("first_call", task))
"""
    )


@attack("change builtins: equality, isinstance, len, sum, open, __import__", safe_for_stock=True)
def changed_builtins() -> Attack:
    return Attack(
        cell="""
import builtins

builtins.isinstance = lambda thing, kind: True
builtins.all = builtins.any = lambda things: True
builtins.abs = lambda number: 0
builtins.round = lambda number, digits=0: 10
"""
    )


@attack("delete builtins, so that whatever runs next stumbles")
def deleted_builtins() -> Attack:
    return Attack(
        cell="""
import builtins

for name in ("len", "str", "getattr", "print", "Exception", "BaseException", "dict"):
    delattr(builtins, name)
""",
    )


@attack("walk up the frames and change the callers' variables", safe_for_stock=True)
def frames() -> Attack:
    source = """
import sys, ctypes

def ANSWER(*args, **kwargs):
    frame = sys._getframe()
    while frame is not None:
        for name, value in list(frame.f_locals.items()):
            if name in ("points", "score", "verdict", "max_points", "reply", "request"):
                try:
                    value.update(points=10, status="passed")
                except Exception:
                    frame.f_locals[name] = 10
                ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
        frame = frame.f_back
    return "10"
"""
    return Attack(answers=every_task(source))


@attack("find every object of the grader with gc, and change it", safe_for_stock=True)
def garbage_collector() -> Attack:
    return Attack(
        cell="""
for thing in gc.get_objects():
    name = type(thing).__name__
    if name in ("Verdict", "Result", "Check", "Criterion", "Judge", "TaskReport", "Trial", "Job"):
        reached("an object of the grader", name)
    if isinstance(thing, dict):
        for key in ("seeds", "secret", "points", "max_points"):
            if type(thing.get(key)) in (int, float, dict, bytes) and "kicourse" in str(thing.get("__name__", "")):
                reached("a value of the grader", key)
    if name == "TaskStub":
        thing.task, thing.unit = "ask", "first_call"
    if name == "Player":
        thing.awaited = ("first_call", "ask")
        thing.shell.play = lambda source: ([{"output_type": "execute_result", "data": {"text/plain": "10"}}], True)
"""
    )


@attack("hand every task in as every other one, by changing what is awaited")
def swapped_tasks() -> Attack:
    return Attack(
        cell="""
stage = check.ask._stage
for task in ("ask", "cost", "stream", "conversation"):
    for unit in ("first_call", "mini_gpt"):
        stage.awaited = (unit, task)
        try:
            stage.hand_in(unit, task, lambda *args, **kwargs: "10")
        except BaseException as error:
            print(error)
"""
    )


@attack("leave modules behind that later submissions, or the grader, would import", safe_for_stock=False)
def modules_left_behind() -> Attack:
    return Attack(
        cell="""
import tempfile, site
poison = f"open('/tmp/{TOKEN}-imported', 'w').close()\\nraise ImportError('poisoned')\\n"
places = [os.getcwd(), os.environ.get("HOME", ""), tempfile.gettempdir(), os.path.dirname(os.getcwd()), "/tmp", *sys.path]
places += [site.getusersitepackages(), os.path.dirname(os.__file__)]
for place in filter(None, places):
    for name in ("numpy.py", "msgpack.py", "sitecustomize.py", "usercustomize.py", "kicourse.py", f"{TOKEN}.pth"):
        path = os.path.join(place, name)
        own = os.path.realpath(place) == os.path.realpath(os.getcwd())
        try:
            os.makedirs(place, exist_ok=True)
            if not os.path.exists(path):
                open(path, "x").write(poison)
        except OSError:
            continue
        if not own:
            reached("left a module behind", path)
            os.remove(path)
"""
    )


@attack("leave start-up files of IPython, Jupyter, matplotlib and Python behind, and settings for them")
def start_up_files() -> Attack:
    return Attack(
        cell="""
home = os.environ["HOME"]
for path in (".ipython/profile_default/startup/00.py", ".jupyter/jupyter_config.py", ".config/matplotlib/matplotlibrc",
             ".pythonrc.py", ".local/lib/python3.11/site-packages/usercustomize.py", "nbgrader_config.py",
             ".nbgrader/config.py", "gradebook.db", ".config/pip/pip.conf", ".gitconfig", ".bashrc"):
    os.makedirs(os.path.dirname(os.path.join(home, path)) or home, exist_ok=True)
    open(os.path.join(home, path), "w").write(f"open('/tmp/{TOKEN}-started', 'w').close()\\n")
for place in ("/root", os.path.expanduser("~" + os.environ.get("USER", "root")), COURSE, CLASS_FOLDER):
    attempt(f"a start-up file in {place}", lambda: open(os.path.join(place, f".{TOKEN}"), "w").close())
"""
    )


@attack("poison caches: linecache, importlib, re, bytecode files, the openai client's classes")
def poisoned_caches() -> Attack:
    return Attack(
        cell="""
import importlib, linecache, re, openai
linecache.cache = {"x": (1, None, ["10"], "x")}
re._cache = {}
sys.path_importer_cache.clear()
sys.meta_path.insert(0, type("Finder", (), {"find_spec": staticmethod(lambda *a, **k: None)}))
openai.OpenAI.__init__ = lambda self, *args, **kwargs: None
import kicourse
for module in list(sys.modules.values()):
    path = getattr(module, "__cached__", None)
    if path:
        try:
            open(path, "r+b").close()
            reached("may write bytecode", path)
            break
        except OSError:
            pass
"""
    )


@attack("write into the memory of CPython: small integers, the code of functions, True and False")
def changed_constants() -> Attack:
    return Attack(
        cell="""
# 0 and 1 become 10 in this process.
offset = int.__basicsize__
for small in (2, 3):
    ctypes.c_uint32.from_address(id(small) + offset).value = 10
from kicourse.answers import host
host.Host.serve.__code__ = (lambda self, channel: None).__code__
"""
    )
