"""What HTB (net/sched/sch_htb.c) wants to know about a rate.

Two oddities of the kernel show here. HTB counts rates in whole bytes per second; and it takes a
burst not in bytes but as the time that the burst lasts at the class's rate, in ticks of 64 ns
(PSCHED_SHIFT in include/net/pkt_sched.h). So not every rate and every burst can be had: the
functions here return such values that the kernel reports unchanged.
"""

from __future__ import annotations

from typing import Final

TICK_NS: Final = 64
ETHERNET_HEADER_BYTES: Final = 14
MIN_RATE_BPS: Final = 8
"""One byte per second, the least that HTB accepts."""

_BURST_NS: Final = 1_000_000
_QUANTUM_NS: Final = 1_000_000
_MAX_QUANTUM_BYTES: Final = 60_000
_MAX_TICKS: Final = 2**32 - 1
_NS: Final = 10**9


def whole_rate(rate_bps: int) -> int:
    """The nearest rate below that is a whole number of bytes per second, at least one."""
    return max(MIN_RATE_BPS, rate_bps // 8 * 8)


def burst_bytes(rate_bps: int, mtu: int) -> int:
    """What a class may send at once: a millisecond's worth, at least two packets.

    The kernel's timers need the millisecond: with tc's default burst HTB stays 2 % under 1 gbit.

    Args:
        rate_bps: the class's rate (for burst) or ceil (for cburst), a `whole_rate`.
        mtu: of the device, in bytes.
    """
    wanted = max(rate_bps * _BURST_NS // (8 * _NS), 2 * mtu)
    return ticks_to_bytes(burst_ticks(wanted, rate_bps), rate_bps)


def burst_ticks(burst: int, rate_bps: int) -> int:
    """Bytes as the kernel wants them: the time they take at that rate, in ticks, rounded up.

    At most what 32 bits hold (275 s), which only rates below 88 bit/s reach.
    """
    rate = rate_bps // 8 * TICK_NS
    return min(_MAX_TICKS, -(-burst * _NS // rate))


def ticks_to_bytes(ticks: int, rate_bps: int) -> int:
    """The way back. `burst_ticks` of the result gives the same ticks or ticks of equal bytes."""
    return ticks * (rate_bps // 8) * TICK_NS // _NS


def quantum_bytes(rate_bps: int, mtu: int) -> int:
    """How much a class sends before its peer of equal priority has its turn at the spare bandwidth.

    Proportional to the rate, so that peers borrow in proportion to what they own, within one frame
    and 60,000 bytes. Always given explicitly: the kernel's own choice (rate / r2q) logs a warning
    where it is under 1,000 or over 200,000.
    """
    share = min(rate_bps * _QUANTUM_NS // (8 * _NS), _MAX_QUANTUM_BYTES)
    return max(share, mtu + ETHERNET_HEADER_BYTES)
