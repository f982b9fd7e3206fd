"""Hand a plan to a Slurm cluster, and look after the jobs that work on it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
