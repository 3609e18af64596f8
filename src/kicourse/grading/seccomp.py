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
_FIRST_LOW, _FIRST_HIGH, _SECOND_LOW, _THIRD_LOW, _FOURTH_LOW = 16, 20, 24, 32, 40
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_X32 = 0x40000000  # from here on, numbers name the same calls in another way
_SECRET_MEMORY = 447  # memfd_secret: calls as new as this have one number on all architectures
_NETLINK, _KIND = 16, 0xF  # with it libc asks for addresses of this machine; a socket's kind without its flags

_SHARED_WITHOUT_FILE = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS if sys.platform == "linux" else 0

_NUMBERS = {  # the architecture's own name (AUDIT_ARCH_*); bind, listen, socket, mmap, memfd_create and prlimit64 there
    "x86_64": (0xC000003E, 49, 50, 41, 9, 319, 302),
    "aarch64": (0xC00000B7, 200, 201, 198, 222, 279, 261),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("true", ctypes.c_uint8), ("false", ctypes.c_uint8), ("k", ctypes.c_uint32))


def known() -> bool:
    """Say whether there is a filter for this machine."""
    return platform.machine() in _NUMBERS


def refuse() -> None:
    """From now on nobody here waits for connections, names a socket (a file, anywhere), or limits another process.

    Of the sockets that reach other machines there is only TCP's, which Landlock guards by itself: sandlock reads an
    address before the kernel does, and a thread can exchange it in between. And there is no memory that belongs to no
    process alone: limits of data do not count it, and it need not be mapped to be held.

    Raises
    ------
    OSError
        If the kernel takes no filter; it wants `no_new_privs` set before.

    """
    program = _assembled(*_NUMBERS[platform.machine()])
    filter_ = _Program(len(program), ctypes.cast(program, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filter_), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel takes no seccomp filter")


def _assembled(
    architecture: int, bind: int, listen: int, make_socket: int, map_memory: int, make_file: int, prlimit: int
) -> "ctypes.Array[_Instruction]":
    """Return the filter. Each row: its name, what it does, with what, and where to go if so, or if not; "" is on."""
    rows = (
        ("", _LOAD, _ARCHITECTURE, "", ""),
        ("", _EQUAL, architecture, "", "refuse"),
        ("", _LOAD, _NUMBER, "", ""),
        ("", _AT_LEAST, _X32, "refuse", ""),
        ("", _EQUAL, bind, "refuse", ""),
        ("", _EQUAL, listen, "refuse", ""),
        ("", _EQUAL, make_file, "refuse", ""),
        ("", _EQUAL, _SECRET_MEMORY, "refuse", ""),
        ("", _EQUAL, make_socket, "socket", ""),
        ("", _EQUAL, map_memory, "memory", ""),
        ("", _EQUAL, prlimit, "", "allow"),
        ("", _LOAD, _FIRST_LOW, "", ""),  # prlimit64's process: none but the caller itself, which is 0
        ("", _EQUAL, 0, "", "refuse"),
        ("", _LOAD, _FIRST_HIGH, "", ""),
        ("", _EQUAL, 0, "allow", "refuse"),
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
        ("memory", _LOAD, _FOURTH_LOW, "", ""),
        ("", _AND, _SHARED_WITHOUT_FILE, "", ""),
        ("", _EQUAL, _SHARED_WITHOUT_FILE, "refuse", "allow"),
        ("refuse", _RETURN, _REFUSE, "", ""),
        ("allow", _RETURN, _ALLOW, "", ""),
    )
    place = {name: number for number, (name, *_) in enumerate(rows) if name}
    instructions = [
        _Instruction(code, *(place[name] - number - 1 if name else 0 for name in where), k)
        for number, (_, code, k, *where) in enumerate(rows)
    ]
    return (_Instruction * len(rows))(*instructions)
