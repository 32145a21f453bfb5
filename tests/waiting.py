"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], *, timeout_s: float = 5, interval_s: float = 0.02, what: str = ""
) -> T:
    """Calls `condition` until it is true, and returns what it gave.

    Raises:
        AssertionError: the deadline passed; says `what` was waited for and the last answer.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            subject = what or getattr(condition, "__name__", "the condition")
            raise AssertionError(f"{subject}: not within {timeout_s} s; last answer {answer!r}")
        time.sleep(interval_s)
