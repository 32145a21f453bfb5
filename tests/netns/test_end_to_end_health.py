"""The real agent under load: a backend dies and comes back, the file changes, the agent ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from shaper.lab.gateway import Agent
from shaper.lab.network import Lab
from shaper.lab.plan import virtual_address
from shaper.lab.traffic import RunningLoad, start_load
from tests.netns.configs import gateway_config, service
from tests.waiting import wait_until

pytestmark = [pytest.mark.netns, pytest.mark.bpf]

EQUAL = {"s1": 1, "s2": 1, "s3": 1, "s4": 1}
ADDRESS, PORT = virtual_address(10), 80
VICTIM = "s3"
RATE_PER_S = 200
LOAD_BOUND_S = 180.0  # every test stops its load before; an emulated machine takes long

INTERVAL_MS, RISE, FALL = 200, 2, 3
TAKEOVER_NS = (INTERVAL_MS * FALL + 200) * 1_000_000


def _config(lab: Lab, kind: str, weights: dict[str, int]) -> str:
    health = {
        "type": kind,
        "interval": f"{INTERVAL_MS}ms",
        "timeout": f"{INTERVAL_MS}ms",
        "rise": RISE,
        "fall": FALL,
    } | ({"path": "/healthz"} if kind == "http" else {})
    return gateway_config({"web": service(lab, 10, "round-robin", weights, health=health)})


@pytest.fixture(params=["http"])
def agent(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Agent]:
    with lab.gateway.agent(lab.write_config(_config(lab, request.param, EQUAL))) as running:
        yield running
    lab.gateway.must_shaper("down")


def _backend(status: dict[str, Any], name: str) -> dict[str, Any]:
    (web,) = status["services"]
    found: dict[str, Any] = next(entry for entry in web["backends"] if entry["name"] == name)
    return found


def _start(lab: Lab) -> RunningLoad:
    return start_load(lab.client, ADDRESS, PORT, duration_s=LOAD_BOUND_S, rate_per_s=RATE_PER_S)


def _wait_new_flows(lab: Lab, count: int) -> None:
    """Until that many flows more went to every backend that is up."""
    (web,) = lab.gateway.status()["services"]
    goal = {
        entry["name"]: entry["new_flows_total"] + count
        for entry in web["backends"]
        if entry["state"] == "up"
    }
    lab.gateway.wait_status(
        lambda status: all(_backend(status, n)["new_flows_total"] >= g for n, g in goal.items()),
        60.0,
        f"{count} new flows for each backend that is up",
    )


@pytest.mark.native
@pytest.mark.parametrize("agent", ["http", "tcp"], indirect=True)
@pytest.mark.usefixtures("agent")
def test_dead_backend_is_out_in_time_and_gets_its_share_again(lab: Lab) -> None:
    running = _start(lab)
    _wait_new_flows(lab, 50)
    killed_ns = time.monotonic_ns()
    lab.backend(VICTIM).http.kill()
    lab.gateway.wait_status(
        lambda status: _backend(status, VICTIM)["state"] == "down", 10.0, f"{VICTIM} to be down"
    )
    while time.monotonic_ns() < killed_ns + TAKEOVER_NS:
        time.sleep(0.01)
    flows = _backend(lab.gateway.status(), VICTIM)["new_flows_total"]
    _wait_new_flows(lab, 100)
    assert _backend(lab.gateway.status(), VICTIM)["new_flows_total"] == flows

    lab.backend(VICTIM).http.start()
    lab.gateway.wait_status(
        lambda status: _backend(status, VICTIM)["state"] == "up", 10.0, f"{VICTIM} to be up"
    )
    back_ns = time.monotonic_ns()
    _wait_new_flows(lab, 100)
    running.stop()
    result = running.result()

    assert [s for s in result.failures if s.ended_ns < killed_ns] == []
    assert [s for s in result.failures if s.started_ns > killed_ns + TAKEOVER_NS] == []
    assert "Connection refused" in {sample.error for sample in result.failures}
    returned = result.started_between(back_ns, time.monotonic_ns()).answered
    share = returned[VICTIM] / returned.total()
    assert share == pytest.approx(1 / len(EQUAL), abs=0.01)


def test_reload_changes_the_shares_and_fails_no_request(lab: Lab, agent: Agent) -> None:
    running = _start(lab)
    _wait_new_flows(lab, 50)
    lab.write_config(_config(lab, "http", EQUAL | {"s1": 5}))
    agent.reload()
    lab.gateway.wait_status(
        lambda status: _backend(status, "s1")["weight"] == 5, 60.0, "the new weight"
    )
    changed_ns = time.monotonic_ns()
    _wait_new_flows(lab, 50)
    running.stop()
    result = running.result()
    assert result.failures == ()
    shares = result.started_between(changed_ns, time.monotonic_ns()).answered
    assert shares["s1"] / shares.total() == pytest.approx(5 / 8, abs=0.02)


def test_broken_file_on_reload_changes_nothing(lab: Lab, agent: Agent) -> None:
    generation = lab.gateway.status()["generation"]
    lab.write_config("version: 1\nservices: 7\n")
    agent.reload()
    wait_until(lambda: "refused" in agent.log.read_text(), what="the agent to refuse the file")
    running = start_load(lab.client, ADDRESS, PORT, duration_s=1.0, rate_per_s=RATE_PER_S)
    result = running.result()
    assert result.failures == ()
    assert set(result.answered) == set(EQUAL)
    assert agent.process.poll() is None
    assert lab.gateway.status()["generation"] == generation


def test_agent_that_ends_leaves_the_data_plane_forwarding(lab: Lab, agent: Agent) -> None:
    running = _start(lab)
    _wait_new_flows(lab, 20)
    assert agent.stop() == 0
    _wait_new_flows(lab, 20)
    running.stop()
    result = running.result()
    assert result.failures == ()
    assert set(result.answered) == set(EQUAL)
