"""Tries to apply broken files in one network namespace, and reports what is not as it must be.

Run as a program in the namespace of a gateway: `broken_files.py INSTANCE GOOD_FILE`. The good file
is applied first; then every broken one must be refused with exit code 2 and its exact lines, and
change nothing. Prints one JSON object.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

from shaper.__main__ import main
from tests.netns import snapshot
from tests.unit import test_config_checks as checks
from tests.unit import test_config_unsupported as unsupported
from tests.unit.config_cases import (
    INTERFACES,
    MARK,
    Case,
    backend_case,
    case,
    class_case,
    expected,
)

NAMED = [
    case("unknown key", INTERFACES.replace("bandwidth", f"{MARK}bandwith", 1),
         "unknown key 'bandwith' (did you mean 'bandwidth'?)"),
    class_case("bad rate", f"{{rate: {MARK}10mb}}",
               "'10mb' is not a rate such as 500kbit, 10mbit or 1.5gbit"),
    backend_case("no address", f"{{address: {MARK}somewhere}}",
                 "'somewhere' is not an IP address"),
]  # fmt: skip


def cases() -> list[Case]:
    return [
        *NAMED,
        *checks.INTERFACE_CASES,
        *checks.CLASS_CASES,
        *checks.SERVICE_CASES,
        *unsupported.CASES,
    ]


def shaper(*arguments: str) -> tuple[int, list[str]]:
    """Exit code and lines on standard error."""
    with contextlib.redirect_stderr(io.StringIO()) as messages:
        code = main(arguments)
    return code, messages.getvalue().splitlines()


def refuse_all(instance: str, good: Path) -> dict[str, object]:
    failures = []
    code, lines = shaper("apply", str(good), "--instance", instance)
    if code:
        failures.append(f"the good file: {lines}")
    before = snapshot.take()
    state = Path("/var/lib/shaper") / instance / "state.json"
    stored = state.read_text()
    broken = good.with_name("gw.yaml")
    for wrong in cases():
        broken.write_text(wrong.text.replace(MARK, ""))
        code, lines = shaper("apply", str(broken), "--instance", instance)
        wanted = [line.replace("gw.yaml", str(broken), 1) for line in expected(wrong)]
        if code != 2 or lines != wanted:
            failures.append(f"{wrong.name}: exit {code}, {lines} instead of {wanted}")
    if snapshot.take() != before or state.read_text() != stored:
        failures.append("something was changed")
    return {"tried": len(cases()), "failures": failures}


if __name__ == "__main__":
    print(json.dumps(refuse_all(sys.argv[1], Path(sys.argv[2]))))
