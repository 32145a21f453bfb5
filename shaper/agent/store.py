"""The instance's state file: what must outlive a process, and a kill at any point.

Written as a whole, synced, and renamed into place before the change that it describes is made.
After a reboot the kernel state is gone and the ledger says nothing; numbers and text stay valid.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from shaper.agent.namespaces import network_namespace
from shaper.errors import ShaperError
from shaper.instance import Instance
from shaper.reconcile.handles import Handles
from shaper.reconcile.plan import Ledger

_VERSION = 1


@dataclass(frozen=True, slots=True)
class StoredState:
    """Contents of the state file.

    `devices`: every device that may hold something of ours. `network_namespace`: inode of the
    namespace that was changed. `text`: the configuration as last applied with success.
    """

    boot_id: str
    network_namespace: int
    generation: int = 0
    text: str | None = None
    features: tuple[str, ...] = ()
    devices: frozenset[str] = frozenset()
    handles: Handles = field(default_factory=Handles)
    ledger: Ledger = field(default_factory=Ledger)
    warnings: tuple[str, ...] = ()


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Store:
    """Reads and writes `state.json` of one instance."""

    def __init__(self, instance: Instance) -> None:
        self._path = instance.state / "state.json"

    def load(self) -> StoredState | None:
        """The stored state, or None for an instance that was never applied.

        After a reboot what it says of kernel state (ledger, devices) is dropped.

        Raises:
            ShaperError: the file is damaged.
        """
        try:
            data = json.loads(self._path.read_text())
            state = _decode(data)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ShaperError(
                f"the state file {self._path} is damaged: {error}",
                "move it away; `shaper down` then removes what it can still recognise",
            ) from error
        if state.boot_id != boot_id():
            return replace(
                state,
                boot_id=boot_id(),
                network_namespace=network_namespace(),
                ledger=Ledger(),
                devices=frozenset(),
            )
        return state

    def save(self, state: StoredState) -> None:
        """Atomically, and on disk when it returns."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = self._path.with_suffix(".new")
        with scratch.open("w") as file:
            json.dump(_encode(state), file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove(self) -> None:
        """The file and its folder, where nothing else is in it."""
        self._path.unlink(missing_ok=True)
        self._path.with_suffix(".new").unlink(missing_ok=True)
        for folder in (self._path.parent, self._path.parent.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _encode(state: StoredState) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "boot_id": state.boot_id,
        "network_namespace": state.network_namespace,
        "generation": state.generation,
        "text": state.text,
        "features": list(state.features),
        "devices": sorted(state.devices),
        "handles": {
            "classes": dict(state.handles.classes),
            "services": dict(state.handles.services),
            "backends": dict(state.handles.backends),
            "retired": list(state.handles.retired),
        },
        "ledger": {
            "sysctls": list(state.ledger.sysctls.items()),
            "addresses": sorted([device, str(a)] for device, a in state.ledger.addresses),
            "clsact": sorted(state.ledger.clsact),
        },
        "warnings": list(state.warnings),
    }


def _decode(data: dict[str, Any]) -> StoredState:
    if data["version"] != _VERSION:
        raise ValueError(f"version {data['version']} is not {_VERSION}")
    handles, ledger = data["handles"], data["ledger"]
    return StoredState(
        boot_id=data["boot_id"],
        network_namespace=data["network_namespace"],
        generation=data["generation"],
        text=data["text"],
        features=tuple(data["features"]),
        devices=frozenset(data["devices"]),
        handles=Handles(
            handles["classes"],
            handles["services"],
            handles["backends"],
            tuple(handles["retired"]),
        ),
        ledger=Ledger(
            dict(ledger["sysctls"]),
            frozenset((device, ip_address(text)) for device, text in ledger["addresses"]),
            frozenset(ledger["clsact"]),
        ),
        warnings=tuple(data["warnings"]),
    )
