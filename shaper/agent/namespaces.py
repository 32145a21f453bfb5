"""Which network namespace this is, and whether another one still exists.

An inode number is given out again as soon as a namespace is gone, a cookie never (SO_NETNS_COOKIE,
5.14). Older kernels have to do with the inode.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SO_NETNS_COOKIE: Final = 71
_CLONE_NEWNET: Final = 0x40000000
_OURS: Final = Path("/proc/thread-self/ns/net")


@dataclass(frozen=True, slots=True)
class NetworkNamespace:
    """`cookie` 0: this kernel has none."""

    inode: int
    cookie: int


def network_namespace() -> NetworkNamespace:
    """That of the calling thread."""
    return NetworkNamespace(_OURS.stat().st_ino, _cookie())


def network_namespace_exists(wanted: NetworkNamespace) -> bool:
    """Whether a name under /run/netns or a process (as far as it can be seen) still has it."""
    for path in _candidates():
        with contextlib.suppress(OSError):
            if path.stat().st_ino == wanted.inode:
                return _cookie_of(path) == wanted.cookie
    return False


def _candidates() -> Iterator[Path]:
    yield from Path("/run/netns").glob("*")
    yield from Path("/proc").glob("[0-9]*/ns/net")


def _cookie() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            raw = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError:
            return 0
    return int(struct.unpack("=Q", raw)[0])


def _cookie_of(path: Path) -> int:
    """Asked from inside, by a thread that enters the namespace and ends there."""
    answers: list[int] = []

    def ask() -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) == 0:
                answers.append(_cookie())
        finally:
            os.close(fd)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return answers[0] if answers else 0
