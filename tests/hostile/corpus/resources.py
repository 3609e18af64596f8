"""Too much of everything: time, processes, threads, memory, output, disk. Bounded, in case nothing else bounds it."""

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from tests.hostile.corpus.attack import Attack, attack


@attack("loop for ever")
def endless_loop() -> Attack:
    return Attack(cell="while True:\n    pass")


@attack("loop for ever where no interrupt gets in: in C, with every exception caught")
def loop_that_catches() -> Attack:
    return Attack(
        answers={
            "ask": """
def ask(*args, **kwargs):
    while True:
        try:
            sum(range(10**7))
        except BaseException:
            pass
"""
        }
    )


@attack("recurse without end, in Python and in C", fails=True)
def recursion() -> Attack:
    return Attack(
        cell="""
sys.setrecursionlimit(10**6)
def deeper(): return deeper()
deeper()
""",
        answers={"ask": "def ask(*args, **kwargs):\n    return ask(*args, **kwargs)"},
    )


@attack("fork two hundred processes")
def fork_bomb() -> Attack:
    return Attack(
        cell="""
made = 0
for _ in range(200):
    try:
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
        made += 1
    except OSError:
        break
time.sleep(3)
if made == 200:
    reached("held 200 processes for seconds")
"""
    )


@attack("leave a daemon behind: a double fork with setsid, that closes everything and waits")
def daemon() -> Attack:
    return Attack(
        cell="""
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 256)
        for number in range(1, 32):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        time.sleep(120)
    os._exit(0)
time.sleep(0.2)
"""
    )


@attack("leave programs behind, some of which have a session and a group of their own")
def programs_left_behind() -> Attack:
    return Attack(
        cell="""
for session in (True, False):
    try:
        subprocess.Popen(["/bin/sh", "-c", f"trap '' TERM HUP INT; sleep 120 # {TOKEN}"], start_new_session=session,
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError as error:
        print(error)
get_ipython().system(f"nohup setsid sh -c 'sleep 120; : {TOKEN}' >/dev/null 2>&1 &")
"""
    )


@attack("keep forking while it is being killed, so that one is always left")
def hopping_process() -> Attack:
    return Attack(
        cell="""
if os.fork() == 0:
    os.setsid()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if os.fork():
            os._exit(0)
        time.sleep(0.001)
    os._exit(0)
time.sleep(0.2)
"""
    )


@attack("become a reaper of its own, and hide its children from the grader")
def own_reaper() -> Attack:
    return Attack(
        cell="""
libc.prctl(36, 1, 0, 0, 0)
libc.prctl(4, 0, 0, 0, 0)
if os.fork() == 0:
    libc.prctl(36, 1, 0, 0, 0)
    libc.prctl(1, 0, 0, 0, 0)
    if os.fork() == 0:
        libc.prctl(1, 0, 0, 0, 0)
        time.sleep(120)
    time.sleep(120)
attempt("a new PID namespace", lambda: call("unshare", 0x20000000))
attempt("a new user namespace", lambda: call("unshare", 0x10000000))
"""
    )


@attack("look dead: end the first thread of a process, which the system then calls a zombie, and go on in another")
def living_zombie() -> Attack:
    return Attack(
        cell="""
if os.fork() == 0:
    os.setsid()
    threading.Thread(target=time.sleep, args=(120,)).start()
    libc.syscall(60 if os.uname().machine == "x86_64" else 93, 0)  # exit, which ends a thread and not its process
time.sleep(0.2)
"""
    )


@attack("look dead itself, in the middle of its work")
def living_zombie_at_work() -> Attack:
    return Attack(
        cell="""
threading.Thread(target=time.sleep, args=(120,)).start()
libc.syscall(60 if os.uname().machine == "x86_64" else 93, 0)
"""
    )


@attack("use three gigabytes in ten processes that look dead", fails=True)
def memory_in_living_zombies() -> Attack:
    return Attack(
        cell="""
def hold(held):
    time.sleep(1)
    os.write(tell, b"x")
    time.sleep(30)

told, tell = os.pipe()
os.set_blocking(told, False)
for _ in range(10):
    if os.fork() == 0:
        threading.Thread(target=hold, args=(bytearray(b"x") * (300 * 2**20),)).start()
        libc.syscall(60 if os.uname().machine == "x86_64" else 93, 0)
time.sleep(4)
if len(os.read(told, 10)) == 10:
    reached("held three gigabytes, in processes that look dead")
"""
    )


