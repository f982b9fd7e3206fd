"""What is written down: records, samples, verdicts, and their statistics."""
