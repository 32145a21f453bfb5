"""Sysctls of the current network namespace, by their dotted names.

A device name may hold a dot (`eth0.100`), so a name is split by what it can be, not at every dot.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from shaper.errors import KernelError

_ROOT = Path("/proc/sys")
_WITH = {"net.ipv6.conf.all.forwarding": ("accept_ra",)}
"""Keys of a device that matter where a switch is thrown (`shaper.reconcile.sysctls`)."""


def _path(name: str) -> Path:
    head, separator, rest = name.partition(".conf.")
    if not separator:
        return _ROOT / name.replace(".", "/")
    device, _, key = rest.rpartition(".")
    return _ROOT / head.replace(".", "/") / "conf" / device / key


def read(name: str) -> str | None:
    """The value, or None where this kernel or namespace does not have it."""
    try:
        return _path(name).read_text().strip()
    except OSError:
        return None


def write(name: str, value: str) -> None:
    try:
        _path(name).write_text(value)
    except OSError as error:
        raise KernelError(f"setting {name} = {value}: {error.strerror}") from error


def read_family(names: Iterable[str]) -> dict[str, str]:
    """The named sysctls that exist, and for `….conf.all.KEY` the same key of every device; for
    IPv6 forwarding also the devices' accept_ra."""
    values = {}
    for name in names:
        head, separator, key = name.partition(".conf.all.")
        members = [name]
        if separator:
            keys = (key, *_WITH.get(name, ()))
            members += [f"{head}.conf.{device}.{k}" for k in keys for device in _devices(head)]
        for member in members:
            value = read(member)
            if value is not None:
                values[member] = value
    return values


def _devices(family: str) -> list[str]:
    """Whom `net.ipv6` or `net.ipv4` has settings for; nobody where the protocol is switched off."""
    folder = _ROOT / family.replace(".", "/") / "conf"
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
