"""Put a record together: who and what from the plan, results from the run."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Any

from harness.api import ATTACK, Plugin
from harness.base import HarnessError, code_state, hardware, library_versions
from harness.records import (
    ArmRef,
    AttackRef,
    Certificates,
    Derivation,
    Diagnostic,
    ErrorInfo,
    Estimate,
    Ledger,
    ModelRef,
    PluginRef,
    Provenance,
    Record,
    RecoverySummary,
    Samples,
    SuiteRef,
    TokensRef,
)
from harness.run.context import RunContext
from harness.suite import CellPlan, VariantPlan, named_by

Unit = VariantPlan | CellPlan


@dataclass
class Outcome:
    """What came out of a unit; as it is built, what a failure would leave."""

    results: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    samples: Samples | None = None
    parameters: int | None = None
    recovery: RecoverySummary | None = None
    certificate: Certificates | None = None
    diagnostics: list[Diagnostic] = field(default_factory=list)
    derivation: Derivation | None = None
    allowed: dict[str, Any] = field(default_factory=dict)
    """Number and hash of the tokens that an attack may write."""
    batch_size: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    restarts: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    error: ErrorInfo | None = None


def error_info(error: Exception) -> ErrorInfo:
    """Describe a failure; the traceback only where it is not the user's matter."""
    expected = isinstance(error, HarnessError)
    trace = None if expected else "".join(traceback.format_exception(error))
    return ErrorInfo(
        type=type(error).__name__, message=str(error) or repr(error), traceback=trace
    )


def assemble(
    run: RunContext, unit: Unit, outcome: Outcome, started: str, finished: str
) -> Record:
    """Return the record of a unit."""
    cell = unit if isinstance(unit, CellPlan) else None
    variant = unit.variant if isinstance(unit, CellPlan) else unit
    return Record(
        kind="cell" if cell else "variant",
        id=unit.id,
        variant=variant.id,
        status="failed" if outcome.error else "complete",
        suite=SuiteRef(
            name=run.suite.name,
            sha256=run.suite_sha256,
            profile=run.experiment.profile,
            limit=run.suite.limit,
        ),
        model=_model(run, variant, outcome.parameters),
        arm=_arm(run, variant),
        seed=variant.seed,
        attack=_attack(run, cell, outcome) if cell else None,
        identity=unit.identity,
        results=outcome.results,
        ledger=outcome.ledger,
        recovery=outcome.recovery,
        certificate=outcome.certificate,
        diagnostics=outcome.diagnostics,
        derivation=outcome.derivation,
        samples=outcome.samples,
        provenance=_provenance(run, unit, outcome, started, finished),
        error=outcome.error,
    )


def _model(run: RunContext, plan: VariantPlan, parameters: int | None) -> ModelRef:
    section = run.suite.models[plan.model]
    return ModelRef(
        label=plan.model,
        adapter=section.adapter,
        **_options(run.experiment.models[plan.model]),
        fingerprint=section.fingerprint or "unknown",
        parameters=parameters,
    )


def _arm(run: RunContext, plan: VariantPlan) -> ArmRef:
    section = run.suite.arms[plan.arm]
    return ArmRef(
        label=plan.arm,
        constraint=section.constraint,
        **_options(run.experiment.arms[plan.arm]),
        recovery=plan.identity["recovery"],
        derive_from=section.derive_from,
        match_loss_of=section.match_loss_of,
    )


def _attack(run: RunContext, plan: CellPlan, outcome: Outcome) -> AttackRef:
    section = run.suite.attacks[plan.attack]
    return AttackRef(
        label=plan.attack,
        attack=section.attack or plan.attack,
        **_options(run.experiment.attacks[plan.attack]),
        match=section.match,
        examples=plan.identity["examples"],
        tokens=TokensRef(rules=plan.identity.get("tokens", {}), **outcome.allowed),
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
    variant = unit.variant if isinstance(unit, CellPlan) else unit
    commit, dirty = code_state()
    return Provenance(
        versions=library_versions(),
        plugins=_plugins(run, unit),
        commit=commit,
        dirty=dirty,
        hardware=hardware(run.device),
        dtype=run.experiment.models[variant.model].dtype,
        batch_size=outcome.batch_size or run.suite.batch_size,
        settings=outcome.settings,
        started=started,
        finished=finished,
        seconds=outcome.seconds,
        restarts=outcome.restarts,
    )


def _attacks_at_work(run: RunContext, label: str) -> list[str]:
    """Return the plugins of an attack, of what it controls, and of what it names."""
    match, attacks = run.suite.attacks[label].match, run.experiment.attacks
    labels = [label, *([match] if match else [])]
    labels += [named for one in labels for named in named_by(attacks[one], ATTACK)]
    return list(dict.fromkeys(attacks[one].name for one in labels))


def _plugins(run: RunContext, unit: Unit) -> list[PluginRef]:
    suite, registry = run.suite, run.experiment.registry
    variant = unit.variant if isinstance(unit, CellPlan) else unit
    used = [
        ("model", suite.models[variant.model].adapter),
        ("constraint", suite.arms[variant.arm].constraint),
    ]
    if isinstance(unit, CellPlan):
        used += [("attack", name) for name in _attacks_at_work(run, unit.attack)]
    else:
        used += [("metric", m.metric or label) for label, m in suite.metrics.items()]
    infos = [registry.get(kind, name) for kind, name in used]
    return [
        PluginRef(kind=x.kind, name=x.name, version=x.version, sha256=x.sha256)
        for x in infos
    ]
