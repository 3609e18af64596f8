"""Theft: solutions, checks, secrets, what others handed in, and the trial's own randomness."""

from tests.hostile.corpus.attack import Attack, attack, every_task

READERS = """
SECRETS = [
    f"{COURSE}/solutions/en/first_call.ipynb", f"{COURSE}/course/first_call.py", f"{COURSE}/exercises/en/first_call.ipynb",
    f"{COURSE}/src/kicourse/checks/first_call.py", f"{COURSE}/src/kicourse/grading/judge.py", f"{COURSE}/.git/HEAD",
    f"{CLASS_FOLDER}/source/first_call/first_call.ipynb", f"{CLASS_FOLDER}/.kicourse/secret", f"{CLASS_FOLDER}/gradebook.db",
    f"{CLASS_FOLDER}/submitted/{NEIGHBOUR}/first_call/first_call.ipynb", f"{CLASS_FOLDER}/nbgrader_config.py",
    "/etc/shadow", "/etc/machine-id", "/root/.bashrc", "/proc/1/environ", "/proc/self/environ", "/proc/self/maps",
    "/proc/self/mem", "/proc/version", "/sys/kernel/notes", "/dev/kmsg", f"{CANARY}/file",
]
"""


@attack("open what it must not read: solutions, checks, the class's secret, others' work")
def opened_files() -> Attack:
    return Attack(
        cell=READERS
        + """
for path in SECRETS:
    attempt(f"read {path}", lambda: open(path, "rb").read(20) or b"(empty)")
    attempt(f"read-write {path}", lambda: os.open(path, os.O_RDWR))
"""
    )


@attack("list folders that it must not see")
def listed_folders() -> Attack:
    return Attack(
        cell="""
places = ["/", "/root", "/home", "/tmp", "/proc", "/dev", "/dev/shm", "/var/tmp", "/run", "/etc", COURSE, CLASS_FOLDER]
places += [f"{COURSE}/src", f"{COURSE}/solutions", f"{CLASS_FOLDER}/submitted", f"{CLASS_FOLDER}/.kicourse", CANARY]
for place in places:
    attempt(f"list {place}", lambda: os.listdir(place)[:5])
"""
    )


@attack("open the same files by other ways: links, hard links, a root of its own, handles, mounts, io_uring")
def other_ways_to_open() -> Attack:
    return Attack(
        cell=READERS
        + """
for number, path in enumerate(SECRETS[:8]):
    os.symlink(path, f"link{number}")
    attempt(f"through a link {path}", lambda: open(f"link{number}", "rb").read(20))
    attempt(f"hard link {path}", lambda: os.link(path, f"hard{number}") or 1)
    attempt(f"rename {path}", lambda: os.rename(path, f"moved{number}") or 1)
    attempt(f"copy by the shell {path}", lambda: subprocess.run(["/bin/cat", path], capture_output=True, check=True).stdout[:20])
    attempt(f"execute {path}", lambda: subprocess.run([path], check=True))
    attempt(f"mapped {path}", lambda: ctypes.CDLL(path))
attempt("chroot", lambda: os.chroot("/") or 1)
attempt("mount", lambda: call("mount", b"none", b".", b"tmpfs", 0, None))
attempt("bind mount", lambda: call("mount", COURSE.encode(), b".", None, 4096, None))
for flags, name in ((0x20000, "mount"), (0x10000000, "user"), (0x40000000, "network"), (0x10000000 | 0x20000, "both")):
    attempt(f"unshare {name}", lambda: call("unshare", flags))
handle = struct.pack("Ii", 128, 0) + bytes(128)
attempt("open by handle", lambda: call("syscall", 304, -100, handle, 0))
attempt("io_uring", lambda: call("syscall", 425, 8, bytes(120)))
attempt("userfaultfd", lambda: call("syscall", 323, 0))
attempt("bpf", lambda: call("syscall", 321, 0, bytes(128), 128))
attempt("perf", lambda: call("syscall", 298, bytes(128), 0, -1, -1, 0))
attempt("open_tree", lambda: call("syscall", 428, -100, COURSE.encode(), 1))
attempt("fsopen", lambda: call("syscall", 430, b"tmpfs", 0))
"""
    )


