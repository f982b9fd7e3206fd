from .claims import (
    Bound as Bound,
    Claims as Claims,
    ClaimsChange as ClaimsChange,
    Measure as Measure,
    StatedClaim as StatedClaim,
    claims_changes as claims_changes,
)
from .crossed import (
    TREATMENT_SEEDS as TREATMENT_SEEDS,
    Crossed as Crossed,
    Design as Design,
    clopper_pearson as clopper_pearson,
)
from .estimate import Estimate as Estimate
from .files import (
    parse_record as parse_record,
    read_record as read_record,
    write_record as write_record,
)
from .margin import Margin as Margin, margin_change as margin_change
from .record import (
    BUDGET_TOLERANCE as BUDGET_TOLERANCE,
    SCHEMA_VERSION as SCHEMA_VERSION,
    ArmRef as ArmRef,
    AttackRef as AttackRef,
    Certificate as Certificate,
    CertificateCheck as CertificateCheck,
    Certificates as Certificates,
    Cost as Cost,
    Derivation as Derivation,
    Diagnostic as Diagnostic,
    DiagnosticId as DiagnosticId,
    DiagnosticStatus as DiagnosticStatus,
    ErrorInfo as ErrorInfo,
    Frozen as Frozen,
    Ledger as Ledger,
    ModelRef as ModelRef,
    Phase as Phase,
    PluginRef as PluginRef,
    Provenance as Provenance,
    Record as Record,
    RecoverySummary as RecoverySummary,
    Samples as Samples,
    SuiteRef as SuiteRef,
    TokensRef as TokensRef,
)
from .report import REPORT_VERSION as REPORT_VERSION
from .rouge_scores import KINDS as KINDS, rouge as rouge
from .samples import (
    ROUGE_DROP as ROUGE_DROP,
    ChoiceRow as ChoiceRow,
    Replicate as Replicate,
    SampleRow as SampleRow,
    parse_samples as parse_samples,
    read_samples as read_samples,
)
from .schemas import violations as violations
from .statistics import (
    across_seeds as across_seeds,
    bootstrap_mean as bootstrap_mean,
    bootstrap_ratio as bootstrap_ratio,
    holm as holm,
    paired_difference as paired_difference,
    paired_p as paired_p,
    spread_interval as spread_interval,
    wilson as wilson,
)
from .strict_json import parse_json as parse_json
from .summary import (
    exceeds as exceeds,
    lost_answers as lost_answers,
    spoilt_summaries as spoilt_summaries,
    successes as successes,
    summarise_attack as summarise_attack,
)
from .verdicts import (
    Answer as Answer,
    ArmVerdict as ArmVerdict,
    AtShare as AtShare,
    Calibration as Calibration,
    ClaimAnswer as ClaimAnswer,
    Components as Components,
    Detected as Detected,
    Difference as Difference,
    Judged as Judged,
    Needed as Needed,
    Said as Said,
    Tested as Tested,
    Verdicts as Verdicts,
    Word as Word,
)
