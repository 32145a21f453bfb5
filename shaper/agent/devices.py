"""Follows devices by their index: a name may change, or be given to another device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from shaper.agent.store import StoredState
from shaper.reconcile.plan import Ledger


def follow_devices(state: StoredState, present: Mapping[int, str]) -> StoredState:
    """The state with every device under its present name.

    A device that is gone took its queues, addresses and sysctls along; another one that has its
    name now has nothing of ours.

    Args:
        present: index -> name of the namespace's devices.
    """
    names = {old: present.get(index) for old, index in state.devices.items()}
    if all(old == new for old, new in names.items()):
        return state
    return replace(
        state,
        devices={new: state.devices[old] for old, new in names.items() if new is not None},
        ledger=_renamed(state.ledger, names),
    )


def _renamed(ledger: Ledger, names: Mapping[str, str | None]) -> Ledger:
    sysctls = {}
    for name, value in ledger.sysctls.items():
        new = _sysctl_name(name, names)
        if new is not None:
            sysctls[new] = value
    addresses = ((names.get(device, device), address) for device, address in ledger.addresses)
    clsact = (names.get(device, device) for device in ledger.clsact)
    return Ledger(
        sysctls,
        frozenset((device, address) for device, address in addresses if device is not None),
        frozenset(device for device in clsact if device is not None),
    )


def _sysctl_name(name: str, names: Mapping[str, str | None]) -> str | None:
    head, separator, rest = name.partition(".conf.")
    device, _, key = rest.rpartition(".")
    if not separator or device not in names:
        return name
    new = names[device]
    return f"{head}.conf.{new}.{key}" if new is not None else None
