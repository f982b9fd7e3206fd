"""An adversarial robustness evaluation harness for language models."""

from importlib.metadata import PackageNotFoundError, version

import pluggy

__all__ = ["__version__", "hookimpl"]

hookimpl = pluggy.HookimplMarker("harness")
"""Mark a function of a plugin as the implementation of a hook."""

try:
    __version__ = version("harness")
except PackageNotFoundError:  # a bare source tree on sys.path
    __version__ = "0+unknown"
