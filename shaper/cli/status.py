"""`shaper status`: interfaces, services and classes with what the kernel counted."""

from __future__ import annotations

import sys
from typing import Any, Final

from rich import filesize
from rich.console import Console
from rich.table import Table

from shaper.agent.engine import Engine
from shaper.api.client import AgentClient
from shaper.cli.output import print_json
from shaper.instance import Instance
from shaper.units import format_rate

_PIPE_COLUMNS: Final = 160


def run(instance: Instance, as_json: bool) -> int:
    """0 with the document on stdout; an error where nothing is applied."""
    client = AgentClient(instance)
    running = client.running()
    document = client.status() if running else Engine(instance).status().to_json()
    if as_json:
        print_json(document)
    else:
        _print(document, running)
    return 0


def _print(document: dict[str, Any], running: bool) -> None:
    """For people: within 80 columns on a terminal where names are short, else in full."""
    console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    agent = "agent running" if running else "no agent: health, weights, idle flows stand still"
    console.print(f"instance {document['instance']}, generation {document['generation']}, {agent}")
    for warning in document["warnings"]:
        console.print(f"warning: {warning}", style="yellow")
    events = {name: count for name, count in document["events"].items() if count}
    if events:
        shown = ", ".join(f"{name} {count}" for name, count in events.items())
        console.print(f"packets without a backend: {shown}", style="yellow")
    console.print(_interfaces(document["interfaces"]))
    for service in document["services"]:
        console.print()
        console.print(_service(service))
    if document["classes"]:
        console.print()
        console.print(_classes(document["classes"]))


def _table(left: tuple[str, ...], right: tuple[str, ...], title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1))
    for heading in left:
        table.add_column(heading, no_wrap=True)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _interfaces(rows: list[dict[str, Any]]) -> Table:
    table = _table(("interface", "device", "role", "xdp"), ("bandwidth",))
    for row in rows:
        bandwidth = format_rate(row["bandwidth_bps"]) if row["bandwidth_bps"] else "-"
        table.add_row(row["name"], row["device"], row["role"], row["xdp"], bandwidth)
    return table


def _service(service: dict[str, Any]) -> Table:
    title = (
        f"{service['name']}: {service['address']} port {service['port']}/{service['protocol']}, "
        f"{service['scheduler']}, {service['forwarding']}, class {service['class']}"
    )
    table = _table(
        ("backend", "address", "state"), ("weight", "active", "flows", "in", "out"), title
    )
    for row in service["backends"]:
        table.add_row(
            row["name"],
            f"{row['address']} {row['port']}",
            row["state"],
            f"{row['effective_weight']:g}/{row['weight']}",
            str(row["active_flows"]),
            str(row["new_flows_total"]),
            _size(row["bytes_in"]),
            _size(row["bytes_out"]),
            style="" if row["state"] == "up" else "red",
        )
    return table


def _classes(rows: list[dict[str, Any]]) -> Table:
    table = _table(
        ("class", "on", "handle", "leaf"), ("prio", "rate", "ceil", "sent", "drops", "backlog")
    )
    for row in rows:
        table.add_row(
            row["name"],
            row["interface"],
            row["handle"],
            row["leaf"],
            str(row["priority"]),
            format_rate(row["rate_bps"]),
            format_rate(row["ceil_bps"]),
            _size(row["bytes"]),
            str(row["drops"]),
            _size(row["backlog_bytes"]),
        )
    return table


def _size(count: int) -> str:
    """Bytes, decimal: 999 -> 999 B, 1,234,567 -> 1.2 MB."""
    return filesize.decimal(count).replace("bytes", "B")
