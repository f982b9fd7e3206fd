"""Plans: which units, and what their ids depend on."""

import hashlib
import itertools
import json
from pathlib import Path

import pytest

from harness.base import content_hash
from harness.base.errors import UsageError
from harness.suite import dump_suite, identity, load_experiment, make_plan, resolve
from harness_plugins.attacks.hotflip import HotFlip, HotFlipOptions


@pytest.fixture
def plan(toy_suite, tmp_path):
    """Return a function that plans the toy suite with overrides."""

    def make(*overrides, only=None, extra="", **arguments):
        Path("s.yaml").write_text(f"extends: base.yaml\n{extra}", encoding="utf-8")
        experiment = load_experiment(Path("s.yaml"), overrides=overrides, **arguments)
        return make_plan(resolve(experiment, tmp_path / "store"), only)

    return make


def ids(plan):
    return [unit.id for unit in (*plan.variants, *plan.cells)]


def hashes(plan):
    return [unit_id.rpartition("-")[2] for unit_id in ids(plan)]


def test_variants_are_models_by_arms_by_seeds_and_cells_by_attacks(plan):
    made = plan()
    stems = [unit_id.rpartition("-")[0] for unit_id in ids(made)]
    variants = [
        "toy-1.5b.baseline.s1",
        "toy-1.5b.baseline.s2",
        "toy-1.5b.monotone.s1",
        "toy-1.5b.monotone.s2",
    ]
    cells = [f"{stem}.{attack}" for stem in variants for attack in ("flip", "control")]
    assert stems == variants + cells
    assert [cell.variant.id for cell in made.cells[:2]] == [made.variants[0].id] * 2


