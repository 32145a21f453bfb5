"""Traffic through the classes of the demo, and what came of it."""

from __future__ import annotations

from typing import Any, Final

from shaper.lab.demo.config import STREAM_ADDRESSES
from shaper.lab.demo.report import Row, limit_row, rate_row
from shaper.lab.demo.settings import MBIT, Settings
from shaper.lab.network import Lab
from shaper.lab.servers import HTTP_PORT, IPERF_PORT
from shaper.lab.traffic import PAYLOAD_SHARE, RunningIperf, start_iperf, start_ping

_OMIT_S: Final = 2  # until TCP has filled the queue
_FILLING_STREAMS: Final = 16
_DEFAULT_BYTES: Final = 4_000_000


def rate_rows(lab: Lab, settings: Settings) -> list[Row]:
    """Two classes that are full up to their ceilings, and a ping that is in neither."""
    unit = settings.unit_mbit * MBIT
    streams = {name: _stream(lab, name, settings) for name in ("small", "large")}
    ping = start_ping(lab.client, lab.backend("s4").address, seconds=_OMIT_S + settings.seconds)
    rows = []
    for name, units in (("small", 1), ("large", 5)):
        measured = streams[name].result().goodput_bps
        asked = units * unit * PAYLOAD_SHARE
        part = f"TCP goodput at {units * settings.unit_mbit} mbit"
        rows.append(rate_row(name, part, asked, measured, settings.goodput_percent))
    p95 = ping.result().percentile(95)
    rows.append(
        limit_row("rest", "ping beside both, 95 % within", settings.ping_limit_ms, p95, "ms")
    )
    return rows


def priority_rows(lab: Lab, settings: Settings) -> list[Row]:
    """Two classes that both want the whole link: rates are kept, the rest goes by priority."""
    unit = settings.unit_mbit * MBIT
    streams = {name: _stream(lab, name, settings) for name in ("urgent", "patient")}
    rows = []
    for name, units, why in (
        ("urgent", 8, "its 1/10 and all that is spare"),
        ("patient", 2, "its 2/10 of a full link"),
    ):
        measured = streams[name].result().goodput_bps
        asked = units * unit * PAYLOAD_SHARE
        rows.append(rate_row(name, why, asked, measured, settings.goodput_percent))
    return rows


def default_rows(lab: Lab) -> list[Row]:
    """A download that is for no service: its frames are counted in the default class."""
    address = lab.backend("s1").address
    before = _counted(lab, "rest")
    argv = ["curl", "-sS", "-m", "60", "-o", "/dev/null", "-r", f"0-{_DEFAULT_BYTES - 1}"]
    lab.client.namespace.run([*argv, f"http://{address}:{HTTP_PORT}/large"])
    counted = _counted(lab, "rest") - before
    frames = _DEFAULT_BYTES / PAYLOAD_SHARE
    return [
        Row(
            "rest (default_class)",
            "counts a download of no class",
            f"{frames / 1e6:.2f} MB in frames",
            f"{counted / 1e6:.2f} MB",
            frames * 0.99 <= counted <= frames * 1.05,
        )
    ]


def queue_rows(lab: Lab, settings: Settings) -> list[Row]:
    """The delay inside a full class: short with fq_codel, whatever fits into it with a fifo."""
    address = lab.backend("s1").address
    leaf = _class(lab, "rest")["leaf"]
    stream = start_iperf(
        lab.client,
        address,
        IPERF_PORT,
        seconds=settings.seconds,
        omit=_OMIT_S,
        streams=_FILLING_STREAMS,
    )
    ping = start_ping(lab.client, lab.backend("s4").address, seconds=_OMIT_S + settings.seconds)
    goodput = stream.result().goodput_bps
    asked = settings.link_mbit * MBIT * PAYLOAD_SHARE
    p95 = ping.result().percentile(95)
    promised = str(leaf).startswith("fq_codel")
    return [
        rate_row(
            "rest",
            f"{_FILLING_STREAMS} downloads alone on the link",
            asked,
            goodput,
            settings.goodput_percent,
        ),
        limit_row(
            "rest",
            f"ping inside it ({leaf}), 95 % within",
            settings.ping_limit_ms,
            p95,
            "ms",
            promised=promised,
        ),
    ]


def _stream(lab: Lab, name: str, settings: Settings) -> RunningIperf:
    return start_iperf(
        lab.client,
        STREAM_ADDRESSES[name],
        IPERF_PORT,
        seconds=settings.seconds,
        omit=_OMIT_S,
        streams=settings.streams,
    )


def _class(lab: Lab, name: str, interface: str = "wan") -> dict[str, Any]:
    for entry in lab.gateway.status()["classes"]:
        if (entry["name"], entry["interface"]) == (name, interface):
            found: dict[str, Any] = entry
            return found
    raise KeyError(f"{name} on {interface}")


def _counted(lab: Lab, name: str) -> int:
    return int(_class(lab, name)["bytes"])
