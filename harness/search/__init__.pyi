from .blocks import (
    KEPT_AT_MOST as KEPT_AT_MOST,
    PROBES as PROBES,
    Block as Block,
    BlockSearch as BlockSearch,
    draw_from_lists as draw_from_lists,
)
from .flips import (
    Flip as Flip,
    Pool as Pool,
    State as State,
    draw_flips as draw_flips,
    flip_search as flip_search,
    gains_for_distance as gains_for_distance,
    scaled_gains as scaled_gains,
)
from .local import Learner as Learner, bigrams_of as bigrams_of
from .multi import (
    MultiSearch as MultiSearch,
    Source as Source,
    look_nowhere as look_nowhere,
)
from .options import BlockOptions as BlockOptions
from .replay import (
    Replay as Replay,
    as_labels as as_labels,
    label_faults as label_faults,
)
from .scheduler import (
    Gradients as Gradients,
    Search as Search,
    lockstep as lockstep,
    passes as passes,
    shares as shares,
    trigger_passes as trigger_passes,
)
from .triggers import (
    Batch as Batch,
    Trigger as Trigger,
    TriggerSearch as TriggerSearch,
    with_trigger as with_trigger,
)
