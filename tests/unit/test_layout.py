"""Rules about the tree itself: sizes, licences, what the package imports and a wheel carries."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("shaper", "bpf", "tests", "scripts", "examples", "docs", "vagrant", ".ci")
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
SPDX = "SPDX-License-Identifier: GPL-2.0-or-later"


def _files(*folders: str) -> list[Path]:
    """Text files of the project; caches and generated data are not among them."""
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".json"
    )


def _python_files() -> list[Path]:
    return [path for path in _files("shaper", "tests", "scripts") if path.suffix == ".py"]


def _c_files() -> list[Path]:
    return [path for path in _files("bpf") if path.suffix in (".c", ".h")]


def _place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def _long_python_functions(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield f"{_place(path, node.lineno)}: {node.name} has {lines} lines"


def _long_c_functions(path: Path) -> Iterator[str]:
    """In kernel style a function, and nothing else, has its braces alone in the first column."""
    start = 0
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if line == "{":
            start = number
        elif line == "}" and start:
            if number - start - 1 > MAX_FUNCTION_LINES:
                yield f"{_place(path, start)}: a function of {number - start - 1} lines"
            start = 0


def test_files_have_one_screenful_of_subject() -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in _files(*FOLDERS)}
    assert [_place(path, size) for path, size in sizes.items() if size > MAX_FILE_LINES] == []


def test_functions_fit_on_a_screen() -> None:
    assert [long for path in _python_files() for long in _long_python_functions(path)] == []
    assert [long for path in _c_files() for long in _long_c_functions(path)] == []


def test_c_files_name_their_licence() -> None:
    files = _c_files()
    assert files
    assert [path for path in files if SPDX not in path.read_text().splitlines()[0]] == []


def test_modules_say_what_they_hold() -> None:
    silent = [
        path for path in _python_files() if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_scripts_are_executable_and_name_their_interpreter() -> None:
    scripts = [path for path in _files("scripts", ".ci", "vagrant") if not path.suffix]
    scripts = [path for path in scripts if path.name != "Vagrantfile"]
    assert {"setup", "test", "run"} <= {path.name for path in scripts}
    assert [path for path in scripts if not os.access(path, os.X_OK)] == []
    assert [path for path in scripts if not path.read_text().startswith("#!/")] == []


def test_nothing_is_left_for_later() -> None:
    markers = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b|^(<{7}|>{7}) ", re.MULTILINE)
    assert [path for path in _files(*FOLDERS) if markers.search(path.read_text())] == []


def test_no_file_knows_where_it_was_written() -> None:
    here = re.compile(rf"{re.escape(str(ROOT))}\b|/(root|home/\w+)/")
    assert [path for path in _files(*FOLDERS) if here.search(path.read_text())] == []


def test_package_imports_nothing() -> None:
    code = "import sys; had = set(sys.modules); import shaper; print(*(set(sys.modules) - had))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["shaper"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), "."]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_carries_everything_the_package_reads(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {str(path.relative_to(ROOT)) for path in _files("shaper") if path.suffix == ".py"}
    sources = {f"shaper/{path.relative_to(ROOT)}" for path in _c_files()}
    wanted = code | sources | {"shaper/config/schema.json"}
    assert wanted - names == set()
    assert [name for name in names if name.startswith(("tests", "scripts"))] == []


def test_wheel_finds_its_own_c_files(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "from shaper.kernel.source import source_folder; print(source_folder())"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(result.stdout.strip()) == tmp_path / "shaper" / "bpf"
