"""`shaper apply FILE`: makes it so, by the agent where one runs."""

from __future__ import annotations

from pathlib import Path

from shaper.agent.engine import Engine
from shaper.agent.lock import instance_lock
from shaper.api.client import AgentClient
from shaper.cli import configuration
from shaper.cli.output import narrate
from shaper.instance import Instance


def run(instance: Instance, file: Path) -> int:
    """0 once the kernel shows what the file asks for."""
    wanted = configuration.read(file)
    client = AgentClient(instance)
    if client.running():
        rows = client.apply(wanted.text, wanted.name)
        for row in rows:
            narrate(row["text"])
        narrate(f"applied by the agent: {len(rows)} changes")
        return 0
    with instance_lock(instance):
        plan = Engine(instance).apply(
            wanted.gateway,
            None,
            wanted.text,
            on_step=lambda operation: narrate(operation.describe()),
        )
    narrate(f"applied and verified: {len(plan.operations)} changes")
    return 0
