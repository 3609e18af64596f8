"""What a submission's process may do: Landlock and seccomp through `sandlock`, deny by default, no root needed."""

import ctypes
import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kicourse.syllabus import course_root

MOST_PROCESSES = 64

_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/bin", "/etc/alternatives", "/etc/fonts", "/etc/localtime", "/etc/mime.types"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/nsswitch.conf", "/etc/hosts", "/etc/passwd"),
    *("/etc/ssl/openssl.cnf", "/dev/urandom", "/dev/random", "/dev/zero", "/dev/null"),
    # Single files only: with all of /proc, a fork could read another's memory.
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/sys/devices/system/cpu"),
)
_HIDDEN_ROOMS = ("checks", "grading", "authoring", "workspace", "_course")
_NEEDED_OF_GRADING = ("__init__.py", "fork_server.py", "player.py", "sandbox.py", "shell.py", "stubs.py")
_CAPABILITY_VERSION_3 = 0x20080522
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


@cache
def unavailable() -> str:
    """Say why there can be no sandbox on this machine; the empty string if there can."""
    if sys.platform != "linux":
        return "the sandbox needs Linux"
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


def policy(scratch: Path, ports: Sequence[int], environment: dict[str, str]) -> Any:
    """Return sandlock's policy for the fork server of submissions.

    It may read Python, the installed packages and the embedded models, write below `scratch`, and connect to these
    ports of this machine; nothing else.
    """
    from sandlock import Sandbox

    return Sandbox(
        fs_readable=[str(path) for path in readable()],
        fs_writable=[str(scratch), "/dev/null"],
        net_allow=[f"tcp://127.0.0.1:{','.join(map(str, ports))}"] if ports else [],
        max_processes=MOST_PROCESSES,
        clean_env=True,
        env=environment,
        cwd=str(scratch),
        **_degraded(),
    )


def confine(folder: str) -> None:
    """Shut this process in further: it writes in its own folder alone, and reaches no process that is not its child."""
    import sandlock

    sandlock.confine(sandlock.Sandbox(fs_readable=["/"], fs_writable=[folder, "/dev/null"], **_degraded()))
    _drop_capabilities()


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


def readable() -> list[Path]:
    """Return all that a submission may read; what is hidden inside a folder splits it into its parts."""
    installed = [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]
    python = (sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), *installed, _package().parent)
    hidden = [Path(place).resolve() for place in (course_root(), _package(), tempfile.gettempdir(), Path.home())]
    found = [path for place in (*_SYSTEM, *python) for path in _without(Path(place).resolve(), hidden)]
    own = [*_of_the_package(), *_of_the_course(), *_models()]
    return sorted({path.resolve() for path in (*found, *own) if path.exists()})


def _without(place: Path, hidden: Iterable[Path]) -> list[Path]:
    """Return `place`, or, if something hidden lies below it, its entries without that."""
    if place in hidden or not place.exists():
        return []
    if not any(place in path.parents for path in hidden):
        return [place]
    return [path for entry in place.iterdir() for path in _without(entry, hidden) if not entry.is_symlink()]


def _package() -> Path:
    return Path(__file__).resolve().parents[1]


def _of_the_package() -> list[Path]:
    rooms = [entry for entry in _package().iterdir() if entry.name not in _HIDDEN_ROOMS]
    return [*rooms, *(_package() / "grading" / name for name in _NEEDED_OF_GRADING)]


def _of_the_course() -> list[Path]:
    return [course_root() / "course" / "syllabus.toml", course_root() / "course" / "locale"]


def _models() -> list[Path]:
    from kicourse.models import conversion, hub_cache
    from kicourse.models.embedded import MODELS

    return [*(hub_cache.repository_folder(model) for model in MODELS), conversion.folder()]
