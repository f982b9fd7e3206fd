"""The file that a user writes: read, checked, expanded, planned."""
