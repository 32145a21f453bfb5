"""What verbs share: narration on stderr, data on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from shaper.reconcile.operations import Operation


def narrate(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, default=str))


def operations_as_json(operations: Iterable[Operation]) -> list[dict[str, str]]:
    """What scripts read: the kind of each operation, and its sentence."""
    return [
        {"operation": type(operation).__name__, "text": operation.describe()}
        for operation in operations
    ]
