"""The same as ``sess-ray sweep``, for ``ray job submit --working-dir . -- python jobs/sweep.py``."""

from sess_ray.cli.main import main

if __name__ == "__main__":
    main("sweep")
