"""Configuration snippets with the places of their problems marked.

`▶` stands directly before the character at which a problem must be reported; it is taken out
before the text is read. Where two or three problems share a place, one mark serves them all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from shaper.config import ConfigError, parse_config

MARK = "▶"

INTERFACES = """\
interfaces:
  wan: {device: eth0, role: client, bandwidth: 1gbit}
  lan: {device: eth1, role: backend, bandwidth: 1gbit}
"""

_SERVICE = {
    "address": "198.51.100.10",
    "port": "80",
    "backends": "{s1: {address: 203.0.113.11}}",
}


@dataclass(frozen=True)
class Case:
    """A whole file with marks, and the message (with its hint) at each mark, in their order."""

    name: str
    text: str
    messages: tuple[str, ...]


def case(name: str, text: str, *messages: str) -> Case:
    """A file from a snippet: `version` and `interfaces` are added where it has none."""
    if not re.search(r"^▶?interfaces:", text, re.MULTILINE):
        text = INTERFACES + text
    if not re.search(r"^▶?version:", text, re.MULTILINE):
        text = "version: 1\n" + text
    return Case(name, text, messages)


def service_case(name: str, lines: str, *messages: str) -> Case:
    """A file with one good service, `www`, in which the given lines replace or add keys."""
    given = [line.strip() for line in lines.strip().splitlines()]
    keys = {line.replace(MARK, "").partition(":")[0] for line in given}
    body = [f"{key}: {value}" for key, value in _SERVICE.items() if key not in keys] + given
    return case(name, "services:\n  www:\n" + "".join(f"    {line}\n" for line in body), *messages)


def backend_case(name: str, backend: str, *messages: str) -> Case:
    """A file with one service whose backend `s1` is the given mapping."""
    return service_case(name, f"backends: {{s1: {backend}}}", *messages)


def class_case(name: str, definition: str, *messages: str) -> Case:
    """A file with one class, `bulk`, which is the given mapping and the default class."""
    return case(name, f"classes:\n  bulk: {definition}\ndefault_class: bulk\n", *messages)


def parametrize(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("wrong", cases, ids=[entry.name for entry in cases])


def expected(wrong: Case) -> list[str]:
    """Every message of the case behind the place of its mark, as `gw.yaml:LINE:COLUMN: message`."""
    lines = []
    place = ""
    text = wrong.text
    for message in wrong.messages:
        before, mark, behind = text.partition(MARK)
        if mark:
            line = before.count("\n") + 1
            column = len(before) - before.rfind("\n")
            place = f"gw.yaml:{line}:{column}"
            text = before + behind
        lines.append(f"{place}: {message}")
    if MARK in text:
        raise ValueError(f"case {wrong.name!r} has more marks than messages")
    return lines


def found(wrong: Case) -> list[str]:
    """What the parser reports about the case's text."""
    with pytest.raises(ConfigError) as caught:
        parse_config(wrong.text.replace(MARK, ""), "gw.yaml")
    return list(caught.value.lines())
