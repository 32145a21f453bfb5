"""The linters, run as tests. pyproject.toml says which, and on what: [tool.shaper.lint]."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"][
    "shaper"
]["lint"]


def _program(name: str) -> str:
    """A tool of the virtual environment, or of the system. A missing one is a failure."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    assert found, f"{name} is not installed: run scripts/setup"
    return found


def _expanded(argument: str) -> list[str]:
    """The files that a pattern names; Python sources are for other tools than a shell linter."""
    if "*" not in argument:
        return [argument]
    files = [
        str(path.relative_to(ROOT))
        for path in sorted(ROOT.glob(argument))
        if path.is_file() and path.suffix != ".py"
    ]
    assert files, f"the pattern {argument} names no file"
    return files


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_has_nothing_to_say(tool: str) -> None:
    program, *arguments = TOOLS[tool]
    command = [_program(program), *(file for item in arguments for file in _expanded(item))]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(TOOLS[tool])}\n{result.stdout}{result.stderr}"
