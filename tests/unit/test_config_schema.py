"""The JSON Schema for editors is the one of the models, and the models are complete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from shaper.config.jsonschema import SCHEMA_FILE, json_schema, rendered


def test_schema_file_is_current() -> None:
    assert SCHEMA_FILE.read_text() == rendered(), "run: python -m shaper.config.jsonschema"


def test_schema_file_is_json() -> None:
    assert json.loads(SCHEMA_FILE.read_text())["required"] == ["version", "interfaces"]


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from _objects(value)


def test_schema_describes_every_key() -> None:
    for definition in [json_schema(), *json_schema()["$defs"].values()]:
        for key, value in definition["properties"].items():
            assert value.get("description"), key


def test_schema_allows_no_unknown_keys_and_no_null() -> None:
    objects = list(_objects(json_schema()))
    assert all(entry["additionalProperties"] is False for entry in objects if "properties" in entry)
    assert not any(entry.get("type") == "null" for entry in objects)


def test_schema_offers_both_spellings_of_leaf_and_port() -> None:
    definitions = json_schema()["$defs"]
    leaf = definitions["ClassSpec"]["properties"]["leaf"]["anyOf"]
    assert [choice.get("type", "object") for choice in leaf] == ["string", "object"]
    port = definitions["ServiceSpec"]["properties"]["port"]["anyOf"]
    assert [choice["type"] for choice in port] == [["integer", "string"], "array"]
