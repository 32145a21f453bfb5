"""Blocking calls from the event loop, one at a time, always on the same thread.

The engine is not made for two callers at once, and pyroute2's synchronous `IPRoute` raises inside a
running event loop. The thread is started from the agent's, so it is in the same network namespace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Worker:
    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

    async def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Queues the call and waits for it. Cancelling the wait does not undo a call that began."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))

    def close(self) -> None:
        """Waits for the call that runs; those still queued are dropped."""
        self._executor.shutdown(wait=True, cancel_futures=True)
