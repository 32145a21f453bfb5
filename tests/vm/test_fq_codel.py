"""fq_codel leaves, on a kernel that has them: what `auto` picks, and what they do to a delay.

Runs wherever the kernel has fq_codel; scripts/vm-test boots one that does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from shaper.kernel.qdisc_probe import leaf_kinds
from shaper.lab.network import Lab
from shaper.lab.plan import WAN_DEVICE, LabSpec
from shaper.lab.servers import IPERF_PORT
from shaper.lab.traffic import PAYLOAD_SHARE, start_iperf, start_ping
from tests.netns.configs import gateway_config, stream

pytestmark = [pytest.mark.netns, pytest.mark.bpf, pytest.mark.slow]

RATE_MBIT = 20
STREAMS = 32  # TCP small queues hold one alone back: across veth it sees what the gateway queues
SECONDS = 8
OMIT_S = 4  # until TCP has found the rate: its first overshoot is not the class's delay
FULL = 0.9  # of the rate
ATTEMPTS = 4  # for a full class: an emulated machine stands still while its host is busy
FQ_CODEL_ADDS_MS = 15.0
FIFO_ADDS_MS = 200.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:  # module scope comes before the marks are looked at
        pytest.skip("needs root: network namespaces")
    if "fq_codel" not in leaf_kinds():
        pytest.skip("this kernel has no fq_codel (CONFIG_NET_SCH_FQ_CODEL); see scripts/vm-test")
    with Lab(LabSpec(backends=2, ipv6=False)) as built:
        yield built
        built.gateway.must_shaper("down")


def _apply(lab: Lab, leaf: object) -> None:
    """One class at 20 mbit with all that is not for `www`, its leaf as given (None: not said)."""
    rate = f"{RATE_MBIT}mbit"
    only: dict[str, Any] = {"rate": rate, "ceil": rate} | ({"leaf": leaf} if leaf else {})
    text = gateway_config(
        {"www": stream(lab, 10, "s1")}, bandwidth=rate, classes={"only": only}, default_class="only"
    )
    lab.gateway.must_shaper("apply", str(lab.write_config(text)))


def _leaf_of(lab: Lab) -> Mapping[str, Any]:
    """The one leaf qdisc on the client-side device, as tc shows it."""
    listed = json.loads(lab.gateway.namespace.run(["tc", "-j", "qdisc", "show", "dev", WAN_DEVICE]))
    leaves = [entry for entry in listed if entry["kind"] not in ("htb", "clsact")]
    assert len(leaves) == 1, listed
    found: Mapping[str, Any] = leaves[0]
    return found


@dataclass(frozen=True, slots=True)
class Delay:
    """How much later 95 % of the pings come back while TCP fills the class that they share."""

    added_ms: float
    goodput_mbit: float

    def __str__(self) -> str:
        return f"{self.added_ms:.1f} ms at {self.goodput_mbit:.1f} mbit/s of payload"


def _measure_delay(lab: Lab) -> Delay:
    """That of the first attempt that filled the class, or of the fullest."""
    attempts: list[Delay] = []
    while len(attempts) < ATTEMPTS:
        attempts.append(_attempt(lab))
        if attempts[-1].goodput_mbit >= FULL * RATE_MBIT * PAYLOAD_SHARE:
            break
    return max(attempts, key=lambda delay: delay.goodput_mbit)


def _attempt(lab: Lab) -> Delay:
    source, other = lab.backend("s1").address, lab.backend("s2").address
    idle_ms = start_ping(lab.client, other, seconds=3.0).result().percentile(95)
    load = start_iperf(
        lab.client, source, IPERF_PORT, seconds=SECONDS, omit=OMIT_S, streams=STREAMS
    )
    start_ping(lab.client, other, seconds=OMIT_S).result()
    loaded_ms = start_ping(lab.client, other, seconds=SECONDS - 1).result().percentile(95)
    return Delay(loaded_ms - idle_ms, load.result().goodput_bps / 1e6)


def test_auto_leaf_is_fq_codel(lab: Lab) -> None:
    _apply(lab, None)
    assert _leaf_of(lab)["kind"] == "fq_codel"
    status = lab.gateway.status()
    assert status["warnings"] == []
    assert {entry["leaf"] for entry in status["classes"]} == {"fq_codel"}


def test_explicit_leaf_has_its_options(lab: Lab) -> None:
    _apply(lab, {"kind": "fq_codel", "target": "7ms", "flows": 128, "limit": 2000, "ecn": False})
    leaf = _leaf_of(lab)
    options = leaf["options"]
    # The kernel counts these times in 1024 ns: 7 ms reads back as 6.99.
    assert options["target"] == pytest.approx(7000, abs=1)
    assert (leaf["kind"], options["flows"], options["limit"]) == ("fq_codel", 128, 2000)
    assert not options.get("ecn")


def test_full_class_adds_little_delay_with_fq_codel_and_much_with_a_fifo(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    delays: dict[str, Delay] = {}
    for leaf in ("fq_codel", "fifo"):
        _apply(lab, leaf)
        delays[leaf] = _measure_delay(lab)
    figures = ", ".join(f"{leaf} {delay}" for leaf, delay in delays.items())
    with capsys.disabled():  # the figures are the point, also where they are good
        print(f"\na full {RATE_MBIT} mbit class adds to a ping, 95 % within: {figures}")
    assert min(delay.goodput_mbit for delay in delays.values()) >= RATE_MBIT / 2, figures
    assert delays["fq_codel"].added_ms <= FQ_CODEL_ADDS_MS, figures
    assert delays["fifo"].added_ms >= FIFO_ADDS_MS, figures
