"""``python -m sess_ray`` is ``sess-ray``."""

from sess_ray.cli.main import main

if __name__ == "__main__":
    main()
