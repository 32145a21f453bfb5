"""Exit codes and messages of the command line, without a kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shaper.__main__ import VERBS, main

GOOD = """\
version: 1
interfaces:
  wan: {device: eth0, role: client}
"""


def test_check_of_a_good_file_is_0_and_prints_no_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    assert main(["check", str(file)]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "good" in captured.err


def test_check_of_a_broken_file_is_2_with_every_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(GOOD.replace("role", "rolle").replace("version: 1", "version: 9"))
    assert main(["check", str(file)]) == 2
    places = [line.split(": ")[0] for line in capsys.readouterr().err.splitlines()]
    assert f"{file}:1:10" in places
    assert f"{file}:3:23" in places


def test_a_missing_file_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none.yaml")]) == 2
    assert "cannot read the file" in capsys.readouterr().err


def test_a_bad_instance_name_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--instance", "../x", "status"]) == 2
    assert "not an instance name" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_instance_may_stand_on_either_side_of_the_verb(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--instance", "NO", "status"] if place == "before" else ["status", "--instance", "NO"]
    assert main(words) == 2
    assert "'NO'" in capsys.readouterr().err


def test_without_permission_there_is_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Path) -> int:
        raise PermissionError(13, "Permission denied", "/run/shaper")

    monkeypatch.setattr("shaper.cli.check.run", refuse)
    assert main(["check", "x"]) == 1
    assert capsys.readouterr().err == "/run/shaper: Permission denied\nhint: run it as root\n"


def test_help_names_every_verb_and_loads_no_kernel_library() -> None:
    code = (
        "import sys; from shaper.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('bcc', 'pyroute2', 'pydantic', 'rich') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.endswith("[]\n")
    for verb in VERBS:
        assert f"    {verb.name}" in result.stdout
