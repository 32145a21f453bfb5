"""`shaper down`: removes all that the instance made, and nothing else."""

from __future__ import annotations

from shaper.agent.engine import Engine
from shaper.agent.lock import instance_lock
from shaper.cli.output import narrate
from shaper.instance import Instance


def run(instance: Instance) -> int:
    """0 when nothing of the instance is left. Refused while its agent runs."""
    with instance_lock(instance):
        plan = Engine(instance).down(on_step=lambda operation: narrate(operation.describe()))
        instance.lock.unlink(missing_ok=True)
    narrate(f"removed: {len(plan.operations)} steps" if plan else "there was nothing to remove")
    return 0
