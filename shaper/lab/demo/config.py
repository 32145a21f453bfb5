"""The configuration file of the demo."""

from __future__ import annotations

from typing import Final

from shaper.lab.demo.settings import Settings
from shaper.lab.network import Lab
from shaper.lab.plan import LAN_DEVICE, WAN_DEVICE, virtual_address
from shaper.lab.servers import HTTP_PORT, IPERF_PORT

WEIGHTS: Final = {"s1": 1, "s2": 2, "s3": 3, "s4": 4}
EQUAL: Final = dict.fromkeys(WEIGHTS, 1)

WEIGHTED: Final = virtual_address(10)
WEIGHTED6: Final = virtual_address(10, ipv6=True)
HASHED: Final = virtual_address(11)
LEAST: Final = virtual_address(12)
CHECKED: Final = virtual_address(13)

HTTP_SERVICE_PORT: Final = 80

STREAMS: Final = {"small": "s1", "large": "s2", "urgent": "s3", "patient": "s4"}
"""Class -> the backend whose iperf3 fills it, by a service of the same name."""

STREAM_ADDRESSES: Final = {
    name: virtual_address(20 + number) for number, name in enumerate(STREAMS, start=1)
}

_HEAD: Final = """\
version: 1

interfaces:
  wan: {{device: {wan}, role: client, bandwidth: {link}mbit}}
  lan: {{device: {lan}, role: backend, bandwidth: {link}mbit}}

classes:
  small:   {{rate: {small}mbit, ceil: {small}mbit, priority: 2{leaf}}}
  large:   {{rate: {large}mbit, ceil: {large}mbit, priority: 2{leaf}}}
  urgent:  {{rate: {urgent}mbit, ceil: {link}mbit, priority: 0{leaf}}}
  patient: {{rate: {patient}mbit, ceil: {link}mbit, priority: 5{leaf}}}
  rest:    {{rate: {rest}mbit, ceil: {link}mbit, priority: 6{leaf}}}
default_class: rest

services:
"""

_SERVICE: Final = """\
  {name}:
    address: {address}
    port: {port}
    protocol: tcp
    scheduler: {scheduler}
{class_line}    backends:
{backends}
{health}"""


def demo_config(lab: Lab, settings: Settings) -> str:
    unit = settings.unit_mbit
    leaf = "" if settings.leaf == "auto" else f", leaf: {{kind: {settings.leaf}}}"
    text = _HEAD.format(
        wan=WAN_DEVICE,
        lan=LAN_DEVICE,
        link=settings.link_mbit,
        small=unit,
        large=5 * unit,
        urgent=unit,
        patient=2 * unit,
        rest=unit,
        leaf=leaf,
    )
    health = (
        f"    health: {{type: http, path: /healthz, interval: {settings.interval_ms}ms,"
        f" timeout: {settings.interval_ms}ms, rise: {settings.rise}, fall: {settings.fall}}}\n"
    )
    text += _web(lab, "weighted", WEIGHTED, "round-robin", WEIGHTS)
    text += _web(lab, "weighted6", WEIGHTED6, "round-robin", WEIGHTS)
    text += _web(lab, "hashed", HASHED, "maglev", WEIGHTS)
    text += _web(lab, "least", LEAST, "least-connections", WEIGHTS)
    text += _web(lab, "checked", CHECKED, "round-robin", EQUAL, health=health)
    for name, backend in STREAMS.items():
        text += _stream(lab, name, backend)
    return text


def _web(
    lab: Lab,
    name: str,
    address: object,
    scheduler: str,
    weights: dict[str, int],
    *,
    health: str = "",
) -> str:
    ipv6 = ":" in str(address)
    lines = []
    for backend, weight in weights.items():
        host = lab.backend(backend)
        real = host.address6 if ipv6 else host.address
        quoted = f'"{real}"' if ipv6 else real
        lines.append(f"      {backend}: {{address: {quoted}, port: {HTTP_PORT}, weight: {weight}}}")
    return _SERVICE.format(
        name=name,
        address=f'"{address}"' if ipv6 else address,
        port=HTTP_SERVICE_PORT,
        scheduler=scheduler,
        class_line="",
        backends="\n".join(lines),
        health=health,
    )


def _stream(lab: Lab, name: str, backend: str) -> str:
    address = lab.backend(backend).address
    return _SERVICE.format(
        name=name,
        address=STREAM_ADDRESSES[name],
        port=IPERF_PORT,
        scheduler="round-robin",
        class_line=f"    class: {name}\n",
        backends=f"      {backend}: {{address: {address}, port: {IPERF_PORT}}}",
        health="",
    )
