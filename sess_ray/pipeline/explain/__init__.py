"""The job that explains a dataset."""
