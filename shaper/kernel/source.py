"""The C sources as one text.

bcc rewrites map accesses (`flow_map.lookup(&key)`) in the main file only, so the project's own
includes are written into it, with `#line` marks to keep compiler messages at their true place.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_LOCAL_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"\s*$')


@cache
def source_folder() -> Path:
    """`bpf/`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "bpf"
    return inside if inside.is_dir() else package.parent / "bpf"


def assemble(*entries: str, folder: Path | None = None) -> str:
    """The named files of `bpf/` and all that they include, each file once."""
    root = folder or source_folder()
    seen: set[str] = set()
    lines: list[str] = []
    for entry in entries:
        _append(root, entry, seen, lines)
    return "\n".join(lines) + "\n"


def _append(root: Path, name: str, seen: set[str], lines: list[str]) -> None:
    if name in seen:
        return
    seen.add(name)
    lines.append(f'#line 1 "bpf/{name}"')
    for number, line in enumerate((root / name).read_text().splitlines(), start=1):
        include = _LOCAL_INCLUDE.match(line)
        if include:
            _append(root, include[1], seen, lines)
            lines.append(f'#line {number + 1} "bpf/{name}"')
        else:
            lines.append(line)