@attack("start nine hundred threads, under a name that says there are none")
def threads_under_a_name() -> Attack:
    return Attack(
        cell="""
libc.prctl(15, b"Threads:\\t0", 0, 0, 0)
threading.stack_size(64 * 1024)
for _ in range(900):
    threading.Thread(target=time.sleep, args=(15,), daemon=True).start()
time.sleep(3)
reached("had nine hundred threads for seconds")
"""
    )


@attack("use three gigabytes while there is always something to report", fails=True)
def memory_between_reports() -> Attack:
    def change(notebook: NotebookNode) -> None:
        place = next(number for number, cell in enumerate(notebook.cells) if cell.get("id") == "attack")
        more = [new_code_cell("time.sleep(0.1)", id=f"wait-{number}") for number in range(15)]
        more += [new_code_cell("if len(os.read(told, 10)) == 10:\n    reached('held three gigabytes')", id="reached")]
        notebook.cells[place + 1 : place + 1] = more

    return Attack(
        cell="""
told, tell = os.pipe()
os.set_blocking(told, False)
for _ in range(10):
    if os.fork() == 0:
        held = bytearray(b"x") * (300 * 2**20)
        time.sleep(1)
        os.write(tell, b"x")
        time.sleep(30)
        os._exit(0)
""",
        change=change,
    )


@attack("use two gigabytes in tables of pages, which are the kernel's", fails=True)
def page_tables() -> Attack:
    return Attack(
        cell="""
import mmap
kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
held = [mmap.mmap(-1, 400 * 2**30, flags=kind, prot=mmap.PROT_READ) for _ in range(3)]
for one in held:
    for place in range(0, len(one), 2 * 2**20):
        one[place]
time.sleep(3)
reached("held two gigabytes of tables")
"""
    )


@attack("use memory that belongs to the kernel or to the sandbox: given to pipes, rules, filters, buffers, addressed")
def memory_of_the_kernel() -> Attack:
    return Attack(
        cell="""
vector = struct.pack("PN", ctypes.addressof(ctypes.create_string_buffer(4096)), 1)
inward, outward = os.pipe()
attempt("give a page to a pipe", lambda: call("vmsplice", outward, vector, 1, 0) + 1)
attempt("a pipe twice", lambda: call("tee", inward, outward, 1, 2) + 1)
attempt("rules for a sandbox", lambda: call("syscall", 444, struct.pack("QQQ", 1, 0, 0), 24, 0) + 1)
instruction = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
filter = struct.pack("HP", 1, ctypes.addressof(instruction))
attempt("a filter", lambda: call("prctl", 22, 2, filter, 0, 0) + 1)
with socket.socket() as unconnected:
    error = attempt("send much to an address", lambda: unconnected.sendto(bytes(2**20), ("127.0.0.1", PORT)))
    if not isinstance(error, PermissionError):
        reached("what is sent to an address is copied", error)
one, other = socket.socketpair()
one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
attempt("a large buffer", lambda: one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= 1 << 20 or None)
"""
    )


@attack("use four thousand connections, in which the kernel keeps what nobody reads", fails=True)
def memory_in_connections() -> Attack:
    return Attack(
        cell="""
for _ in range(8):
    if os.fork() == 0:
        held = []
        try:
            while True:
                held.append(socket.socketpair())
        except OSError:
            time.sleep(30)
        os._exit(0)
time.sleep(3)
reached("held four thousand connections")
"""
    )


@attack("write to files that have no name", fails=True)
def files_without_a_name() -> Attack:
    return Attack(
        cell="""
held = []
for _ in range(3):
    descriptor = os.open("own", os.O_RDWR | os.O_CREAT)
    os.unlink("own")
    os.posix_fallocate(descriptor, 0, 400 * 2**20)
    held.append(descriptor)
time.sleep(3)
reached("held more than a gigabyte of disk")
"""
    )


@attack("let the embedded GPT use gigabytes", fails=True)
def memory_of_the_gpt() -> Attack:
    return Attack(
        cell="""
from urllib.parse import urlsplit
port, key = urlsplit(os.environ["OPENAI_BASE_URL"]).port, os.environ["OPENAI_API_KEY"]
body = b'{"model": "x", "prompt": [' + b"0," * (30 * 2**20) + b"0]}"
head = f"POST /v1/completions HTTP/1.1\\r\\nHost: x\\r\\nAuthorization: Bearer {key}\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
def ask():
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.sendall(head.encode() + body)
        one.recv(100)
for _ in range(2):
    threading.Thread(target=ask, daemon=True).start()
time.sleep(4)
"""
    )