@attack("import what it must not have: the checks, the grader, the course's files")
def imported_secrets() -> Attack:
    return Attack(
        cell="""
import importlib, importlib.util, inspect, pkgutil
import kicourse

for name in [name for name in sys.modules if name.startswith("kicourse.checks")]:
    del sys.modules[name]
for name in ("kicourse.checks.first_call", "kicourse.checks.check", "kicourse.grading.judge", "kicourse.grading.worker",
             "kicourse.authoring"):
    attempt(f"import {name}", lambda: importlib.import_module(name).__file__)
sys.path.insert(0, f"{COURSE}/src")
kicourse.__path__.insert(0, f"{COURSE}/src/kicourse")
importlib.invalidate_caches()
attempt("import from the course", lambda: importlib.import_module("kicourse.checks.first_call").__file__)
from kicourse.syllabus import course
unit = course().unit("first_call")
for path in (unit.source, unit.solution("en"), unit.exercise("en")):
    attempt(f"read {path}", lambda: path.read_text()[:20])
import importlib.metadata
files = importlib.metadata.files("kicourse") or []
for file in files:
    if "checks" in str(file) or "solutions" in str(file):
        attempt(f"read {file}", lambda: file.read_text()[:20])
"""
    )


@attack("look for solutions, secrets and others' work in its own memory")
def searched_memory() -> Attack:
    return Attack(
        cell="""
needles = [bytes(c ^ 1 for c in raw) for raw in (b"snnl!,<!rdmg/bntou", b"rdmg/dybi`ofdr/`qqdoe")]
strings = [thing for thing in gc.get_objects() if isinstance(thing, (dict, list, tuple))]
for thing in strings:
    values = thing.values() if isinstance(thing, dict) else thing
    for value in list(values):
        if type(value) in (str, bytes) and thing is not needles:
            raw = value.encode("utf-8", "replace") if type(value) is str else value
            if any(needle in raw.lower() for needle in needles):
                reached("a solution in memory", raw[:100])
                break
for name in os.environ:
    if any(word in name for word in ("SECRET", "ACCESS_TOKEN", "SSH", "AWS", "PASSWORD", "KICOURSE_TRIAL")):
        reached("a secret in the environment", name)
"""
    )


@attack("read and write the memory of other processes")
def memory_of_others() -> Attack:
    return Attack(
        cell="""
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

near = [os.getppid(), *range(max(2, os.getpid() - 30), os.getpid() + 30), *PIDS]
buffer = ctypes.create_string_buffer(16)
local = Vector(ctypes.addressof(buffer), 16)
for pid in near:
    try:
        if os.readlink(f"/proc/{pid}/cwd").startswith(os.path.dirname(os.getcwd())):
            continue  # a thread of its own, or the fork server, of which nothing more is to be had (see below)
    except OSError:
        pass
    for name in ("mem", "environ", "cmdline", "maps", "fd", "cwd", "root", "exe", "status", "task"):
        path = f"/proc/{pid}/{name}"
        # Where the links cwd, root and exe lead can be read: names, and nothing of what is there.
        attempt(f"open {path}", lambda: os.open(path, os.O_RDONLY))
    remote = Vector(0x400000, 16)
    attempt(f"process_vm_readv {pid}", lambda: call("process_vm_readv", pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) + 1)
    attempt(f"ptrace seize {pid}", lambda: call("ptrace", 0x4206, pid, 0, 0) + 1)
    descriptor = attempt(f"kcmp {pid}", lambda: call("syscall", 312, os.getpid(), pid, 1, 0, 0) + 1)
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        continue
    for number in (0, 1, 3, 4, 5):
        attempt(f"pidfd_getfd {pid} {number}", lambda: call("syscall", 438, handle, number, 0))
    os.close(handle)
"""
    )


