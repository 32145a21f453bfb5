"""The instance's state file: what must outlive a process, and a kill at any point.

Written as a whole, synced, and renamed into place before the change that it describes is made.
After a reboot the kernel state is gone and the ledger says nothing; numbers and text stay valid.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from shaper.agent.namespaces import NetworkNamespace, network_namespace
from shaper.errors import ShaperError
from shaper.instance import Instance
from shaper.reconcile.handles import Handles
from shaper.reconcile.plan import Ledger

_VERSION: Final = 1
_FILE: Final = "state.json"
_DAMAGE: Final = (ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True)
class StoredState:
    """Contents of the state file.

    `network_namespace`: the one that was changed. `text`: the configuration as last applied with
    success; `settled` is false while another one is on its way. `digest`: of the object that is
    loaded. `devices`: name -> index of every device that may hold something of ours.
    """

    boot_id: str
    network_namespace: NetworkNamespace
    generation: int = 0
    text: str | None = None
    settled: bool = True
    features: tuple[str, ...] = ()
    digest: str = ""
    devices: Mapping[str, int] = field(default_factory=dict)
    handles: Handles = field(default_factory=Handles)
    ledger: Ledger = field(default_factory=Ledger)
    warnings: tuple[str, ...] = ()


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Store:
    """Reads and writes `state.json` of one instance."""

    def __init__(self, instance: Instance) -> None:
        self._path = instance.state / _FILE

    def neighbours(self) -> Iterator[tuple[str, StoredState]]:
        """The other instances of this host that have been applied since the boot. One whose file
        cannot be read is left out."""
        for path in sorted(self._path.parent.parent.glob(f"*/{_FILE}")):
            if path == self._path:
                continue
            try:
                state = _decode(json.loads(path.read_text()))
            except (OSError, *_DAMAGE):
                continue
            if state.boot_id == boot_id() and state.devices:
                yield path.parent.name, state

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
        except _DAMAGE as error:
            raise ShaperError(
                f"the state file {self._path} is damaged: {error}",
                "move it away; `shaper down` then removes queues, programs and pins, but addresses "
                "and sysctls have to be put back by hand",
            ) from error
        if state.boot_id != boot_id():
            return replace(
                state,
                boot_id=boot_id(),
                network_namespace=network_namespace(),
                ledger=Ledger(),
                devices={},
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
        "network_namespace": asdict(state.network_namespace),
        "generation": state.generation,
        "text": state.text,
        "settled": state.settled,
        "features": list(state.features),
        "digest": state.digest,
        "devices": dict(state.devices),
        "handles": {
            "classes": dict(state.handles.classes),
            "services": dict(state.handles.services),
            "backends": dict(state.handles.backends),
            "retired": list(state.handles.retired),
            "retired_services": list(state.handles.retired_services),
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
        network_namespace=NetworkNamespace(**data["network_namespace"]),
        generation=data["generation"],
        text=data["text"],
        settled=data["settled"],
        features=tuple(data["features"]),
        digest=data["digest"],
        devices=dict(data["devices"]),
        handles=Handles(
            handles["classes"],
            handles["services"],
            handles["backends"],
            tuple(handles["retired"]),
            tuple(handles["retired_services"]),
        ),
        ledger=Ledger(
            dict(ledger["sysctls"]),
            frozenset((device, ip_address(text)) for device, text in ledger["addresses"]),
            frozenset(ledger["clsact"]),
        ),
        warnings=tuple(data["warnings"]),
    )
