"""Configuration files for labs, made from data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from shaper.lab.network import Lab
from shaper.lab.plan import LAN_DEVICE, WAN_DEVICE, virtual_address
from shaper.lab.servers import HTTP_PORT, IPERF_PORT


def gateway_config(
    services: Mapping[str, Mapping[str, Any]],
    *,
    bandwidth: str | None = None,
    classes: Mapping[str, Mapping[str, Any]] | None = None,
    default_class: str | None = None,
) -> str:
    """A whole file for a lab's gateway. `bandwidth` is that of both interfaces."""
    shaped = {"bandwidth": bandwidth} if bandwidth else {}
    document: dict[str, Any] = {
        "version": 1,
        "interfaces": {
            "wan": {"device": WAN_DEVICE, "role": "client", **shaped},
            "lan": {"device": LAN_DEVICE, "role": "backend", **shaped},
        },
        "services": {name: dict(service) for name, service in services.items()},
    }
    if classes:
        document["classes"] = {name: dict(entry) for name, entry in classes.items()}
        document["default_class"] = default_class
    return yaml.safe_dump(document, sort_keys=False)


def service(
    lab: Lab,
    number: int,
    scheduler: str,
    weights: Mapping[str, int],
    *,
    port: int = 80,
    backend_port: int = HTTP_PORT,
    ipv6: bool = False,
    **more: object,
) -> dict[str, Any]:
    """A service at `virtual_address(number)`; `weights` name its backends."""
    return {
        "address": str(virtual_address(number, ipv6=ipv6)),
        "port": port,
        "protocol": "tcp",
        "scheduler": scheduler,
        "backends": {
            name: {
                "address": lab.backend(name).address6 if ipv6 else lab.backend(name).address,
                "port": backend_port,
                "weight": weight,
            }
            for name, weight in weights.items()
        },
        **more,
    }


def stream(
    lab: Lab, number: int, backend: str, class_name: str | None = None, *, ipv6: bool = False
) -> dict[str, Any]:
    """A service with the iperf3 of one backend behind it. No class: the default class."""
    chosen = {"class": class_name} if class_name else {}
    port = IPERF_PORT
    return service(
        lab, number, "round-robin", {backend: 1}, port=port, backend_port=port, ipv6=ipv6, **chosen
    )
