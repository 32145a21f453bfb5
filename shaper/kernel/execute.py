"""Executes the operations of a plan. It decides nothing; what is done already is no error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from shaper.errors import KernelError
from shaper.instance import Instance
from shaper.kernel import loader, sysctl
from shaper.kernel.attach import Attachments
from shaper.kernel.compile import ProgramObject
from shaper.kernel.links import Links
from shaper.kernel.loader import Loaded
from shaper.kernel.tables import DataPlaneTables
from shaper.kernel.tc import TrafficControl
from shaper.reconcile import operations as ops
from shaper.shaping.operations import TcOperation

_REMOVALS: Final = (ops.RemoveAddress, ops.RemoveClsact, ops.DetachClassifier, ops.DetachXdp)
"""What needs no doing where the device is gone: the kernel took it along."""


@dataclass(slots=True)
class Executor:
    """Runs operations in the current network namespace.

    Args:
        compiled: the object that `LoadPrograms` and the attach operations refer to; None where the
            plan has none of these (`down`).
    """

    instance: Instance
    links: Links
    attachments: Attachments
    tc: TrafficControl
    compiled: ProgramObject | None
    _loaded: Loaded | None = field(default=None, init=False)
    _tables: DataPlaneTables | None = field(default=None, init=False)

    def close(self) -> None:
        self._tables = None
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    def execute(self, operation: ops.Operation) -> None:
        """Raises KernelError where the kernel refuses."""
        if isinstance(operation, TcOperation):
            self.tc.execute(operation)
            return
        if self._programs(operation) or self._device(operation):
            return
        if self._tables is None:
            self._tables = DataPlaneTables(self._open().maps)
        self._tables.execute(operation)

    def _programs(self, operation: ops.Operation) -> bool:
        match operation:
            case ops.LoadPrograms():
                self._open()
            case ops.RemovePrograms(digest):
                loader.remove_programs(self.instance.pins, digest)
            case ops.RemovePins():
                self.close()
                loader.remove_pins(self.instance.pins)
            case ops.SetSysctl(name, value):
                sysctl.write(name, value)
            case _:
                return False
        return True

    def _device(self, operation: ops.Operation) -> bool:
        if isinstance(operation, _REMOVALS) and self.links.find(operation.device) is None:
            return True
        match operation:
            case ops.AddAddress(device, address):
                self.links.add_address(device, address)
            case ops.RemoveAddress(device, address):
                self.links.remove_address(device, address)
            case ops.AddClsact(device):
                self.attachments.add_clsact(self.links.get(device), device)
            case ops.RemoveClsact(device):
                self.attachments.remove_clsact(self.links.get(device), device)
            case ops.AttachClassifier(device, program):
                fd = self._open().programs[program]
                name = f"{self.instance.name}/{program}"
                self.attachments.attach_classifier(self.links.get(device), device, fd, name)
            case ops.DetachClassifier(device):
                self.attachments.detach_classifier(self.links.get(device), device)
            case ops.AttachXdp(device):
                fd = self._open().programs["xdp_balance"]
                self.attachments.attach_xdp(self.links.get(device), device, fd)
            case ops.DetachXdp(device):
                self.attachments.detach_xdp(self.links.get(device), device)
            case _:
                return False
        return True

    def _open(self) -> Loaded:
        if self._loaded is None:
            if self.compiled is None:
                raise KernelError("this plan loads no programs, yet an operation needs them")
            self._loaded = loader.load(self.compiled, self.instance.pins)
        return self._loaded
