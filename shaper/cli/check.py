"""`shaper check FILE`: every problem of a file, each with its place."""

from __future__ import annotations

from pathlib import Path

from shaper.cli import configuration
from shaper.cli.output import narrate


def run(file: Path) -> int:
    """0 for a good file. Raises ConfigError with all problems."""
    gateway = configuration.read(file).gateway
    narrate(
        f"{file}: good ({len(gateway.interfaces)} interfaces, {len(gateway.classes)} classes, "
        f"{len(gateway.services)} services)"
    )
    return 0
