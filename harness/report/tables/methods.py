"""How a run was made, for a paper: a paragraph and the table of an appendix.

Every number comes from the records. Where they differ, each value stands there with the
number of records that have it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from harness.base import spell_size
from harness.records import (
    TREATMENT_SEEDS,
    Cost,
    Difference,
    Phase,
    Record,
    Verdicts,
)
from harness.report.content import Column, Label, Names, Number, Table, filled
from harness.report.formats.numbers import number_text
from harness.verdicts import Results, mean_flops

SHORT = 12
"""How many digits of a hash are shown."""
_HASH = re.compile("[0-9a-f]{40,}")
_PAIR = ("prompt", "reference")
_NAMELESS = ("text", "separator", "split")
"""What of a corpus is not told: how its documents are cut out of its files."""


class _Row(NamedTuple):
    """A row of the appendix."""

    about: str
    what: str
    value: str


def values(records: Sequence[Record], of: Callable[[Record], object]) -> str:
    """Name the values that records have, with their numbers if they differ."""
    return _told(map(of, records))


def _told(of_records: Iterable[object]) -> str:
    found = Counter(map(_plain, of_records))
    if len(found) < 2:
        return next(iter(found), "none")
    return ", ".join(f"{x} ({_many('record', n)})" for x, n in sorted(found.items()))


# --- the paragraph ------------------------------------------------------------------


def methods(results: Results, verdicts: Verdicts) -> str:
    """Return the paragraph that says what was done; empty where nothing is complete."""
    if not results.records:
        return ""
    return " ".join(
        [
            *_models(results),
            *_arms(results),
            *_recovery(results),
            *_attacks(results),
            *_examples(results),
            *_statistics(results, verdicts),
            *_software(results),
            *_spent(results),
        ]
    )


def _models(results: Results) -> Iterator[str]:
    found = [
        f"{model} ({values(own, lambda x: x.model.parameters)} parameters, "
        f"{values(own, lambda x: x.model.fingerprint)})"
        for model, own in _by(results.records, lambda x: x.model.label).items()
    ]
    yield f"We evaluate {_and(found)}."


def _arms(results: Results) -> Iterator[str]:
    variants = [x for x in results.records if x.kind == "variant" and not x.arm.role]
    found = [
        f"{label} ({values(own, _treatment)})"
        for label, own in _by(variants, _arm).items()
    ]
    if found:
        yield f"The {_are('arm', len(found))} {_and(found)}."
        same = {label: _seeds(x) for label, x in _by(variants, _arm).items()}
        told = [
            f"{seeds} ({_and(x for x in same if same[x] == seeds)})"
            for seeds in dict.fromkeys(same.values())
        ]
        seeds = _and(told) if len(told) > 1 else next(iter(same.values()))
        several = len({record.seed for record in variants})
        yield f"The training {_are('seed', several)} {seeds}."


def _recovery(results: Results) -> Iterator[str]:
    trained = [x for x in results.records if x.recovery and x.recovery.steps]
    if not trained:
        return

    settings = [_recovery_of(results, x) for x in trained]

    def of(name: str) -> str:
        return _told(found.get(name) for found in settings)

    tokens = values(trained, lambda x: x.recovery and x.recovery.tokens)
    steps = values(trained, lambda x: x.recovery and x.recovery.steps)
    yield (
        f"After its constraint is applied, each arm is trained on {tokens} tokens of "
        f"{of('corpus')}: {steps} steps of AdamW, of {of('batch_tokens')} tokens in "
        f"contexts of {of('context')}, learning rate {of('learning_rate')}, warm-up "
        f"over {of('warmup_fraction')} of the steps, weight decay "
        f"{of('weight_decay')}, gradients clipped at {of('max_grad_norm')}, in "
        f"{of('precision')}."
    )


def _attacks(results: Results) -> Iterator[str]:
    cells = [x for x in results.records if x.attack]
    searching = [
        f"{label} ({_options(own)}{_budget(results, own)})"
        for label, own in _by(cells, _attack).items()
        if label in results.attacks
    ]
    if searching:
        yield f"The {_are('attack', len(searching))} {_and(searching)}."
    for attack in results.attacks:
        controls = [control for own, control in results.controls if own == attack]
        known = [x for x in controls if any(_attack(cell) == x for cell in cells)]
        if known:
            yield f"{attack} is held against {_and(known)} at the same budget."


def _examples(results: Results) -> Iterator[str]:
    cells = [x for x in results.records if x.attack]
    if not cells:
        return

    asked = [_asked(results, x) for x in cells]
    count = _told(found["test"].get("count") for found in asked)
    corpus = _told(found["test"].get("corpus") for found in asked)
    allowed = values(cells, lambda x: x.attack and x.attack.tokens.allowed)
    limit = values(cells, lambda x: x.suite.limit)
    yield f"Each attacks {count} prompts of {values(cells, _scored_on)}, of {corpus}."
    if limit != "none":
        yield f"Only the first {limit} of them were used."
    yield (
        f"Attacks may write {allowed} tokens of the vocabulary, and return "
        f"{values(cells, _threat)}."
    )


def _statistics(results: Results, verdicts: Verdicts) -> Iterator[str]:
    known = [x.difference for x in verdicts.arms if x.difference]
    yield (
        "dL is the rise of the loss on the reference in nats per token, from fresh "
        "passes in float32; an attack succeeds where exp(dL) > "
        f"{1 + results.threshold:g}."
    )
    if not known:
        return
    level = _and({f"{100 * x.interval_level:g} %" for x in known})
    design = _and(
        {f"{x.documents} documents and {_many('seed', x.seeds)}" for x in known}
    )
    effects = _and({_method(x) for x in known})
    yield (
        "Arms are compared under the worst attack on each example, paired by document "
        f"and seed ({design}), with {level} intervals from {effects}."
    )
    levels = {said.claim: said.level for x in known for said in x.claims}
    tests = [f"{claim} at {100 * level:g} %" for claim, level in levels.items()]
    yield (
        f"The tests are one-sided: {_and(tests)}; the first two are corrected by Holm "
        f"over the contrasts, and a difference within {verdicts.margin} counts as none."
    )


def _software(results: Results) -> Iterator[str]:
    records = results.records
    names = dict.fromkeys(name for x in records for name in x.provenance.versions)
    found = [f"{name} {_version(records, name)}" for name in names]
    if any(x.provenance.commit for x in records):
        found.append(f"commit {values(records, _commit)}")
    yield f"Software: {', '.join(found)}."
    yield f"Device: {values(records, machine)}."


def _spent(results: Results) -> Iterator[str]:
    total = Cost.sum(x for r in results.records for x in r.ledger.spent.values())
    seconds = number_text(Number(total.seconds, "seconds"))
    flops = number_text(Number(total.flops, "flops"))
    yield (
        f"The {len(results.records)} trainings and attacks took {seconds} s and "
        f"{flops} FLOP in all."
    )


# --- the table ----------------------------------------------------------------------


def appendix_table(results: Results) -> Table:
    """Return a row for each model, arm, attack and corpus, versions and costs."""
    columns: list[Column[_Row]] = [
        Column("about", lambda row: Label(row.about)),
        Column("which", lambda row: Label(row.what, names=_names(row))),
        Column("settings", lambda row: Label(row.value)),
    ]
    return filled(
        "appendix",
        "Settings",
        columns,
        list(_rows(results)),
        summary=(
            "Models, arms, attacks, corpora, seeds, versions, devices and costs, as "
            "the records state them."
        ),
        caption=(
            "As the records state them, defaults included; where records differ, each "
            "value with the number of those that have it. Costs are of all that was "
            "spent, work that interruptions lost included."
        ),
        keys=2,
    )


def _names(row: _Row) -> Names:
    """Return what model, arm or attack a row is about, where it is about one."""
    known = ("model", "arm", "attack")
    return ((row.about, row.what),) if row.about in known else ()


def _rows(results: Results) -> Iterator[_Row]:
    records = results.records
    variants = [x for x in records if x.kind == "variant"]
    cells = [x for x in records if x.attack]
    for model, own in _by(records, lambda x: x.model.label).items():
        told = values(own, lambda x: _settings(_about_model(x)))
        yield _Row("model", model, told)
    for arm, own in _by(records, _arm).items():
        yield _Row("arm", arm, values(own, lambda x: _settings(_about_arm(x))))
    for arm, own in _by(variants, _arm).items():
        yield _Row("seeds", arm, _seeds(own))
    recovered = _by(variants, lambda x: _settings(_recovery_of(results, x)))
    for told, own in recovered.items():
        yield _Row("recovery", _and({x.arm.label for x in own}), told or "none")
    for attack, own in _by(cells, _attack).items():
        yield _Row("attack", attack, values(own, lambda x: _settings(_about_attack(x))))
    for told, own in _by(cells, lambda x: _settings(_asked(results, x))).items():
        yield _Row("examples", _and({_attack(x) for x in own}), told)
    for name in dict.fromkeys(name for x in records for name in x.provenance.versions):
        yield _Row("software", name, _version(records, name))
    yield _Row("software", "commit", values(records, _commit))
    yield _Row("machine", "device", values(records, machine))
    yield _Row("machine", "passes", values(records, _passes))
    for phase in get_args(Phase):
        costs = [x.ledger.spent[phase] for x in records if phase in x.ledger.spent]
        if costs:
            yield _Row("cost", phase, _cost(Cost.sum(costs)))


# --- what records say ---------------------------------------------------------------


def _by(
    records: Sequence[Record], key: Callable[[Record], str]
) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(key(record), []).append(record)
    return found


def _about_model(record: Record) -> Mapping[str, Any]:
    model = record.model
    first = {"adapter": model.adapter, "parameters": model.parameters}
    return {**first, "fingerprint": model.fingerprint, **model.options}


def _about_arm(record: Record) -> Mapping[str, Any]:
    arm = record.arm
    given = {"constraint": arm.constraint, **arm.options}
    names = ("against", "replicate", "derive_from", "match_loss_of", "weaker_than")
    others = {name: getattr(arm, name) for name in names}
    return given | {name: value for name, value in others.items() if value}


def _about_attack(record: Record) -> Mapping[str, Any]:
    assert record.attack is not None
    found = record.attack
    budget = {"share of the stated budget": found.share, "budget of": found.match}
    tokens = {"tokens allowed": found.tokens.allowed, **found.tokens.rules}
    own = found.options
    if found.match:  # whose budget it has in place of what its own options come to
        own = {name: own[name] for name in found.given}
    stated = {"attack": found.attack, **own, **budget, **tokens}
    return {name: value for name, value in stated.items() if value is not None}


def _arm(record: Record) -> str:
    return record.arm.label


def _seeds(records: Sequence[Record]) -> str:
    return _and(map(str, sorted({record.seed for record in records})))


def _attack(record: Record) -> str:
    return record.attack.label if record.attack else ""


def _asked(results: Results, record: Record) -> Mapping[str, Any]:
    assert record.attack is not None
    return _with_corpora(results, record.attack.examples)


def _recovery_of(results: Results, record: Record) -> Mapping[str, Any]:
    return _with_corpora(results, record.arm.recovery or {})


def _with_corpora(results: Results, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a record with the names of corpora in place of what they are.

    A record says what defines a corpus; the suite that defines it so has its name.
    """
    named: dict[str, Any] = {}
    for key, value in found.items():
        if isinstance(value, Mapping):
            corpus = "fingerprint" in value
            named[key] = (_corpus if corpus else _with_corpora)(results, value)
        else:
            named[key] = value
    return named


