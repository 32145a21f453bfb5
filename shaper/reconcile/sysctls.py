"""Sysctls: what to set, what to note before that, and what to give back. Pure.

The kernel's oddities (net/ipv6/addrconf.c, addrconf_fixup_forwarding()): writing an `all` switch
writes every device's, so these are noted with it and put right after it is given back. And where
IPv6 forwarding is switched on, the default routes that routers announced are purged, and later
announcements ignored, on each device whose accept_ra is 1. With 2 ("also where it forwards") a
device is spared, so it gets 2 first, and 1 again when nothing can purge any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from shaper.errors import KernelError
from shaper.reconcile.operations import SetSysctl

IPV6_FORWARDING: Final = "net.ipv6.conf.all.forwarding"

_ACCEPT_RA: Final = "accept_ra"
_TEMPLATES: Final = ("all", "default")  # not devices; their accept_ra says nothing of a device


@dataclass(frozen=True, slots=True)
class SysctlPlan:
    """`sets` come before what needs them, `restores` after the last that did.

    `noted` has the value before shaper of everything that is or was changed.
    """

    sets: tuple[SetSysctl, ...]
    restores: tuple[SetSysctl, ...]
    noted: Mapping[str, str]


def plan_sysctls(
    desired: Mapping[str, str], actual: Mapping[str, str], noted: Mapping[str, str]
) -> SysctlPlan:
    """Sets what is missing and gives back what is no longer needed.

    Args:
        actual: with every device's value of the keys in question.
        noted: by earlier plans. Nothing is dropped from it here: a plan may be interrupted.
    Raises:
        KernelError: the kernel lacks a desired sysctl.
    """
    after = dict(noted)
    sets: list[SetSysctl] = []
    for name, value in desired.items():
        if name not in actual:
            raise _missing(name)
        if actual[name] == value:
            continue
        spared = list(_spared(actual)) if name == IPV6_FORWARDING else []
        for changed in (name, *_siblings(name, actual), *spared):
            after.setdefault(changed, actual[changed])
        sets += [SetSysctl(other, "2", "1") for other in spared]
        sets.append(SetSysctl(name, value, actual[name]))
    return SysctlPlan(tuple(sets), tuple(_restores(desired, actual, after)), after)


def still_needed(noted: Mapping[str, str], desired: Mapping[str, str]) -> dict[str, str]:
    """The part of `noted` that belongs to what `desired` sets."""
    return {name: was for name, was in noted.items() if _needed(name, desired)}


def _restores(
    desired: Mapping[str, str], actual: Mapping[str, str], noted: Mapping[str, str]
) -> Iterator[SetSysctl]:
    present = dict(actual)
    for name in sorted(noted, key=_restore_order):
        before = noted[name]
        if _needed(name, desired) or name not in present or present[name] == before:
            continue
        yield SetSysctl(name, before, present[name])
        present |= dict.fromkeys(_siblings(name, present), before)


def _restore_order(name: str) -> int:
    """Switches, then devices, then accept_ra: a device's forwarding purges as a switch does."""
    if ".conf.all." in name:
        return 0
    return 2 if name.endswith(f".{_ACCEPT_RA}") else 1


def _needed(name: str, desired: Mapping[str, str]) -> bool:
    return name in desired or _switch(name) in desired


def _switch(name: str) -> str:
    """The `all` switch that a device's sysctl would be noted for."""
    head, _, rest = name.partition(".conf.")
    key = rest.rpartition(".")[2]
    return f"{head}.conf.all.{'forwarding' if key == _ACCEPT_RA else key}"


def _siblings(name: str, actual: Mapping[str, str]) -> list[str]:
    """What writing an `all` switch writes as well; nothing for any other name."""
    head, switch, key = name.partition(".conf.all.")
    if not switch:
        return []
    return [
        other
        for other in actual
        if other != name and other.startswith(f"{head}.conf.") and other.endswith(f".{key}")
    ]


def _spared(actual: Mapping[str, str]) -> Iterator[str]:
    """accept_ra of every device that would lose its announced routes."""
    for name, value in actual.items():
        device = _device(name)
        if name.endswith(f".{_ACCEPT_RA}") and value == "1" and device not in _TEMPLATES:
            yield name


def _device(name: str) -> str:
    """A name may hold dots, as in `net.ipv4.conf.eth0.100.forwarding`."""
    return name.partition(".conf.")[2].rpartition(".")[0]


def _missing(name: str) -> KernelError:
    if name == IPV6_FORWARDING:
        return KernelError(
            f"this kernel has no {name}, which services with IPv6 addresses need",
            "IPv6 is switched off: boot without `ipv6.disable=1`, or use IPv4 addresses only",
        )
    return KernelError(
        f"{_device(name)}: there is no sysctl {name}",
        "IPv4 is off on a device whose MTU is under 68 bytes: `ip link show` tells",
    )
