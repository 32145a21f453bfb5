"""The one error tree: whatever a user can cause is a `ShaperError`, printed without traceback."""

from __future__ import annotations


class ShaperError(Exception):
    """Something the user can act on.

    Args:
        message: what went wrong, with the place (device, file, class) in it.
        hint: what to do about it; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ShaperError):
    """A bad command line or a bad configuration file (exit code 2)."""

    exit_code = 2


class KernelError(ShaperError):
    """The kernel refused, or lacks a feature that is needed.

    Args:
        errno: of the call that was refused; None where no call was.
    """

    def __init__(self, message: str, hint: str = "", errno: int | None = None) -> None:
        super().__init__(message, hint)
        self.errno = errno


class VerifyError(ShaperError):
    """What was read back after an apply is not what was asked for."""