def _corpus(results: Results, found: Mapping[str, Any]) -> str:
    for label, section in results.suite.corpora.items():
        if section.definition == found:
            source = section.builtin or section.dataset or Path(section.path or "").name
            return f"{label} ({source}, {_part(found)})"
    return f"a corpus ({_part(found)})"


def _part(found: Mapping[str, Any]) -> str:
    told = {name: x for name, x in found.items() if name not in _NAMELESS and x}
    return _settings(told)


def _method(found: Difference) -> str:
    if found.seeds >= TREATMENT_SEEDS:
        return "two-way random effects of documents and training seeds"
    return "a studentized bootstrap over documents, which speaks of these weights alone"


def _scored_on(record: Record) -> str:
    """Say how long the prompts of a cell are, and what of them is scored."""
    assert record.attack is not None
    asked = record.attack.examples
    prompt, reference = (_plain(asked.get(f"{x}_tokens")) for x in _PAIR)
    if asked.get("objective") == "answer":
        return f"at most {prompt} tokens, scored on the answer"
    corpus = asked["test"].get("corpus")
    if not (isinstance(corpus, Mapping) and corpus.get("prompt")):
        return f"{prompt} tokens, scored on the {reference} tokens that follow"
    return (
        f"at most {prompt} tokens, scored on their references of at most {reference} "
        "tokens"
    )


