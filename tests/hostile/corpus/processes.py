"""Other processes: signals, limits, priorities, and the files and attributes that no one opens."""

from tests.hostile.corpus.attack import Attack, attack


@attack("signal its parent, siblings, groups, everyone")
def signals() -> Attack:
    # SIGWINCH is ignored by whoever does not ask for it: it shows that a signal would arrive, and harms nobody.
    return Attack(
        cell="""
mild = signal.SIGWINCH
for pid in {os.getppid(), 1, *PIDS, *range(max(2, os.getpid() - 20), os.getpid())}:
    attempt(f"signal {pid}", lambda: os.kill(pid, mild) or 1)
    attempt(f"signal to the group of {pid}", lambda: None if pid == 1 else os.killpg(pid, mild) or 1)
    def through_descriptor():
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, mild)
        finally:
            os.close(handle)
        return 1
    attempt(f"signal to {pid} through a descriptor", through_descriptor)
    attempt(f"queued signal to {pid}", lambda: call("sigqueue", pid, mild, 0) + 1)
signal.signal(mild, signal.SIG_IGN)
print("everyone:", attempt("", lambda: os.kill(-1, mild) or None))
"""
    )


@attack("kill its fork server, so that it would be graded again and again")
def killed_server() -> Attack:
    return Attack(
        cell="""
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
    attempt(f"{number.name} to the fork server", lambda: os.kill(os.getppid(), number) or 1)
"""
    )


@attack("change limits, priorities and processors of others")
def limits_of_others() -> Attack:
    # 4242 is a limit that harms nobody and that nobody else sets.
    return Attack(
        cell="""
import resource
for pid in {os.getppid(), *PIDS, *range(max(2, os.getpid() - 20), os.getpid())}:
    def limit():
        old = resource.prlimit(pid, resource.RLIMIT_MSGQUEUE)
        resource.prlimit(pid, resource.RLIMIT_MSGQUEUE, (4242, old[1]))
        return old
    attempt(f"change a limit of {pid}", limit)
    def affinity():
        os.sched_setaffinity(pid, os.sched_getaffinity(pid))
        return 1
    attempt(f"change the processors of {pid}", affinity)
    attempt(f"change the priority of {pid}", lambda: os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid)) or 1)
    attempt(f"change the scheduler of {pid}", lambda: os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0)) or 1)
    attempt(f"change the I/O priority of {pid}", lambda: call("syscall", 251, 1, pid, 0) + 1)
    attempt(f"change the group of {pid}", lambda: os.setpgid(pid, 0) or 1)
attempt("change everybody's priority", lambda: os.setpriority(os.PRIO_USER, os.getuid(), 1) or 1)
attempt("raise its own priority", lambda: os.nice(-5) or 1)
attempt("raise its own limits", lambda: resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2) or 1)
attempt("be scheduled in real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)) or 1)
"""
    )


@attack("become somebody, or regain rights: setuid, capabilities, sudo, setuid programs")
def regained_rights() -> Attack:
    return Attack(
        cell="""
attempt("a setuid program", lambda: subprocess.run(["su", "-c", "id"], check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=2).stdout)
attempt("sudo", lambda: subprocess.run(["sudo", "-n", "id"], check=True, capture_output=True).stdout)
if os.getuid():
    attempt("setuid(0)", lambda: os.setuid(0) or 1)
else:
    attempt("setuid(1234)", lambda: os.setuid(1234) or 1)
attempt("capset", lambda: call("capset", struct.pack("II", 0x20080522, 0), struct.pack("6I", *[0xFFFFFFFF] * 6)) + 1)
attempt("a node for a device", lambda: os.mknod("disk", 0o60600, os.makedev(8, 0)) or 1)
attempt("the host's name", lambda: socket.sethostname(socket.gethostname()) or 1)
attempt("the clock", lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()) or 1)
attempt("the kernel's log", lambda: call("klogctl", 2, ctypes.create_string_buffer(100), 100))
attempt("reboot", lambda: call("reboot", 0x1) + 1)
attempt("a kernel module", lambda: call("syscall", 313, 0, b"", 0) + 1)
attempt("swap", lambda: call("swapon", b"/dev/null", 0) + 1)
"""
    )


