"""Put a record together: who and what from the plan, results from the run."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Any

from harness.api import ATTACK, Plugin, plugin_frame
from harness.base import HarnessError, code_state, hardware, library_versions
from harness.records import (
    ArmRef,
    AttackRef,
    Certificates,
    Derivation,
    Diagnostic,
    ErrorInfo,
    Estimate,
    Frozen,
    Ledger,
    Margin,
    ModelRef,
    PluginRef,
    Provenance,
    Record,
    RecoverySummary,
    Samples,
    SuiteRef,
    TokensRef,
)
from harness.running.context import RunContext
from harness.suite import Experiment, Unit, VariantPlan, named_by


@dataclass
class Outcome:
    """The part of a record that a run fills, as far as it came.

    What stands under the name of a field of `Record` becomes that field.
    """

    results: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    samples: Samples | None = None
    recovery: RecoverySummary | None = None
    certificate: Certificates | None = None
    derivation: Derivation | None = None
    frozen: Frozen | None = None
    diagnostics: list[Diagnostic] = field(default_factory=list)
    error: ErrorInfo | None = None
    parameters: int | None = None
    """Of the loaded model."""
    allowed: dict[str, Any] = field(default_factory=dict)
    """Number and hash of the tokens that an attack may write."""
    batch_size: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    restarts: int = 0
    wall_seconds: float | None = None

    def fail(self, error: BaseException) -> None:
        """Turn into the outcome of a unit that failed: no results, and why."""
        self.results, self.samples, self.error = {}, None, error_info(error)
        self.ledger = Ledger(spent=self.ledger.spent)


def error_info(error: BaseException) -> ErrorInfo:
    """Describe a failure; the traceback only where it is not the user's matter."""
    expected = isinstance(error, HarnessError)
    trace = None if expected else "".join(traceback.format_exception(error))
    message = str(error) or repr(error)
    if isinstance(error, SystemExit):
        message = f"a plugin called sys.exit({error.code!r})"
    elif isinstance(error, KeyboardInterrupt):
        message = "a plugin raised KeyboardInterrupt, and nobody had pressed Ctrl-C"
    frame = plugin_frame(error)
    return ErrorInfo(
        type=type(error).__name__,
        message=message,
        traceback=trace,
        place=frame and f"{frame.filename}, line {frame.lineno}, in {frame.name}",
    )


def assemble(
    run: RunContext, unit: Unit, outcome: Outcome, started: str, finished: str
) -> Record:
    """Return the record of a unit."""
    filled = {k: v for k, v in vars(outcome).items() if k in Record.model_fields}
    return Record(
        kind=unit.kind,
        id=unit.id,
        variant=unit.variant.id,
        status="failed" if outcome.error else "complete",
        suite=SuiteRef(
            name=run.suite.name,
            sha256=run.suite_sha256,
            profile=run.experiment.profile,
            limit=run.suite.limit,
        ),
        model=model_ref(run.experiment, unit.variant, outcome.parameters),
        arm=arm_ref(run.experiment, unit.variant),
        margin=Margin.of(run.suite.verdicts.margin),
        claims=run.suite.stated_claims(),
        seed=unit.variant.seed,
        attack=attack_ref(run.experiment, unit, **outcome.allowed),
        identity=unit.identity,
        provenance=_provenance(run, unit, outcome, started, finished),
        **filled,
    )


def model_ref(
    experiment: Experiment, plan: VariantPlan, parameters: int | None = None
) -> ModelRef:
    """Return what a record says of the model of a variant."""
    section = experiment.suite.models[plan.model]
    return ModelRef(
        label=plan.model,
        adapter=section.adapter,
        **_options(experiment.models[plan.model]),
        fingerprint=section.fingerprint or "unknown",
        parameters=parameters,
    )


def arm_ref(experiment: Experiment, plan: VariantPlan) -> ArmRef:
    """Return what a record says of the arm of a variant."""
    section, constraint = experiment.suite.arms[plan.arm], experiment.arms[plan.arm]
    return ArmRef(
        label=plan.arm,
        constraint=section.constraint,
        role="replica" if section.replicate else constraint.role,
        **_options(constraint),
        recovery=plan.identity["recovery"],
        against=experiment.suite.reference_of(plan.arm),
        replicate=section.replicate,
        derive_from=section.derive_from,
        match_loss_of=section.match_loss_of,
        weaker_than=section.weaker_than,
    )


def attack_ref(experiment: Experiment, unit: Unit, **allowed: Any) -> AttackRef | None:
    """Return what a record says of the attack of a cell; None for a variant.

    `allowed` are number and hash of the tokens that it may write.
    """
    if unit.attack is None:
        return None
    section = experiment.suite.attacks[unit.attack]
    plugin = experiment.attacks[unit.attack]
    return AttackRef(
        label=unit.attack,
        attack=section.attack or unit.attack,
        **_options(plugin),
        match=section.match,
        role=section.role,
        share=unit.identity.get("share", 1.0),
        shows=plugin.shows,
        replays=plugin.replays,
        examples=unit.identity["examples"],
        tokens=TokensRef(rules=unit.identity.get("tokens", {}), **allowed),
    )


def _options(plugin: Plugin[Any]) -> dict[str, Any]:
    """Return a plugin's options, and which of them the suite states."""
    options = plugin.options
    return {
        "options": options.model_dump(mode="json"),
        "given": sorted(options.model_fields_set),
    }


def _provenance(
    run: RunContext, unit: Unit, outcome: Outcome, started: str, finished: str
) -> Provenance:
    commit, dirty = code_state()
    return Provenance(
        versions=library_versions(),
        plugins=plugins_used(run.experiment, unit),
        commit=commit,
        dirty=dirty,
        hardware=hardware(run.device),
        dtype=run.experiment.models[unit.variant.model].dtype,
        batch_size=outcome.batch_size or run.suite.batch_size,
        settings=outcome.settings,
        started=started,
        finished=finished,
        seconds={p: round(c.seconds, 3) for p, c in outcome.ledger.spent.items()},
        wall_seconds=outcome.wall_seconds,
        restarts=outcome.restarts,
    )


def plugins_used(experiment: Experiment, unit: Unit) -> list[PluginRef]:
    """Return the plugins that a unit takes, as they are installed."""
    suite, variant = experiment.suite, unit.variant
    used = [
        ("model", suite.models[variant.model].adapter),
        ("constraint", suite.arms[variant.arm].constraint),
    ]
    adversary = experiment.adversaries.get(variant.arm)
    used += [("attack", adversary.name)] if adversary else []
    if unit.attack:
        used += [("attack", name) for name in _attacks_at_work(experiment, unit.attack)]
    else:
        used += [("metric", m.metric or label) for label, m in suite.metrics.items()]
    infos = [experiment.registry.get(kind, name) for kind, name in used]
    return [
        PluginRef(kind=x.kind, name=x.name, version=x.version, sha256=x.sha256)
        for x in infos
    ]


def _attacks_at_work(experiment: Experiment, label: str) -> list[str]:
    """Return the plugins of an attack, of what it controls, and of what it names."""
    match, attacks = experiment.suite.attacks[label].match, experiment.attacks
    labels = [label, *([match] if match else [])]
    labels += [named for one in labels for named in named_by(attacks[one], ATTACK)]
    return list(dict.fromkeys(attacks[one].name for one in labels))
