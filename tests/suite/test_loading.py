"""Suite files: every wrong one has its sentence; right ones resolve and round-trip."""
# ruff: noqa: E501 - in the table of wrong suites, a message is a line

import copy
import functools
import json
import operator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from harness.base.errors import PluginError, SuiteError
from harness.suite import (
    dump_suite,
    load_experiment,
    make_plan,
    resolve,
    validate_suite,
)

TEXT = "{builtin: python-topics, slice: '%s'}"


def problems(text, **arguments):
    """Return what is wrong with a suite that extends the valid one."""
    Path("s.yaml").write_text(f"extends: base.yaml\n{text}\n", encoding="utf-8")
    with pytest.raises(SuiteError) as raised:
        load_experiment(Path("s.yaml"), **arguments)
    return str(raised.value).splitlines()


def test_the_base_of_these_tests_is_valid(toy_suite):
    assert validate_suite(toy_suite) == []


WRONG = {
    # --- keys
    "limits: 3": "s.yaml:2: limits: unknown key 'limits'; did you mean 'limit'?",
    "success: {treshold: 0.1}": "s.yaml:2: success.treshold: unknown key 'treshold'; did you mean 'threshold'? (known: rouge_drop, threshold)",
    "arms:\n  monotone: {strat: abs}": "s.yaml:3: arms.monotone.strat: unknown toy_softplus option 'strat'; did you mean 'start'?",
    "arms:\n  free: {constrain: none}": "s.yaml:3: arms.free.constrain: unknown arm option 'constrain'; did you mean 'constraint'?",
    "attacks:\n  flip: {mach: control}": "s.yaml:3: attacks.flip.mach: unknown toy_flip option 'mach'; did you mean 'match'?",
    # --- missing
    "models:\n  other: {path: x}": "s.yaml:3: models.other.adapter: is missing: the model plugin that loads it",
    "models:\n  other: {adapter: toy}": "s.yaml:3: models.other.path: is missing: the folder with the weights",
    "examples: null\nattacks:\n  control: null": "s.yaml:3: attacks: attacks need examples: state `examples.test`",
    "arms:\n  copy: {derive_from: baselin}": "s.yaml:3: arms.copy.derive_from: unknown arm 'baselin'; did you mean 'baseline'? (known: baseline, copy, monotone)",
    "arms:\n  copy: {derive_from: copy}": "s.yaml:3: arms.copy.derive_from: 'copy' would be made from itself",
    "arms:\n  a: {derive_from: monotone}\n  monotone: {derive_from: a, recovery: true}": "s.yaml:4: arms.monotone.derive_from: 'monotone' would be made from itself",
    "arms: {baseline: {derive_from: monotone}}": "s.yaml:2: arms.baseline.derive_from: the baseline is what others are compared with: it has no source",
    "arms:\n  a: {derive_from: baseline, match_loss_of: monotone}": "s.yaml:3: arms.a.match_loss_of: 'none' as stated here matches no loss",
    "arms:\n  a: {derive_from: baseline, constraint: noise}": "s.yaml:3: arms.a: needs `match_loss_of`: the arm whose clean loss it is to have",
    "arms:\n  a: {match_loss_of: monotone, constraint: noise}\nrecovery: {validation: null}": "s.yaml:3: arms.a: needs `examples.validation`, or `recovery.validation` to cut some of",
    "arms:\n  a: {derive_from: baseline, weaker_than: monotone}": "s.yaml:3: arms.a.weaker_than: 'none' plants no weakness",
    "arms:\n  a: {constraint: planted, strength: 1}": "s.yaml:3: arms.a: needs `derive_from`: the arm whose dL under attack it exceeds",
    "arms:\n  a: {constraint: planted, strength: 1, derive_from: monotone, attacks: [control]}": "s.yaml:3: arms.a: gets no attack that searches and that 'monotone' gets, too",
    "arms:\n  a: {attacks: [flop]}": "s.yaml:3: arms.a.attacks.0: unknown attack 'flop'; did you mean 'flip'? (known: control, flip)",
    "arms: {baseline: null}": "s.yaml:2: arms: needs an arm called 'baseline', which all others are compared with",
    "models: {toy-1.5b: null}": "s.yaml:2: models: expected at least 1 entry, got an empty mapping",
    "arms: {baseline: {against: monotone}}": "s.yaml:2: arms.baseline.against: the baseline is what others are compared with: it has no reference",
    "arms:\n  a: {against: monoton}": "s.yaml:3: arms.a.against: unknown arm 'monoton'; did you mean 'monotone'? (known: a, baseline, monotone)",
    "arms:\n  a: {against: b}\n  b: {against: a}": "s.yaml:3: arms.a.against: 'a' would be held against itself",
    "arms:\n  copy: {derive_from: monotone}\n  a: {against: copy}": "s.yaml:4: arms.a.against: 'copy' is derived from another arm; name one that is not",
    "arms:\n  copy: {derive_from: monotone, against: monotone}": "s.yaml:3: arms.copy.against: an arm with `derive_from` is held against none",
    "arms: {baseline: {replicate: monotone}}": "s.yaml:2: arms.baseline.replicate: the baseline is what others are compared with: it has no source",
    "arms:\n  a: {replicate: a}": "s.yaml:3: arms.a.replicate: 'a' would be made from itself",
    "arms:\n  a: {seeds: [2], replicate: b}\n  b: {seeds: [1]}": "s.yaml:3: arms.a.seeds.0: 2 is no seed of the arm 'b', which has 1",
    "arms:\n  a: {replicate: monotone}\n  b: {replicate: a}": "s.yaml:4: arms.b.replicate: 'a' is a replica itself; name the arm that it is",
    "arms:\n  copy: {derive_from: monotone}\n  a: {replicate: copy}": "s.yaml:4: arms.a.replicate: 'copy' is derived from another arm; name one that is not",
    "arms:\n  a: {replicate: monotone}\nrecovery: null": "s.yaml:3: arms.a.replicate: 'monotone' gets no `recovery`, whose order a replica changes",
    "arms:\n  monotone: {recovery: false}\n  a: {replicate: monotone}": "s.yaml:4: arms.a.replicate: 'monotone' gets no `recovery`, whose order a replica changes",
    "arms:\n  a: {replicate: monotone, start: gauge}": "s.yaml:3: arms.a.start: a replica has what 'monotone' states; leave it out",
    "attacks: {flip: {timeout: 10 m}}": "s.yaml:2: attacks.flip.timeout: expected a time such as '90 s', '10 min', '2 h' or '1 d' or a number, got '10 m'",
    "attacks: {flip: {timeout: 0}}": "s.yaml:2: attacks.flip.timeout: expected a string or a number above 0.0, got 0",
    "attacks: {flip: {memory_gib: -1}}": "s.yaml:2: attacks.flip.memory_gib: expected a number above 0.0, got -1",
    "verdicts: {margin: 0 %}": "s.yaml:2: verdicts.margin: expected a percentage between 0 and 100, such as '10 %' or a number, got '0 %'",
    "verdicts: {margin: 120%}": "s.yaml:2: verdicts.margin: expected a percentage between 0 and 100, such as '10 %' or a number, got '120%'",
    "verdicts: {margin: -0.1}": "s.yaml:2: verdicts.margin: expected a string or a number above 0.0, got -0.1",
    "arms:\n  monotone: {recovery: {}}": "s.yaml:3: arms.monotone.recovery: state `corrupt`, `adversarial` or both; or true or false",
    "arms:\n  monotone: {recovery: {corrupt: 0}}": "s.yaml:3: arms.monotone.recovery.corrupt: expected a number above 0.0, got 0",
    "arms:\n  monotone: {recovery: {corupt: 0.1}}": "s.yaml:3: arms.monotone.recovery.corupt: unknown key 'corupt'; did you mean 'corrupt'? (known: adversarial, corrupt)",
    "arms:\n  monotone: {recovery: {corrupt: 0.1}}\nrecovery: null": "s.yaml:3: arms.monotone.recovery: says how tokens are read, and the suite has no `recovery`",
    "arms:\n  monotone: {recovery: {adversarial: {share: 0.1}}}": "s.yaml:3: arms.monotone.recovery.adversarial.attack: is missing: the attack plugin",
    "arms:\n  monotone: {recovery: {adversarial: {attack: hotflop}}}": "s.yaml:3: arms.monotone.recovery.adversarial.attack: unknown attack 'hotflop'; did you mean 'hotflip'?",
    "arms:\n  monotone: {recovery: {adversarial: {attack: hotflip, flip: 3}}}": "s.yaml:3: arms.monotone.recovery.adversarial.flip: unknown hotflip option 'flip'; did you mean 'flips'?",
    "arms:\n  monotone: {recovery: {adversarial: {attack: hotflip, flips: 0}}}": "s.yaml:3: arms.monotone.recovery.adversarial.flips: expected a number above 0, got 0",
    "arms:\n  monotone: {recovery: {adversarial: {attack: uat}}}": "s.yaml:3: arms.monotone.recovery.adversarial.attack: 'uat' searches on examples of its own: name one that does not",
    "arms:\n  monotone: {recovery: {adversarial: {attack: transfer}}}": "s.yaml:3: arms.monotone.recovery.adversarial.attack: 'transfer' replays what others found: name one that does not",
    # --- types
    "seeds: ['42']": "s.yaml:2: seeds.0: expected a whole number, got '42'; write numbers without quotes",
    "seeds: 42": "s.yaml:2: seeds: expected a list, got 42",
    "seeds: [1.0]": "s.yaml:2: seeds.0: expected a whole number, got 1.0",
    "recovery: {tokens: true}": "s.yaml:2: recovery.tokens: expected a whole number, got true",
    "recovery: 5": "s.yaml:2: recovery: expected a mapping, got 5",
    "recovery: {learning_rate: fast}": "s.yaml:2: recovery.learning_rate: expected a number, got 'fast'",
    "models: [a]": "s.yaml:2: models: expected a mapping, got a list",
    "arms:\n  monotone: {recovery: yes}": "s.yaml:3: arms.monotone.recovery: expected true or false or a mapping, got 'yes'",
    "models:\n  toy-1.5b: {revision: 143000}": "s.yaml:3: models.toy-1.5b.revision: expected a string, got 143000; put it in quotes",
    "arms:\n  monotone: {layers: [0, x]}": "s.yaml:3: arms.monotone.layers.1: expected a whole number, got 'x'",
    "arms:\n  monotone: {layers: some}": "s.yaml:3: arms.monotone.layers: expected a list or 'all', got 'some'",
    # --- values
    "seeds: []": "s.yaml:2: seeds: expected at least 1 entry, got an empty list",
    "seeds: [7, 8, 7]": "s.yaml:2: seeds.2: 7 is stated twice",
    "seeds:\n  - 1\n  - -2": "s.yaml:4: seeds.1: expected a number of at least 0, got -2",
    "arms:\n  monotone: {seeds: [2, 3]}": "s.yaml:3: arms.monotone.seeds.1: 3 is no seed of the suite, which has 1, 2",
    "arms:\n  monotone: {seeds: [2, 2]}": "s.yaml:3: arms.monotone.seeds.1: 2 is stated twice",
    "arms:\n  monotone: {seeds: []}": "s.yaml:3: arms.monotone.seeds: expected at least 1 entry, got an empty list",
    "arms:\n  monotone: {seeds: [1]}\n  copy: {derive_from: monotone, seeds: [1, 2]}": "s.yaml:4: arms.copy.seeds.1: 2 is no seed of the arm 'monotone', which has 1",
    "arms:\n  baseline: {seeds: [1]}": "s.yaml:3: arms.baseline.seeds: the baseline is what others are compared with: it gets all seeds",
    "attacks:\n  flip:\n    flips: -1": "s.yaml:4: attacks.flip.flips: expected a number above 0, got -1",
    "success: {threshold: .nan}": "s.yaml:2: success.threshold: expected a finite number, got NaN",
    "recovery: {warmup_fraction: 1}": "s.yaml:2: recovery.warmup_fraction: expected a number below 1.0, got 1",
    "recovery: {precision: fp16}": "s.yaml:2: recovery.precision: expected 'float32' or 'bf16', got 'fp16'; did you mean 'bf16'?",
    "arms:\n  monotone: {start: gague}": "s.yaml:3: arms.monotone.start: expected 'abs' or 'gauge', got 'gague'; did you mean 'gauge'?",
    "arms:\n  a b: {}": "s.yaml:3: arms.a b: expected a name of letters, digits, '.', '_' and '-', got 'a b'",
    "name: a/b": "s.yaml:2: name: expected a name of letters, digits, '.', '_' and '-', got 'a/b'",
    "device: gpu": "s.yaml:2: device: expected auto, cpu, cuda or cuda:N, got 'gpu'",
    "device: cuda:1\nrecovery: {devices: 2}": "s.yaml:2: device: names one GPU, and `recovery.devices` is 2: write cuda, and choose GPUs by CUDA_VISIBLE_DEVICES",
    "corpora:\n  c: {path: x, slice: 1-2}": "s.yaml:3: corpora.c.slice: expected a slice such as ':80%' or '100:200', got '1-2'",
    "corpora:\n  c: {dataset: a/b, split: 'train[:9%]'}": "s.yaml:3: corpora.c.split: expected the name of a split (`slice` takes a part of it), got 'train[:9%]'",
    "corpora:\n  c: {path: x, dataset: a/b}": "s.yaml:3: corpora.c: needs exactly one of path, dataset and builtin",
    # --- names
    "models:\n  toy-1.5b: {adapter: toi}": "s.yaml:3: models.toy-1.5b.adapter: unknown model 'toi'; did you mean 'toy'?",
    "attacks:\n  toy_flop: {}": "s.yaml:3: attacks.toy_flop: unknown attack 'toy_flop'; did you mean 'toy_flip'?",
    "metrics:\n  toy_metric: {metric: toymetric}": "s.yaml:3: metrics.toy_metric.metric: unknown metric 'toymetric'; did you mean 'toy_metric'?",
    # --- references
    "recovery: {corpus: trian}": "s.yaml:2: recovery.corpus: unknown corpus 'trian'; did you mean 'train'? (known: held, test, train)",
    "examples: {test: {corpus: tests}}": "s.yaml:2: examples.test.corpus: unknown corpus 'tests'; did you mean 'test'? (known: held, test, train)",
    "metrics:\n  toy_metric: {corpus: tset}": "s.yaml:3: metrics.toy_metric.corpus: unknown corpus 'tset'; did you mean 'test'? (known: held, test, train)",
    "metrics:\n  toy_metric:\n    others: [test, tset]": "s.yaml:4: metrics.toy_metric.others.1: unknown corpus 'tset'; did you mean 'test'? (known: held, test, train)",
    "attacks:\n  control: {match: flp}": "s.yaml:3: attacks.control.match: unknown attack 'flp'; did you mean 'flip'? (known: control, flip)",
    "attacks:\n  control: {match: control}": "s.yaml:3: attacks.control.match: an attack cannot be its own control",
    "attacks:\n  more: {attack: toy_flip, match: control}": "s.yaml:3: attacks.more.match: 'control' is a control itself; match an attack",
    "attacks:\n  toy_trigger: {}\nexamples:\n  search: {corpus: held, count: 2}": "s.yaml:3: attacks.toy_trigger: needs `examples.validation`, apart from the test examples",
    # --- texts that must be apart
    "examples: {search: {corpus: test, count: 2}}": "s.yaml:2: examples.search.corpus: shares documents of python-topics (slices '60%:' and '60%:') with examples.test.corpus; give them disjoint slices",
    "corpora: {train: {slice: ':70%'}}\nmetrics: null\nrecovery: {validation: null}": "base.yaml:24: examples.test.corpus: shares documents of python-topics (slices '60%:' and ':70%') with recovery.corpus; give them disjoint slices",
    "recovery: {validation: train}": "s.yaml:2: recovery.validation: shares documents of python-topics (slices ':50%' and ':50%') with recovery.corpus; give them disjoint slices",
    "metrics: {toy_metric: {corpus: train}}": "s.yaml:2: metrics.toy_metric.corpus: shares documents of python-topics (slices ':50%' and ':50%') with recovery.corpus; give them disjoint slices",
    # --- claims
    "claims: {g: {a: {arm: monoton, attack: flip, dL: < 0}}}": "s.yaml:2: claims.g.a.arm: unknown arm 'monoton'; did you mean 'monotone'? (known: baseline, monotone)",
    "claims: {g: {a: {arm: monotone, attack: flop, dL: < 0}}}": "s.yaml:2: claims.g.a.attack: unknown attack 'flop'; did you mean 'flip'? (known: control, flip)",
    "claims: {g: {a: {attack: flip, dL: < 0}}}": "s.yaml:2: claims.g.a.arm: is missing: the arm that the claim is about",
    "claims: {g: {a: {arm: monotone, dL: < 0}}}": "s.yaml:2: claims.g.a: needs either `metric` or `attack`: what it is about",
    "claims: {g: {a: {arm: monotone, attack: flip, metric: toy_metric.loss, dL: < 0}}}": "s.yaml:2: claims.g.a: needs either `metric` or `attack`: what it is about",
    "claims: {g: {a: {arm: monotone, attack: flip, gap: < 0}}}": "s.yaml:2: claims.g.a.gap: is no number of a claim with `attack`: `success` or `dL`",
    "claims: {g: {a: {arm: monotone, attack: flip}}}": "s.yaml:2: claims.g.a: needs either `success` or `dL`: the bound of the attack",
    "claims: {g: {a: {arm: monotone, attack: flip, dL: < 0, success: reduced by 5 %}}}": "s.yaml:2: claims.g.a: needs either `success` or `dL`: the bound of the attack",
    "claims: {g: {a: {arm: monotone, attack: flip, dL: below 0}}}": "s.yaml:2: claims.g.a.dL: expected a bound such as '<= 0.03', '> 0' or 'within 0.03', got 'below 0'",
    "claims: {g: {a: {arm: monotone, attack: flip, dL: 0}}}": "s.yaml:2: claims.g.a.dL: expected a string, got 0; put it in quotes",
    "claims: {g: {a: {arm: monotone, attack: flip, success: reduced by 100 %}}}": "s.yaml:2: claims.g.a.success: expected a least reduction between 0 and 100 %, such as 'reduced by 50 %', got 'reduced by 100 %'",
    "claims: {g: {a: {arm: monotone, metric: toy_metric.loss, change: <= 0.1}}}": "s.yaml:2: claims.g.a.change: expected a bound such as '<= 10 %', '> -5 %' or 'within 10 %', got '<= 0.1'",
    "claims: {g: {a: {arm: monotone, metric: toy_metric.loss, gap: <= 1000000000000000}}}": "s.yaml:2: claims.g.a.gap: expected a bound such as '<= 0.03', '> 0' or 'within 0.03', got '<= 1000000000000000'",
    "claims: {g: {a: {arm: monotone, metric: toymetric.loss, gap: < 0}}}": "s.yaml:2: claims.g.a.metric: unknown metric 'toymetric'; did you mean 'toy_metric'? (known: toy_metric)",
    "claims: {g: {a: {arm: monotone, metric: toy_metric, gap: < 0}}}": "s.yaml:2: claims.g.a.metric: names no number of 'toy_metric': append one, as toy_metric.NAME",
    "metrics: {p: {metric: perplexity, corpus: test}}\nclaims: {g: {a: {arm: monotone, metric: p.perplexity, gap: < 0}}}": "s.yaml:3: claims.g.a.metric: unknown number 'p.perplexity'; did you mean 'p.word_perplexity'? (known: p.bits_per_byte, p.byte_perplexity, p.loss, p.token_perplexity, p.word_perplexity)",
    "metrics: {l: {metric: lm_eval, tasks: [hellaswag]}}\nclaims: {g: {a: {arm: monotone, metric: l.helaswag.acc, gap: < 0}}}": "s.yaml:3: claims.g.a.metric: unknown number 'l.helaswag.acc'; did you mean 'l.hellaswag.NAME'? (known: l.hellaswag.NAME)",
    "claims: {g: {a: {arm: baseline, attack: flip, dL: < 0}}}": "s.yaml:2: claims.g.a.against: 'baseline' would be compared with itself",
    "claims: {g: {a: {arm: monotone, against: monotone, attack: flip, dL: < 0}}}": "s.yaml:2: claims.g.a.against: 'monotone' would be compared with itself",
    "arms:\n  monotone: {attacks: []}\nclaims: {g: {a: {arm: monotone, attack: flip, dL: < 0}}}": "s.yaml:4: claims.g.a.attack: the arm 'monotone' does not get 'flip'",
    "claims: {g: {a: {arm: monotone, attack: flip, dL: < 0, seeds: all}}}": "s.yaml:2: claims.g.a.seeds: expected 'every', got 'all'",
    "claims: {g: {a: {arm: monotone, attack: [flip], dL: < 0}}}": "s.yaml:2: claims.g.a.attack: expected a string, got a list",
    "claims: {g: 3}": "s.yaml:2: claims.g: expected a mapping, got 3",
    "claims: {baseline: {baseline: {arm: monotone, against: monoton, attack: flip, dL: < 0}}}": "s.yaml:2: claims.baseline.baseline.against: unknown arm 'monoton'; did you mean 'monotone'? (known: baseline, monotone)",
    "claims: {baseline: null}": "s.yaml:2: claims.baseline: is empty, which removes an entry, and there is none to remove; write {} for an entry without options",
    # --- plugins
    "plugins: [toys.py, toy.py]": "s.yaml:2: plugins.1: no such file or folder: HERE/toy.py",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_suite_gets_one_sentence(toy_suite, text):
    found = [line.replace(str(Path.cwd()), "HERE") for line in problems(text)]
    known = " (known:"
    if known in WRONG[text]:
        assert found == [WRONG[text]]
    else:  # which plugins are known is not the matter here
        assert [line.partition(known)[0] for line in found] == [WRONG[text]]


def test_all_problems_are_said_at_once_in_the_order_of_the_file(toy_suite):
    found = problems(
        "seeds: []\narms:\n  monotone: {start: ab}\n  other: {constraint: sofplus}\n"
        "recovery: {tokens: -1, corpus: no}\nbatch_size: 1\nbatch_size: x\n"
        "attacks: {flip: {flips: 0}}\nexamples: {test: {corpus: tset, count: 0}}"
    )
    places = [line.split(": ")[:2] for line in found]
    assert places == [
        ["s.yaml:2", "seeds"],
        ["s.yaml:4", "arms.monotone.start"],
        ["s.yaml:5", "arms.other.constraint"],
        ["s.yaml:6", "recovery.tokens"],
        ["s.yaml:6", "recovery.corpus"],
        ["s.yaml:8", "batch_size"],
        ["s.yaml:9", "attacks.flip.flips"],
        ["s.yaml:10", "examples.test.count"],
        ["s.yaml:10", "examples.test.corpus"],
    ]


def test_whatever_is_a_mapping_by_mistake_is_said_with_its_line(toy_suite):
    whole = YAML(typ="safe", pure=True).load(toy_suite.read_text(encoding="utf-8"))
    for path in [*paths(whole)][1:]:
        suite = copy.deepcopy(whole)
        inner = functools.reduce(operator.getitem, path[:-1], suite)
        inner[path[-1]] = {}
        Path("s.yaml").write_text(json.dumps(suite), encoding="utf-8")
        for problem in validate_suite(Path("s.yaml")):
            assert (problem.file, problem.line, problem.exit_code) == ("s.yaml", 1, 2)


def paths(value, path=()):
    """Yield the paths of all parts of a plain value."""
    yield path
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from paths(value[key], (*path, key))


def test_a_problem_names_the_layer_that_the_value_came_from(toy_suite):
    text = "profiles:\n  p:\n    seeds: [-1]"
    assert problems(text, profile="p") == [
        "s.yaml:4: seeds.0: expected a number of at least 0, got -1"
    ]
    overrides = ["recovery.tokens=-1", "models.toy-1.5b.pth=x"]
    assert problems("", overrides=overrides, batch_size=0) == [
        "--batch-size: expected a number above 0, got 0",
        "--set models.toy-1.5b.pth: unknown toy option 'pth'; did you mean 'path'? "
        "(known: adapter, dtype, fingerprint, path, revision)",
        "--set recovery.tokens: expected a number above 0, got -1",
    ]


def test_validation_looks_into_every_profile(toy_suite):
    Path("s.yaml").write_text(
        "extends: base.yaml\nseeds: [1, 1]\nprofiles:\n  a: {batch_size: 0}\n"
        "  b: {seeds: []}\n"
    )
    assert [str(problem) for problem in validate_suite(Path("s.yaml"))] == [
        "s.yaml:2: seeds.1: 1 is stated twice",
        "s.yaml:4: batch_size: expected a number above 0, got 0",
        "s.yaml:5: seeds: expected at least 1 entry, got an empty list",
    ]


@pytest.mark.usefixtures("toy_suite")
def test_a_pattern_through_the_whole_disk_is_refused(monkeypatch):
    monkeypatch.setattr("harness.data.patterns.MOST_ENTRIES", 1)
    (problem,) = problems("corpora:\n  train: {path: '*/*'}\n  test: {path: nowhere}")
    assert problem.startswith("s.yaml:3: corpora.train.path: ")
    assert problem.endswith(
        "/*/* leads through more than 1 files and folders: name fewer"
    )


def test_disjoint_texts_raise_no_objection(toy_suite):
    Path("s.yaml").write_text(
        "extends: base.yaml\n"
        "examples:\n  search: {corpus: held, count: 2}\n"
        "  validation: {corpus: more, count: 2}\n"
        f"corpora:\n  more: {TEXT % '55%:60%'}\n  held: {{slice: '50%:55%'}}\n"
        "attacks: {toy_trigger: {}}\n"
    )
    assert validate_suite(Path("s.yaml")) == []


def test_plugins_are_built_with_checked_options(toy_suite):
    experiment = load_experiment(toy_suite, overrides=["attacks.flip.stop=1e-1"])
    flip = experiment.attacks["flip"]
    assert (flip.name, flip.options.flips, flip.options.stop) == ("toy_flip", 3, 0.1)
    assert flip.options.model_fields_set == {"flips", "stop"}
    assert experiment.arms["baseline"].name == "none"
    assert experiment.suite.metrics["toy_metric"].metric == "toy_metric"


@pytest.mark.parametrize(
    ("stated", "seconds"),
    [("90", 90), ("0.5 s", 0.5), ("10min", 600), ("2 h", 7200), ("1.5 d", 129600)],
)
def test_a_control_has_the_bounds_of_its_attack(toy_suite, stated, seconds):
    overrides = [f"attacks.flip.timeout={stated}", "attacks.flip.memory_gib=2"]
    suite = load_experiment(toy_suite, overrides=overrides).suite
    assert suite.bounds_of("flip") == suite.bounds_of("control") == (seconds, 2)


def test_arguments_win_over_the_suite(toy_suite):
    suite = load_experiment(
        toy_suite, profile="quick", seeds=[9], limit=2, device="cpu", batch_size=3
    ).suite
    assert (suite.seeds, suite.limit, suite.device, suite.batch_size) == (
        (9,),
        2,
        "cpu",
        3,
    )
    assert list(suite.attacks) == ["flip"]


def test_local_paths_are_relative_to_the_file_that_states_them(toy_suite, monkeypatch):
    folder = Path.cwd()
    Path("sub").mkdir()
    Path("sub/s.yaml").write_text(
        "extends: ../base.yaml\n"
        "models:\n  near: {adapter: toy, path: ../weights}\n"
        "  hub: {adapter: toy, path: owner/name}\n"
        "  gone: {adapter: toy, path: ./gone}\n"
        "corpora:\n  c: {path: ../toys.py}\n"
        "metrics: {toy_metric: {tasks: ..}}\n"
    )
    monkeypatch.chdir(folder.parent)
    suite = load_experiment(
        Path("toys/sub/s.yaml"), overrides=["models.set={adapter: toy, path: toys}"]
    ).suite
    assert {label: model.options["path"] for label, model in suite.models.items()} == {
        "toy-1.5b": str(folder / "weights"),
        "near": str(folder / "weights"),
        "hub": "owner/name",
        "gone": str(folder / "sub" / "gone"),
        "set": str(folder),
    }
    assert suite.corpora["c"].path == str(folder / "toys.py")
    assert suite.metrics["toy_metric"].options["tasks"] == str(folder)
    assert suite.plugins == (str(folder / "toys.py"),)


def test_plugins_of_the_command_line_are_loaded_too(toy_suite, example_plugin):
    Path("s.yaml").write_text("extends: base.yaml\nattacks: {rotate: {}}\n")
    experiment = load_experiment(Path("s.yaml"), plugins=[example_plugin])
    assert experiment.attacks["rotate"].name == "rotate"
    assert str(example_plugin) in experiment.suite.plugins


def test_plugins_that_cannot_be_told_apart_are_an_error(toy_suite):
    Path("twin.py").write_bytes(Path("toys.py").read_bytes())
    with pytest.raises(PluginError, match="two plugins offer"):
        load_experiment(toy_suite, plugins=[Path("twin.py")])


# --- writing ----------------------------------------------------------------------


@pytest.mark.parametrize("profile", [None, "quick"])
def test_a_resolved_suite_is_itself_runnable(toy_suite, tmp_path, profile):
    store = tmp_path / "store"
    overrides = ["attacks.flip.stop=null", "recovery.learning_rate=1e-3"]
    experiment = resolve(
        load_experiment(toy_suite, profile=profile, overrides=overrides), store
    )
    written = tmp_path / "elsewhere" / "suite.resolved.yaml"
    written.parent.mkdir()
    written.write_text(dump_suite(experiment.suite), encoding="utf-8")
    again = resolve(load_experiment(written), store)
    assert again.suite == experiment.suite.model_copy(update={"profiles": {}})
    ours, theirs = make_plan(experiment), make_plan(again)
    assert [unit.id for unit in ours.variants] == [unit.id for unit in theirs.variants]
    assert [unit.id for unit in ours.cells] == [unit.id for unit in theirs.cells]
    assert dump_suite(again.suite) == dump_suite(experiment.suite)


@pytest.mark.parametrize(
    "text", ["1e-3", "on", "010", "null", "", "a: b", "é\n x", "~"]
)
def test_strings_survive_the_dump(toy_suite, tmp_path, text):
    experiment = load_experiment(toy_suite)
    model = experiment.suite.models["toy-1.5b"].model_copy(update={"revision": text})
    suite = experiment.suite.model_copy(update={"models": {"m": model}})
    Path("again.yaml").write_text(dump_suite(suite), encoding="utf-8")
    again = load_experiment(Path("again.yaml")).suite
    assert again.models["m"].options["revision"] == text


def test_nothing_heavy_is_imported_to_read_a_suite(toy_suite, imported):
    modules = imported(
        "from pathlib import Path",
        "from harness.suite import load_experiment, make_plan",
        "load_experiment(Path('base.yaml'))",
    )
    assert not modules & {"torch", "transformers", "datasets", "lm_eval", "scipy"}
