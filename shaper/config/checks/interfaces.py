"""Checks of the section `interfaces`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shaper.config.draft import Draft
from shaper.config.problems import Problem
from shaper.config.unknown import Unknown
from shaper.model import Role


def some_interface(draft: Draft) -> Iterator[Problem]:
    if draft.raw("interfaces") == {}:
        yield draft.at_value(("interfaces",), "the gateway has no interfaces")


def one_interface_per_device(draft: Draft) -> Iterator[Problem]:
    owners: dict[str, str] = {}
    for name, interface in draft.spec.interfaces.items():
        if isinstance(interface.device, Unknown):
            continue
        owner = owners.setdefault(interface.device, name)
        if owner != name:
            message = f"device {interface.device!r} is already interface {owner!r}"
            yield draft.at_value(("interfaces", name, "device"), message)


def no_device_of_sysctls(draft: Draft) -> Iterator[Problem]:
    """`net.ipv4.conf.all.forwarding` would be read as a device's, and is every device's."""
    for name, interface in draft.spec.interfaces.items():
        if interface.device in ("all", "default"):
            message = (
                f"device {interface.device!r} cannot be used "
                f"(its sysctls, net.ipv4.conf.{interface.device}.*, are not those of one device)"
            )
            yield draft.at_value(("interfaces", name, "device"), message)


def both_sides_for_services(draft: Draft) -> Iterator[Problem]:
    """A service needs a device on which clients arrive and one behind which backends are."""
    if not draft.raw("services") or not draft.raw("interfaces"):
        return
    if len(draft.spec.interfaces) < len(draft.declared("interfaces")):
        return
    roles = {interface.role for interface in draft.spec.interfaces.values()}
    if any(isinstance(role, Unknown) for role in roles) or Role.BOTH in roles:
        return
    for role in (Role.CLIENT, Role.BACKEND):
        if role not in roles:
            message = f"services need an interface with role {role.value!r}, and there is none"
            yield draft.at_key(("services",), message)


CHECKS: Final = (
    some_interface,
    one_interface_per_device,
    no_device_of_sysctls,
    both_sides_for_services,
)
