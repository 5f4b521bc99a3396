"""Where images come from, how they are decoded, what the Parquet looks like, and reading it back."""
