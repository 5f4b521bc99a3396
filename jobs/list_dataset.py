"""The same as ``sess-ray list``, for ``ray job submit --working-dir . -- python jobs/list_dataset.py``."""

from sess_ray.cli.main import main

if __name__ == "__main__":
    main("list")
