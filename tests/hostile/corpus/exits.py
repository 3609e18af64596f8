"""Ends: processes that leave, crash or stop."""

from tests.hostile.corpus.attack import Attack, attack, every_task


@attack("leave with os._exit(0) before the checks", safe_for_stock=True)
def left_early() -> Attack:
    return Attack(cell="os._exit(0)")


@attack("leave with sys.exit(0), again and again", fails=True, safe_for_stock=True)
def system_exit() -> Attack:
    return Attack(cell="sys.exit(0)", answers=every_task("import sys\nsys.exit(0)"))


@attack("leave in the middle of being tried")
def left_while_tried() -> Attack:
    return Attack(answers=every_task("import os\ndef ANSWER(*args, **kwargs):\n    os._exit(0)"))


@attack("kill itself with SIGKILL, SIGSEGV and SIGABRT")
def killed_itself() -> Attack:
    return Attack(
        answers={
            task: f"import os, signal\ndef {answer}(*args, **kwargs):\n    os.kill(os.getpid(), signal.{name})"
            for task, answer, name in (
                ("ask", "ask", "SIGKILL"),
                ("cost", "cost", "SIGSEGV"),
                ("stream", "stream", "SIGABRT"),
                ("conversation", "Conversation", "SIGTERM"),
            )
        }
    )


@attack("crash: read address zero, overflow the stack of C")
def crashed() -> Attack:
    return Attack(cell="ctypes.string_at(0)")


@attack("crash in every task")
def crashed_in_tasks() -> Attack:
    return Attack(answers=every_task("import ctypes\nctypes.memset(8, 1, 8)"))


@attack("stop itself with SIGSTOP, so that it neither ends nor answers")
def stopped() -> Attack:
    return Attack(cell="os.kill(os.getpid(), signal.SIGSTOP)")


@attack("replace the process by another program")
def replaced_process() -> Attack:
    return Attack(cell="os.execv('/bin/echo', ['/bin/echo', '10'])")


@attack("leave when it is interrupted, and ignore every signal")
def ignored_signals() -> Attack:
    return Attack(
        cell="""
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
import atexit
atexit.register(lambda: os.write(1, b"10"))
"""
    )


@attack("replace the process's end: os._exit does nothing, threads go on", fails=False)
def endless_exit() -> Attack:
    return Attack(
        cell="""
def work():
    while True:
        time.sleep(0.01)
for _ in range(20):
    threading.Thread(target=work).start()
os._exit = lambda status: None
""",
    )
