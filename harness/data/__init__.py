"""Corpora become documents, and documents become examples."""
