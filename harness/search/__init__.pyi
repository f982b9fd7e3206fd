from .blocks import Block as Block, BlockSearch as BlockSearch
from .course import Course as Course
from .flips import (
    Flip as Flip,
    Pool as Pool,
    Success as Success,
    flip_search as flip_search,
    shares as shares,
)
from .guide import Explorer as Explorer, Guide as Guide
from .local import Learner as Learner, bigrams_of as bigrams_of
from .multi import (
    MultiSearch as MultiSearch,
    candidate_counts as candidate_counts,
)
from .options import (
    BlockAttack as BlockAttack,
    BlockOptions as BlockOptions,
    GuidedAttack as GuidedAttack,
)
from .policy import FlipPolicy as FlipPolicy
from .replay import (
    Replay as Replay,
    as_labels as as_labels,
    label_faults as label_faults,
)
from .triggers import (
    TriggerSearch as TriggerSearch,
    with_triggers as with_triggers,
)