def _treatment(record: Record) -> str:
    arm = record.arm
    given = {name: arm.options[name] for name in arm.given}
    against = f", held against {arm.against}" if arm.against else ""
    settings = f", {_settings(given)}" if given else ""
    constraint = "no constraint" if arm.constraint == "none" else arm.constraint
    return f"{constraint}{settings}{against}"


def _options(cells: Sequence[Record]) -> str:
    def given(record: Record) -> str:
        found = record.attack
        assert found is not None
        told = _settings({name: found.options[name] for name in found.given})
        return ", ".join(filter(None, [found.attack, told]))

    return values(cells, given)


def _budget(results: Results, cells: Sequence[Record]) -> str:
    share = values(cells, lambda x: f"{x.attack.share:g}" if x.attack else "")
    flops = mean_flops({i: results.cell(x) for i, x in enumerate(cells)})
    spent = number_text(Number(flops, "flops"))
    return f"; {share} times the stated budget, {spent} FLOP an example"


def _threat(record: Record) -> str:
    assert record.attack is not None
    if record.attack.tokens.rules.get("reachable_only"):
        return "only prompts that some text encodes to"
    return "any sequence of them, whether a text encodes to it or not"


def _version(records: Sequence[Record], name: str) -> str:
    return values(records, lambda x: x.provenance.versions.get(name))


