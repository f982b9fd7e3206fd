from .arrays import Ids as Ids
from .deaths import (
    DEATHS as DEATHS,
    fatal as fatal,
    forget_deaths as forget_deaths,
    note_death as note_death,
)
from .disk import disk_errors as disk_errors, disk_fault as disk_fault
from .errors import (
    CellError as CellError,
    HarnessError as HarnessError,
    LeaseLost as LeaseLost,
    MissingResource as MissingResource,
    NothingMatched as NothingMatched,
    PluginError as PluginError,
    RecordError as RecordError,
    Stopped as Stopped,
    SuiteError as SuiteError,
    TrainingDiverged as TrainingDiverged,
    UsageError as UsageError,
    near_path as near_path,
    nearest as nearest,
    shortened as shortened,
    unknown_name as unknown_name,
)
from .isolation import (
    TimeUp as TimeUp,
    addressed_bytes as addressed_bytes,
    fixed_random_state as fixed_random_state,
    memory_limit as memory_limit,
    offline as offline,
    replaced as replaced,
    silenced as silenced,
    stdout_apart as stdout_apart,
    time_limit as time_limit,
)
from .keeping import SLATE as SLATE
from .leases import Lease as Lease, hold as hold, take as take
from .manifest import (
    fault_of as fault_of,
    flushed_meanwhile as flushed_meanwhile,
    seal as seal,
    sha256_file as sha256_file,
    sha256_once as sha256_once,
)
from .problems import Problem as Problem
from .progress import Progress as Progress
from .provenance import (
    available_cores as available_cores,
    code_state as code_state,
    hardware as hardware,
    library_versions as library_versions,
    utc_after as utc_after,
    utc_now as utc_now,
)
from .showing import visible as visible, visible_json as visible_json
from .signals import (
    INTERRUPTED as INTERRUPTED,
    INTERRUPTED_LINE as INTERRUPTED_LINE,
    STOP_SIGNALS as STOP_SIGNALS,
    StopSignals as StopSignals,
    leave as leave,
    stop_on_signals as stop_on_signals,
)
from .spelling import (
    GIB as GIB,
    spell_seconds as spell_seconds,
    spell_size as spell_size,
)
from .spreading import spread as spread
from .store import (
    Store as Store,
    content_hash as content_hash,
    default_store_root as default_store_root,
    fingerprint_files as fingerprint_files,
)
from .strict import (
    LARGEST_WHOLE as LARGEST_WHOLE,
    Positive as Positive,
    Strict as Strict,
)
from .writing import (
    write_atomic as write_atomic,
    write_json as write_json,
)
