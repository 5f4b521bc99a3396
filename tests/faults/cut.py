"""The explain command as it is on a large manifest: spans of twelve rows, and blocks of two as those of slow methods.

What it sets is the driver's alone: a span's size travels with it.
"""

from sess_ray.cli.main import main
from sess_ray.io import spans
from sess_ray.pipeline.explain import job

ROWS, BLOCK = 12, 2

if __name__ == "__main__":
    spans.LARGE, spans.LEAST_ROWS = ROWS, ROWS
    job.most_rows = lambda *_: BLOCK
    main("explain")
