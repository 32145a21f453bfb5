"""Which network namespace this is, and whether another still exists."""

from __future__ import annotations

import os
from pathlib import Path


def network_namespace() -> int:
    """Inode of the network namespace of the calling thread."""
    return os.stat("/proc/thread-self/ns/net").st_ino  # noqa: PTH116


def network_namespace_exists(inode: int) -> bool:
    """Whether a named namespace or a process (as far as it can be seen) has this inode."""
    candidates = [*Path("/run/netns").glob("*"), *Path("/proc").glob("[0-9]*/ns/net")]
    for path in candidates:
        try:
            if path.stat().st_ino == inode:
                return True
        except OSError:
            continue
    return False
