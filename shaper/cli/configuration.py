"""Reads the file that a verb was given: once, so that what is checked is what is applied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shaper.cli.output import narrate
from shaper.config import parse_with_warnings, read_text
from shaper.model import Gateway


@dataclass(frozen=True, slots=True)
class Configuration:
    """A good file. `name` is how its messages call it."""

    name: str
    text: str
    gateway: Gateway


def read(file: Path) -> Configuration:
    """The file's gateway; warnings go to stderr. Raises ConfigError with every problem."""
    text = read_text(file)
    loaded = parse_with_warnings(text, str(file))
    for warning in loaded.warnings:
        narrate(f"warning: {warning.render(str(file))}")
    return Configuration(str(file), text, loaded.gateway)
