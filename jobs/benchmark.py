"""The same as ``sess-ray benchmark``, for ``ray job submit --working-dir . -- python jobs/benchmark.py``."""

from sess_ray.cli.main import main

if __name__ == "__main__":
    main("benchmark")
