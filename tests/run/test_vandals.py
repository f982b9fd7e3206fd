"""Plugins that do what they must not: each is named, and no other result is touched."""

import json

import pytest

from harness.cli import main
from tests.tiny_inputs import write_inputs

# Elsewhere in the tests a warning is an error; here it is to be logged.
pytestmark = [
    pytest.mark.filterwarnings("default:warned by a plugin"),
    pytest.mark.xdist_group("vandals"),
]

SUITE = """
name: vandals
models:
  tiny: {adapter: pythia, path: model}
arms:
  baseline: {}
corpora:
  test: {path: text.jsonl}
metrics:
  perplexity: {corpus: test, context: 32}
examples:
  test: {corpus: test, count: 3}
  prompt_tokens: 8
  reference_tokens: 5
attacks: {ATTACKS}
controls: none
seeds: [7]
"""
PLUGIN = '''
"""Attacks and a metric that break what others use."""

import logging
import sys
import threading
import warnings

from harness import hookimpl
from harness.api import Adversarial, Attack, Budget, Metric


class Vandal(Attack):
    """Return prompts as they are, and do something after the first."""

    controls = ()

    def run(self, subject, examples, context):
        for number, example in enumerate(examples.test):
            yield Adversarial(example.id, example.prompt_ids)
            if not number:
                self.strike(subject, examples)

    def budget(self, examples):
        return Budget(0, 0)


class Weights(Vandal):
    """Write into weights."""

    name = "weights"

    def strike(self, subject, examples):
        next(subject.huggingface()[0].parameters()).data.mul_(1.5)


class Raises(Weights):
    """Write into weights, and fail."""

    name = "raises"

    def strike(self, subject, examples):
        super().strike(subject, examples)
        raise RuntimeError("out of ideas")


class Examples(Vandal):
    """Write into an example."""

    name = "examples"

    def strike(self, subject, examples):
        examples.test[2].prompt_ids[0] = 5


class Sly(Vandal):
    """Write into an example that is locked."""

    name = "sly"

    def strike(self, subject, examples):
        examples.test[2].reference_ids.flags.writeable = True
        examples.test[2].reference_ids[0] = 5


class Quits(Vandal):
    """End the process."""

    name = "quits"

    def strike(self, subject, examples):
        sys.exit(0)


class QuitsEarly(Vandal):
    """End the process before anything runs."""

    name = "quits_early"

    def missing(self):
        sys.exit(0)


class Empties(Vandal):
    """Take examples off the list, and return nothing for one of them."""

    name = "empties"

    def run(self, subject, examples, context):
        examples.test.pop()
        while examples.test:
            example = examples.test.pop()
            yield Adversarial(example.id, example.prompt_ids)


class Warns(Vandal):
    """Raise a warning of the harness."""

    name = "warns"

    def strike(self, subject, examples):
        from harness.api.forgiving import warn

        warn("warns", "is for the user's eyes")


class Talks(Vandal):
    """Say something in every way."""

    name = "talks"

    def strike(self, subject, examples):
        print("printed by a plugin")
        warnings.warn("warned by a plugin", UserWarning, stacklevel=1)
        logging.getLogger("transformers").warning("logged by a library")
        logging.getLogger("somebody.else").warning("logged by somebody else")


class Scale(Metric):
    """Write into weights."""

    name = "scale"

    def measure(self, subject, context):
        next(subject.huggingface()[0].parameters()).data.mul_(1.5)
        yield {"row": 1}

    def summarise(self, rows):
        return {}


class QuitsToo(Metric):
    """End the process."""

    name = "quits_too"

    def measure(self, subject, context):
        sys.exit(0)

    def summarise(self, rows):
        return {}


class Waits(Metric):
    """Wait for what never comes."""

    name = "waits"

    def measure(self, subject, context):
        threading.Event().wait()
        yield {}

    def summarise(self, rows):
        return {}


@hookimpl
def register_attacks():
    return [Weights, Raises, Examples, Sly, Quits, QuitsEarly, Talks, Warns,
            Empties]


@hookimpl
def register_metrics():
    return [Scale, QuitsToo, Waits]
'''
HONEST = "hotflip: {flips: 1, candidates: 4}"
VANDALS = ("weights", "raises", "examples", "sly", "quits", "talks")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with the model, its text and the plugins."""
    folder = tmp_path_factory.mktemp("vandals")
    write_inputs(folder, 6)
    (folder / "vandals.py").write_text(PLUGIN)
    return folder


def run(place, name, *attacks, options=()):
    """Run a suite with these attacks; return the exit code and the run folder."""
    suite, out = place / f"{name}.yaml", place / "runs" / name
    suite.write_text(SUITE.replace("ATTACKS", ", ".join(attacks)))
    plugins = ("--plugins", str(place / "vandals.py"))
    with pytest.raises(SystemExit) as ended:
        main(["run", str(suite), "--out", str(out), *plugins, *options])
    return ended.value.code, out


@pytest.fixture(scope="module")
def done(place):
    """Return the folder of a run with all vandals, an honest attack after each."""
    attacks = []
    for vandal in VANDALS:
        honest = f"after_{vandal}: {{attack: hotflip, flips: 1, candidates: 4}}"
        attacks += [f"{vandal}: {{}}", honest]
    code, out = run(place, "all", *attacks)
    assert code == 1
    return out


@pytest.fixture(scope="module")
def honest_rows(place):
    code, out = run(place, "honest", HONEST)
    assert code == 0
    return samples(out, "hotflip")


def folder_of(out, attack):
    (folder,) = out.glob(f"cells/tiny.baseline.s7.{attack}-????????")
    return folder


def record(out, attack):
    return json.loads((folder_of(out, attack) / "record.json").read_text())


def samples(out, attack):
    return (folder_of(out, attack) / "samples.jsonl").read_text()


CHANGED = {"weights": "the weights of the subject", "sly": "the examples"}


@pytest.mark.parametrize("attack", CHANGED)
def test_what_others_use_is_compared_and_who_changed_it_is_named(done, attack):
    found = record(done, attack)
    assert found["status"] == "failed"
    assert found["samples"] is None
    message = found["error"]["message"]
    assert message.startswith(f"the attack {attack!r} changed {CHANGED[attack]}")
    assert "loaded again" in message


def test_an_attack_that_fails_is_looked_after_too(done):
    found = record(done, "raises")
    assert "the attack 'raises' changed the weights" in found["error"]["message"]
    assert "out of ideas" in (folder_of(done, "raises") / "log.txt").read_text()


def test_examples_are_read_only(done):
    found = record(done, "examples")
    assert "read-only" in found["error"]["message"]
    assert "in strike" in found["error"]["traceback"]


def test_sys_exit_in_a_plugin_is_the_failure_of_its_unit(done):
    error = record(done, "quits")["error"]
    assert error["type"] == "SystemExit"
    assert error["message"] == "a plugin called sys.exit(0)"
    assert "in strike" in error["traceback"]


def test_sys_exit_in_a_plugin_never_passes_for_success(place, capsys):
    code, _ = run(place, "early", "quits_early: {}")
    assert code == 2
    assert "a plugin called sys.exit(0)" in capsys.readouterr().err


@pytest.mark.parametrize("vandal", VANDALS)
def test_cells_after_a_vandal_are_as_without_it(done, honest_rows, vandal):
    assert samples(done, f"after_{vandal}") == honest_rows


def test_rows_that_were_scored_on_changed_weights_are_not_kept(place, done):
    again, _ = run(place, "all", *_attacks_of(place))
    assert again == 1
    found = record(done, "weights")
    assert found["provenance"]["restarts"] == 1
    assert found["status"] == "failed"
    rows = folder_of(done, "weights") / "samples.partial.jsonl"
    lines = map(json.loads, rows.read_text().splitlines())
    assert not [line["row"] for line in lines if line["row"]]


def _attacks_of(place):
    text = (place / "all.yaml").read_text()
    inner = text.split("attacks: {", 1)[1].split("}\ncontrols", 1)[0]
    return [inner]


def test_a_log_holds_what_happened_and_what_was_said(done):
    log = (folder_of(done, "talks") / "log.txt").read_text().splitlines()
    assert all(line[:4].isdigit() and line[10] == " " for line in log if "INFO" in line)
    for said in (
        "INFO harness.printed: printed by a plugin",
        "UserWarning: warned by a plugin",
        "WARNING transformers: logged by a library",
        "WARNING somebody.else: logged by somebody else",
        "attempt 1",
        "3/3 test/2: unchanged, dL 0",
        "complete",
    ):
        assert len([line for line in log if said in line]) == 1, said


def test_an_attack_may_empty_the_list_that_it_gets(place):
    code, out = run(place, "emptied", "empties: {}")
    assert code == 0
    rows = [json.loads(line) for line in samples(out, "empties").splitlines()]
    assert [row["status"] for row in rows] == ["unchanged", "unchanged", "error"]


@pytest.mark.filterwarnings("default:plugin warns")
def test_our_own_warnings_are_shown_as_well(place, capsys):
    code, out = run(place, "warned", "warns: {}")
    assert code == 0
    log = (folder_of(out, "warns") / "log.txt").read_text()
    for text in (log, capsys.readouterr().err):
        assert text.count("plugin warns is for the user's eyes") == 1


def test_a_failure_is_in_the_log_with_its_traceback(done):
    log = (folder_of(done, "examples") / "log.txt").read_text()
    assert "ERROR" in log
    assert "Traceback (most recent call last)" in log
    assert "ValueError: assignment destination is read-only" in log


def test_the_log_of_a_variant_has_its_stages_in_order(done):
    (path,) = done.glob("variants/*/log.txt")
    log, at = path.read_text(), 0
    for stage in (
        *("load ...", "constrain ...", "certify the constrained model ..."),
        *("recover ...", "freeze ..."),
        *("load the frozen subject ...", "metric perplexity ...", "diagnostics ..."),
    ):
        at = log.index(f": {stage}", at)


def test_what_was_not_trained_is_certified_once(done):
    (path,) = done.glob("variants/*/record.json")
    record = json.loads(path.read_text())
    assert record["recovery"]["status"] == "none"
    assert record["certificate"]["before"] == record["certificate"]["after"]
    log = path.with_name("log.txt").read_text()
    assert log.count("certify the") == 2  # that it begins, and how long it took


def test_the_ledger_of_a_variant_has_its_phases(done):
    (path,) = done.glob("variants/*/record.json")
    ledger = json.loads(path.read_text())["ledger"]
    phases = {"load", "train", "certify", "freeze", "metrics"}
    assert set(ledger["kept"]) == set(ledger["spent"]) == phases
    assert all(cost["seconds"] > 0 for cost in ledger["kept"].values())
    assert ledger["kept"]["metrics"]["sequences_forward"] > 0


def test_the_ledger_of_a_cell_has_its_search_and_its_scoring(done):
    kept = record(done, "after_weights")["ledger"]["kept"]
    assert set(kept) == {"load", "attack", "rescore", "metrics"}
    rows = [json.loads(x) for x in samples(done, "after_weights").splitlines()]
    prompts = [
        {
            *(tuple(x["adversarial_prompt_ids"]) for x in (row, *row["checkpoints"])),
            tuple(row["clean_prompt_ids"]),
        }
        for row in rows
    ]
    assert kept["rescore"]["sequences_forward"] == sum(map(len, prompts))
    quits = record(done, "quits")
    failed, attempts = quits["ledger"], 1 + quits["provenance"]["restarts"]
    assert failed["kept"] == {}
    # It leaves the prompt as it is, and a prompt is scored once.
    assert failed["spent"]["rescore"]["sequences_forward"] == attempts


@pytest.mark.parametrize(
    ("metric", "bounds", "sentence"),
    [
        ("scale", "", "the metric 'scale' changed the weights of the subject"),
        ("quits_too", "", "a plugin called sys.exit(0)"),
        ("waits", "timeout: 0.3", "the metric 'waits' took longer than its timeout of"),
    ],
)
def test_a_metric_fails_its_variant(place, metric, bounds, sentence):
    options = ("--set", f"metrics={{{metric}: {{{bounds}}}}}")
    code, out = run(place, metric, "none: {}", options=options)
    assert code == 1
    (path,) = out.glob("variants/*/record.json")
    assert sentence in json.loads(path.read_text())["error"]["message"]


def test_samples_are_hashed_once_in_a_run(place, honest_rows, monkeypatch):
    from harness.running import folder

    hashed, fault = [], folder.samples_fault

    def counted(path, samples):
        hashed.append(path)
        return fault(path, samples)

    monkeypatch.setattr(folder, "samples_fault", counted)
    attacks = (HONEST, "none: {}", "again: {attack: none}")
    assert run(place, "honest", *attacks)[0] == 0
    running = [path for path in hashed if "variants" in str(path)]
    # Once to run, and once more to report.
    assert len(running) == 2
