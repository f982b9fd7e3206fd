from .cluster import ClusterSection as ClusterSection
from .cluster_file import own_cluster as own_cluster
from .costs import PlanCosts as PlanCosts, plan_costs as plan_costs
from .devices import (
    Device as Device,
    Precision as Precision,
    Terms as Terms,
    choose_device as choose_device,
    cpu_device as cpu_device,
    find_device as find_device,
    gpu_device as gpu_device,
    keep_device as keep_device,
    phase_seconds as phase_seconds,
)
from .drafting import draft_suite as draft_suite, label_of as label_of
from .experiment import (
    CHECKPOINTS as CHECKPOINTS,
    DOUBLED as DOUBLED,
    Experiment as Experiment,
    Placed as Placed,
)
from .fitting import misfits as misfits, refuse_misfits as refuse_misfits
from .identity import EXAMINED as EXAMINED
from .loading import (
    dump_suite as dump_suite,
    freeze_suite as freeze_suite,
    load_experiment as load_experiment,
    validate_suite as validate_suite,
)
from .marks import named_by as named_by
from .model import ASKED_EXAMPLES as ASKED_EXAMPLES, Suite as Suite
from .plan import (
    CellPlan as CellPlan,
    Plan as Plan,
    Unit as Unit,
    UnitKind as UnitKind,
    VariantPlan as VariantPlan,
    make_plan as make_plan,
)
from .pricing import PricedPlan as PricedPlan
from .resources import (
    identify as identify,
    missing as missing,
    missing_device as missing_device,
    missing_parts as missing_parts,
    missing_sources as missing_sources,
    prefetch as prefetch,
    resolve as resolve,
    with_fingerprints as with_fingerprints,
)
from .schema import suite_schema as suite_schema
from .shortening import would_fit as would_fit
from .unloaded import Unloaded as Unloaded
from .yaml import Layer as Layer, Place as Place, parse as parse
