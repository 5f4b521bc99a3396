"""The same as ``sess-ray sanity``, for ``ray job submit --working-dir . -- python jobs/sanity_checks.py``."""

from sess_ray.cli.main import main

if __name__ == "__main__":
    main("sanity")
