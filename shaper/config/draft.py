"""What the cross checks see: the models, where everything stands, and what the names resolve to.

A draft may hold `UNKNOWN` values and may lack entries that were no mappings; names that the file
declares are known all the same, so that a broken class is not also an unknown one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from shaper.config.problems import Problem
from shaper.config.reader import Document, Loc
from shaper.config.schema import ClassSpec, GatewaySpec


@dataclass(frozen=True)
class Draft:
    spec: GatewaySpec
    document: Document
    broken: frozenset[Loc]

    def at_value(self, loc: Loc, message: str, hint: str = "") -> Problem:
        return Problem.at(self.document.value_position(loc), message, hint)

    def at_key(self, loc: Loc, message: str, hint: str = "") -> Problem:
        return Problem.at(self.document.key_position(loc), message, hint)

    def raw(self, *loc: str | int) -> Any:
        """The value as the file has it; None where it has none."""
        value = self.document.root
        for part in loc:
            if not isinstance(value, dict) or part not in value:
                return None
            value = value[part]
        return value

    def declared(self, section: str) -> tuple[str, ...]:
        """Names in a section of the file, those of broken entries included."""
        entries = self.raw(section)
        return tuple(entries) if isinstance(entries, dict) else ()

    def touches_broken(self, loc: Loc) -> bool:
        """Whether `loc`, something around it or something in it is wrong."""
        inside_wrong = any(loc[:length] in self.broken for length in range(len(loc)))
        return inside_wrong or loc in self._around_broken

    @cached_property
    def _around_broken(self) -> frozenset[Loc]:
        """Everything that is wrong or has something wrong in it."""
        return frozenset(loc[:length] for loc in self.broken for length in range(len(loc) + 1))

    @cached_property
    def bandwidths_bps(self) -> dict[str, int]:
        """Interfaces whose bandwidth is known."""
        return {
            name: interface.bandwidth
            for name, interface in self.spec.interfaces.items()
            if isinstance(interface.bandwidth, int)
        }

    def parent(self, name: str) -> str | None:
        """The class's parent where it is one of the classes that could be read, else None."""
        parent = self.spec.classes[name].parent
        return parent if isinstance(parent, str) and parent in self.spec.classes else None

    def ancestors(self, name: str) -> tuple[str, ...]:
        """From the class's parent up to the top; stops before the first class seen twice."""
        found: dict[str, None] = {}
        parent = self.parent(name)
        while parent is not None and parent not in found and parent != name:
            found[parent] = None
            parent = self.parent(parent)
        return tuple(found)

    def in_cycle(self, name: str) -> bool:
        """Whether the class is among its own ancestors."""
        return self.parent((name, *self.ancestors(name))[-1]) == name

    def interfaces_of(self, name: str) -> tuple[str, ...]:
        """Where a class is: its own list, else its parent's, else all with a bandwidth."""
        for holder in (name, *self.ancestors(name)):
            listed = self.spec.classes[holder].interfaces
            if listed:
                return tuple(entry for entry in listed if isinstance(entry, str))
        return tuple(self.bandwidths_bps)


def ceil_bps(spec: ClassSpec) -> int | None:
    """The class's ceil, which is its rate where none is given; None where that is unknown."""
    ceil = spec.rate if spec.ceil is None else spec.ceil
    return ceil if isinstance(ceil, int) else None
