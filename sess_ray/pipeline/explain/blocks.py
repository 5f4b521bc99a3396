"""How many images a block has: Ray Data moves, retries and writes blocks whole."""

from __future__ import annotations

from math import ceil

import pyarrow as pa

from sess_ray.io.items import is_shard, split_uri
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.windows import Size, sess_plan

# A block costs about 20 ms whatever is in it; the last blocks should not leave actors waiting for one another.
BLOCK_ROWS = 32
BLOCKS_PER_ACTOR = 16
# Before the first image is read, each block takes the driver more than a millisecond: of many images they are larger.
BLOCKS = 1024
# Also of rows of one Parquet file with image bytes: a row group that is cut is read again.
MAX_BLOCK_ROWS = 512
# What is lost with a block that is cut short: a quarter of an hour of a core with SqueezeNet.
MAX_BLOCK_PASSES = 2**17
# For each so many actors blocks are larger by as much again: the driver passes some 48 a second, whatever is in them.
LARGE_POOL = 256
TYPICAL_IMAGE = (375, 500)
TYPICAL_CHANNELS = 512


def most_rows(config: ExplainConfig, input_size: Size, actors: int) -> int:
    """Return how many images of a common size a block may have, lest an actor works for hours before it is written."""
    from sess_ray import methods  # both import torch, which a driver that only plans does without
    from sess_ray.engine.fusion import num_kept

    plan = sess_plan(*TYPICAL_IMAGE, input_size, config.num_scales, config.step_size)
    windows = plan.num_patches or 1
    kept = num_kept(windows, config.ratio())
    passes = windows + kept * methods.get(config.method).num_passes(TYPICAL_CHANNELS)
    larger = ceil(actors / LARGE_POOL)
    return min(fast_rows(actors), max(1, larger * MAX_BLOCK_PASSES // passes))


def fast_rows(actors: int) -> int:
    """Return `most_rows` of a method that is so fast that its passes do not limit a block.

    >>> fast_rows(16), fast_rows(1000)
    (512, 2048)
    """
    return ceil(actors / LARGE_POOL) * MAX_BLOCK_ROWS


def block_rows(number: int, left: float, images: float, actors: int, most: int, *, packed: bool = False) -> int:
    """Return how many images a block has.

    The first blocks are small, so that the first rows are there soon. Later ones are an actor's share of what is left,
    so that files are few, and yet no actor waits long for another in the end.

    Parameters
    ----------
    number : int
        Blocks before it.
    left : float
        Images that are in none of those.
    images : float
        All images.
    actors : int
    most : int
        As of `most_rows`.
    packed : bool
        Whether they are rows of one Parquet file.
    """
    fair = max(1, ceil(images / (actors * BLOCKS_PER_ACTOR)))
    few = most if packed else max(BLOCK_ROWS, ceil(images / BLOCKS))
    soon = (fair if packed else 1) * 2 ** min(number, MAX_BLOCK_ROWS.bit_length())
    return min(soon, max(fair, ceil(left / actors)), max(fair, BLOCK_ROWS), few, most)


def block_sizes(images: int, actors: int, most: int = MAX_BLOCK_ROWS, *, packed: bool = False) -> list[int]:
    """Return the sizes of blocks of images that are all alike.

    >>> block_sizes(40, actors=2)
    [1, 2, 4, 8, 13, 6, 3, 2, 1]
    """
    sizes: list[int] = []
    left = images
    while left > 0:
        sizes.append(min(left, block_rows(len(sizes), left, images, actors, most, packed=packed)))
        left -= sizes[-1]
    return sizes


def blocks(tasks: pa.Table, actors: int, most: int = MAX_BLOCK_ROWS) -> list[pa.Table]:
    """Cut the tasks: a few images, some rows of one Parquet file, or one tar shard; how many, says `block_rows`."""
    cuts: list[int] = []
    before, end = "", 0
    uris = (uri for chunk in tasks["uri"].chunks for uri in chunk.to_pylist())
    for number, uri in enumerate(uris):
        file, member = split_uri(uri)
        kind = uri if is_shard(uri) else file if member is not None else ""
        if kind != before or number >= end:
            left = tasks.num_rows - number
            end = number + block_rows(len(cuts), left, tasks.num_rows, actors, most, packed=bool(kind))
            cuts.append(number)
        before = kind
    tasks = tasks.combine_chunks()  # or each slice would look for its rows in all chunks
    ends = [*cuts[1:], tasks.num_rows]
    return [tasks.slice(start, end - start) for start, end in zip(cuts, ends, strict=True)]
