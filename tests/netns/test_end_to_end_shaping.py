"""Real TCP through the classes of an applied file: goodput, priority, the default class."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shaper.lab.network import Lab
from shaper.lab.plan import virtual_address
from shaper.lab.servers import HTTP_PORT, IPERF_PORT
from shaper.lab.traffic import PAYLOAD_SHARE, PAYLOAD_SHARE6, start_iperf, start_ping
from tests.netns.configs import gateway_config, stream

pytestmark = [pytest.mark.netns, pytest.mark.bpf]

MBIT = 1_000_000
OMIT_S = 2  # until TCP has filled the queue: what comes after is the class's rate alone
SECONDS = 4

CEILED = {"c10": 10, "c50": 50, "c200": 200}
NUMBERS = {name: number for number, name in enumerate(CEILED, start=20)}
BACKENDS = dict(zip(CEILED, ("s1", "s2", "s3"), strict=True))

URGENT, PATIENT = 30, 31


@pytest.fixture(scope="module")
def unshaped(lab: Lab) -> Iterator[Lab]:
    yield lab
    lab.gateway.must_shaper("down")


@pytest.fixture
def ceiled(unshaped: Lab) -> Lab:
    """A 300 mbit link with classes that may not borrow."""
    classes: dict[str, dict[str, object]] = {
        name: {"rate": f"{rate}mbit", "ceil": f"{rate}mbit"} for name, rate in CEILED.items()
    }
    classes["rest"] = {"rate": "10mbit", "ceil": "300mbit"}
    services = {
        f"{name}{'-6' if ipv6 else ''}": stream(unshaped, NUMBERS[name], backend, name, ipv6=ipv6)
        for name, backend in BACKENDS.items()
        for ipv6 in (False, True)
    }
    text = gateway_config(services, bandwidth="300mbit", classes=classes, default_class="rest")
    unshaped.gateway.must_shaper("apply", str(unshaped.write_config(text)))
    return unshaped


@pytest.fixture
def borrowing(unshaped: Lab) -> Lab:
    """A 100 mbit link with two classes that may each have it all."""
    classes = {
        "urgent": {"rate": "10mbit", "ceil": "100mbit", "priority": 0},
        "patient": {"rate": "20mbit", "ceil": "100mbit", "priority": 5},
        "rest": {"rate": "10mbit", "ceil": "100mbit", "priority": 6},
    }
    services = {
        "urgent": stream(unshaped, URGENT, "s1", "urgent"),
        "patient": stream(unshaped, PATIENT, "s2", "patient"),
    }
    text = gateway_config(services, bandwidth="100mbit", classes=classes, default_class="rest")
    unshaped.gateway.must_shaper("apply", str(unshaped.write_config(text)))
    return unshaped


def _class_bytes(lab: Lab, name: str, interface: str = "wan") -> int:
    for entry in lab.gateway.status()["classes"]:
        if (entry["name"], entry["interface"]) == (name, interface):
            return int(entry["bytes"])
    raise AssertionError(f"status knows no class {name} on {interface}")


@pytest.mark.native
@pytest.mark.parametrize(
    ("download", "ipv6"),
    [(True, False), (False, False), (True, True)],
    ids=["download", "upload", "ipv6"],
)
def test_goodput_of_full_classes_is_their_rate(ceiled: Lab, download: bool, ipv6: bool) -> None:
    """All three at once: none takes from another, each way on the egress of another device."""
    running = {
        name: start_iperf(
            ceiled.client,
            virtual_address(NUMBERS[name], ipv6=ipv6),
            IPERF_PORT,
            seconds=SECONDS,
            omit=OMIT_S,
            download=download,
        )
        for name in CEILED
    }
    measured = {name: test.result().goodput_bps / MBIT for name, test in running.items()}
    share = PAYLOAD_SHARE6 if ipv6 else PAYLOAD_SHARE
    asked = {name: rate * share for name, rate in CEILED.items()}
    assert measured == pytest.approx(asked, rel=0.03)


@pytest.mark.native
def test_spare_bandwidth_goes_by_priority_and_rates_are_kept(borrowing: Lab) -> None:
    running = {
        name: start_iperf(
            borrowing.client, virtual_address(number), IPERF_PORT, seconds=SECONDS, omit=OMIT_S
        )
        for name, number in (("urgent", URGENT), ("patient", PATIENT))
    }
    measured = {name: test.result().goodput_bps / MBIT for name, test in running.items()}
    asked = {"urgent": 80 * PAYLOAD_SHARE, "patient": 20 * PAYLOAD_SHARE}
    assert measured == pytest.approx(asked, rel=0.03)


@pytest.mark.native
def test_class_alone_on_the_link_borrows_up_to_its_ceiling(borrowing: Lab) -> None:
    test = start_iperf(borrowing.client, virtual_address(PATIENT), IPERF_PORT, omit=OMIT_S)
    assert test.result().goodput_bps / MBIT == pytest.approx(100 * PAYLOAD_SHARE, rel=0.03)


def test_traffic_of_no_class_is_counted_in_the_default_class(borrowing: Lab) -> None:
    payload = 4_000_000
    others = ("urgent", "patient")
    before = {name: _class_bytes(borrowing, name) for name in ("rest", *others)}
    url = f"http://{borrowing.backend('s3').address}:{HTTP_PORT}/large"
    borrowing.client.namespace.run(
        ["curl", "-sS", "-m", "30", "-o", "/dev/null", "-r", f"0-{payload - 1}", url]
    )
    after = {name: _class_bytes(borrowing, name) for name in ("rest", *others)}
    counted = after["rest"] - before["rest"]
    assert payload / PAYLOAD_SHARE <= counted <= 1.05 * payload / PAYLOAD_SHARE
    assert {name: after[name] for name in others} == {name: before[name] for name in others}


@pytest.mark.native
def test_ping_beside_a_full_class_waits_for_nothing(ceiled: Lab) -> None:
    load = start_iperf(ceiled.client, virtual_address(NUMBERS["c10"]), IPERF_PORT, omit=1)
    trips = start_ping(ceiled.client, ceiled.backend("s4").address, seconds=3.0).result()
    assert load.result().goodput_bps / MBIT == pytest.approx(10 * PAYLOAD_SHARE, rel=0.05)
    assert len(trips.times_ms) == trips.sent
    assert trips.percentile(95) <= 15.0
