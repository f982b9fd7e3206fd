"""What a subject is made of: passes, their cost, the vocabulary."""
