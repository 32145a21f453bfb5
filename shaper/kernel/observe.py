"""Reads back everything a plan compares: devices, queues, attachments, pins, sysctls, tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shaper.kernel import libbpf, loader, sysctl
from shaper.kernel.attach import Attachments
from shaper.kernel.compile import KERNEL_NAMES, ProgramObject
from shaper.kernel.links import Link, Links
from shaper.kernel.tables import DataPlaneTables
from shaper.kernel.tc import TrafficControl
from shaper.reconcile.entries import Tables
from shaper.reconcile.plan import Actual, DeviceState
from shaper.shaping.tree import MAJOR

_ORPHAN = "orphan"
"""Stands for the digest of a program of ours whose pin is gone."""


@dataclass(frozen=True, slots=True)
class Observer:
    """Netlink sockets in the network namespace of the calling thread, and the instance's pins."""

    links: Links
    attachments: Attachments
    tc: TrafficControl
    pins: Path

    def observe(self, devices: Iterable[str], compiled: ProgramObject | None) -> Actual:
        """The present state, without sysctls. Devices that do not exist are left out.

        Args:
            compiled: tells how to read the tables; None leaves them empty.
        """
        programs = loader.pinned_programs(self.pins)
        states = {device: self._device(device, programs) for device in devices}
        return Actual(
            devices={device: state for device, state in states.items() if state is not None},
            digests=loader.pinned_digests(self.pins),
            complete=loader.complete_digests(self.pins),
            pins=self.pins.is_dir(),
            sysctls={},
            tables=self._read_tables(compiled),
        )

    def marked_devices(self) -> frozenset[str]:
        """Every device that may hold something of ours, whatever is remembered: by XDP program,
        root qdisc, and clsact."""
        marked = {
            index
            for index, kind, handle in self.attachments.qdiscs()
            if kind == "clsact" or handle == MAJOR << 16
        }
        names = self.links.names()
        found = {names[index] for index in marked if index in names}
        for device in names.values():
            link = self.links.find(device)
            if link is not None and link.xdp_program_id:
                found.add(device)
        return frozenset(found)

    @staticmethod
    def sysctls(names: Iterable[str]) -> dict[str, str]:
        """The named sysctls, and for `….conf.all.KEY` the same key of every device."""
        return sysctl.read_family(names)

    def busy_backends(self, compiled: ProgramObject) -> frozenset[int]:
        """Indices that flows count on."""
        with self._tables(compiled) as tables:
            return tables.busy_backends()

    def _device(self, device: str, programs: dict[int, str]) -> DeviceState | None:
        link = self.links.find(device)
        if link is None:
            return None
        observed = self.tc.observe(device)
        filters = self.attachments.filters(link.index) if observed.has_clsact else None
        classifier = None
        if filters is not None and filters.program_id:
            classifier = programs.get(filters.program_id, _ORPHAN)
        xdp = _our_xdp(link, programs)
        return DeviceState(
            tree=observed.tree,
            foreign_qdisc=observed.root_kind if observed.foreign else None,
            has_clsact=observed.has_clsact,
            clsact_shared=filters is not None and filters.others,
            classifier=classifier,
            xdp=xdp,
            foreign_xdp=bool(link.xdp_program_id) and xdp is None,
            addresses=link.addresses,
        )

    def _read_tables(self, compiled: ProgramObject | None) -> Tables:
        if compiled is None:
            return Tables()
        with self._tables(compiled) as tables:
            return tables.read()

    @contextmanager
    def _tables(self, compiled: ProgramObject) -> Iterator[DataPlaneTables]:
        maps = loader.open_maps(compiled.maps, self.pins)
        try:
            yield DataPlaneTables(maps)
        finally:
            loader.close_maps(maps)


def _our_xdp(link: Link, programs: dict[int, str]) -> str | None:
    """DIGEST/PROGRAM of our XDP program; recognised by its name where its pin is gone, because an
    instance has its network namespace for itself."""
    if not link.xdp_program_id:
        return None
    path = programs.get(link.xdp_program_id)
    if path is None and libbpf.program_name(link.xdp_program_id) == KERNEL_NAMES["xdp_balance"]:
        return _ORPHAN
    return path
