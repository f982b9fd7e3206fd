from .attacks import (
    Adversarial as Adversarial,
    Attack as Attack,
    AttackContext as AttackContext,
    Blind as Blind,
    Budget as Budget,
    CellKey as CellKey,
    Peers as Peers,
    Scene as Scene,
)
from .checking import stated_budget as stated_budget
from .constraints import (
    ArmContext as ArmContext,
    Constraint as Constraint,
    Visit as Visit,
)
from .costs import (
    CorpusSize as CorpusSize,
    CostContext as CostContext,
    ModelShape as ModelShape,
)
from .description import (
    Description as Description,
    OptionDescription as OptionDescription,
    describe as describe,
)
from .forgiving import PluginWarning as PluginWarning, plugin_frame as plugin_frame
from .metrics import (
    Metric as Metric,
    MetricContext as MetricContext,
    Term as Term,
)
from .models import (
    FFN as FFN,
    Anatomy as Anatomy,
    ModelAdapter as ModelAdapter,
    Projection as Projection,
)
from .plugin import (
    ATTACK as ATTACK,
    CORPUS as CORPUS,
    LOCAL_PATH as LOCAL_PATH,
    AttackLabel as AttackLabel,
    CorpusName as CorpusName,
    LocalPath as LocalPath,
    Options as Options,
    Paper as Paper,
    Plugin as Plugin,
)
from .registry import (
    KINDS as KINDS,
    PluginInfo as PluginInfo,
    Registry as Registry,
    load_registry as load_registry,
)
