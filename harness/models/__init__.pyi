from .activations import (
    hull_of as hull_of,
    make_activation as make_activation,
    register_activations as register_activations,
)
from .certificate import certify as certify
from .checkpointing import spent_training as spent_training
from .checkpoints import (
    CheckpointAdapter as CheckpointAdapter,
    load_model as load_model,
    load_tokenizer as load_tokenizer,
)
from .families import (
    GPT2 as GPT2,
    GPT_NEO as GPT_NEO,
    GPT_NEOX as GPT_NEOX,
    LLAMA as LLAMA,
    OPT as OPT,
    QWEN2 as QWEN2,
    T5 as T5,
    find_anatomy as find_anatomy,
    swap_activation as swap_activation,
)
from .ffn.constraint import (
    ParametrizedConstraint as ParametrizedConstraint,
    ParametrizedOptions as ParametrizedOptions,
)
from .ffn.parametrizations import (
    PARAMETRIZATIONS as PARAMETRIZATIONS,
    SignSplit as SignSplit,
    parametrize as parametrize,
    scaled_groups as scaled_groups,
)
from .ffn.starts import (
    Start as Start,
    StartOptions as StartOptions,
    install_start as install_start,
    keyed_normal as keyed_normal,
    select as select,
)
from .freezing import (
    freeze as freeze,
    frozen_meanwhile as frozen_meanwhile,
    load_frozen as load_frozen,
    plain_state as plain_state,
)
from .matching import (
    FITTED as FITTED,
    bisect as bisect,
    compare_all as compare_all,
    compare_losses as compare_losses,
    judged_losses as judged_losses,
    matching_cost as matching_cost,
    parts_to_match as parts_to_match,
    set_between as set_between,
    weights as weights,
)
from .reading import Disturbance as Disturbance
from .recovery import Recovered as Recovered, recover as recover
from .sections import (
    AdversarialSection as AdversarialSection,
    ArmRecovery as ArmRecovery,
    RecoverySection as RecoverySection,
    divisor as divisor,
)
from .shapes import shape_of as shape_of
from .training import (
    TrainingHooks as TrainingHooks,
    TrainingPlan as TrainingPlan,
    train as train,
)
