"""What a plan consists of (beside the tc operations of `shaper.shaping.plan`).

Each is plain data with a sentence for people. An apply that was interrupted is not continued but
planned anew, from what is observed then, so no operation is planned whose effect is already there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from shaper.model import Address
from shaper.reconcile.entries import BackendEntry, ServiceEntry, ServiceKey


class Operation(Protocol):
    """Anything that a plan can hold: a frozen dataclass with a sentence."""

    def describe(self) -> str: ...


@dataclass(frozen=True, slots=True)
class LoadPrograms:
    """Compile (or take from the cache), load and pin the programs of a feature set."""

    digest: str
    features: tuple[str, ...]

    def describe(self) -> str:
        return f"load the programs {self.digest} ({', '.join(self.features) or 'no features'})"


@dataclass(frozen=True, slots=True)
class RemovePrograms:
    digest: str

    def describe(self) -> str:
        return f"remove the programs {self.digest}"


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """`was`: the value at the time of writing."""

    name: str
    value: str
    was: str

    def describe(self) -> str:
        return f"set {self.name} = {self.value} (was {self.was})"


@dataclass(frozen=True, slots=True)
class AddAddress:
    device: str
    address: Address

    def describe(self) -> str:
        return f"{self.device}: announce {self.address}"


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    device: str
    address: Address

    def describe(self) -> str:
        return f"{self.device}: withdraw {self.address}"


@dataclass(frozen=True, slots=True)
class AddClsact:
    device: str

    def describe(self) -> str:
        return f"{self.device}: add clsact"


@dataclass(frozen=True, slots=True)
class RemoveClsact:
    device: str

    def describe(self) -> str:
        return f"{self.device}: remove clsact"


@dataclass(frozen=True, slots=True)
class AttachClassifier:
    """Attach or replace our clsact egress program."""

    device: str
    program: str
    digest: str

    def describe(self) -> str:
        return f"{self.device}: attach {self.program} at clsact egress"


@dataclass(frozen=True, slots=True)
class DetachClassifier:
    device: str

    def describe(self) -> str:
        return f"{self.device}: detach the program at clsact egress"


@dataclass(frozen=True, slots=True)
class AttachXdp:
    """Attach, or replace in one step, the XDP program."""

    device: str
    digest: str

    def describe(self) -> str:
        return f"{self.device}: attach xdp_balance"


@dataclass(frozen=True, slots=True)
class DetachXdp:
    device: str

    def describe(self) -> str:
        return f"{self.device}: detach xdp_balance"


@dataclass(frozen=True, slots=True)
class PutBackend:
    entry: BackendEntry

    def describe(self) -> str:
        entry = self.entry
        return f"backend {entry.index}: {entry.address} port {entry.port} ({entry.flag_names()})"


@dataclass(frozen=True, slots=True)
class PutService:
    entry: ServiceEntry

    def describe(self) -> str:
        return f"service {self.entry.key}: {self.entry.summary()}"


@dataclass(frozen=True, slots=True)
class RemoveService:
    key: ServiceKey

    def describe(self) -> str:
        return f"service {self.key}: remove"


@dataclass(frozen=True, slots=True)
class PutServiceClass:
    service_id: int
    classid: int

    def describe(self) -> str:
        return f"service id {self.service_id}: class {_classid(self.classid)}"


@dataclass(frozen=True, slots=True)
class PutDefaultClass:
    classid: int

    def describe(self) -> str:
        return f"default class {_classid(self.classid)}"


@dataclass(frozen=True, slots=True)
class RemovePins:
    """The end of an instance in bpffs."""

    def describe(self) -> str:
        return "remove all pins"


def _classid(classid: int) -> str:
    return f"{classid >> 16:x}:{classid & 0xFFFF:x}" if classid else "none"
