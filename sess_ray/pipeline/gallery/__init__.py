"""The job that makes pages to look at."""
