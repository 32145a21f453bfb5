"""Compiling on a thread, as the agent does: its heap lies above 4 GiB, the main thread's below.

In a process of its own, because an address that was cut to 32 bits ends in a segmentation fault.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shaper.kernel.compile import PROGRAMS

_COMPILE_ON_A_THREAD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shaper.kernel.compile import compile_object

def compile_one():
    return compile_object(("WITH_ROUND_ROBIN",), cache=Path(sys.argv[1]))

with ThreadPoolExecutor(max_workers=1) as executor:
    print(*executor.submit(compile_one).result().programs)
"""


@pytest.mark.bpf
def test_compile_works_on_a_thread(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", _COMPILE_ON_A_THREAD, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.split()) == set(PROGRAMS)
