"""Everything of a network namespace that shaper may touch, as comparable text."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

_VOLATILE = {
    "ifindex",
    "valid_life_time",
    "preferred_life_time",
    "stats",
    "stats64",
    "bytes",
    "packets",
    "drops",
    "overlimits",
    "requeues",
    "backlog",
    "qlen",
    "operstate",
}


def take() -> dict[str, Any]:
    """The namespace of the calling process: links with XDP, addresses, queues, filters, sysctls."""
    devices = [link["ifname"] for link in _json("ip", "-details", "-json", "link", "show")]
    return {
        "addresses": _steady(_json("ip", "-details", "-json", "address", "show")),
        "qdiscs": _steady(_json("tc", "-json", "qdisc", "show")),
        "classes": _batch("tc", [f"class show dev {name}" for name in devices]),
        "filters": _batch(
            "tc",
            [
                f"filter show dev {name} {side}"
                for name in devices
                for side in ("ingress", "egress")
            ],
        ),
        "routes": _text("ip", "route", "show", "table", "all")
        + _text("ip", "-6", "route", "show", "table", "all"),
        "sysctls": _sysctls(),
    }


def _sysctls() -> dict[str, str]:
    values = {}
    for family in ("ipv4", "ipv6"):
        for path in Path(f"/proc/sys/net/{family}").rglob("*"):
            if path.is_file() and not path.name.startswith(("stable_secret", "flush")):
                try:
                    values[str(path)] = path.read_text()
                except OSError:
                    continue
    return values


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(item) for key, item in value.items() if key not in _VOLATILE}
    if isinstance(value, list):
        return [_steady(item) for item in value]
    return value


def _json(*command: str) -> Any:
    return json.loads(_text(*command) or "[]")


def _text(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _batch(program: str, commands: list[str]) -> str:
    """One process for all: a snapshot is taken often."""
    return subprocess.run(
        [program, "-force", "-batch", "-"],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        check=False,
    ).stdout
