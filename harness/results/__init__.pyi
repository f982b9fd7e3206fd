from .archive import export_run as export_run, import_run as import_run
from .as_lm_eval import export_lm_eval as export_lm_eval
from .as_parquet import export_parquet as export_parquet
from .comparing import Key as Key, compare_runs as compare_runs
from .finding import (
    Found as Found,
    find_cells as find_cells,
    find_examples as find_examples,
    variant_folder as variant_folder,
    worst as worst,
)
from .loaded import Run as Run, load_run as load_run
from .making import SUITE as SUITE, attack as attack, run as run
from .replaying import Replayed as Replayed, replay as replay
