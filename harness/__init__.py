"""Find out whether a change to a language model makes it harder to attack."""

from importlib.metadata import PackageNotFoundError, version

import pluggy

__all__ = ["__version__", "hookimpl"]

hookimpl = pluggy.HookimplMarker("harness")
"""Mark a function of a plugin as the implementation of a hook."""

try:
    __version__ = version("harness")
except PackageNotFoundError:  # a bare source tree on sys.path
    __version__ = "0+unknown"
