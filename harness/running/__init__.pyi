from .calibrating import calibrate as calibrate
from .diagnostics.replay import (
    TOLERANCE_NATS as TOLERANCE_NATS,
    replays as replays,
)
from .folder import RunFolder as RunFolder, vocabulary_of as vocabulary_of
from .frozen import Frozen as Frozen, freeze as freeze, thaw as thaw
from .importing import quick_imports as quick_imports
from .preparing import prepare as prepare
from .previewing import (
    UnitPreview as UnitPreview,
    identity_changes as identity_changes,
    preview as preview,
    summary as summary,
)
from .suite_run import (
    Tally as Tally,
    finish as finish,
    run_plan as run_plan,
    run_units as run_units,
    units_of as units_of,
)
from .surveying import (
    STATES as STATES,
    Survey as Survey,
    SurveyedUnit as SurveyedUnit,
    changes as changes,
    error_warning as error_warning,
    survey as survey,
)
from .time_left import Remaining as Remaining, remaining as remaining
from .validation.validate import (
    Replaying as Replaying,
    Validation as Validation,
    validate as validate,
)
from .workers import (
    environments as environments,
    make_models as make_models,
    run_side_by_side as run_side_by_side,
)
