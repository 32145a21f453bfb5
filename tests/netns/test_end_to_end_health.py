"""The real agent under load: a backend dies or cannot be reached and comes back, the default class
is full, the file changes, the agent ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from shaper.lab.gateway import Agent
from shaper.lab.namespace import stop_process
from shaper.lab.network import Lab
from shaper.lab.plan import virtual_address
from shaper.lab.servers import IPERF_PORT
from shaper.lab.traffic import RunningLoad, start_iperf, start_load
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
SILENT_TIMEOUT_MS = 150
SILENT_TAKEOVER_NS = TAKEOVER_NS + SILENT_TIMEOUT_MS * 1_000_000

FILLING_STREAMS, FILLING_BOUND_S = 48, 60
CALM_S = 4.0
PATIENT_MS = 500


def _health(
    kind: str, timeout_ms: int = INTERVAL_MS, interval_ms: int = INTERVAL_MS
) -> dict[str, Any]:
    return {
        "type": kind,
        "interval": f"{interval_ms}ms",
        "timeout": f"{timeout_ms}ms",
        "rise": RISE,
        "fall": FALL,
    } | ({"path": "/healthz"} if kind == "http" else {})


def _config(lab: Lab, kind: str, weights: dict[str, int], timeout_ms: int = INTERVAL_MS) -> str:
    health = _health(kind, timeout_ms)
    return gateway_config({"web": service(lab, 10, "round-robin", weights, health=health)})


def _shaped_config(lab: Lab) -> str:
    """A 10 mbit link, a class for the services, and a default class whose queue holds a second."""
    more: dict[str, Any] = {"health": _health("http", PATIENT_MS, PATIENT_MS), "class": "web"}
    fifo = {"kind": "fifo", "limit": 1000}
    return gateway_config(
        {
            "web": service(lab, 10, "round-robin", EQUAL, **more),
            "web6": service(lab, 10, "round-robin", EQUAL, ipv6=True, **more),
        },
        bandwidth="10mbit",
        classes={
            "web": {"rate": "5mbit", "ceil": "10mbit", "priority": 1},
            "rest": {"rate": "5mbit", "ceil": "10mbit", "priority": 6, "leaf": fifo},
        },
        default_class="rest",
    )


@pytest.fixture(params=["http"])
def agent(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Agent]:
    with lab.gateway.agent(lab.write_config(_config(lab, request.param, EQUAL))) as running:
        yield running
    lab.gateway.must_shaper("down")


@contextmanager
def _unreachable(lab: Lab, name: str) -> Iterator[None]:
    """The backend's port of the switch is taken out: its packets are dropped both ways, and nobody
    says so."""
    lab.switch.ip([f"link set lan-{name} nomaster"])
    try:
        yield
    finally:
        lab.switch.ip([f"link set lan-{name} master lan"])


@contextmanager
def _full_default_class(lab: Lab) -> Iterator[None]:
    """Uploads past all services; begins when the queue of the default class is full."""
    uploads = start_iperf(
        lab.client,
        lab.backend("s1").address,
        IPERF_PORT,
        seconds=FILLING_BOUND_S,
        omit=0,
        download=False,
        streams=FILLING_STREAMS,
    )
    try:
        lab.gateway.wait_status(
            lambda status: _class(status, "rest", "lan")["drops"] > 0, 20.0, "a full default class"
        )
        yield
    finally:
        stop_process(uploads.process)


def _class(status: dict[str, Any], name: str, interface: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        entry
        for entry in status["classes"]
        if (entry["name"], entry["interface"]) == (name, interface)
    )
    return found


@pytest.fixture
def shaped_agent(lab: Lab) -> Iterator[Agent]:
    with lab.gateway.agent(lab.write_config(_shaped_config(lab))) as running:
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


@pytest.mark.native
def test_unreachable_backend_is_out_in_time(lab: Lab, agent: Agent) -> None:
    """Nobody answers, so the last check ends by its timeout: interval × fall + timeout."""
    lab.write_config(_config(lab, "http", EQUAL, SILENT_TIMEOUT_MS))
    agent.reload()
    wait_until(
        lambda: agent.log.read_text().count(" applied, ") == 2, timeout_s=20, what="the reload"
    )
    running = start_load(
        lab.client, ADDRESS, PORT, duration_s=LOAD_BOUND_S, rate_per_s=RATE_PER_S, concurrency=400
    )
    _wait_new_flows(lab, 50)
    with _unreachable(lab, VICTIM):
        dark_ns = time.monotonic_ns()
        while time.monotonic_ns() < dark_ns + SILENT_TAKEOVER_NS:
            time.sleep(0.01)
        status = lab.gateway.status()
        flows = _backend(status, VICTIM)["new_flows_total"]
        assert _backend(status, VICTIM)["state"] == "down"
        assert f"web/{VICTIM} is down: no answer within {SILENT_TIMEOUT_MS} ms" in (
            agent.log.read_text()
        )
        _wait_new_flows(lab, 100)
        assert _backend(lab.gateway.status(), VICTIM)["new_flows_total"] == flows
    running.stop()
    result = running.result()
    late = result.started_between(dark_ns + SILENT_TAKEOVER_NS, time.monotonic_ns())
    assert late.failures == ()
    assert late.answered.total() > 300
    met = result.started_between(dark_ns, dark_ns + SILENT_TAKEOVER_NS).samples
    assert max(sample.duration_ns for sample in met) > 500_000_000, "nobody waited for the victim"
    assert max(sample.duration_ns for sample in late.samples) < 500_000_000


@pytest.mark.native
def test_full_default_class_takes_no_backend_out(lab: Lab, shaped_agent: Agent) -> None:
    """The checks go by the class of their service, whose share nobody else can take."""
    with _full_default_class(lab):
        loads = [
            start_load(
                lab.client, virtual_address(10, ipv6=ipv6), PORT, duration_s=CALM_S, rate_per_s=20
            )
            for ipv6 in (False, True)
        ]
        results = [load.result() for load in loads]
        filled = _class(lab.gateway.status(), "rest", "lan")
    assert filled["backlog_bytes"] > 600_000, "half a second at 10 mbit: the uploads ended early"
    assert " is down: " not in shaped_agent.log.read_text()
    for result in results:
        assert result.failures == ()
        assert set(result.answered) == set(EQUAL)


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
