"""What an explain job will take, as --dry-run says it."""