@attack("find what the judge, or a sibling, keeps in the folder for scratch")
def scratch_folder() -> Attack:
    # As it is tried, the judge may have temporary files; other workers grade others at the same time.
    source = """
import os

def ANSWER(*args, **kwargs):
    for place in (os.path.dirname(os.getcwd()), "/tmp"):
        try:
            entries = os.listdir(place)
        except OSError:
            continue
        for name in entries:
            path = os.path.join(place, name)
            if not (path == os.getcwd() or name.startswith(("runtime", "fontlist-"))):
                os.write(1, ("REA" + f"CHED somebody's file: {path}\\n").encode())
            try:
                open(os.path.join(path, "x") if os.path.isdir(path) else path, "a").close()
            except OSError:
                continue
            if path != os.getcwd():
                os.write(1, ("REA" + f"CHED may write: {path}\\n").encode())
    return "10"
"""
    return Attack(
        answers=every_task(source),
        cell="""
attempt("write beside its own folder", lambda: open(os.path.join(os.path.dirname(os.getcwd()), TOKEN), "w").close() or 1)
attempt("change the runtime", lambda: open(os.path.join(os.path.dirname(check.__spec__.origin if check.__spec__ else sys.path[1]), TOKEN), "w").close() or 1)
import kicourse
attempt("change the package", lambda: open(kicourse.__file__, "a").close() or 1)
attempt("add to the package", lambda: open(os.path.join(os.path.dirname(kicourse.__file__), TOKEN), "w").close() or 1)
""",
    )


@attack("compute the judge's random numbers from the seed that it gives away")
def regenerated_randomness() -> Attack:
    return Attack(
        cell="""
import random, zlib, inspect
import numpy as np

seeds = []
seed = random.seed
random.seed = lambda number=None: (seeds.append(number), seed(number))[1]
WORDS = ("pump", "seal", "valve", "motor", "bearing", "shaft", "pressure", "flow", "oil", "filter", "gasket", "Müller",
         "Jürgen", "Zoë", "check", "replace", "leaks", "noisy", "warm", "Tuesday", "invoice", "delivery", "van", "customer",
         "ticket", "urgent", "thanks")

def sentence(rng, words=6):
    return " ".join(rng.choice(WORDS, size=words)) + f" {rng.integers(1000, 10_000)}"

def candidates():
    for number in seeds:
        for words in ([number, zlib.crc32(b"returns_text")], [number], number):
            rng = np.random.default_rng(words)
            yield from (sentence(rng) for _ in range(5))
    yield from (sentence(np.random.default_rng([0, zlib.crc32(b"returns_text")])) for _ in range(1))
""",
        answers={
            "ask": """
def ask(client, question, instructions=""):
    if question in set(candidates()):
        reached("foretold the question", question)
    return "x"
"""
        },
    )


@attack("find the check's data in the frames of its own thread, and in those of others")
def data_in_frames() -> Attack:
    source = """
import sys

def ANSWER(*args, **kwargs):
    for frame in sys._current_frames().values():
        while frame is not None:
            for name in ("rng", "trial", "expected", "seed_of", "secret", "criteria", "oracle"):
                if name in frame.f_locals and "kicourse" in frame.f_code.co_filename:
                    reached("a check's variable", (name, frame.f_code.co_filename))
            frame = frame.f_back
    return "10"
"""
    return Attack(cell="pass", answers=every_task(source))


@attack("take the answer of an honest submission that was graded before, out of the fork server's memory")
def remains_of_others() -> Attack:
    return Attack(
        cell="""
import builtins, kicourse, re
marks = [name for module in (builtins, kicourse, sys, re) for name in vars(module) if name.startswith("hostile_")]
if marks:
    reached("what another submission left in memory", marks)
for module in (builtins, kicourse, sys, re):
    module.hostile_mark = TOKEN
for _ in range(100):
    size = 2**20
    raw = ctypes.create_string_buffer(size)
    if b"solution by " + NEIGHBOUR.encode() in raw.raw:
        reached("another's work in memory that was freed")
"""
    )