@attack("trace itself, its children and the grader; make itself untouchable")
def tracing() -> Attack:
    return Attack(
        cell="""
attempt("trace the parent", lambda: call("ptrace", 16, os.getppid(), 0, 0) + 1)
for pid in PIDS:
    attempt(f"trace {pid}", lambda: call("ptrace", 16, pid, 0, 0) + 1)
child = os.fork()
if child == 0:
    libc.ptrace(0, 0, 0, 0)
    time.sleep(5)
    os._exit(0)
libc.ptrace(16, child, 0, 0)
libc.prctl(0x59616D61, -1, 0, 0, 0)
os.kill(child, signal.SIGSTOP)
"""
    )


@attack("change files without opening them: mode, owner, times, attributes, length")
def attributes_of_files() -> Attack:
    return Attack(
        cell="""
for path in (f"{CANARY}/file", f"{CANARY}/folder", CANARY, f"{CLASS_FOLDER}/gradebook.db", COURSE):
    quiet = not path.startswith(CANARY)
    mode = os.stat(path).st_mode & 0o7777
    raw = path.encode()
    attempt(f"chmod {path}", lambda: call("chmod", raw, mode if quiet else 0o700))
    attempt(f"fchmodat {path}", lambda: call("fchmodat", -100, raw, mode if quiet else 0o700, 0))
    attempt(f"chown {path}", lambda: call("chown", raw, os.getuid(), os.getgid()))
    attempt(f"utime {path}", lambda: None if quiet else call("utimes", raw, struct.pack("4q", 1, 0, 1, 0)))
    attempt(f"utimensat {path}", lambda: None if quiet else call("utimensat", -100, raw, struct.pack("4q", 1, 0, 1, 0), 0))
    attempt(f"setxattr {path}", lambda: None if quiet else call("setxattr", raw, b"user.hostile", b"x", 1, 0))
    attempt(f"fchmodat2 {path}", lambda: call("syscall", 452, -100, path.encode(), mode, 0) + 1)
    attempt(f"truncate {path}", lambda: None if quiet else os.truncate(path, 0) or 1)
    attempt(f"remove {path}", lambda: None if quiet else (os.rmdir if os.path.isdir(path) else os.remove)(path) or 1)
    attempt(f"rename {path}", lambda: None if quiet else os.rename(path, f"{path}-{TOKEN}") or 1)
    attempt(f"exchange {path}", lambda: None if quiet else call("syscall", 316, -100, path.encode(), -100, b"mine", 2) + 1)
"""
    )


@attack("leave a file anywhere outside of its own folder")
def files_outside() -> Attack:
    return Attack(
        cell="""
import tempfile
for place in OUTSIDE:
    path = os.path.join(place, TOKEN)
    attempt(f"a file in {place}", lambda: open(path, "w").close() or 1)
    attempt(f"a folder in {place}", lambda: os.mkdir(path + "-folder") or 1)
    attempt(f"a link in {place}", lambda: os.symlink("/", path + "-link") or 1)
    attempt(f"a pipe in {place}", lambda: os.mkfifo(path + "-pipe") or 1)
    attempt(f"a socket in {place}", lambda: socket.socket(socket.AF_UNIX).bind(path + "-sock") or 1)
    attempt(f"a nameless file in {place}", lambda: os.open(place, os.O_TMPFILE | os.O_RDWR))
    attempt(f"by the shell in {place}", lambda: subprocess.run(["/bin/touch", path], check=True, capture_output=True))
    open("own", "w").close()
    attempt(f"a file moved to {place}", lambda: os.rename("own", path) or 1)
    attempt(f"a file linked in {place}", lambda: os.link("own", path) or 1)
"""
    )


@attack("write gradebooks: the class's own, and any that it finds", safe_for_stock=True)
def gradebooks() -> Attack:
    return Attack(
        cell="""
import sqlite3
for path in (f"{CLASS_FOLDER}/gradebook.db", "gradebook.db", "../gradebook.db", "../../../gradebook.db"):
    if not os.path.isfile(path):
        continue
    def mark():
        with sqlite3.connect(path, timeout=0.5) as book:
            found = book.execute("update grade set auto_score = max_score_gradecell, manual_score = 10").rowcount
            return found
    try:
        book = sqlite3.connect(path, timeout=0.5)
        book.execute("update grade_cells set max_score = 1000")
        book.execute("update grade set auto_score = 1000, manual_score = 1000, needs_manual_grade = 0")
        book.commit()
        book.close()
    except sqlite3.Error as error:
        print(error)
    else:
        reached("wrote a gradebook", path)
"""
    )
