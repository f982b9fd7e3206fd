from .judging import judge as judge
from .pairing import (
    CellsBySeed as CellsBySeed,
    Pairing as Pairing,
    pair as pair,
    pooled_delta as pooled_delta,
    why_unpaired as why_unpaired,
)
from .results import (
    Results as Results,
    Subjects as Subjects,
    mean_clean_loss as mean_clean_loss,
    mean_flops as mean_flops,
)
from .rule import EQUIVALENCE_NATS as EQUIVALENCE_NATS
