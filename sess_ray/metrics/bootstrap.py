"""How often each image counts in each replicate of a bootstrap, and sums that are exact in whatever order.

Intervals come from a Poisson bootstrap (Hanley and MacGibbon, Computer Methods and Programs in Biomedicine 2006): in
each of a thousand replicates an image counts a Poisson number of times that depends only on its name. So only sums are
held, all maps of an image are drawn together, and two runs see the same replicates: the interval of their difference is
paired.

The numbers are SplitMix64's (Steele, Lea and Flood, OOPSLA 2014), 16 bits for each, from the first 64 bits of the
SHA-256 of the name: the same on every machine and in every version of NumPy. A probability is right to 2^-17, and the
mean is 1 exactly.

Sums are exact for up to a hundred million maps: values are taken to the nearest multiple of 2^-52, and added up in two
parts, of which no sum needs more bits than a float64 has: multiples of 2^-26, and the rest. Counts of pixels are whole
numbers, whose sums are exact as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate
from math import exp, factorial

import numpy as np

REPLICATES = 1000
COARSE, FINE = 2.0**26, 2.0**52  # parts of 1 that values are made of
AT_ONCE = 64  # images whose 64-bit numbers are made together: 128 KB, which a core's cache holds

_STEPS = np.arange(1, REPLICATES // 4 + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
# Of 65,536, those below which a Poisson number of mean 1 is 0, at most 1, ...; nothing beyond 8 is one of them.
_BELOW = [round(2**16 * share) for share in accumulate(exp(-1) / factorial(count) for count in range(8))]


def weights_of(keys: Sequence[str]) -> np.ndarray:
    """Return how often each of some images counts in each replicate, (n, 1 + replicates) uint8.

    Once in the first replicate, then Poisson numbers from its name, which are small.

    >>> weights_of(["a.jpg", "b.jpg", "a.jpg"])[:, :5].tolist()
    [[1, 0, 0, 0, 2], [1, 0, 1, 1, 1], [1, 0, 0, 0, 2]]
    """
    seeds = np.frombuffer(b"".join([hashlib.sha256(key.encode()).digest()[:8] for key in keys]), "<u8")
    weights = np.empty((len(keys), 1 + REPLICATES), np.uint8)
    weights[:, 0] = 1
    for first in range(0, len(keys), AT_ONCE):
        own = weights[first : first + AT_ONCE, 1:]
        drawn = _drawn(seeds[first : first + AT_ONCE])
        own[...] = drawn >= _BELOW[0]
        for below in _BELOW[1:]:
            own += drawn >= below
    return weights


def _drawn(seeds: np.ndarray) -> np.ndarray:
    """Return SplitMix64's numbers after some seeds, (n, replicates) uint16."""
    found = seeds[:, None] + _STEPS
    for shift, factor in _MIX:
        found ^= found >> np.uint64(shift)
        found *= np.uint64(factor)
    found ^= found >> np.uint64(31)
    return found.astype("<u8", copy=False).view("<u2")


def exact(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return values as the two parts whose sums are exact."""
    coarse = np.rint(values * COARSE) / COARSE
    return coarse, np.rint((values - coarse) * FINE) / FINE
