"""What a run found, paired and judged: which arm is harder to attack."""
