"""Checksums of texts, and which of them come again."""

from __future__ import annotations

import numpy as np

from sess_ray.io.checksums import checksums, repeated


def test_they_tell_texts_apart_and_are_always_the_same():
    texts = [f"{number}" for number in range(10_000)]
    assert len(np.unique(checksums(texts))) == 10_000
    assert checksums(["a.jpg"]).tolist() == [9918916968011810814]


def test_what_comes_again_is_said_once():
    assert repeated(np.array([1, 2, 2, 5, 7, 7, 7, 9])).tolist() == [2, 7]
    assert repeated(np.array([], np.uint64)).tolist() == []