@attack("let others wait for files that all read, or keep for itself what there is of watches, pipes, timers and ports")
def shared_by_all() -> Attack:
    return Attack(
        cell="""
import fcntl
library = os.open(os.__file__, os.O_RDONLY)
attempt("a lease of a file", lambda: fcntl.fcntl(library, 1024, fcntl.F_WRLCK) + 1)
attempt("a watch of a folder", lambda: fcntl.fcntl(os.open(".", os.O_RDONLY), 1026, 1) + 1)
attempt("watches of files", lambda: call("inotify_init1", 0) + 1)
attempt("watches of whole disks", lambda: call("fanotify_init", 0xC02, 0) + 1)
import platform
number = {"x86_64": 206, "aarch64": 0}[platform.machine()]
attempt("queues of input and output", lambda: call("syscall", number, 1000, ctypes.byref(ctypes.c_ulong())) + 1)
child = os.fork()  # with one thread, which takes no such signal
if child == 0:
    signal.pthread_sigmask(signal.SIG_BLOCK, [40])
    os._exit(all(libc.sigqueue(os.getpid(), 40, None) == 0 for _ in range(2_000)))
attempt("signals that wait", lambda: 1 // os.waitpid(child, 0)[1])
one, other = socket.socketpair()
attempt("descriptors on their way", lambda: socket.send_fds(one, [b"x"], [library] * 100))
import select
attempt("watches of all kinds", select.epoll)
attempt("pages of pipes", lambda: fcntl.fcntl(os.pipe()[1], 1031, 2**20))
attempt("timers", lambda: call("timer_create", 1, None, ctypes.byref(ctypes.c_void_p())) + 1)
attempt("a port of its own choice", lambda: socket.socket().setsockopt(0, 51, struct.pack("HH", 40_000, 40_000)) or 1)
"""
    )


@attack("keep forking without a pause, in machine code, four at a time")
def hopping_without_a_pause() -> Attack:
    return Attack(
        cell="""
import mmap, platform
def jump(back):
    return bytes([0x7E, back & 0xFF])  # jle
hop = bytes.fromhex("b838000000 bf11010000 31f6 31d2 4d31d2 4d31c0 0f05 85c0")  # clone(CLONE_VM | SIGCHLD): one more
hop += jump(-len(hop) - 2) + bytes.fromhex("b83c000000 31ff 0f05")  # the new one goes on, the old one exits
if platform.machine() == "x86_64":
    page = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
    page.write(hop)
    run = ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    for _ in range(4):
        if os.fork() == 0:
            os.setsid()
            run()
    time.sleep(1)
"""
    )


@attack("use three gigabytes in processes that go on as another whenever one looks at them")
def memory_that_hops() -> Attack:
    return Attack(
        cell="""
import mmap, platform
SIZE = 330 * 2**20
def hopping(start, full):
    code = bytes.fromhex("48bb") + struct.pack("Q", start) + bytes.fromhex("49bc") + struct.pack("Q", start + SIZE)
    code += bytes.fromhex("49bd") + struct.pack("Q", full)
    loop = len(code)
    touch = bytes.fromhex("4c39e3 730e c60301 4881c300100000 ffc9")  # 32 pages more, until the end
    code += bytes.fromhex("b920000000") + touch + b"\x75" + struct.pack("b", -len(touch) - 2)
    code += bytes.fromhex("4c39e3 7205 41c6450001")  # at the end, say so
    code += bytes.fromhex("b838000000 bf11010000 31f6 31d2 4d31d2 4d31c0 0f05 85c0")  # clone(CLONE_VM | SIGCHLD)
    return code + b"\x7e" + struct.pack("b", loop - len(code) - 2) + bytes.fromhex("b83c000000 31ff 0f05")
if platform.machine() == "x86_64":
    descriptor = os.open("full", os.O_RDWR | os.O_CREAT)
    os.truncate(descriptor, 4096)
    full = mmap.mmap(descriptor, 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(full))
    for number in range(10):
        if os.fork() == 0:
            held = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            page = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
            page.write(hopping(ctypes.addressof(ctypes.c_char.from_buffer(held)), address + number))
            ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    while sum(full[:10]) < 10:
        time.sleep(0.1)
    time.sleep(1)
    reached("held three gigabytes in ten processes")
"""
    )


