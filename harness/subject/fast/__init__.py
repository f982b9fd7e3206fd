"""Kernels, caches and recorded passes that make a causal model's passes quick."""
