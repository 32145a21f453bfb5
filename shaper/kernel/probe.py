"""What this kernel can do, found out by trying."""

from __future__ import annotations

import errno
import os
import struct
from functools import cache

from shaper.errors import KernelError
from shaper.kernel import libbpf

_FETCHING_ADD = b"".join(
    struct.pack("<BBhi", *instruction)
    for instruction in (
        (0xB7, 0x01, 0, 1),  # r1 = 1
        (0x7B, 0x1A, -8, 0),  # *(u64 *)(r10 - 8) = r1
        (0xDB, 0x1A, -8, 1),  # r1 = atomic_fetch_add((u64 *)(r10 - 8), r1)
        (0xB7, 0x00, 0, 0),  # r0 = 0
        (0x95, 0x00, 0, 0),  # exit
    )
)


@cache
def atomic_fetch() -> bool:
    """Whether BPF programs may use atomics that return the old value.

    Kernel commit 5ca419f2864a (5.12) added them, and the verifier answers EINVAL before; then two
    CPUs may take the same turn of a round-robin ring.

    Raises:
        KernelError: programs cannot be loaded at all, so nothing was found out.
    """
    try:
        fd = libbpf.program_load(libbpf.ProgramType.XDP, "probe", _FETCHING_ADD)
    except KernelError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    os.close(fd)
    return True
