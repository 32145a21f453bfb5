"""The lab itself, with plain routing on the gateway: topology, load client, cleaning up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shaper.lab import ownership
from shaper.lab.namespace import NETNS, LabError, wait_until
from shaper.lab.network import Lab
from shaper.lab.plan import CLIENTS4, LabSpec, gateway_address, plan_lab, virtual_address
from shaper.lab.servers import ECHO_PORT, HTTP_PORT, IPERF_PORT
from shaper.lab.traffic import held_connections, http_load, iperf, start_load, start_ping, udp_load

pytestmark = pytest.mark.netns

_HELD_LAB = """
import sys, time
from shaper.lab.network import Lab
from shaper.lab.plan import LabSpec
with Lab(LabSpec(backends=1)) as lab:
    print(lab.folder.name, flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def lab_spec() -> LabSpec:
    return LabSpec(backends=2, clients=2)


@pytest.fixture
def routed(lab: Lab) -> Lab:
    lab.gateway.set_forwarding(on=True)
    return lab


def _traces(token: str) -> list[str]:
    """What is left of a lab: namespaces, its folder, processes that run in that folder."""
    spaces = [path.name for path in NETNS.iterdir() if token in path.name]
    folder = ownership.LABS / token
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it ended while we looked
    return [
        *spaces,
        *([str(folder)] if folder.exists() else []),
        *(c for c in commands if token in c),
    ]


def test_plan_gives_every_host_addresses_of_its_own() -> None:
    plan = plan_lab(LabSpec(backends=200, clients=200, sources=250))
    addresses = [a for host in (*plan.clients, *plan.backends) for a in host.addresses4]
    assert len(addresses) == len(set(addresses)) == 200 * 250 + 200
    assert all(a in CLIENTS4 for host in plan.clients for a in host.addresses4)


def test_plan_refuses_what_the_networks_cannot_hold() -> None:
    with pytest.raises(ValueError, match="backends: 201"):
        LabSpec(backends=201)


def test_virtual_addresses_look_alike_in_both_families() -> None:
    assert str(virtual_address(10)) == "198.51.100.10"
    assert str(virtual_address(10, ipv6=True)) == "2001:db8:10::10"


def test_gateway_forwards_nothing_by_itself(lab: Lab) -> None:
    lab.gateway.set_forwarding(on=False)
    ping = ["ping", "-n", "-c", "2", "-i", "0.1", "-W", "1"]
    assert lab.client.namespace.call([*ping, lab.backend("s1").address]).returncode == 1
    assert lab.client.namespace.call([*ping, gateway_address(CLIENTS4)]).returncode == 0


@pytest.mark.parametrize("family", [4, 6])
def test_clients_reach_every_server_of_every_backend(routed: Lab, family: int) -> None:
    for client in routed.clients:
        for backend in routed.backends.values():
            address = backend.address if family == 4 else backend.address6
            web = http_load(client, address, HTTP_PORT, 20)
            assert (web.answered, web.failures) == ({backend.name: 20}, ())
            echo = udp_load(client, address, ECHO_PORT, 20)
            assert (echo.answered, echo.failures) == ({backend.name: 20}, ())
    last = routed.backend("s2")
    assert iperf(client, last.address if family == 4 else last.address6, IPERF_PORT, seconds=1)


@pytest.mark.native
def test_load_client_uses_every_source_address(routed: Lab) -> None:
    backend = routed.backend("s1")
    running = start_load(routed.client, backend.address, HTTP_PORT, duration_s=1.0, rate_per_s=200)
    seen: set[str] = set()

    def every_source_seen() -> bool:
        table = backend.namespace.run(["ss", "-Htan", "sport", "=", f":{HTTP_PORT}"])
        seen.update(line.split()[4].rpartition(":")[0] for line in table.splitlines())
        return set(routed.client.sources) <= seen

    wait_until(every_source_seen, 5.0, "connections from every source")
    result = running.result()
    assert not result.failures
    assert 190 <= len(result.samples) <= 201


def test_load_client_reports_every_failure_with_its_time(routed: Lab) -> None:
    begin = time.monotonic_ns()
    result = http_load(routed.client, routed.backend("s1").address, 8999, 10)
    assert [sample.error for sample in result.failures] == ["Connection refused"] * 10
    assert len(result.started_between(begin, time.monotonic_ns()).failures) == 10
    assert not result.started_between(0, begin).samples


def test_killed_server_refuses_and_comes_back(routed: Lab) -> None:
    backend = routed.backend("s2")
    backend.http.kill()
    assert not backend.http.running
    assert len(http_load(routed.client, backend.address, HTTP_PORT, 5).failures) == 5
    backend.http.start()
    assert http_load(routed.client, backend.address, HTTP_PORT, 5).answered == {"s2": 5}


def test_held_connections_stay_open_inside_the_block(routed: Lab) -> None:
    backend = routed.backend("s1")

    def open_connections() -> int:
        table = backend.namespace.run(
            ["ss", "-Htn", "state", "established", "sport", "=", f":{HTTP_PORT}"]
        )
        return len(table.splitlines())

    with held_connections(routed.client, backend.address, HTTP_PORT, 12) as held:
        assert held.answered == {"s1": 12}
        assert open_connections() == 12
    wait_until(lambda: open_connections() == 0, 5.0, "held connections to end")


def test_ping_gives_round_trips(routed: Lab) -> None:
    trips = start_ping(routed.client, routed.backend("s1").address, seconds=0.4).result()
    assert len(trips.times_ms) == trips.sent == 20
    assert 0 < trips.percentile(0) <= trips.percentile(50) <= trips.percentile(100)


def test_lab_leaves_nothing_behind() -> None:
    before = set(NETNS.iterdir())
    with Lab(LabSpec(backends=1)) as lab:
        token = lab.folder.name
        assert len(_traces(token)) > 4
    assert _traces(token) == []
    assert not {path for path in set(NETNS.iterdir()) - before if token in path.name}


def test_lab_leaves_nothing_behind_after_an_exception() -> None:
    tokens: list[str] = []

    def fail_inside() -> None:
        with Lab(LabSpec(backends=1)) as lab:
            tokens.append(lab.folder.name)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert _traces(tokens[0]) == []


def test_lab_that_cannot_be_built_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens: list[str] = []

    def refuse(*_: object, **__: object) -> None:
        tokens.extend(path.name for path in ownership.LABS.iterdir() if _owner(path) == os.getpid())
        raise LabError("no servers today")

    monkeypatch.setattr(Lab, "_start_servers", refuse)
    with pytest.raises(LabError, match="no servers today"), Lab(LabSpec(backends=1)):
        pytest.fail("the lab was built")
    built = [token for token in tokens if not (ownership.LABS / token).exists()]
    assert len(built) == 1
    assert _traces(built[0]) == []


def _owner(folder: Path) -> int:
    return int((folder / "owner").read_text().split()[0])


def _start_holder() -> tuple[subprocess.Popen[str], str]:
    holder = subprocess.Popen([sys.executable, "-c", _HELD_LAB], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    return holder, holder.stdout.readline().strip()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)]
)
def test_lab_leaves_nothing_behind_after_a_signal(number: signal.Signals, code: int) -> None:
    holder, token = _start_holder()
    assert _traces(token)
    holder.send_signal(number)
    assert holder.wait(timeout=20) == code
    assert _traces(token) == []


def test_reap_removes_the_lab_of_a_killed_owner_only(lab: Lab) -> None:
    holder, token = _start_holder()
    holder.kill()
    holder.wait()
    assert _traces(token)
    assert token in ownership.reap()
    assert _traces(token) == []
    assert lab.folder.exists()
    assert lab.backend("s1").http.running
