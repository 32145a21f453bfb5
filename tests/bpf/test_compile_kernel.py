"""The real compiler, as the agent runs it: from a thread of a process that does other things."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shaper.errors import KernelError
from shaper.kernel.compile import PROGRAMS, compile_object, stored_object

pytestmark = pytest.mark.bpf

_COMPILE_BESIDE_A_WRITER = """
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shaper.kernel.compile import compile_object

def compile_one():
    return compile_object(("WITH_ROUND_ROBIN",), cache=Path(sys.argv[1]))

written = 0
with ThreadPoolExecutor(max_workers=1) as executor:
    compiling = executor.submit(compile_one)
    while not compiling.done():
        written += os.write(2, b".")
        time.sleep(0.005)
print(written, *compiling.result().programs)
"""


def test_what_the_process_writes_meanwhile_goes_where_it_should(tmp_path: Path) -> None:
    """clang owns descriptor 2 while it compiles, and it is not the caller's."""
    result = subprocess.run(
        [sys.executable, "-c", _COMPILE_BESIDE_A_WRITER, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    written, *programs = result.stdout.split()
    assert set(programs) == set(PROGRAMS)
    assert result.stderr == "." * int(written)


def test_messages_of_any_length_are_part_of_the_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """More than a pipe holds."""
    notes = "".join(f'#pragma message("note {number}")\n' for number in range(2000))
    (tmp_path / "wrong.c").write_text(f"{notes}#error this is the reason\n")
    with pytest.raises(KernelError, match="bcc cannot compile the programs") as refused:
        compile_object(
            (), sources=("wrong.c",), programs=(), folder=tmp_path, cache=tmp_path / "cache"
        )
    assert "bpf/wrong.c:2001:2: error: this is the reason" in refused.value.hint
    assert len(refused.value.hint) > 1 << 16
    assert capfd.readouterr() == ("", "")


def test_compiling_leaves_nothing_open_and_the_object_in_the_cache(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    environment = dict(os.environ)
    compiled = compile_object(("WITH_SOURCE_HASH",), cache=tmp_path)
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert os.environ == environment
    assert stored_object(compiled.digest, cache=tmp_path) == compiled
