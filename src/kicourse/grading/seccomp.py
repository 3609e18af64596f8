"""System calls that sandlock does not refuse by name: a filter of our own, for this process and all that come from it.

A filter is a program of the kernel's packet filter (BPF): https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

import ctypes
import errno
import platform

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF's LD|W|ABS, JMP|JEQ|K, JMP|JGE|K and RET|K
_NUMBER, _ARCHITECTURE, _FIRST_LOW, _FIRST_HIGH = 0, 4, 16, 20  # where struct seccomp_data has them
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_X32 = 0x40000000  # from here on, numbers name the same calls in another way

_NUMBERS = {  # the architecture's own name (AUDIT_ARCH_*), and what bind, listen and prlimit64 are there
    "x86_64": (0xC000003E, 49, 50, 302),
    "aarch64": (0xC00000B7, 200, 201, 261),
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

    Raises
    ------
    OSError
        If the kernel takes no filter; it wants `no_new_privs` set before.

    """
    architecture, bind, listen, prlimit = _NUMBERS[platform.machine()]
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 0, 9, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 7, 0, _X32),
        (_EQUAL, 6, 0, bind),
        (_EQUAL, 5, 0, listen),
        (_EQUAL, 0, 5, prlimit),
        (_LOAD, 0, 0, _FIRST_LOW),  # prlimit64's process: none but the caller itself, which is 0
        (_EQUAL, 0, 2, 0),
        (_LOAD, 0, 0, _FIRST_HIGH),
        (_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    instructions = (_Instruction * len(program))(*(_Instruction(*one) for one in program))
    filter_ = _Program(len(program), ctypes.cast(instructions, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filter_), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel takes no seccomp filter")
