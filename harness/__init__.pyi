import pluggy

from .results import attack as attack, load_run as load_run, run as run

__version__: str
hookimpl: pluggy.HookimplMarker
