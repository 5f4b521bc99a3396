"""The same as ``sess-ray labels``, for ``ray job submit --working-dir . -- python jobs/export_labels.py``."""

from sess_ray.cli.main import main

if __name__ == "__main__":
    main("labels")
