"""The stand-in for a value that was wrong and has been reported.

A wrong value must not hide other mistakes, so it is replaced by `UNKNOWN` and reading goes on.
Whatever needs such a value is not checked; mypy sees `T | Unknown` and insists on the question.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, TypeVar

T = TypeVar("T")


class Unknown(Enum):
    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN


def known(value: T | Unknown) -> T:
    """The value, where a file without problems guarantees that there is one."""
    if isinstance(value, Unknown):
        raise AssertionError("a value is unknown although no problem was reported")
    return value


def optional(value: T | Unknown | None) -> T | None:
    """`known` for what the file may leave out."""
    return None if value is None else known(value)
