"""The same as ``sess-ray evaluate``, for ``ray job submit --working-dir . -- python jobs/evaluate_dataset.py``."""

from sess_ray.cli.main import main

if __name__ == "__main__":
    main("evaluate")
