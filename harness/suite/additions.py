"""What a suite need not say: controls, and the cells and arms of full diagnostics.

They become ordinary entries of `attacks` and `arms`. A resolved suite, its plan, its
status and its report therefore see nothing but entries, and a suite that holds them
already, because it is a resolved one or because its author stated them, gets no second
ones. Derived arms (matches in clean loss, planted weaknesses) get the attacks that look
for something: no controls, no replays, no cells of other diagnostics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from harness.api import Attack, Constraint, Options, Registry
from harness.base import UsageError
from harness.suite.model import ArmSection, AttackSection, Suite
from harness.suite.scenes import scene_of

Attacks = dict[str, Attack[Any]]
Role = Literal["unbounded", "longer"]


@dataclass(frozen=True)
class Fault:
    """Why an entry cannot be added."""

    label: str
    """The attack of the suite that the entry would go with."""
    message: str


@dataclass(frozen=True)
class _Addition:
    label: str
    section: AttackSection
    attack: Attack[Any]


def expand(
    suite: Suite, attacks: Mapping[str, Attack[Any]], registry: Registry
) -> tuple[Suite, Attacks, list[Fault]]:
    """Return a valid suite and its attacks with the entries it did not state.

    Each new entry stands after the attack that it belongs to.
    """
    sections: dict[str, AttackSection] = {}
    built: Attacks = {}
    faults: list[Fault] = []
    for label, section in suite.attacks.items():
        sections[label], built[label] = section, attacks[label]
        try:
            additions = list(_additions(suite, label, attacks, registry))
        except UsageError as error:
            faults.append(Fault(label, str(error)))
            continue
        for addition in additions:
            sections[addition.label] = addition.section
            built[addition.label] = addition.attack
    for addition in _replays(suite, attacks, registry):
        sections[addition.label] = addition.section
        built[addition.label] = addition.attack
    return suite.model_copy(update={"attacks": sections}), built, faults


def _controls(
    suite: Suite, label: str, attack: Attack[Any], registry: Registry
) -> tuple[str, ...]:
    """Return the names of the controls that an entry of a suite is to have.

    Those that a suite lists have to fit; of those that an attack asks for, only those
    that do are meant.
    """
    section = suite.attacks[label]
    if section.match is not None or section.role is not None:
        return ()
    wanted = suite.controls if section.controls is None else section.controls
    if wanted == "none":
        return ()
    if wanted != "auto":
        return tuple(wanted)
    if attack.controls is not None:
        return attack.controls
    return tuple(info.name for info in registry.all("attack", shows="search"))


def _additions(
    suite: Suite,
    label: str,
    attacks: Mapping[str, Attack[Any]],
    registry: Registry,
) -> Iterator[_Addition]:
    attack = attacks[label]
    listed = isinstance(suite.attacks[label].controls, tuple)
    for name in _controls(suite, label, attack, registry):
        control = cast("Attack[Any]", registry.create("attack", name, {}))
        reason = control.unfit(attack)
        if reason and listed:
            raise UsageError(f"{name!r} cannot be its control: {reason}")
        if not reason and not _has_control(suite, label, name):
            section = AttackSection(attack=name, match=label)
            free = _free_label(suite, f"{label}-{name}", section)
            yield _Addition(free, section, control)
    if suite.diagnostics == "full":
        yield from _roles(suite, label, attack)


# --- controls -----------------------------------------------------------------------


def _has_control(suite: Suite, label: str, name: str) -> bool:
    return any(
        (section.attack or other) == name and section.match == label
        for other, section in suite.attacks.items()
    )


def _free_label(suite: Suite, label: str, section: AttackSection) -> str:
    if label in suite.attacks:
        raise UsageError(
            f"its {section.attack} would be called {label!r}, like another entry; "
            "give that one another label"
        )
    return label


# --- full diagnostics ---------------------------------------------------------------


def _roles(suite: Suite, label: str, attack: Attack[Any]) -> Iterator[_Addition]:
    section = suite.attacks[label]
    if section.match is not None or section.role is not None or suite.examples is None:
        return
    found: tuple[tuple[Role, Options | None], ...] = (
        ("unbounded", attack.unbounded(suite.examples.prompt_tokens)),
        ("longer", attack.longer()),
    )
    for role, options in found:
        stated = suite.attacks.get(f"{label}-{role}")
        if options is None or (stated is not None and stated.role == role):
            continue
        entry = AttackSection.model_validate(
            {"attack": attack.name, "role": role, **_stated(options)}
        )
        made = type(attack)(options)
        yield _Addition(_free_label(suite, f"{label}-{role}", entry), entry, made)


def _stated(options: Options) -> dict[str, Any]:
    values = options.model_dump(mode="json")
    return {key: value for key, value in values.items() if value is not None}


def _replays(
    suite: Suite, attacks: Mapping[str, Attack[Any]], registry: Registry
) -> Iterator[_Addition]:
    """Return what shows how far adversarial inputs carry, if the suite lacks it."""
    if suite.diagnostics != "full" or not attacks:
        return
    shown = {attack.shows for attack in attacks.values()}
    scenes = [scene_of(suite, attacks, arm) for arm in suite.arms]
    for info in registry.all("attack", replays=True):
        name, shows = info.name, cast("type[Attack[Any]]", info.plugin).shows
        if shows is None or shows in shown or name in suite.attacks:
            continue
        attack = _create(registry, name)
        if any(attack.reads(scene) for scene in scenes):
            yield _Addition(name, AttackSection(attack=name), attack)


def _create(registry: Registry, name: str) -> Attack[Any]:
    return cast("Attack[Any]", registry.create("attack", name, {}))


Arms = dict[str, Constraint[Any]]
BASELINE = "baseline"
MATCHED = "matched"
PLANTED = "planted"


def add_derived_arms(
    suite: Suite,
    arms: Mapping[str, Constraint[Any]],
    attacks: Mapping[str, Attack[Any]],
    registry: Registry,
) -> tuple[Suite, Arms]:
    """Return a valid suite and its arms with those that full diagnostics need.

    ``<arm>-matched`` for each arm but the baseline, ``<arm>-planted`` for each; for
    none that is derived itself, and none where the suite has one of that name. Without
    attacks, or without texts to match losses on, nothing is added.
    """
    sections, built = dict(suite.arms), dict(arms)
    searching = searching_attacks(suite, attacks)
    for label, section in _arm_additions(suite, searching, registry):
        if label not in sections:
            sections[label] = section
            built[label] = cast(
                "Constraint[Any]",
                registry.create("constraint", section.constraint, {}),
            )
    return suite.model_copy(update={"arms": sections}), built


def searching_attacks(
    suite: Suite, attacks: Mapping[str, Attack[Any]]
) -> tuple[str, ...]:
    """Return the entries that look for something by themselves."""
    return tuple(
        label
        for label, section in suite.attacks.items()
        if section.match is None
        and section.role is None
        and not (attacks[label].replays or attacks[label].needs_peers)
    )


def _arm_additions(
    suite: Suite, attacks: tuple[str, ...], registry: Registry
) -> Iterator[tuple[str, ArmSection]]:
    if suite.diagnostics != "full" or not attacks or not _has_validation(suite):
        return
    treated = [arm for arm, section in suite.arms.items() if not section.derive_from]
    for arm in treated:
        if arm != BASELINE:
            match = ArmSection(
                constraint=registry.only("constraint", role="match").name,
                derive_from=BASELINE,
                match_loss_of=arm,
                attacks=attacks,
            )
            yield f"{arm}-{MATCHED}", match
    for arm in treated:
        planted = ArmSection(
            constraint=registry.only("constraint", role="plant").name,
            derive_from=arm,
            attacks=attacks,
        )
        yield f"{arm}-{PLANTED}", planted


def _has_validation(suite: Suite) -> bool:
    examples, recovery = suite.examples, suite.recovery
    if examples is None:
        return False
    held_out = recovery is not None and recovery.validation is not None
    return examples.validation is not None or held_out
