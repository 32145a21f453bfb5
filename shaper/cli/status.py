"""`shaper status`: interfaces, services and classes with what the kernel counted."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from shaper.agent.engine import Engine
from shaper.api.client import AgentClient
from shaper.cli.output import print_json
from shaper.instance import Instance
from shaper.units import format_rate


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
    console = Console()
    agent = "agent running" if running else "no agent: health and weights stand still"
    console.print(f"instance {document['instance']}, generation {document['generation']}, {agent}")
    for warning in document["warnings"]:
        console.print(f"warning: {warning}", style="yellow")
    console.print(_interfaces(document["interfaces"]))
    for service in document["services"]:
        console.print(_service(service))
    if document["classes"]:
        console.print(_classes(document["classes"]))


def _interfaces(rows: list[dict[str, Any]]) -> Table:
    table = Table("interface", "device", "role", "xdp", "bandwidth")
    for row in rows:
        bandwidth = format_rate(row["bandwidth_bps"]) if row["bandwidth_bps"] else "-"
        table.add_row(row["name"], row["device"], row["role"], row["xdp"], bandwidth)
    return table


def _service(service: dict[str, Any]) -> Table:
    title = (
        f"{service['name']}: {service['address']} port {service['port']}/{service['protocol']}, "
        f"{service['scheduler']}, {service['forwarding']}, class {service['class']}"
    )
    table = Table("backend", "address", "state", "weight", title=title, title_justify="left")
    for heading in ("active", "new flows", "packets in", "packets out", "bytes out"):
        table.add_column(heading, justify="right")
    for row in service["backends"]:
        weight = f"{row['effective_weight']:g}/{row['weight']}"
        style = "" if row["state"] == "up" else "red"
        table.add_row(
            row["name"],
            f"{row['address']} {row['port']}",
            row["state"],
            weight,
            str(row["active_flows"]),
            str(row["new_flows_total"]),
            str(row["packets_in"]),
            str(row["packets_out"]),
            str(row["bytes_out"]),
            style=style,
        )
    return table


def _classes(rows: list[dict[str, Any]]) -> Table:
    table = Table("class", "interface", "handle", "priority", "leaf")
    for heading in ("rate", "ceil", "packets", "bytes", "drops", "backlog"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["name"],
            row["interface"],
            row["handle"],
            str(row["priority"]),
            row["leaf"],
            format_rate(row["rate_bps"]),
            format_rate(row["ceil_bps"]),
            str(row["packets"]),
            str(row["bytes"]),
            str(row["drops"]),
            str(row["backlog_bytes"]),
        )
    return table
