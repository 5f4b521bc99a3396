"""What the engine and the job cost, beside what they cannot cost less than."""
