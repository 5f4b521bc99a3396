"""The explain command as it is on a large input: spans of twelve rows or a shard, and blocks of few images.

Blocks are those of slow methods, or of large images; what is joined becomes several files. What it sets is the driver's
alone: how spans are cut, and how they are joined, travels from there.
"""

from sess_ray.cli.main import main
from sess_ray.io import spans
from sess_ray.io.compaction import Limits
from sess_ray.pipeline.explain import compacting, job

ROWS, BLOCK = 12, 2
BLOCK_BYTES = 40_000  # two or three images
LIMITS = Limits(group_rows=4, file_bytes=30_000, step=2)

if __name__ == "__main__":
    spans.LARGE, spans.LEAST_ROWS = ROWS, ROWS
    job.most_rows = lambda *_: BLOCK
    job.block_bytes = lambda *_: BLOCK_BYTES
    compacting.USUAL = LIMITS
    main("explain")
