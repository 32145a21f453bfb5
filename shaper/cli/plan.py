"""`shaper plan FILE`: what `apply` would change."""

from __future__ import annotations

from pathlib import Path

from shaper.agent.engine import Engine
from shaper.api.client import AgentClient
from shaper.cli import configuration
from shaper.cli.output import narrate, operations_as_json, print_json
from shaper.instance import Instance

EXIT_CHANGES = 3


def run(instance: Instance, file: Path, as_json: bool, exit_code: bool) -> int:
    """0, or 3 with `exit_code` where there is something to change."""
    wanted = configuration.read(file)
    client = AgentClient(instance)
    if client.running():
        rows = client.plan(wanted.text, wanted.name)
    else:
        rows = operations_as_json(Engine(instance).plan(wanted.gateway).operations)
    if as_json:
        print_json({"instance": instance.name, "operations": rows})
    else:
        for row in rows:
            print(row["text"])
        narrate(f"{len(rows)} changes" if rows else "no changes")
    return EXIT_CHANGES if exit_code and rows else 0
