import pluggy

from .results import attack as attack, load_run as load_run, run_suite as run_suite

__version__: str
hookimpl: pluggy.HookimplMarker
