"""Kernels, caches and recorded passes, of which `fast_network` makes use."""
