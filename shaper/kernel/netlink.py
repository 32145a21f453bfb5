"""What every user of rtnetlink shares: a socket with an end, and errors that say what was tried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from shaper.errors import KernelError


class RouteSocket:
    """An rtnetlink socket in the network namespace of the calling thread, closed with its `with`.

    Not for a thread in which an event loop runs: pyroute2's synchronous socket refuses that.
    """

    def __init__(self) -> None:
        self._route = IPRoute()

    def close(self) -> None:
        self._route.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@contextmanager
def netlink_errors(doing: str, hint: str = "", ignore: tuple[int, ...] = ()) -> Iterator[None]:
    """Turns pyroute2's error into a `KernelError` that begins with `doing`.

    Args:
        ignore: errnos that mean that it is done already.
    """
    try:
        yield
    except NetlinkError as error:
        if error.code not in ignore:
            raise KernelError(f"{doing}: {error.args[1]}", hint) from error
