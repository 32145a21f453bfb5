"""Where an instance keeps its things. Several gateways (network namespaces) live on one host."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from shaper.errors import UsageError

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class Instance:
    """A name and the paths that follow from it.

    Raises:
        UsageError: for a name that cannot be a file name.
    """

    name: str = "default"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"{self.name!r} is not an instance name",
                "use up to 32 lower-case letters, digits, '-' and '_'; the first a letter or digit",
            )

    @property
    def pins(self) -> Path:
        return Path("/sys/fs/bpf/shaper") / self.name

    @property
    def state(self) -> Path:
        return Path("/var/lib/shaper") / self.name

    @property
    def socket(self) -> Path:
        return Path("/run/shaper") / f"{self.name}.sock"

    @property
    def lock(self) -> Path:
        return Path("/run/shaper") / f"{self.name}.lock"
