"""What a submission's process may do: Landlock and seccomp through `sandlock`, deny by default, no root needed."""

import ctypes
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from kicourse.errors import UserError
from kicourse.grading import seccomp
from kicourse.syllabus import course_root

_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/bin", "/etc/alternatives", "/etc/fonts", "/etc/localtime", "/etc/mime.types"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/nsswitch.conf", "/etc/hosts", "/etc/passwd"),
    *(
        "/etc/ssl/openssl.cnf",
        "/etc/ssl/certs",
        "/etc/pki/tls/certs",
        "/etc/ca-certificates",
        "/dev/urandom",
        "/dev/random",
        "/dev/null",
    ),
    # Single files only: with all of /proc, a fork could read another's memory.
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/sys/devices/system/cpu"),
)
_ROOMS = (
    *("__init__.py", "errors.py", "language.py", "plots.py", "serving.py", "start.py", "syllabus.py"),
    *("answers", "data", "models"),
    *(f"grading/{name}.py" for name in ("__init__", "fork_server", "imports", "player", "sandbox", "seccomp")),
    *("grading/shell.py", "grading/stubs.py"),
)
# Landlock guards what files hold, not what is said about them.
_DENIED = (
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown", "fchownat"),
    *("utime", "utimes", "futimesat", "utimensat"),
    *("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
    # Nor does it guard what others are given of the processor.
    *("setpriority", "ioprio_set", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler"),
)
_CAPABILITY_VERSION_3 = 0x20080522
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


@cache
def unavailable() -> str:
    """Say why there can be no sandbox on this machine; the empty string if there can."""
    if sys.platform != "linux" or not hasattr(os, "fork"):
        return "the sandbox needs Linux"
    if not seccomp.known():
        return f"the sandbox does not know this processor ({platform.machine()})"
    try:
        import sandlock
    except ImportError:
        return "the package `sandlock` is not installed"
    if sandlock.landlock_abi_version() < 4:
        return "this kernel has no Landlock, or one older than Linux 6.7"
    # Where Landlock is switched off, or another sandbox forbids it, only trying tells.
    try:
        result = sandlock.Sandbox(fs_readable=["/"], fs_writable=["/dev/null"], **_degraded()).run(["/bin/true"], 20)
    except Exception as error:
        return f"the sandbox does not start ({error})"
    return "" if result.success else f"the sandbox does not start ({result.error or result.exit_code})"


def keeps_signals_in() -> bool:
    """Whether signals do not pass the sandbox's walls: from Linux 6.12 on."""
    import sandlock

    return bool(sandlock.landlock_abi_version() >= 6)


def require() -> None:
    """Raise UserError if this machine has no sandbox."""
    if reason := unavailable():
        raise UserError(
            f"Submissions cannot be run safely here: {reason}. Grade on Linux 6.7 or newer, or, if you trust "
            "everybody whose work you grade, with --no-sandbox."
        )


def policy(scratch: Path, runtime: Path, ports: Sequence[int], environment: dict[str, str]) -> Any:
    """Return sandlock's policy for the fork server of submissions.

    It may read Python, the installed packages and the embedded models, write below `scratch`, and connect to these
    ports of this machine; nothing else. How many processes there are is watched from outside: sandlock never takes
    those off its own count that were killed, so that what one submission leaves behind the next ones would lack.
    """
    from sandlock import Sandbox

    from kicourse.models import hub_cache

    return Sandbox(
        fs_readable=[str(path) for path in readable(runtime)],
        fs_writable=[str(scratch), "/dev/null"],
        net_allow=[f"tcp://127.0.0.1:{','.join(map(str, ports))}"] if ports else [],
        extra_deny_syscalls=_DENIED,
        clean_env=True,
        env=environment | {"PYTHONPATH": str(runtime), "HF_HOME": str(hub_cache.home())},
        cwd=str(scratch),
        **_degraded(),
    )


def confine(folder: str) -> None:
    """Shut this process in further: it writes in its own folder alone, and reaches no process that is not its child."""
    import sandlock

    sandlock.confine(sandlock.Sandbox(fs_readable=["/"], fs_writable=[folder, "/dev/null"], **_degraded()))
    seccomp.refuse()
    _drop_capabilities()
    _smooth_over()


def _smooth_over() -> None:
    """Let honest libraries live with what is forbidden here."""
    # What copies a file copies its mode and times along with it.
    for name in ("chmod", "fchmod", "lchmod", "chown", "fchown", "lchown", "utime", "setxattr", "removexattr"):
        setattr(os, name, lambda *_, **__: None)
    import selectors
    from asyncio import selector_events

    vars(selectors)["DefaultSelector"] = selectors.PollSelector  # as Python itself chooses where there is no epoll
    vars(selector_events)["_HAS_SENDMSG"] = False  # Python from 3.12 on would use it, where `send` does as well
    # It reads /proc/self/maps on Linux, as it has no need to.
    with suppress(ImportError):
        import threadpoolctl

        threadpoolctl._HAS_PROCFS = False


def _degraded() -> dict[str, Any]:
    from sandlock import Protection

    # Linux before 6.12 lacks these two; one submission a sandbox stands in for them.
    return {"allow_degraded": [Protection.SIGNAL_SCOPE, Protection.ABSTRACT_UNIX_SOCKET_SCOPE]}


def _drop_capabilities() -> None:
    """Let root be nobody special; for anybody else this changes nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)())


def readable(runtime: Path) -> list[Path]:
    """Return all that a submission may read: Python, what is installed, the embedded models, and `runtime`."""
    python = (sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), *_installed())
    found = [path for place in (*_SYSTEM, *python) for path in _without_course(Path(place).resolve())]
    return sorted({path.resolve() for path in (runtime, *found, *_models()) if path.exists()})


def make_runtime(runtime: Path) -> Path:
    """Lay out what a submission sees of this package, and of packages installed beside it; return the folder.

    A folder can be opened or not: where the package, its checks and the solutions lie among other packages, those are
    linked to from here instead.
    """
    for name in _ROOMS:
        source, target = _package() / name, runtime / "kicourse" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, target)
    course = runtime / "kicourse" / "_course" / "course"
    course.mkdir(parents=True)
    shutil.copyfile(course_root() / "course" / "syllabus.toml", course / "syllabus.toml")
    for place in _installed():
        if any(Path(place).resolve() in path.parents for path in _hidden()):
            for entry in Path(place).iterdir():
                if entry.resolve() not in _hidden():
                    (runtime / entry.name).symlink_to(entry)
    return runtime


def _installed() -> list[str]:
    return [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]


def _without_course(place: Path) -> list[Path]:
    """Return `place`, or, if this course or somebody's home lies below it, its entries without those."""
    if place in _hidden() or not place.exists():
        return []
    if not any(place in path.parents for path in _hidden()):
        return [place]
    return [path for entry in place.iterdir() if not entry.is_symlink() for path in _without_course(entry)]


@cache
def _hidden() -> frozenset[Path]:
    """What no submission sees, unless a part of it is named: the course, an editable install's share of it, homes."""
    shares = [share for place in _installed() if (share := Path(place) / "kicourse").exists()]
    return frozenset(
        path.resolve() for path in (course_root(), _package(), *shares, Path(tempfile.gettempdir()), Path.home())
    )


def _package() -> Path:
    return Path(__file__).resolve().parents[1]


def _models() -> list[Path]:
    from kicourse.models import conversion, hub_cache
    from kicourse.models.embedded import MODELS

    return [*(hub_cache.repository_folder(model) for model in MODELS), conversion.folder()]
