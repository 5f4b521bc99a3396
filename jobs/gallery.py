"""The same as ``sess-ray gallery``, for ``ray job submit --working-dir . -- python jobs/gallery.py``."""

from sess_ray.cli.main import main

if __name__ == "__main__":
    main("gallery")
