"""The same as ``sess-ray explain``, for ``ray job submit --working-dir . -- python jobs/explain_dataset.py``."""

from sess_ray.cli.main import main

if __name__ == "__main__":
    main("explain")
