"""The job that measures maps and compares runs."""
