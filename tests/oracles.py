"""The kernel's algorithms again, in plain Python and in the simplest form that is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from ipaddress import ip_address
from sys import byteorder

from tests.packets import Ends

_MASK = (1 << 64) - 1
_SEED = 0x5348415045520001
_FACTOR = 0x9E3779B97F4A7C15


def packed(address: str) -> bytes:
    """16 bytes; IPv4 as ::ffff:a.b.c.d."""
    parsed = ip_address(address)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed


def _fold(value: int, word: int) -> int:
    value = ((value ^ word) * _FACTOR) & _MASK
    return value ^ (value >> 32)


def _fold_address(value: int, address: str) -> int:
    raw = packed(address)
    words = [int.from_bytes(raw[at : at + 4], byteorder) for at in range(0, 16, 4)]
    return _fold(_fold(value, words[0] << 32 | words[1]), words[2] << 32 | words[3])


def _position(value: int, count: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    value ^= value >> 31
    return ((value >> 32) * count) >> 32


def _port(port: int) -> int:
    return int.from_bytes(port.to_bytes(2, "big"), byteorder)


def hash_flow(ends: Ends, protocol: int, count: int) -> int:
    """The slot of a flow in a Maglev table of `count` slots (bpf/hash.h)."""
    value = _fold_address(_fold_address(_SEED, ends.source), ends.destination)
    ports = _port(ends.source_port) << 32 | _port(ends.destination_port) << 16 | protocol
    return _position(_fold(value, ports), count)


def hash_source(ends: Ends, count: int) -> int:
    """The slot of a client in a source-hash table of `count` slots."""
    return _position(_fold_address(_SEED, ends.source), count)


def maglev(
    permutations: Mapping[str, tuple[int, int]], weights: Mapping[str, int], size: int
) -> list[str]:
    """Maglev by the book: rounds of turns, each a walk down a permutation list.

    Args:
        permutations: name -> (offset, skip).
        weights: a backend saves its weight up per round and pays the largest weight per turn.
    """
    names = sorted(name for name in permutations if weights[name])
    walks = {
        name: [(offset + j * skip) % size for j in range(size)]
        for name, (offset, skip) in permutations.items()
    }
    saved = dict.fromkeys(names, 0)
    largest = max(weights[name] for name in names)
    table: dict[int, str] = {}
    while True:
        for name in names:
            saved[name] += weights[name]
            if saved[name] < largest:
                continue
            saved[name] -= largest
            slot = next(slot for slot in walks[name] if slot not in table)
            table[slot] = name
            if len(table) == size:
                return [table[slot] for slot in range(size)]


@dataclass(slots=True)
class LeastConnections:
    """The least (active + 1) / weight; among equals the first from where the last choice ended."""

    weights: Sequence[int]
    active: list[int] = field(init=False)
    cursor: int = 0

    def __post_init__(self) -> None:
        self.active = [0] * len(self.weights)

    def open(self) -> int:
        places = [(self.cursor + step) % len(self.weights) for step in range(len(self.weights))]
        candidates = [place for place in places if self.weights[place]]
        chosen = min(
            candidates, key=lambda place: Fraction(self.active[place] + 1, self.weights[place])
        )
        self.active[chosen] += 1
        self.cursor = chosen + 1
        return chosen

    def close(self, place: int) -> None:
        self.active[place] -= 1
