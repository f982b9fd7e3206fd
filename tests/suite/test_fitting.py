"""What a suite asks for and cannot have is said in seconds, before anything runs."""

import json
import time

import pytest

from harness.base import Store, SuiteError, UsageError
from harness.data import Corpora, build_examples
from harness.suite import (
    fitting,
    load_experiment,
    misfits,
    refuse_misfits,
    validate_suite,
)
from harness.suite.texts import Texts
from tests.tiny_inputs import write_inputs

SUITE = """
models:
  tiny: {adapter: pythia, path: ./model}
arms:
  baseline: {}
seeds: [1]
corpora:
  train: {path: text.jsonl, slice: ":20"}
  spare: {path: text.jsonl, slice: "20:24"}
  test: {path: text.jsonl, slice: "24:"}
recovery: {corpus: train, tokens: 128, context: 32, batch_tokens: 64}
metrics:
  perplexity: {corpus: test}
examples:
  test: {corpus: test, count: 4}
  prompt_tokens: 16
  reference_tokens: 16
attacks:
  hotflip: {flips: 2}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a model of 128 positions and 40 texts."""
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder, lines=40)
    return folder


def edited(place, old="", new=""):
    assert old in SUITE
    (place / "s.yaml").write_text(SUITE.replace(old, new).lstrip())
    return place / "s.yaml"


def said(path, **how):
    return [f"{x.severity}: {x}" for x in validate_suite(path, **how)]


def test_nothing_is_said_of_a_suite_that_gets_what_it_asks_for(place):
    assert said(edited(place)) == said(edited(place), trust=False) == []


@pytest.mark.parametrize("trust", [True, False])
@pytest.mark.parametrize(
    ("old", "new", "place_and_message"),
    [
        (
            "count: 4",
            "count: 30",
            "14: examples.test.count: corpus test gives 16 examples, and 30 are wanted",
        ),
        (
            "count: 4}",
            "count: 4}\n  search: {corpus: train, count: 21}",
            "15: examples.search.count: corpus train gives 20 examples, and 21 are "
            "wanted",
        ),
        (
            "flips: 2",
            "flips: 17",
            "18: attacks.hotflip.flips: 17 tokens may change, and a prompt has 16 "
            "(`examples.prompt_tokens`)",
        ),
        (
            "hotflip: {flips: 2}",
            "gcg: {steps: 1, positions: suffix, tokens: 3, flips: 4}",
            "18: attacks.gcg.flips: 4 tokens may change, and it puts beside prompts 3 "
            "(`tokens`)",
        ),
        (
            "prompt_tokens: 16",
            "prompt_tokens: 114",
            "15: examples.prompt_tokens: with `reference_tokens`, an example has 130 "
            "tokens, and models.tiny reads 128 at most",
        ),
        (
            "context: 32, batch_tokens: 64",
            "context: 129, batch_tokens: 129",
            "10: recovery.context: 129 tokens are a block, and models.tiny reads 128 "
            "at most",
        ),
        (
            "perplexity: {corpus: test}",
            "perplexity: {corpus: test, context: 129}",
            "12: metrics.perplexity.context: 129 tokens are more than the model's 128 "
            "positions",
        ),
    ],
)
def test_what_cannot_be_had_is_an_error_with_its_line(
    place, old, new, place_and_message, trust
):
    path = edited(place, old, new)
    assert f"error: {path}:{place_and_message}" in said(path, trust=trust)


@pytest.mark.parametrize(("trigger", "fits"), [(1, True), (2, False)])
def test_a_trigger_counts_towards_what_the_model_reads(place, trigger, fits):
    # With one more, 16 + 112 tokens fit into 128 positions: the last one is not read.
    path = edited(place, "reference_tokens: 16", "reference_tokens: 112")
    sets = "search: {corpus: train, count: 1}\n  validation: {corpus: spare, count: 1}"
    text = path.read_text().replace("count: 4}", f"count: 4}}\n  {sets}")
    uat = f"uat: {{trigger_tokens: {trigger}}}"
    path.write_text(text.replace("hotflip: {flips: 2}", uat))
    keys = {problem.key for problem in validate_suite(path)}
    assert "examples.prompt_tokens" not in keys
    assert ("attacks.uat" in keys) == (not fits)


