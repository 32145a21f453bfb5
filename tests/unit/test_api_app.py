"""The API's routes and errors, through the application without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from shaper.agent.events import Event, EventKind, EventLog
from shaper.api.app import create_app
from shaper.config import ConfigError, Problem
from shaper.errors import KernelError
from shaper.reconcile.operations import Operation
from shaper.status import Status
from tests.agent_fakes import FakeOperation, make_status


class FakeAgent:
    """Answers like an agent; `error` is raised by everything that can fail."""

    def __init__(self) -> None:
        self.log = EventLog(clock=lambda: 100.0)
        self.trouble: dict[str, str] = {}
        self.error: Exception | None = None
        self.received: list[tuple[str, str, str]] = []

    async def status(self) -> Status:
        self._fail()
        return make_status()

    async def plan(self, text: str, name: str) -> tuple[Operation, ...]:
        return self._change("plan", text, name)

    async def apply(self, text: str, name: str) -> tuple[Operation, ...]:
        return self._change("apply", text, name)

    def events_since(self, number: int) -> tuple[Event, ...]:
        return self.log.since(number)

    def failing(self) -> Mapping[str, str]:
        return self.trouble

    def _change(self, verb: str, text: str, name: str) -> tuple[Operation, ...]:
        self._fail()
        self.received.append((verb, text, name))
        return (FakeOperation("wan0: add class 5348:10"),)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


def _call(agent: FakeAgent, method: str, path: str, **options: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(agent))
        async with httpx.AsyncClient(transport=transport, base_url="http://shaper") as client:
            return await client.request(method, path, **options)

    return asyncio.run(run())


def test_server_status_is_the_status_document(agent: FakeAgent) -> None:
    response = _call(agent, "GET", "/api/server-status")
    assert response.status_code == 200
    document = response.json()
    assert document == {
        **make_status().to_json(),
        "warnings": ["no fq_codel"],
        "interfaces": document["interfaces"],
        "services": document["services"],
        "classes": document["classes"],
        "allocations": [],
    }
    service = document["services"][0]
    assert service["class"] == "web"
    assert "class_" not in service
    assert service["port"] == [80, 443]
    assert service["backends"][0]["latency_us"] == {"ewma": 1, "p50": 2, "p99": 3}
    assert document["interfaces"][0]["bandwidth_bps"] is None


@pytest.mark.parametrize("verb", ["plan", "apply"])
def test_changes_answer_with_operations(agent: FakeAgent, verb: str) -> None:
    response = _call(agent, "POST", f"/api/{verb}", json={"text": "version: 1", "name": "gw.yaml"})
    assert response.status_code == 200
    row = {"operation": "FakeOperation", "text": "wan0: add class 5348:10"}
    assert response.json() == {"operations": [row]}
    assert agent.received == [(verb, "version: 1", "gw.yaml")]


@pytest.mark.parametrize("verb", ["plan", "apply"])
def test_a_bad_configuration_answers_with_all_problems(agent: FakeAgent, verb: str) -> None:
    agent.error = ConfigError(
        "gw.yaml", [Problem(3, 7, "bad rate", "try 10mbit"), Problem(9, 1, "x")]
    )
    response = _call(agent, "POST", f"/api/{verb}", json={"text": "?", "name": "gw.yaml"})
    assert response.status_code == 422
    assert response.json() == {
        "message": "gw.yaml:3:7: bad rate (try 10mbit)\ngw.yaml:9:1: x",
        "hint": "",
        "problems": [
            {"line": 3, "column": 7, "message": "bad rate", "hint": "try 10mbit"},
            {"line": 9, "column": 1, "message": "x", "hint": ""},
        ],
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/server-status"), ("POST", "/api/plan"), ("POST", "/api/apply")],
)
def test_a_refusing_kernel_answers_with_message_and_hint(
    agent: FakeAgent, method: str, path: str
) -> None:
    agent.error = KernelError("eth1 is gone", "plug it in")
    response = _call(agent, method, path, json={"text": "version: 1"})
    assert response.status_code == 500
    assert response.json() == {"message": "eth1 is gone", "hint": "plug it in", "problems": []}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "body.text: Field required"),
        ({"text": 5}, "body.text: Input should be a valid string"),
        ({"text": "", "nmae": "x"}, "body.nmae: Extra inputs are not permitted"),
    ],
)
def test_a_bad_request_says_what_is_wrong(
    agent: FakeAgent, body: dict[str, Any], message: str
) -> None:
    response = _call(agent, "POST", "/api/apply", json=body)
    assert response.status_code == 422
    assert response.json() == {"message": message, "hint": "", "problems": []}
    assert agent.received == []


def test_events_come_oldest_first_and_since_a_number(agent: FakeAgent) -> None:
    agent.log.add(EventKind.HEALTH, "www/s1 is down")
    agent.log.add(EventKind.HEALTH, "www/s1 is up")
    first = {"number": 1, "time_s": 100.0, "kind": "health", "message": "www/s1 is down"}
    second = {"number": 2, "time_s": 100.0, "kind": "health", "message": "www/s1 is up"}
    assert _call(agent, "GET", "/api/events").json() == {"events": [first, second]}
    assert _call(agent, "GET", "/api/events?since=1").json() == {"events": [second]}
    assert _call(agent, "GET", "/api/events?since=-1").status_code == 422


def test_healthz_tells_what_fails(agent: FakeAgent) -> None:
    response = _call(agent, "GET", "/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "failing": {}})
    agent.trouble = {"steering": "the tables are gone"}
    response = _call(agent, "GET", "/healthz")
    assert response.status_code == 503
    assert response.json() == {"status": "failing", "failing": agent.trouble}


def test_what_is_not_built_is_absent(agent: FakeAgent) -> None:
    assert _call(agent, "POST", "/api/allocate-traffic", json={}).status_code == 404


def test_openapi_describes_every_route_and_the_status_document(agent: FakeAgent) -> None:
    description = _call(agent, "GET", "/openapi.json").json()
    assert set(description["paths"]) == {
        "/api/server-status",
        "/api/events",
        "/api/plan",
        "/api/apply",
        "/healthz",
    }
    schemas = description["components"]["schemas"]
    document = make_status().to_json()
    for schema, example in (
        ("Status", document),
        ("ServiceStatus", document["services"][0]),
        ("BackendStatus", document["services"][0]["backends"][0]),
        ("ClassStatus", document["classes"][0]),
    ):
        assert set(schemas[schema]["properties"]) == set(example)
    assert _dangling(description) == set()


def _dangling(description: dict[str, Any]) -> set[str]:
    """References to schemas that are not there."""

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*(references(value) for value in node.values()))
        if isinstance(node, list):
            return set().union(*(references(value) for value in node))
        return set()

    known = {f"#/components/schemas/{name}" for name in description["components"]["schemas"]}
    return references(description) - known
