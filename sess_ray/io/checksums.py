"""Checksums of texts: 8 bytes stand for each of so many that no process should hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def checksums(texts: Iterable[str]) -> np.ndarray:
    """Return 64 bits of each text, (n,) uint64; that two texts share theirs is as good as never luck, and may be."""
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), np.uint64)


def repeated(ordered: np.ndarray) -> np.ndarray:
    """Return which of sorted numbers come more than once, each of them once."""
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
