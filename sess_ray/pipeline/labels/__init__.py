"""The job that makes labels of maps."""
