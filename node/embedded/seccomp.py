"""Embedded stack: a system call filter for Triton, whose shared memory must stay private.

The Python backend of Triton keeps its tensors, which are patients' images, in shared memory objects
(Boost.Interprocess). Boost creates them under the umask, but then gives everybody read permission
by fchmod(2) and ignores whether that succeeded. There is no option against it, so the call fails.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from typing import Final

_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ARCHITECTURE, _NUMBER = 4, 0  # offsets in struct seccomp_data
_X86_64: Final = 0xC000003E  # the only one that the Triton of the embedded stack exists for
_FCHMOD: Final = 91
_FAIL, _ALLOW = 0x00050000 | errno.EPERM, 0x7FFF0000

_INSTRUCTIONS: Final = b"".join(
    struct.pack("=HBBI", *instruction)  # code, steps if true, steps if false, operand
    for instruction in (
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_IF_EQUAL, 0, 3, _X86_64),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_IF_EQUAL, 0, 1, _FCHMOD),
        (_RETURN, 0, 0, _FAIL),
        (_RETURN, 0, 0, _ALLOW),
    )
)


class _Program(ctypes.Structure):
    """``struct sock_fprog`` of seccomp(2)."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


_PROGRAM: Final = _Program(len(_INSTRUCTIONS) // 8, _INSTRUCTIONS)
_LIBC: Final = ctypes.CDLL(None)  # loaded before any fork


def refuse_fchmod() -> None:
    """Let fchmod(2) fail in this process and its descendants; for use between fork and exec.

    Without effect where the kernel has no seccomp filters.
    """
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_PROGRAM), 0, 0)
