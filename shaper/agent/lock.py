"""One writer at a time: an agent for its whole life, or a CLI verb for one change."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from shaper.errors import ShaperError
from shaper.instance import Instance


@contextmanager
def instance_lock(instance: Instance) -> Iterator[None]:
    """Holds the instance's lock file; the kernel drops it with the process.

    The holder may remove the file (`shaper down` does): whoever waits at the removed one finds out
    and takes the new one.

    Raises:
        ShaperError: another process holds it; its process id is in the message.
    """
    instance.lock.parent.mkdir(parents=True, exist_ok=True)
    fd = _locked(instance)
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _locked(instance: Instance) -> int:
    """A descriptor of the file that the path names now, with the lock taken."""
    while True:
        fd = os.open(instance.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise ShaperError(
                f"instance {instance.name} is held by another shaper (process {holder})",
                "an agent holds its instance while it runs; stop it with SIGTERM",
            ) from None
        if _is_current(fd, instance):
            return fd
        os.close(fd)


def _is_current(fd: int, instance: Instance) -> bool:
    try:
        return instance.lock.stat().st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False
