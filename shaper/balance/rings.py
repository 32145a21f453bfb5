"""Weighted round-robin as a ring that the kernel walks one slot per new flow.

The order is nginx's smooth weighted round-robin: weights 5, 1, 1 give a a b a c a a, not a burst of
five. Walking the ring once gives every backend exactly its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Final

import numpy as np

MAX_RING: Final = 4096


def smooth_ring(weights: Sequence[int], limit: int = MAX_RING) -> tuple[int, ...]:
    """Positions in `weights`, in the order of their turns.

    Args:
        weights: any unit; the ring has sum/gcd slots. A weight of 0 gets none.
        limit: the longest ring. Beyond it shares are rounded by largest remainder, and everyone
            with a weight keeps at least one slot.
    Raises:
        ValueError: more weights above 0 than `limit` slots.
    """
    turns = _reduced(weights, limit)
    total = sum(turns)
    gain = np.asarray(turns, dtype=np.int64)
    credit = np.zeros(len(turns), dtype=np.int64)
    ring = []
    for _ in range(total):
        credit += gain
        chosen = int(np.argmax(credit))
        credit[chosen] -= total
        ring.append(chosen)
    return tuple(ring)


def _reduced(weights: Sequence[int], limit: int) -> list[int]:
    """The number of turns each weight gets in one walk round the ring."""
    divisor = gcd(*weights) or 1
    turns = [weight // divisor for weight in weights]
    if sum(turns) <= limit:
        return turns
    present = [place for place, weight in enumerate(weights) if weight > 0]
    if len(present) > limit:
        raise ValueError(f"{len(present)} backends do not fit a ring of {limit} slots")
    total = sum(weights)
    turns = [weight * limit // total for weight in weights]
    for place in present:
        turns[place] = max(1, turns[place])
    by_remainder = sorted(present, key=lambda place: -(weights[place] * limit % total))
    for place in by_remainder[: max(0, limit - sum(turns))]:
        turns[place] += 1
    while sum(turns) > limit:  # the slots given to the smallest come from the largest
        turns[turns.index(max(turns))] -= 1
    return turns
