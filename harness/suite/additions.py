"""What a suite need not say: controls, and the cells and arms of full diagnostics.

They become ordinary entries of `attacks` and `arms`. A resolved suite, its plan, its
status and its report therefore see nothing but entries, and a suite that holds them
already, because it is a resolved one or because its author stated them, gets no second
ones. Derived arms (matches in clean loss, planted weaknesses) get the attacks that look
for something: no controls, no replays, no cells of other diagnostics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from harness.api import Attack, Registry
from harness.base import UsageError
from harness.suite.experiment import Experiment
from harness.suite.model import (
    ASKED_EXAMPLES,
    ArmSection,
    AttackSection,
)
from harness.suite.names import BASELINE
from harness.suite.unloaded import Unloaded

DECIDING_KINDS = ("token", "ffn")
"""The kinds of planted weakness that verdicts heed."""
PLANTED_KINDS = (*DECIDING_KINDS, "pair", "hidden")
"""All that are planted, each into a copy of an arm; into the baseline, the former."""
PLANTED_NATS = (3.0, 1.0, 0.3)
"""By how much they raise dL above what attacks do to the arm: the strongest first."""

Addition = tuple[str, AttackSection]
"""A label and its entry."""


def expand(experiment: Experiment) -> Experiment:
    """Add the entries that a valid suite did not state, and build their plugins.

    Complains, in the experiment's layer, of what is in the way of one.
    """
    return _with_arms(_with_attacks(experiment))


def _with_attacks(experiment: Experiment) -> Experiment:
    """Add attacks, each after the one that it belongs to."""
    sections: dict[str, AttackSection] = {}
    for label, section in experiment.suite.attacks.items():
        sections[label] = section
        try:
            sections |= _additions(experiment, label)
        except UsageError as error:
            experiment.layer.complain(("attacks", label), str(error))
    sections |= _replays(experiment)
    attacks = {
        label: experiment.attacks.get(label)
        or _create(experiment.registry, section.attack or label, section.options)
        for label, section in sections.items()
    }
    suite = experiment.suite.model_copy(update={"attacks": sections})
    return replace(experiment, suite=suite, attacks=attacks)


def _with_arms(experiment: Experiment) -> Experiment:
    """Add the arms that full diagnostics need; those that are stated stay."""
    suite, registry = experiment.suite, experiment.registry
    # Those of the suite come first, and are what counts.
    sections = suite.arms | dict(_derived_arms(experiment)) | suite.arms
    arms = {
        label: experiment.arms.get(label)
        or cast(Any, registry.create("constraint", section.constraint, section.options))
        for label, section in sections.items()
    }
    suite = suite.model_copy(update={"arms": sections})
    known = experiment.adversaries
    adversaries = known | {
        label: known[section.replicate]
        for label, section in sections.items()
        if section.replicate in known
    }
    return replace(experiment, suite=suite, arms=arms, adversaries=adversaries)


def _create(registry: Registry, name: str, options: dict[str, Any]) -> Attack[Any]:
    return cast("Attack[Any]", registry.create("attack", name, options))


# --- controls -----------------------------------------------------------------------


def _additions(experiment: Experiment, label: str) -> Iterator[Addition]:
    """Yield the entries that go with an attack; UsageError where one cannot be."""
    if experiment.suite.attacks[label].is_main:
        yield from _controls(experiment, label)
        if experiment.suite.diagnostics == "full":
            yield from _roles(experiment, label)
        yield from _token_level(experiment, label)


def _controls(experiment: Experiment, label: str) -> Iterator[Addition]:
    """Yield the controls of an attack.

    Those that a suite lists have to fit; of those that an attack asks for, only those
    that do are meant.
    """
    attack, stated = experiment.attacks[label], experiment.suite.attacks[label].controls
    for name in _names_of_controls(experiment, label):
        control = _create(experiment.registry, name, {})
        if isinstance(attack, Unloaded) or isinstance(control, Unloaded):
            continue  # whether one suits the other is not known
        reason = control.unfit(attack)
        if reason and isinstance(stated, tuple):
            raise UsageError(f"{name!r} cannot be its control: {reason}")
        if not reason and not _has_control(experiment, label, name):
            section = AttackSection(attack=name, match=label)
            yield _free(experiment, f"{label}-{name}", section)


def _names_of_controls(experiment: Experiment, label: str) -> tuple[str, ...]:
    suite, attack = experiment.suite, experiment.attacks[label]
    wanted = suite.attacks[label].controls or suite.controls
    if wanted == "none":
        return ()
    if wanted != "auto":
        return wanted
    if attack.controls is not None:
        return attack.controls
    return tuple(x.name for x in experiment.registry.all("attack", shows="search"))


def _has_control(experiment: Experiment, label: str, name: str) -> bool:
    return any(
        experiment.attacks[other].name == name and section.match == label
        for other, section in experiment.suite.attacks.items()
    )


def _free(experiment: Experiment, label: str, section: AttackSection) -> Addition:
    if label in experiment.suite.attacks:
        raise UsageError(
            f"its {section.attack} would be called {label!r}, like another entry; "
            "give that one another label"
        )
    return label, section


def _token_level(experiment: Experiment, label: str) -> Iterator[Addition]:
    """Yield the attack over all token sequences, if the suite asks for it."""
    suite, attack = experiment.suite, experiment.attacks[label]
    asked = suite.verdicts.token_level and suite.tokens.reachable_only
    name = f"{label}-tokens"
    stated = suite.attacks.get(name)
    if asked and label in experiment.searches() and not (stated and stated.role):
        section = {"attack": attack.name, "role": "token-level"}
        options = suite.attacks[label].options
        entry = AttackSection.model_validate({**options, **section})
        yield _free(experiment, name, entry)


# --- full diagnostics ---------------------------------------------------------------


def _roles(experiment: Experiment, label: str) -> Iterator[Addition]:
    """Yield the attack without its limits, and random search that is as free."""
    suite, attack = experiment.suite, experiment.attacks[label]
    options = suite.examples and attack.unbounded(suite.examples.prompt_tokens)
    if options is None:
        return
    free = f"{label}-unbounded"
    stated = suite.attacks.get(free)
    if not (stated and stated.role == "unbounded"):
        values = options.model_dump(mode="json", exclude_none=True)
        entry = {"attack": attack.name, "role": "unbounded", **values}
        yield _free(experiment, free, AttackSection.model_validate(entry))
    for name in _names_of_controls(experiment, label):
        control = _create(experiment.registry, name, {})
        fits = control.shows == "search" and not control.unfit(attack)
        if fits and not _has_control(experiment, free, name):
            section = AttackSection(attack=name, match=free)
            yield _free(experiment, f"{free}-{name}", section)


def _replays(experiment: Experiment) -> Iterator[Addition]:
    """Yield what shows how far adversarial inputs carry, if the suite lacks it."""
    suite, registry = experiment.suite, experiment.registry
    if suite.diagnostics != "full" or not suite.attacks:
        return
    shown = {None, *(attack.shows for attack in experiment.attacks.values())}
    scenes = [experiment.scene(arm) for arm in suite.arms]
    for info in registry.all("attack", replays=True):
        attack = _create(registry, info.name, {})
        lacks = attack.shows not in shown and info.name not in suite.attacks
        if lacks and any(attack.reads(scene) for scene in scenes):
            yield info.name, AttackSection(attack=info.name)


def _derived_arms(experiment: Experiment) -> Iterator[tuple[str, ArmSection]]:
    """Yield a replica of the baseline, a match for each other arm, and plants.

    There is none for an arm that is derived itself. Without attacks that look for
    something nothing is added, without texts to match losses on no match or plant, and
    without recovery, or with a replica of it stated, none of the baseline.
    """
    suite = experiment.suite
    attacks = tuple(experiment.searches())
    held_out = suite.recovery and suite.recovery.validation
    texts = suite.examples and (suite.examples.validation or held_out)
    if suite.diagnostics != "full" or not attacks:
        return
    if suite.trains(BASELINE) and not any(
        section.replicate == BASELINE for section in suite.arms.values()
    ):
        yield "replica", _replica(suite.arms[BASELINE], attacks)
    if not texts:
        return
    treated = [arm for arm, section in suite.arms.items() if section.is_treatment]
    for arm in treated:
        yield from _matches(experiment, arm, attacks)
    for arm in treated:
        kinds = DECIDING_KINDS if arm == BASELINE else PLANTED_KINDS
        yield from _plants(experiment, arm, kinds, attacks)


def _matches(
    experiment: Experiment, arm: str, attacks: tuple[str, ...]
) -> Iterator[tuple[str, ArmSection]]:
    """Yield what has an arm's clean loss without its treatment.

    Its reference arm made worse and, if the suite asks for it, at an earlier step.
    """
    suite, registry = experiment.suite, experiment.registry
    reference = suite.reference_of(arm)
    if reference is None:
        return
    earlier = suite.verdicts.earlier and suite.trains(reference)
    for retraces in (False, True) if earlier else (False,):
        match = registry.only("constraint", role="match", retraces=retraces)
        section = ArmSection(
            constraint=match.name,
            derive_from=reference,
            match_loss_of=arm,
            attacks=attacks,
        )
        yield f"{arm}-{match.name if retraces else 'matched'}", section


def _replica(baseline: ArmSection, attacks: tuple[str, ...]) -> ArmSection:
    own = {"replicate": BASELINE, "against": None, "attacks": attacks, "seeds": None}
    return baseline.model_copy(update=own)


def _plants(
    experiment: Experiment, arm: str, kinds: Sequence[str], attacks: tuple[str, ...]
) -> Iterator[tuple[str, ArmSection]]:
    """Yield copies of an arm with weaknesses of each kind and strength, for one seed.

    The strongest of a kind is trained; the others have it in a weaker form.
    """
    (plant,) = experiment.registry.all("constraint", role="plant")
    suite = experiment.suite
    for kind in kinds:
        strongest = None
        for strength in PLANTED_NATS:
            label = f"{arm}-planted-{kind}-{strength:g}"
            options = {"kind": kind, "strength": strength}
            yield (
                label,
                ArmSection(
                    constraint=plant.name,
                    derive_from=arm,
                    weaker_than=strongest,
                    attacks=attacks,
                    examples=ASKED_EXAMPLES,
                    seeds=tuple(suite.seeds_of(arm)[:1]),
                    **cast(Any, options),
                ),
            )
            strongest = strongest or label