def test_an_id_ends_in_the_hash_of_the_identity(plan):
    for unit in (*plan().variants, *plan().cells):
        text = json.dumps(unit.identity, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert unit.id.endswith(f"-{digest[:8]}")
        assert digest == content_hash(unit.identity)


def test_a_replica_is_its_arm_in_all_but_the_order(plan):
    made = plan(extra="arms: {again: {replicate: monotone}}", only={"seed": ["1"]})
    one, other = (x.identity for x in made.variants if x.arm in ("monotone", "again"))
    assert other["recovery"].pop("order") == "replica"
    assert one == other
    assert made.experiment.suite.reference_of("again") == "monotone"


def test_how_tokens_are_read_in_recovery_is_in_the_id_and_resolved(plan):
    read = "{corrupt: 0.1, adversarial: {attack: hotflip, flips: 3}}"
    made = plan(extra=f"arms: {{hard: {{recovery: {read}}}}}", only={"arm": ["hard"]})
    found = made.variants[0].identity["recovery"]
    attack = found["adversarial"]
    assert (found["corrupt"], attack["attack"], attack["share"]) == (
        0.1,
        "hotflip",
        0.2,
    )
    options = attack["options"]
    assert options == HotFlipOptions(**HotFlip.in_training | {"flips": 3}).model_dump(
        exclude_none=True
    )
    Path("again.yaml").write_text(dump_suite(made.experiment.suite), encoding="utf-8")
    again = make_plan(load_experiment(Path("again.yaml")), {"arm": ["hard"]})
    assert again.variants[0].id == made.variants[0].id
    stated = load_experiment(Path("again.yaml")).suite.arms["hard"].disturbs
    assert stated.adversarial.options == options


# --- what leaves ids alone ----------------------------------------------------------

COSMETIC = {
    "batch size": ["batch_size=3"],
    "device": ["device=cpu"],
    "threshold": ["success.threshold=0.5"],
    "stated defaults": ["recovery.context=512", "arms.monotone.layers=all"],
    "another spelling of a number": ["recovery.learning_rate=0.0001"],
    "how often it is saved": ["recovery.checkpoint_every=7"],
    "how a step is cut into passes": ["recovery.micro_batch=4"],
    "what is computed again": ["recovery.checkpointing=true"],
    "where it is trained": ["recovery.devices=4", "recovery.sharding=full"],
    "a null option": ["attacks.flip.stop=null"],
    "rules that forbid nothing": ["tokens={words_only: false, max_changed: null}"],
    "bounds": [
        "attacks.flip={timeout: 2 h, memory_gib: 8}",
        "metrics.toy_metric={timeout: 90, memory_gib: 0.5}",
    ],
    "a corpus that nothing reads": ["corpora.spare={builtin: python-topics}"],
    "search examples of attacks without search": [
        "examples.search={corpus: held, count: 2}",
        "examples.validation={corpus: held2, count: 2}",
        "corpora.held.slice='50%:55%'",
        "corpora.held2={builtin: python-topics, slice: '55%:60%'}",
        "recovery.validation=null",
    ],
}


@pytest.mark.parametrize("change", COSMETIC)
def test_what_changes_no_result_changes_no_id(plan, change):
    before = plan("recovery.validation=null") if "search" in change else plan()
    assert ids(plan(*COSMETIC[change])) == ids(before)


def test_more_units_to_judge_by_leave_the_others_alone(plan):
    assert set(ids(plan())) <= set(ids(plan("diagnostics=full")))


def test_the_order_of_the_suite_changes_no_id(plan):
    text = Path("base.yaml").read_text(encoding="utf-8")
    before = ids(plan())
    mixed = text.replace("[1, 2]", "[2, 1]").replace(
        "  baseline: {}\n  monotone:\n    constraint: toy_softplus\n    start: abs\n",
        "  monotone:\n    start: abs\n    constraint: toy_softplus\n  baseline: {}\n",
    )
    assert mixed != text
    Path("base.yaml").write_text(mixed, encoding="utf-8")
    assert sorted(ids(plan())) == sorted(before)


def test_labels_are_not_in_the_hash(plan):
    before = hashes(plan())
    text = Path("base.yaml").read_text(encoding="utf-8")
    for old, new in (("toy-1.5b", "m"), ("monotone", "mono"), ("control", "c")):
        text = text.replace(old, new)
    text = text.replace(" train", " texts").replace("  flip:", "  f:")
    text = text.replace("match: flip", "match: f")
    Path("base.yaml").write_text(text, encoding="utf-8")
    assert hashes(plan()) == before


def test_where_the_files_are_changes_no_id(plan, tmp_path):
    before = ids(plan())
    Path("weights").rename(tmp_path / "moved")
    assert ids(plan(f"models.toy-1.5b.path={tmp_path / 'moved'}")) == before


# --- what changes them --------------------------------------------------------------

ALL, VARIANTS, CELLS, MONOTONE, FLIPS = "all", "variants", "cells", "monotone", "flips"
EXAMINED = "variants, and the cells of main attacks"
MATTERS = {
    "models.toy-1.5b.dtype=bfloat16": ALL,
    "models.toy-1.5b.revision=main": ALL,
    "corpora.train.slice=:49%": ALL,
    "corpora.train.builtin=python-topics": None,
    "recovery.tokens=10001": ALL,
    "recovery.context=256": ALL,
    "recovery.batch_tokens=8192": ALL,
    "recovery.optimizer_state=bfloat16": ALL,
    "recovery.learning_rate=2e-4": ALL,
    "recovery.warmup_fraction=0.1": ALL,
    "recovery.weight_decay=0": ALL,
    "recovery.max_grad_norm=2": ALL,
    "recovery.precision=bf16": ALL,
    "recovery.validation=null": ALL,
    "recovery.evaluate_every=50": ALL,
    "recovery.evaluation_tokens=99": ALL,
    "limit=2": ALL,
    "arms.monotone.start=gauge": MONOTONE,
    "arms.monotone.layers=[0]": MONOTONE,
    "arms.monotone.recovery=false": MONOTONE,
    "metrics.toy_metric.others=[test]": VARIANTS,
    "metrics.more={metric: toy_metric}": VARIANTS,
    "corpora.test.slice=61%:": "test text",
    "examples.test.count=4": ALL,  # variants are examined on some of them
    "examples.prompt_tokens=65": ALL,
    "examples.reference_tokens=65": ALL,
    "diagnostics=none": EXAMINED,
    "tokens.ascii_only=true": ALL,  # variants are examined by flips
    "tokens.min_cosine=0.2": ALL,
    "attacks.flip.flips=5": FLIPS,
    "attacks.flip.stop=0.1": FLIPS,
}


def changed(before, after):
    """Return the labels of the units whose hash changed."""
    pairs = zip(before, after, strict=True)
    return {new.id.rpartition("-")[0] for old, new in pairs if old.id != new.id}


@pytest.mark.parametrize("override", MATTERS)
def test_what_can_change_a_result_changes_the_ids_it_concerns(plan, override):
    before, after = plan(), plan(override)
    variants = changed(before.variants, after.variants)
    cells = changed(before.cells, after.cells)
    every_variant = {unit.id.rpartition("-")[0] for unit in after.variants}
    every_cell = {unit.id.rpartition("-")[0] for unit in after.cells}
    monotone = {stem for stem in every_variant | every_cell if "monotone" in stem}
    expected = {
        None: (set(), set()),
        ALL: (every_variant, every_cell),
        "test text": (every_variant, every_cell),
        VARIANTS: (every_variant, set()),
        EXAMINED: (every_variant, {x for x in every_cell if x.endswith(".flip")}),
        CELLS: (set(), every_cell),
        MONOTONE: (monotone & every_variant, monotone & every_cell),
        FLIPS: (set(), every_cell),  # the control's budget is the attack's
    }[MATTERS[override]]
    assert (variants, cells) == expected


def test_every_setting_of_recovery_is_tried_above():
    from harness.models.sections import RecoverySection

    overrides = [*MATTERS, *itertools.chain(*COSMETIC.values())]
    tried = {override.partition("=")[0] for override in overrides}
    left = {f"recovery.{name}" for name in RecoverySection.model_fields} - tried
    assert left == {
        "recovery.corpus",  # by its content: corpora.train.slice
    }


def test_new_weights_are_another_variant(plan):
    before = plan()
    Path("weights/weights.txt").write_text("other weights")
    after = plan()
    assert not set(ids(before)) & set(ids(after))
    assert not {v.subject_key for v in before.variants} & {
        v.subject_key for v in after.variants
    }


def test_the_content_of_task_files_counts_not_their_place(plan, tmp_path):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        (folder / "task.yaml").write_text("task: a")
    one, two = (plan(f"metrics.toy_metric.tasks={folder}") for folder in folders)
    assert ids(one) == ids(two)
    (folders[1] / "task.yaml").write_text("task: b")
    other = plan(f"metrics.toy_metric.tasks={folders[1]}")
    assert changed(one.variants, other.variants)
    assert not changed(one.cells, other.cells)


def test_search_examples_count_for_the_attacks_that_see_them(plan):
    extra = (
        "corpora:\n  more: {builtin: python-topics, slice: '55%:60%'}\n"
        "  held: {slice: '50%:55%'}\n"
        "examples:\n  search: {corpus: held, count: 2}\n"
        "  validation: {corpus: more, count: 2}\n"
        "attacks:\n  toy_trigger: {}\n  control: {match: toy_trigger}\n"
    )
    before, after = plan(extra=extra), plan("examples.search.count=3", extra=extra)
    stems = changed(before.cells, after.cells)
    assert {stem.rpartition(".")[2] for stem in stems} == {"toy_trigger", "control"}


def test_variants_are_examined_on_the_first_examples_alone(plan):
    some, more = plan("examples.test.count=40"), plan("examples.test.count=50")
    assert not changed(some.variants, more.variants)
    assert changed(some.cells, more.cells)


def test_the_subject_is_what_is_trained_not_what_is_measured(plan):
    def keys(*overrides):
        return [variant.subject_key for variant in plan(*overrides).variants]

    assert len(set(keys())) == 4
    assert keys("metrics.toy_metric=null", "limit=2", "examples.test.count=9") == keys()
    assert not set(keys("recovery.tokens=20000")) & set(keys())


# --- arms made from other arms ------------------------------------------------------

COPY = "arms:\n  copy: {derive_from: monotone}\n"
MIXED = (
    "arms:\n  third: {derive_from: copy, attacks: [flip]}\n"
    "  copy: {derive_from: monotone}\n"
)


def test_an_arm_comes_after_those_that_it_is_made_from(plan):
    made = plan(extra=MIXED)
    arms = [variant.arm for variant in made.variants if variant.seed == 1]
    assert arms == ["baseline", "monotone", "copy", "third"]
    by_id = {variant.id: variant for variant in made.variants}
    third = next(v for v in made.variants if v.arm == "third" and v.seed == 2)
    (copy,) = third.sources
    assert (copy.arm, copy.seed) == ("copy", 2)
    assert by_id[copy.id] == copy
    assert [cell.attack for cell in made.cells if cell.variant == third] == ["flip"]


def test_selecting_an_arm_adds_the_variants_that_it_is_made_from(plan):
    everything = plan(extra=MIXED)
    some = plan(extra=MIXED, only={"arm": ["third"], "seed": ["2"]})
    assert [v.arm for v in some.variants] == ["monotone", "copy", "third"]
    assert {cell.variant.arm for cell in some.cells} == {"third"}
    assert set(ids(some)) < set(ids(everything))


def test_a_derived_arm_gets_no_recovery_unless_stated(plan):
    plain, trained = plan(extra=COPY), plan("arms.copy.recovery=true", extra=COPY)
    of_copy = [p.variants[-1].identity["recovery"] for p in (plain, trained)]
    assert of_copy[0] is None
    assert of_copy[1] == plain.variants[0].identity["recovery"]


@pytest.mark.parametrize(
    "override", ["arms.monotone.start=gauge", "recovery.tokens=20000"]
)
def test_another_source_is_another_arm(plan, override):
    before, after = plan(extra=COPY), plan(override, extra=COPY)
    assert "toy-1.5b.copy.s1" in changed(before.variants, after.variants)
    assert before.variants[-1].subject_key != after.variants[-1].subject_key


def test_a_source_s_identity_is_in_the_id_and_its_label_is_not(plan):
    copy = plan(extra=COPY).variants[-1]
    (source,) = copy.sources
    assert content_hash(copy.identity["arm"]["derive_from"]) == source.subject_key
    assert "monotone" not in json.dumps(copy.identity)


# --- seeds of an arm ----------------------------------------------------------------


def test_an_arm_gets_the_seeds_that_it_states_and_those_of_its_sources(plan):
    some = plan("arms.monotone.seeds=[2]", extra=COPY)
    assert [(v.arm, v.seed) for v in some.variants] == [
        ("baseline", 1),
        ("baseline", 2),
        ("monotone", 2),
        ("copy", 2),
    ]
    assert set(ids(some)) < set(ids(plan(extra=COPY)))
    assert not [
        v
        for v in plan("arms.monotone.seeds=[2]", only={"seed": ["1"]}).cells
        if v.variant.arm == "monotone"
    ]


def test_what_is_replayed_are_cells_that_there_are(plan):
    extra = "attacks: {transfer: {of: flip}, worst_case: {of: flip}}\n"
    made = plan("arms.monotone.seeds=[2]", extra=extra)
    reads = {
        (cell.attack, cell.variant.arm, cell.variant.seed): [
            (key.arm, key.seed) for key in cell.reads
        ]
        for cell in made.cells
        if cell.reads
    }
    assert reads == {
        # Under seed 1, the baseline arm has nothing to replay from: no cell is planned.
        ("transfer", "baseline", 2): [("monotone", 2)],
        ("transfer", "monotone", 2): [("baseline", 2)],
        ("worst_case", "baseline", 1): [("baseline", 1), ("baseline", 2)],
        ("worst_case", "baseline", 2): [("baseline", 1), ("baseline", 2)],
        ("worst_case", "monotone", 2): [("monotone", 2)],
    }
    assert len(made.cells) == 3 * 2 + len(reads)


# --- selection ----------------------------------------------------------------------


def test_only_selects_and_leaves_ids_alone(plan):
    everything = plan()
    some = plan(only={"arm": ["monotone"], "seed": ["2"], "attack": ["flip"]})
    assert len(some.variants) == len(some.cells) == 1
    assert set(ids(some)) < set(ids(everything))


def test_an_unknown_value_of_only_is_a_usage_error(plan):
    with pytest.raises(UsageError, match="unknown arm 'monotne'; did you mean 'monoto"):
        plan(only={"arm": ["monotne"]})
    with pytest.raises(UsageError, match="unknown key 'arms'; did you mean 'arm'"):
        plan(only={"arms": ["monotone"]})
    with pytest.raises(UsageError, match=r"unknown seed '3' \(known: 1, 2\)"):
        plan(only={"seed": ["3"]})


def test_what_cells_share_is_described_once(plan, monkeypatch):
    """Or else ten thousand cells would take minutes, and gigabytes."""
    described = []
    done = identity._done

    def counted(experiment, label, *rest):
        described.append(label)
        return done(experiment, label, *rest)

    monkeypatch.setattr(identity, "_done", counted)
    made = plan("seeds=[1,2,3,4,5]")
    assert len(made.cells) == 20
    assert sorted(described) == ["control", "flip"]
    assert len({id(cell.scene) for cell in made.cells}) == 10  # two arms, five seeds
    assert len({id(cell.identity["examples"]) for cell in made.cells}) == 2