@attack("use memory of the kernel for four million pieces of mapped memory")
def mappings() -> Attack:
    return Attack(
        cell="""
libc.mmap.restype = ctypes.c_void_p
start = libc.mmap(None, ctypes.c_size_t(64_000 * 4096), 0, 0x22, -1, 0)
for page in range(0, 64_000, 2):
    libc.mprotect(ctypes.c_void_p(start + page * 4096), 4096, 1)
for _ in range(58):
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
time.sleep(3)
reached("held four million mappings")
"""
    )


@attack("start five hundred threads")
def many_threads() -> Attack:
    return Attack(
        cell="""
threading.stack_size(64 * 1024)
for _ in range(500):
    threading.Thread(target=time.sleep, args=(15,), daemon=True).start()
time.sleep(1.5)
"""
    )


@attack("use three gigabytes in lists", fails=True)
def memory_in_lists() -> Attack:
    return Attack(
        cell="""
held = []
for _ in range(300):
    held.append(bytearray(b"x") * (10 * 2**20))
reached("held three gigabytes")
"""
    )


@attack("use three gigabytes in memory that is shared, which limits of data do not count", fails=True)
def shared_memory() -> Attack:
    return Attack(
        cell="""
import mmap
held, content = [], b"x" * (100 * 2**20)
attempt("memory that is shared", lambda: mmap.mmap(-1, 2**20))
attempt("memory that is shared, as /dev/zero", lambda: mmap.mmap(os.open("/dev/zero", os.O_RDWR), 2**20))
attempt("memory that is shared, as /dev/zero to read", lambda: os.open("/dev/zero", os.O_RDONLY))
for _ in range(30):
    block = mmap.mmap(-1, 100 * 2**20)
    block.write(content)
    held.append(block)
time.sleep(3)
reached("held three gigabytes, shared")
"""
    )


@attack("use three gigabytes in files that are only memory", fails=True)
def memory_files() -> Attack:
    return Attack(
        cell="""
held, content = [], b"x" * (100 * 2**20)
attempt("a file that is only memory", lambda: os.memfd_create("x"))
attempt("a secret file that is only memory", lambda: call("syscall", 447, 0))
for number in range(30):
    descriptor = os.memfd_create("x")
    held.append(descriptor)
    os.write(descriptor, content)
time.sleep(3)
reached("held three gigabytes in memory files")
"""
    )


@attack("use three gigabytes in ten processes, each within its limit")
def memory_in_processes() -> Attack:
    return Attack(
        cell="""
import select
told, tell = os.pipe()
for _ in range(10):
    if os.fork() == 0:
        held = bytearray(b"x") * (300 * 2**20)
        os.write(tell, b"x")
        time.sleep(30)
        os._exit(0)
holding = b""
while len(holding) < 10 and select.select([told], [], [], 20)[0]:
    holding += os.read(told, 10)
if len(holding) == 10:
    time.sleep(3)
    reached("held three gigabytes for seconds, in processes")
"""
    )


@attack("leave memory and messages behind in the kernel: System V, POSIX queues, keyrings")
def kernel_leftovers() -> Attack:
    return Attack(
        cell="""
attempt("a shared memory segment", lambda: call("shmget", 0x4B494331, 64 * 2**20, 0o1600))
attempt("a message queue", lambda: call("msgget", 0x4B494331, 0o1600))
attempt("a semaphore", lambda: call("semget", 0x4B494331, 1, 0o1600))
attempt("a POSIX message queue", lambda: ctypes.CDLL("librt.so.1", use_errno=True).mq_open(b"/" + TOKEN.encode(), 0o102, 0o600, None) + 1 or None)
attempt("a key that outlives it", lambda: call("syscall", 248, b"user", TOKEN.encode(), b"x", 1, -4))
"""
    )


@attack("print a hundred megabytes, to every stream")
def flood_of_output() -> Attack:
    return Attack(
        cell="""
from IPython.display import display
for _ in range(100):
    print("x" * 2**18)
    print("x" * 2**18, file=sys.stderr)
    os.write(1, b"x" * 2**18)
    os.write(2, b"x" * 2**18)
for _ in range(2000):
    display("x" * 10_000)
"x" * (50 * 2**20)
"""
    )


