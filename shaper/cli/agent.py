"""`shaper agent FILE`: applies it, then steers the data plane until it is stopped."""

from __future__ import annotations

from pathlib import Path

from shaper.agent.loop import run_agent
from shaper.instance import Instance


def run(instance: Instance, file: Path) -> int:
    """0 after SIGTERM or SIGINT. Raises ShaperError where it could not start."""
    return run_agent(instance, file)
