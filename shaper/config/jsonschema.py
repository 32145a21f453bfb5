"""Writes `schema.json`, the JSON Schema of the file for editors, from the models.

    python -m shaper.config.jsonschema

Say `# yaml-language-server: $schema=PATH` in the first line of a file to use it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from shaper.config.schema import GatewaySpec

SCHEMA_FILE: Final = Path(__file__).with_name("schema.json")
_NULL: Final = {"type": "null"}


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the whole file."""
    schema = _without_null(GatewaySpec.model_json_schema())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "shaper configuration",
    }


def _without_null(node: Any) -> Any:
    """pydantic describes a key that may be missing as nullable; in the file, null is refused."""
    if isinstance(node, list):
        return [_without_null(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    result = {
        key: _without_null(value)
        for key, value in node.items()
        if not (key == "default" and value is None)
        and not (key == "title" and isinstance(value, str))
    }
    choices = [choice for choice in result.get("anyOf", []) if choice != _NULL]
    if len(choices) == 1 and "anyOf" in result:
        del result["anyOf"]
        return choices[0] | result
    return result | ({"anyOf": choices} if "anyOf" in result else {})


def rendered() -> str:
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(rendered())