@attack("print a million lines, and escape sequences, and bytes that are no text")
def odd_output() -> Attack:
    return Attack(
        cell="""
for _ in range(50):
    os.write(1, b"\\xff\\xfe\\x00\\x1b[2J\\x1b]0;title\\x07\\r\\x08" * 100 + b"\\n" * 1000)
print("\\ud800 \\udfff \\0 \\u202e \\u2028 \\x85")
raise ValueError("\\ud800\\x1b]8;;http://192.0.2.1\\x07link\\x1b]8;;\\x07")
""",
        answers={
            "ask": "def ask(*args, **kwargs):\n    raise ValueError('\\ud800 \\x1b[31m [link=file:///etc] [bold]')"
        },
    )


@attack("write a big file, and then more of them")
def big_files() -> Attack:
    return Attack(
        cell="""
block = b"x" * (8 * 2**20)
written = 0
try:
    for number in range(4):
        with open(f"big{number}", "wb") as file:
            for _ in range(30):
                written += file.write(block)
except OSError as error:
    print(error)
time.sleep(0.5)
if written >= 900 * 2**20:
    reached("wrote a gigabyte")
"""
    )


@attack("make a sparse file of a terabyte, and holes in others")
def sparse_file() -> Attack:
    return Attack(cell='attempt("a sparse file", lambda: os.truncate(os.open("sparse", 66), 2**40) or 1)')


@attack("make twenty thousand files")
def many_files() -> Attack:
    return Attack(
        cell="""
try:
    for number in range(20_000):
        open(f"f{number}", "w").close()
    time.sleep(0.5)
    reached("made 20,000 files")
except OSError as error:
    print(error)
"""
    )


@attack("make folders two thousand deep, so that whoever removes them recurses too deeply")
def deep_folders() -> Attack:
    return Attack(
        cell="""
start = os.getcwd()
for _ in range(2_000):
    os.mkdir("d")
    os.chdir("d")
open("f", "w").close()
"""
    )


@attack("make files that resist being removed: no permissions, odd names, links, pipes, sockets")
def stubborn_files() -> Attack:
    return Attack(
        cell="""
for number in range(3):
    os.mkdir(f"locked{number}", 0o300)
    open(f"locked{number}/file", "w").close()
    os.mkdir(f"locked{number}/inner", 0)
os.symlink("/", "root")
os.symlink("loop", "loop")
os.mkfifo("pipe")
for name in (b"\\xff\\xfe", b"new\\nline", b"-rf", b"x" * 255, "\\u202e".encode()):
    open(name, "w").close()
attempt("a socket with a name", lambda: socket.socket(socket.AF_UNIX).bind("sock") or 1)
libc.chmod(b".", 0)
"""
    )


@attack("hide files in a folder into which nobody may look", fails=True)
def locked_files() -> Attack:
    return Attack(
        cell="""
os.mkdir("locked", 0o300)
for number in range(7):
    with open(f"locked/big{number}", "wb") as file:
        for _ in range(10):
            file.write(b"x" * (10 * 2**20))
time.sleep(1)
reached("hid files of 700 MiB")
"""
    )


@attack("hide files at the end of a path whose folders are renamed all the time")
def renamed_files() -> Attack:
    return Attack(
        cell="""
way = [os.open(".", os.O_RDONLY)]
for _ in range(12):
    os.mkdir("a", dir_fd=way[-1])
    way.append(os.open("a", os.O_RDONLY, dir_fd=way[-1]))
for folders in (way[:-1], way[-2::-1]):
    if os.fork() == 0:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            for folder in folders:
                for names in (("a", "b"), ("b", "a")):
                    try:
                        os.rename(*names, src_dir_fd=folder, dst_dir_fd=folder)
                    except OSError:
                        pass
        os._exit(0)
for number in range(7):
    file = os.open(f"big{number}", os.O_CREAT | os.O_WRONLY, dir_fd=way[-1])
    for _ in range(10):
        os.write(file, b"x" * (10 * 2**20))
    os.close(file)
time.sleep(2)
reached("hid files of 700 MiB")
"""
    )


@attack("hide files at the end of a path that is too long to be named")
def unnameable_files() -> Attack:
    return Attack(
        cell="""
for _ in range(30):
    os.mkdir("d" * 200)
    os.chdir("d" * 200)
try:
    for name in ("big", "bigger"):
        with open(name, "wb") as file:
            for _ in range(45):
                file.write(b"x" * (10 * 2**20))
    time.sleep(0.5)
    reached("hid files of 900 MiB")
except OSError as error:
    print(error)
"""
    )
