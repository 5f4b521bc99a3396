"""What every job needs of Ray."""
