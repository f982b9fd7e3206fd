from .answering import answer_claims as answer_claims
from .calibration import calibrate as calibrate
from .compared import Comparison as Comparison
from .findings import SHARES as SHARES, Findings as Findings
from .judging import judge as judge
from .losses import Losses as Losses
from .measured import (
    of_attack as of_attack,
    of_metric as of_metric,
    perplexity_change as perplexity_change,
)
from .pairing import (
    Attacked as Attacked,
    CellsBySeed as CellsBySeed,
    Pairing as Pairing,
    by_unit as by_unit,
    crossed_mean as crossed_mean,
    mean_over as mean_over,
    pair as pair,
    same_examples as same_examples,
)
from .power import (
    Foreseen as Foreseen,
    Found as Found,
    Planned as Planned,
    foresee as foresee,
)
from .reading import findings_of as findings_of
from .results import (
    Arm as Arm,
    Results as Results,
    mean_flops as mean_flops,
    paired as paired,
)
