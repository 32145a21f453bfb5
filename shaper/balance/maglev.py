"""Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4) with weights.

Every backend walks its own permutation of the slots and claims the next free one at its turn. A
backend of half the largest weight skips every other turn, so shares follow the weights to within
one slot, and a backend that leaves frees its slots without moving many others.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

PRIMES: Final = (251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071)
"""Table sizes in use: below each power of two. A prime makes every skip visit every slot."""

_TAIL_FRACTION: Final = 32
"""The last 1/32 of the slots is found by sorting, because probing for it costs the most."""


def maglev_table(entries: Sequence[tuple[str, int, int]], size: int) -> tuple[int, ...]:
    """The backend index in each of `size` slots.

    Args:
        entries: (stable name, index, weight). The table depends on names and weights only, not on
            the order; entries of weight 0 get no slot.
        size: a prime, at least the number of entries.
    Raises:
        ValueError: nothing to place, or more entries than slots.
    """
    placed = sorted(entry for entry in entries if entry[2] > 0)
    if not placed or len(placed) > size:
        raise ValueError(f"{len(placed)} backends do not fit {size} Maglev slots")
    offsets, skips = zip(*(permutation(name, size) for name, _, _ in placed), strict=True)
    turns = _turns([weight for _, _, weight in placed], size)
    tail = size // _TAIL_FRACTION
    table = [-1] * size
    _probe(table, turns[: size - tail], list(offsets), skips)
    _finish(table, turns[size - tail :], offsets, skips)
    index_of = [index for _, index, _ in placed]
    return tuple(index_of[owner] for owner in table)


def permutation(name: str, size: int) -> tuple[int, int]:
    """(offset, skip): the backend's slots in order are (offset + j * skip) mod size."""
    digest = blake2b(name.encode(), digest_size=16).digest()
    offset = int.from_bytes(digest[:8], "big") % size
    skip = int.from_bytes(digest[8:], "big") % (size - 1) + 1
    return offset, skip


def _turns(weights: Sequence[int], size: int) -> list[int]:
    """Whose turn it is, `size` times.

    Backend i gathers w_i per round and takes a turn whenever it has the largest weight W together:
    its turn number t falls into round ceil(t * W / w_i). Within a round the order is the backends'.
    """
    largest, total = max(weights), sum(weights)
    rounds = -(-(size + len(weights)) * largest // total)
    when, who = [], []
    for number, weight in enumerate(weights):
        count = np.arange(1, rounds * weight // largest + 1, dtype=np.int64)
        when.append(-(-count * largest // weight))
        who.append(np.full(len(count), number, dtype=np.int64))
    order: NDArray[np.int64] = np.lexsort((np.concatenate(who), np.concatenate(when)))
    result: list[int] = np.concatenate(who)[order[:size]].tolist()
    return result


def _probe(table: list[int], turns: Sequence[int], at: list[int], skips: Sequence[int]) -> None:
    """Claims one slot per turn by walking the permutations; `at` is where each one stands."""
    size = len(table)
    for turn in turns:
        slot, skip = at[turn], skips[turn]
        while table[slot] >= 0:
            slot += skip
            if slot >= size:
                slot -= size
        table[slot] = turn
        at[turn] = slot


def _finish(
    table: list[int], turns: Sequence[int], offsets: Sequence[int], skips: Sequence[int]
) -> None:
    """The same for the few slots that are left: each backend sees them sorted by its order."""
    size = len(table)
    free = np.flatnonzero(np.asarray(table) < 0).astype(np.int64)
    walks = {}
    for owner in set(turns):
        steps = (free - offsets[owner]) * pow(skips[owner], -1, size) % size
        walks[owner] = iter(free[np.argsort(steps)].tolist())
    for turn in turns:
        for slot in walks[turn]:
            if table[slot] < 0:
                table[slot] = turn
                break
