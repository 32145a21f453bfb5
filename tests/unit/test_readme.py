"""The README's first configuration is the example that is shipped, and it is good."""

from __future__ import annotations

import re
from pathlib import Path

from shaper.config import parse_with_warnings


def test_readme_shows_the_first_example(project_root: Path) -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", (project_root / "README.md").read_text(), re.DOTALL)
    comment, shipped = (project_root / "examples/first.yaml").read_text().split("\n", 1)
    assert comment.startswith("#")
    assert shown == shipped
    assert parse_with_warnings(shown).warnings == ()


def test_readme_links_lead_somewhere(project_root: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (project_root / "README.md").read_text())
    assert links
    assert [link for link in links if not (project_root / link).exists()] == []
