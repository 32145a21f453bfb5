"""What must agree between values: one module a section of the file.

A check is a generator of problems over a `Draft`; it evaluates what is known and passes over what
was already reported. What single values may be is in `schema`; what is valid and not built yet is
in `unsupported`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from shaper.config.checks import classes, interfaces, services
from shaper.config.draft import Draft
from shaper.config.problems import Problem

Check = Callable[[Draft], Iterator[Problem]]

CHECKS: Final[tuple[Check, ...]] = (*interfaces.CHECKS, *classes.CHECKS, *services.CHECKS)
WARNINGS: Final[tuple[Check, ...]] = (*classes.WARNINGS, *services.WARNINGS)


def cross_check(draft: Draft) -> Iterator[Problem]:
    """Every disagreement in the draft that can be evaluated."""
    for check in CHECKS:
        yield from check(draft)


def warn(draft: Draft) -> Iterator[Problem]:
    """What is allowed and probably not meant."""
    for check in WARNINGS:
        yield from check(draft)
