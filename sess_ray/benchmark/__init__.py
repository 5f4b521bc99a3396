"""What the engine and the job cost, beside what they can not cost less than."""
