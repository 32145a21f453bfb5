"""Which leaf qdiscs this kernel has, found out by adding one in a throw-away network namespace.

Adding loads the module where it is one. A thread makes the namespace for itself alone (namespaces
belong to tasks, see namespaces(7)); with the thread and its socket the namespace is gone.
"""

from __future__ import annotations

import ctypes
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from shaper.errors import KernelError
from shaper.shaping.leaf import FQ_CODEL, PFIFO

_CLONE_NEWNET: Final = 0x40000000
_LOOPBACK_INDEX: Final = 1  # the only device of a new namespace
_LACKING: Final = frozenset({errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP})


@cache
def leaf_kinds() -> frozenset[str]:
    """Kernel kinds that may serve as leaf: `pfifo`, a part of tc itself, and those that work.

    Raises:
        KernelError: not allowed to make a network namespace.
    """
    with ThreadPoolExecutor(max_workers=1) as executor:
        works = executor.submit(_can_add, FQ_CODEL).result()
    return frozenset({PFIFO, FQ_CODEL}) if works else frozenset({PFIFO})


def _can_add(kind: str) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) < 0:
        reason = os.strerror(ctypes.get_errno())
        raise KernelError(f"making a network namespace: {reason}", "shaper needs root")
    with IPRoute() as route:
        try:
            route.tc("add", kind, _LOOPBACK_INDEX)
        except NetlinkError as error:
            if error.code in _LACKING:
                return False
            raise KernelError(f"trying the qdisc {kind}: {error.args[1]}") from error
    return True
