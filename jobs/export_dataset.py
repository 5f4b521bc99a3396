"""The same as ``sess-ray export``, for ``ray job submit --working-dir . -- python jobs/export_dataset.py``."""

from sess_ray.cli.main import main

if __name__ == "__main__":
    main("export")
