"""What a run found: its records and rows, found and paired."""
