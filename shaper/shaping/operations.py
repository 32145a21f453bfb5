"""Everything that is ever done to a device's queues: plain data, with a sentence for people.

`shaper.shaping.plan` returns them, `shaper.kernel.tc` executes each as one change of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from shaper.shaping.leaf import LeafSpec
from shaper.shaping.tree import MAJOR, ClassSpec
from shaper.units import format_rate, format_time_us


@dataclass(frozen=True, slots=True)
class AddRoot:
    """HTB as root qdisc. The kernel's default qdisc comes back when it is deleted."""

    device: str
    default_minor: int

    def describe(self) -> str:
        return f"{self.device}: add root qdisc htb {MAJOR:x}: default {self.default_minor:x}"


@dataclass(frozen=True, slots=True)
class DeleteRoot:
    """Takes every class and leaf along, and the packets that wait in them.

    `new_default`: to be made anew at once, with another default class.
    """

    device: str
    new_default: bool = False

    def describe(self) -> str:
        sentence = f"{self.device}: delete root qdisc htb {MAJOR:x}:"
        if self.new_default:
            return f"{sentence} to change its default class (the packets queued there are lost)"
        return sentence


@dataclass(frozen=True, slots=True)
class AddClass:
    device: str
    spec: ClassSpec

    def describe(self) -> str:
        spec = self.spec
        return (
            f"{self.device}: add class {_handle(spec.minor, spec.name)} "
            f"rate {format_rate(spec.rate_bps)} ceil {format_rate(spec.ceil_bps)} "
            f"priority {spec.priority}"
        )


@dataclass(frozen=True, slots=True)
class ChangeClass:
    """In place: no packet is lost. `before` is what the kernel had."""

    device: str
    spec: ClassSpec
    before: ClassSpec

    def describe(self) -> str:
        handle = _handle(self.spec.minor, self.spec.name)
        changes = _changes(asdict(self.before), asdict(self.spec))
        return f"{self.device}: change class {handle} {', '.join(changes)}"


@dataclass(frozen=True, slots=True)
class DeleteClass:
    """With its leaf. Its children are gone before."""

    device: str
    minor: int
    name: str

    def describe(self) -> str:
        return f"{self.device}: delete class {_handle(self.minor, self.name)}"


@dataclass(frozen=True, slots=True)
class AddLeaf:
    device: str
    leaf: LeafSpec

    def describe(self) -> str:
        handle = _handle(self.leaf.class_minor, self.leaf.name)
        return f"{self.device}: add leaf {self.leaf.kind} to class {handle}"


@dataclass(frozen=True, slots=True)
class ChangeLeaf:
    """In place: the packets in the queue stay."""

    device: str
    leaf: LeafSpec
    before: LeafSpec

    def describe(self) -> str:
        handle = _handle(self.leaf.class_minor, self.leaf.name)
        changes = _changes(asdict(self.before.options), asdict(self.leaf.options))
        return f"{self.device}: change leaf {self.leaf.kind} of class {handle} {', '.join(changes)}"


@dataclass(frozen=True, slots=True)
class DeleteLeaf:
    device: str
    leaf: LeafSpec

    def describe(self) -> str:
        handle = _handle(self.leaf.class_minor, self.leaf.name)
        return f"{self.device}: delete leaf {self.leaf.kind} of class {handle}"


TcOperation = (
    AddRoot | DeleteRoot | AddClass | ChangeClass | DeleteClass | AddLeaf | ChangeLeaf | DeleteLeaf
)


def _handle(minor: int, name: str) -> str:
    return f"{MAJOR:x}:{minor:x} {name}".rstrip()


def _changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for key, value in after.items():
        if value != before[key] and key != "name":
            label, _, unit = key.rpartition("_")
            yield f"{label or key} {_value(before[key], unit)} → {_value(value, unit)}"


def _value(value: int, unit: str) -> str:
    match unit:
        case "bps":
            return format_rate(value)
        case "us":
            return format_time_us(value)
        case "bytes":
            return f"{value}b"
        case _:
            return str(value)