def test_examples_are_counted_as_a_run_will_cut_them(place):
    """Held against the cutting itself, by the tokenizer of transformers."""
    from transformers import AutoTokenizer

    rows = [json.dumps({"text": "the cat sat. " * n}) for n in range(40)]
    (place / "growing.jsonl").write_text("\n".join(rows))
    path = edited(place, '{path: text.jsonl, slice: "24:"}', "{path: growing.jsonl}")
    experiment = load_experiment(path, overrides=["examples.test.count=40"])
    suite = experiment.suite
    with pytest.raises(UsageError, match=r"gives \d+ examples \(\d+ left") as raised:
        build_examples(
            suite.examples,
            Corpora(suite.corpora, Store(place)),
            AutoTokenizer.from_pretrained(place / "model"),
            None,
        )
    (found,) = [x.message for x in misfits(experiment, place) if "gives" in x.message]
    assert f"examples.test: {found}" == str(raised.value)


def test_tokens_are_said_as_they_will_be_trained_on(place):
    """Counted by the tokenizer of transformers, an end token after each text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place / "model")
    lines = (place / "text.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines[:20]]
    there = sum(len(tokenizer(text)["input_ids"]) + 1 for text in texts)
    path = edited(place, "tokens: 128", "tokens: 5000")
    steps = -(-5000 // 64)
    trained = 64 * steps
    assert said(path) == [
        f"notice: {path}:10: recovery.tokens: 5,000 are rounded up to whole steps: "
        f"{steps} of 64, which are {trained:,}",
        f"notice: {path}:10: recovery.tokens: the corpus train has {there} tokens: "
        f"{trained:,} are {trained / there:.1f} passes over it",
    ]


def test_passes_over_what_is_only_estimated_are_said_with_its_error(place, monkeypatch):
    """Of the first two texts of twenty: a tenth more may be what there is."""
    monkeypatch.setattr("harness.suite.texts.SAMPLED", 2)
    experiment = load_experiment(edited(place))
    corpora = Corpora(experiment.suite.corpora, Store(place / "store"))
    shape = experiment.models["tiny"].shape()
    there = Texts(experiment.suite, corpora, shape).tokens("train").tokens

    def passes(times):
        path = edited(place, "tokens: 128", f"tokens: {round(times * there)}")
        return [line for line in said(path) if "passes over" in line]

    assert passes(1.15) == []
    (told,) = passes(1.4)
    assert f"has about {there:,} tokens: " in told


def test_an_empty_slice_gives_nothing_to_train_on(place):
    path = edited(place, 'slice: ":20"', 'slice: ":0"')
    message = "recovery.corpus: the corpus train has no documents"
    assert said(path) == [f"error: {path}:10: {message}"]


def test_a_corpus_without_a_block_gives_nothing_to_train_on(place):
    path = edited(place, '{path: text.jsonl, slice: ":20"}', "{path: short.txt}")
    (place / "short.txt").write_text("the cat sat")
    assert any("recovery.corpus: the corpus train has" in x for x in said(path))


def test_paths_that_lead_nowhere_are_warnings_with_the_nearest_name(place):
    path = edited(place, "./model", "./modle")
    path.write_text(path.read_text().replace("text.jsonl", "txt.jsonl"))
    lost = [(2, "models.tiny", "modle", "model")]
    lost += [
        (line, f"corpora.{name}", "txt.jsonl", "text.jsonl")
        for line, name in [(7, "train"), (8, "spare"), (9, "test")]
        if name != "spare"  # nothing reads it
    ]
    assert said(path) == [
        f"warning: {path}:{line}: {key}.path: {place}/{name} is not there; "
        f"did you mean {place}/{near}?"
        for line, key, name, near in lost
    ]


def test_a_device_that_is_not_here_is_a_warning_of_the_suite(place):
    path = edited(place, "seeds: [1]", "seeds: [1]\ndevice: cuda:77")
    (found,) = said(path)
    assert found.startswith(f"warning: {path}:6: device: device cuda:77: ")


NO_UNKNOWN = '{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "no"}}'


@pytest.mark.parametrize(
    ("tokenizer", "assumed"),
    [
        ('{"model": {"type": "no such"}}', "tokenizer.json cannot be read ("),
        (NO_UNKNOWN, "the corpus train cannot be read here"),
    ],
)
def test_a_tokenizer_that_is_none_ends_no_check(place, tokenizer, assumed):
    other = place / "broken"
    other.mkdir(exist_ok=True)
    (other / "config.json").write_text((place / "model" / "config.json").read_text())
    (other / "tokenizer.json").write_text(tokenizer)
    path = edited(place, "./model", "./broken")
    assert said(path) == said(path, trust=False) == []
    experiment = load_experiment(path)
    texts = Texts(
        experiment.suite,
        Corpora(experiment.suite.corpora, Store(place)),
        experiment.models["tiny"].shape(),
    )
    assert texts.size("train").documents
    assert assumed in texts.assumptions[0]


# --- what may come from a stranger --------------------------------------------------


def test_without_trust_no_pattern_of_a_suite_or_tokenizer_is_run(place):
    endless = r"text.txt, separator: '(a|a)*b'"
    (place / "text.txt").write_text("a" * 40 + "\n")
    path = edited(place, "text.jsonl", endless)
    assert said(path, trust=False) == []
    tokenizer = json.loads((place / "model" / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": "x"},
        "behavior": "Isolated",
        "invert": False,
    }
    other = place / "other"
    other.mkdir(exist_ok=True)
    (other / "config.json").write_text((place / "model" / "config.json").read_text())
    hidden = json.dumps(tokenizer).replace('"Regex"', '"\\u0052egex"')
    (other / "tokenizer.json").write_text(hidden)
    # 60 tokens or fewer, and many more bytes: counted from above without its tokenizer.
    path = edited(place, "reference_tokens: 16", "reference_tokens: 84")
    path.write_text(path.read_text().replace("./model", "./other"))
    assert any("left out" in x for x in said(path, trust=True))
    assert said(path, trust=False) == []


def test_without_trust_no_file_elsewhere_is_read(place, tmp_path):
    (tmp_path / "away.jsonl").write_text('{"text": "short"}\n')
    path = edited(place, "text.jsonl", str(tmp_path / "away.jsonl"))
    assert any("gives 0 examples" in x for x in said(path))
    assert not any("gives" in x for x in said(path, trust=False))


def test_what_would_take_long_to_read_is_left_to_the_run(place):
    with (place / "large.jsonl").open("wb") as file:
        file.truncate(fitting.MOST_BYTES + 1)
    start = time.monotonic()
    path = edited(place, "path: text.jsonl", "path: large.jsonl")
    assert said(path) == []
    assert time.monotonic() - start < 5
    (place / "large.jsonl").unlink()


def test_a_run_refuses_misfits_and_says_the_rest(place):
    path = edited(place, "tokens: 128", "tokens: 100")
    found = refuse_misfits(load_experiment(path), place)
    assert [str(x).split(": ")[:2] for x in found] == [
        [f"{path}:10", "recovery.tokens"]
    ]
    with pytest.raises(SuiteError, match="17 tokens may change"):
        experiment = load_experiment(path, overrides=["attacks.hotflip.flips=17"])
        refuse_misfits(experiment, place)


def test_a_pattern_that_no_file_fits_is_one_that_leads_nowhere(place):
    stated = f"path: {place}/**none"
    path = edited(place, "path: text.jsonl", stated)
    line = path.read_text().split(stated)[0].count("\n") + 1
    told = f"warning: {path}:{line}: corpora.train.path: {place}/**none is not there"
    assert told in said(path)
