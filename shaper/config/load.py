"""From text or a file to the `Gateway`, or to every problem of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shaper.config.build import build
from shaper.config.checks import cross_check, warn
from shaper.config.draft import Draft
from shaper.config.problems import ConfigError, Position, Problem
from shaper.config.reader import FileError, read_document
from shaper.config.unsupported import not_supported
from shaper.config.validate import validate
from shaper.model import Gateway

MAX_BYTES: Final = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Loaded:
    """A gateway, and what in its file is allowed but probably not meant (sorted by place)."""

    gateway: Gateway
    warnings: tuple[Problem, ...]


def parse_config(text: str, name: str = "<config>") -> Gateway:
    """The gateway that a configuration describes; `name` is the file's, for messages.

    Raises:
        ConfigError: with every problem of the text.
    """
    return parse_with_warnings(text, name).gateway


def load_config(path: Path) -> Gateway:
    """`parse_config` of a file.

    Raises:
        ConfigError: also for a file that cannot be read.
    """
    return parse_config(read_text(path), str(path))


def parse_with_warnings(text: str, name: str = "<config>") -> Loaded:
    """`parse_config` that also returns the warnings."""
    try:
        document = read_document(text)
    except FileError as error:
        raise ConfigError(name, [error.problem]) from None
    validated = validate(document)
    problems = [*document.problems, *validated.problems]
    if validated.spec is None:
        raise ConfigError(name, problems)
    draft = Draft(validated.spec, document, validated.broken)
    problems += [*cross_check(draft), *not_supported(draft)]
    if problems:
        raise ConfigError(name, problems)
    return Loaded(build(draft), tuple(sorted(warn(draft))))


def read_text(path: Path) -> str:
    """The text of a configuration file.

    Raises:
        ConfigError: it cannot be opened, is too large or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        message = f"cannot read the file: {error.strerror or error}"
        raise ConfigError(str(path), [Problem(1, 1, message)]) from None
    if len(content) > MAX_BYTES:
        message = f"the file is larger than {MAX_BYTES // 2**20} MiB"
        raise ConfigError(str(path), [Problem(1, 1, message)])
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        position = Position.after(content[: error.start].decode())
        message = f"byte 0x{content[error.start]:02x} is not UTF-8"
        raise ConfigError(str(path), [Problem.at(position, message)]) from None
