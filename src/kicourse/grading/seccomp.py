"""System calls that sandlock does not refuse by name: a filter of our own, for this process and all that come from it.

A filter is a program of the kernel's packet filter (BPF): https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

import ctypes
import errno
import mmap
import platform
import socket
import sys

# BPF's LD|W|ABS, JMP|JEQ|K, JMP|JGE|K, ALU|AND|K and RET|K
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_NUMBER, _ARCHITECTURE = 0, 4  # where struct seccomp_data has them, and the arguments: low and high half of each
_FIRST_LOW, _FIRST_HIGH, _SECOND_LOW, _THIRD_LOW, _THIRD_HIGH, _FOURTH_LOW = 16, 20, 24, 32, 36, 40
_FIFTH_LOW, _FIFTH_HIGH = 48, 52
_ALLOW, _REFUSE, _PRETEND = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_X32 = 0x40000000  # from here on, numbers name the same calls in another way
_NETLINK, _KIND = 16, 0xF  # with it libc asks for addresses of this machine; a socket's kind without its flags
_F_SETSIG, _F_SETLEASE, _F_NOTIFY, _F_SETPIPE_SZ, _PR_SET_DUMPABLE = 10, 1024, 1026, 1031, 4
_IP_LOCAL_PORT_RANGE = 51
_MOST_ADDRESSED = 64 * 1024  # bytes

_SHARED_WITHOUT_FILE = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS if sys.platform == "linux" else 0

# The architecture's own name (AUDIT_ARCH_*), and the numbers of system calls there.
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_REFUSED = {  # whatever the arguments
    "x86_64": {
        "bind": 49,
        "listen": 50,
        "memfd_create": 319,
        "sendmsg": 46,
        "sendmmsg": 307,
        "vmsplice": 278,
        "tee": 276,
        "inotify_init": 253,
        "inotify_init1": 294,
        "fanotify_init": 300,
        "io_setup": 206,
        "epoll_create": 213,
        "epoll_create1": 291,
        "timer_create": 222,
        "seccomp": 317,
    },
    "aarch64": {
        "bind": 200,
        "listen": 201,
        "memfd_create": 279,
        "sendmsg": 211,
        "sendmmsg": 269,
        "vmsplice": 75,
        "tee": 77,
        "inotify_init1": 26,
        "fanotify_init": 262,
        "io_setup": 0,
        "epoll_create1": 20,
        "timer_create": 107,
        "seccomp": 277,
    },
}
_REFUSED_EVERYWHERE = {  # calls as new as these have one number on all architectures
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
    "memfd_secret": 447,
}
_LOOKED_INTO = {  # whose arguments decide
    "x86_64": {
        "socket": 41,
        "sendto": 44,
        "setsockopt": 54,
        "mmap": 9,
        "fcntl": 72,
        "prctl": 157,
        "prlimit64": 302,
    },
    "aarch64": {
        "socket": 198,
        "sendto": 206,
        "setsockopt": 208,
        "mmap": 222,
        "fcntl": 25,
        "prctl": 167,
        "prlimit64": 261,
    },
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("true", ctypes.c_uint8), ("false", ctypes.c_uint8), ("k", ctypes.c_uint32))


def known() -> bool:
    """Say whether there is a filter for this machine."""
    return platform.machine() in _ARCHITECTURES


def refuse() -> None:
    """From now on nobody here waits for connections, names a socket (a file, anywhere), or limits another process.

    Of the sockets that reach other machines there is only TCP's, which Landlock guards by itself: sandlock reads an
    address before the kernel does, and a thread can exchange it in between. There is no memory that belongs to no
    process alone: limits of data do not count it, and it need not be mapped to be held (memory files, pages that were
    given to a pipe, rules for a sandbox, filters like this one, what sandlock copies when `sendmsg` sends it, or much
    is sent to an address). Nobody takes what all programs of a user share (watches of files, by epoll too, descriptors
    on their way in a message, large pipes, timers, queues of the kernel's own input and output, ports that stay closed
    for a minute), sees what happens to files that it may not read, or lets others wait for one by a lease. No process
    hides what it uses from others of the same user, or has a signal come that wakes it while it is held; and no
    connection holds more than others do: who asks for that is told that it does.

    Raises
    ------
    OSError
        If the kernel takes no filter; it wants `no_new_privs` set before.

    """
    program = _assembled(platform.machine())
    filter_ = _Program(len(program), ctypes.cast(program, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filter_), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel takes no seccomp filter")


def _assembled(machine: str) -> "ctypes.Array[_Instruction]":
    """Return the filter. Each row: its name, what it does, with what, and where to go if so, or if not; "" is on."""
    refused = (_REFUSED[machine] | _REFUSED_EVERYWHERE).values()
    rows = (
        ("", _LOAD, _ARCHITECTURE, "", ""),
        ("", _EQUAL, _ARCHITECTURES[machine], "", "refuse"),
        ("", _LOAD, _NUMBER, "", ""),
        ("", _AT_LEAST, _X32, "refuse", ""),
        *(("", _EQUAL, number, "refuse", "") for number in refused),
        *(("", _EQUAL, number, name, "") for name, number in _LOOKED_INTO[machine].items()),
        ("", _RETURN, _ALLOW, "", ""),
        ("prlimit64", _LOAD, _FIRST_LOW, "", ""),  # of which process: none but the caller itself, which is 0
        ("", _EQUAL, 0, "", "refuse"),
        ("", _LOAD, _FIRST_HIGH, "", ""),
        ("", _EQUAL, 0, "allow", "refuse"),
        ("fcntl", _LOAD, _SECOND_LOW, "", ""),
        *(("", _EQUAL, one, "refuse", "") for one in (_F_SETSIG, _F_SETLEASE, _F_NOTIFY, _F_SETPIPE_SZ)),
        ("", _RETURN, _ALLOW, "", ""),
        ("prctl", _LOAD, _FIRST_LOW, "", ""),
        ("", _EQUAL, _PR_SET_SECCOMP, "refuse", ""),
        ("", _EQUAL, _PR_SET_DUMPABLE, "refuse", "allow"),
        ("setsockopt", _LOAD, _SECOND_LOW, "", ""),
        ("", _EQUAL, socket.SOL_SOCKET, "option", ""),
        ("", _EQUAL, socket.IPPROTO_IP, "", "allow"),
        ("", _LOAD, _THIRD_LOW, "", ""),
        ("", _EQUAL, _IP_LOCAL_PORT_RANGE, "refuse", "allow"),
        ("option", _LOAD, _THIRD_LOW, "", ""),
        ("", _EQUAL, socket.SO_SNDBUF, "pretend", "allow"),
        ("sendto", _LOAD, _FIFTH_LOW, "", ""),
        ("", _EQUAL, 0, "", "how much"),
        ("", _LOAD, _FIFTH_HIGH, "", ""),
        ("", _EQUAL, 0, "allow", ""),
        ("how much", _LOAD, _THIRD_HIGH, "", ""),
        ("", _EQUAL, 0, "", "refuse"),
        ("", _LOAD, _THIRD_LOW, "", ""),
        ("", _AT_LEAST, _MOST_ADDRESSED, "refuse", "allow"),
        ("socket", _LOAD, _FIRST_LOW, "", ""),
        ("", _EQUAL, socket.AF_UNIX, "allow", ""),
        ("", _EQUAL, _NETLINK, "allow", ""),
        ("", _EQUAL, socket.AF_INET, "kind", ""),
        ("", _EQUAL, socket.AF_INET6, "", "refuse"),
        ("kind", _LOAD, _SECOND_LOW, "", ""),
        ("", _AND, _KIND, "", ""),
        ("", _EQUAL, socket.SOCK_STREAM, "", "refuse"),
        ("", _LOAD, _THIRD_LOW, "", ""),  # the protocol: MPTCP and SCTP have streams too, which Landlock lets pass
        ("", _EQUAL, 0, "allow", ""),
        ("", _EQUAL, socket.IPPROTO_TCP, "allow", "refuse"),
        ("mmap", _LOAD, _FOURTH_LOW, "", ""),
        ("", _AND, _SHARED_WITHOUT_FILE, "", ""),
        ("", _EQUAL, _SHARED_WITHOUT_FILE, "refuse", "allow"),
        ("refuse", _RETURN, _REFUSE, "", ""),
        ("pretend", _RETURN, _PRETEND, "", ""),
        ("allow", _RETURN, _ALLOW, "", ""),
    )
    place = {name: number for number, (name, *_) in enumerate(rows) if name}
    instructions = [
        _Instruction(code, *(place[name] - number - 1 if name else 0 for name in where), k)
        for number, (_, code, k, *where) in enumerate(rows)
    ]
    return (_Instruction * len(rows))(*instructions)
