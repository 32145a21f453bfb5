"""Keeps the agent's tasks alive: what fails is reported and tried again, ever more slowly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from shaper.agent.events import EventKind, EventLog
from shaper.errors import ShaperError

FIRST_BACKOFF_S: Final = 1.0
LAST_BACKOFF_S: Final = 30.0


def describe_error(error: BaseException) -> str:
    """A `ShaperError` in its own words, a defect with its type."""
    if isinstance(error, ShaperError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    return f"{type(error).__name__}: {error}"


class Supervisor:
    """`failing` names what failed and waits to be tried again, with the reason."""

    def __init__(self, events: EventLog, first_backoff_s: float = FIRST_BACKOFF_S) -> None:
        self._events = events
        self._first_backoff_s = first_backoff_s
        self.failing: dict[str, str] = {}

    async def forever(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        """Calls `step` again and again. A step waits itself for its time to come."""
        backoff_s = self._first_backoff_s
        failed = False
        while True:
            try:
                await step()
            except Exception as error:  # noqa: BLE001 - a defect in one task must not stop the others
                failed = True
                self._report(name, error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, LAST_BACKOFF_S)
                del self.failing[name]
            else:
                backoff_s = self._first_backoff_s
                if failed:
                    self._events.add(EventKind.AGENT, f"{name} works again")
                failed = False

    def _report(self, name: str, error: Exception) -> None:
        reason = describe_error(error)
        self.failing[name] = reason
        self._events.add(EventKind.ERROR, f"{name} failed, will be tried again: {reason}")


class Ticker:
    """A steady beat: waits until the next multiple of the interval since it was made.

    A beat that was missed (a blocked process, a suspended machine) is skipped, not made up for.
    """

    def __init__(self, interval_s: float, phase_s: float = 0.0) -> None:
        self._interval_s = interval_s
        self._due_s = time.monotonic() + phase_s

    async def wait(self) -> None:
        now_s = time.monotonic()
        await asyncio.sleep(max(0.0, self._due_s - now_s))
        late = max(0.0, time.monotonic() - self._due_s)
        self._due_s += self._interval_s * (1 + late // self._interval_s)
