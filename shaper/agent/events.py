"""What happened lately: a bounded ring for the API, and one line each on standard error."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

LOGGER: Final = logging.getLogger("shaper.agent")
CAPACITY: Final = 1000


class EventKind(StrEnum):
    AGENT = "agent"  # started, stopping
    APPLY = "apply"  # a configuration was applied or refused
    HEALTH = "health"  # a backend went down or came back
    WEIGHTS = "weights"  # the controller changed a service's weights
    ERROR = "error"  # a task failed and will be tried again


@dataclass(frozen=True, slots=True)
class Event:
    """`number` grows by one with every event since the agent's start; `time_s` is Unix time."""

    number: int
    time_s: float
    kind: EventKind
    message: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


_LEVELS: Final = {EventKind.ERROR: logging.ERROR, EventKind.HEALTH: logging.WARNING}


class EventLog:
    """Keeps the last `capacity` events. Not for use from several threads."""

    def __init__(self, capacity: int = CAPACITY, clock: Callable[[], float] = time.time) -> None:
        self._events: deque[Event] = deque(maxlen=capacity)
        self._number = 0
        self._clock = clock

    def add(self, kind: EventKind, message: str) -> None:
        self._number += 1
        line = " | ".join(message.splitlines())
        self._events.append(Event(self._number, self._clock(), kind, line))
        LOGGER.log(_LEVELS.get(kind, logging.INFO), "%s: %s", kind, line)

    def since(self, number: int = 0) -> tuple[Event, ...]:
        """Those after event `number`, oldest first, as far as they are still kept."""
        return tuple(event for event in self._events if event.number > number)
