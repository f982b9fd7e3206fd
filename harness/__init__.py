"""An adversarial robustness evaluation harness for language models."""

from importlib.metadata import PackageNotFoundError, version

import lazy_loader
import pluggy

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__", "hookimpl"]

hookimpl = pluggy.HookimplMarker("harness")
"""Mark a function of a plugin as the implementation of a hook."""

try:
    __version__ = version("harness")
except PackageNotFoundError:  # a bare source tree on sys.path
    __version__ = "0+unknown"