def _commit(record: Record) -> str:
    dirty = " with uncommitted changes" if record.provenance.dirty else ""
    return f"{(record.provenance.commit or 'none')[:SHORT]}{dirty}"


def machine(record: Record) -> str:
    """Describe the machine; its name is nobody's business."""
    found = record.provenance.hardware
    around = (
        f"{_plain(found.get('cores'))} cores and {_size(found.get('memory_bytes'))} "
        f"({_plain(found.get('system'))})"
    )
    if "device_name" not in found:
        device = _plain(found.get("device"))
        return f"{'CPU' if device == 'cpu' else device} of {around}"
    return (
        f"{_plain(found['device_name'])} of {_size(found.get('device_memory_bytes'))}, "
        f"CUDA {_plain(found.get('cuda'))}, beside {around}"
    )


def _passes(record: Record) -> str:
    stated = record.provenance
    return _settings(
        {"dtype": stated.dtype, "batch_size": stated.batch_size, **stated.settings}
    )


def _cost(cost: Cost) -> str:
    seconds = number_text(Number(cost.seconds, "seconds"))
    flops = f"{number_text(Number(cost.flops, 'flops'))} FLOP, " if cost.flops else ""
    return f"{seconds} s, {flops}peak {_size(cost.peak_memory_bytes)}"


# --- how it is spelt ----------------------------------------------------------------


def _settings(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in found.items())


def _plain(value: object) -> str:
    """Spell a value; of a hash, its first digits, and of a path, the name."""
    if isinstance(value, Mapping):
        return f"({_settings(value)})"
    if isinstance(value, list | tuple):
        return "/".join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if value is None:
        return "none"
    text = str(value)
    if text.startswith("/"):
        return Path(text).name
    return _HASH.sub(lambda match: match[0][:SHORT], text)


def _size(size: object) -> str:
    if not isinstance(size, int | float):
        return "unknown memory"
    return spell_size(size)


def _many(what: str, count: int) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _are(what: str, count: int) -> str:
    return f"{what} is" if count == 1 else f"{what}s are"


def _and(names: Iterable[str]) -> str:
    """Join names as a sentence does; those of a set, which has no order, by name."""
    listed = sorted(names) if isinstance(names, set) else list(names)
    if len(listed) < 2:
        return "".join(listed)
    return f"{', '.join(listed[:-1])} and {listed[-1]}"
