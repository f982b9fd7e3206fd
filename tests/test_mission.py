"""The mission's own suite, made small, on a really trained model and real text."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import main
from harness.models import load_frozen

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("mission")]

HERE = Path(__file__).parent
SUITE = HERE.parent / "suites" / "pythia_1p4b.yaml"
CONTROLS = {
    "hotflip": ("hotflip-random", "hotflip-permuted"),
    "multiflip": ("multiflip-random", "multiflip-permuted"),
    "uat": ("uat-random", "uat-permuted", "uat-benign"),
    "adaptive": ("adaptive-random",),
}
ATTACKS = {*CONTROLS, *sum(CONTROLS.values(), ()), "transfer", "worst_case"}
ARMS = {"baseline", "monotone", "abs-unconstrained", "gauge"}
UNITS = len(ARMS) * (1 + len(ATTACKS))

LAMBADA = """
task: lambada_local
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: loglikelihood
test_split: test
doc_to_text: "{{{{text.split(' ')[:-1]|join(' ')}}}}"
doc_to_target: "{{{{' ' + text.split(' ')[-1]}}}}"
metric_list:
  - {{metric: perplexity, aggregation: perplexity, higher_is_better: false}}
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""


def harness(*arguments):
    with pytest.raises(SystemExit) as exited:
        main([*map(str, arguments)])
    return exited.value.code


def settings(shared, tasks):
    text = shared / "data" / "pile_sequences.jsonl"
    values = {
        "models.pythia-1.4b.path": shared / "models" / "pythia-14m-standin",
        "corpora.pile_train": f"{{path: {text}, slice: ':300'}}",
        "corpora.pile_validation": f"{{path: {text}, slice: '300:340'}}",
        "corpora.pile_search": f"{{path: {text}, slice: '340:380'}}",
        "corpora.pile_test": f"{{path: {text}, slice: '380:'}}",
        "metrics.lm_eval": (
            f"{{tasks: [lambada_local], include_path: {tasks}, limit: 4}}"
        ),
        "metrics.perplexity": "{corpus: pile_test, context: 64, max_tokens: 500}",
        "recovery.tokens": 1024,
        "recovery.batch_tokens": 256,
        "recovery.context": 64,
        "recovery.evaluate_every": 2,
        "recovery.evaluation_tokens": 512,
        "examples": "{test: {corpus: pile_test, count: 2}, "
        "search: {corpus: pile_search, count: 2}, "
        "validation: {corpus: pile_validation, count: 2}, "
        "prompt_tokens: 12, reference_tokens: 8}",
        "attacks.hotflip": "{flips: 2, candidates: 4}",
        "attacks.multiflip": "{steps: 3, candidates: 4}",
        "attacks.uat": "{trigger_tokens: 2, candidates: 4, sweeps: 1, restarts: 2}",
    }
    return [
        part for key, value in values.items() for part in ("--set", f"{key}={value}")
    ]


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    """Run the suite once; return the run folder and what runs it again."""
    folder = tmp_path_factory.mktemp("mission")
    tasks = folder / "tasks"
    tasks.mkdir()
    file = shared / "data" / "lambada_openai.jsonl"
    (tasks / "lambada_local.yaml").write_text(LAMBADA.format(file=file))
    out = folder / "runs" / "pythia"
    changes = settings(shared, tasks)
    command = [
        "run",
        SUITE,
        "--profile",
        "smoke",
        "--seeds",
        42,
        "--out",
        out,
        *changes,
    ]
    assert harness(*command) == 0
    return out, command


def records(out, kind):
    return [
        json.loads(p.read_text()) for p in sorted(out.glob(f"{kind}s/*/record.json"))
    ]


def test_every_variant_and_cell_has_a_complete_record(run):
    out, _ = run
    variants, cells = records(out, "variant"), records(out, "cell")
    assert {v["arm"]["label"] for v in variants} == ARMS
    found = {(c["arm"]["label"], c["attack"]["label"]) for c in cells}
    assert found == {(arm, attack) for arm in ARMS for attack in ATTACKS}
    assert {r["status"] for r in variants + cells} == {"complete"}


def test_a_cell_says_which_tokens_could_be_written(run, shared):
    from transformers import AutoTokenizer

    from harness.subject import Vocabulary

    tokenizer = AutoTokenizer.from_pretrained(shared / "models/pythia-14m-standin")
    vocabulary = Vocabulary(tokenizer, 50304)
    expected = {
        "rules": {"reachable_only": True},
        "allowed": 49766,
        "sha256": vocabulary.sha256,
    }
    assert len(vocabulary.allowed) == 49766
    for cell in records(run[0], "cell"):
        assert cell["attack"]["tokens"] == expected


def test_the_run_validates(run, cli):
    out, _ = run
    assert cli("validate", out).code == 0


def test_the_same_command_again_does_nothing_twice(run, cli):
    out, command = run
    before = {p: p.stat().st_mtime_ns for p in out.glob("*/*/record.json")}
    again = cli(*command)
    assert again.code == 0
    assert f"{UNITS} of {UNITS} complete ({UNITS} of them before)" in again.err
    assert {p: p.stat().st_mtime_ns for p in out.glob("*/*/record.json")} == before


def test_the_resolved_suite_runs_to_the_same_units(run, cli):
    out, _ = run
    again = cli("run", out / "suite.resolved.yaml", "--out", out)
    assert f"{UNITS} of {UNITS} complete ({UNITS} of them before)" in again.err


def test_every_line_replays_with_plain_transformers(run):
    out, _ = run
    pairs = []
    for arm in sorted(ARMS):
        lines = []
        for samples in sorted(out.glob(f"cells/*.{arm}.*/samples.jsonl")):
            lines += samples.read_text().splitlines()
        together = out.parent / f"{arm}.jsonl"
        together.write_text("\n".join(lines))
        (model,) = out.glob(f"variants/*.{arm}.*/model")
        pairs += [model, together]
    command = [sys.executable, HERE / "replay.py", *pairs]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["rows"] for each in found] == [2 * len(ATTACKS)] * len(ARMS)
    assert max(each["largest_difference"] for each in found) < 1e-4


def test_an_attack_and_its_control_spend_the_same(run):
    out, _ = run
    flops = {
        (c["arm"]["label"], c["attack"]["label"]): c["ledger"]["kept"]["attack"][
            "flops_whole"
        ]
        for c in records(out, "cell")
    }
    for arm in ARMS:
        for attack, controls in CONTROLS.items():
            for control in controls:
                assert flops[arm, control] == pytest.approx(flops[arm, attack], rel=0.1)


def test_all_arms_saw_the_same_tokens_in_the_same_order(run):
    out, _ = run
    assert len({v["recovery"]["data_sha256"] for v in records(out, "variant")}) == 1


def test_the_null_arm_is_the_baseline_before_recovery(run, float32_error):
    out, _ = run
    before = {
        v["arm"]["label"]: v["recovery"]["loss_before"]["value"]
        for v in records(out, "variant")
    }
    (folder,) = out.glob("variants/*.baseline.*/model")
    error = float32_error(load_frozen(folder)[0], before["baseline"], 512)
    assert error < 2e-4
    assert before["gauge"] == pytest.approx(before["baseline"], abs=error)
    assert before["monotone"] == pytest.approx(before["abs-unconstrained"], abs=1e-3)
    assert before["monotone"] > before["baseline"] + 1


def test_certificates_say_what_holds(run):
    out, _ = run
    found = {
        v["arm"]["label"]: v["certificate"]["after"] for v in records(out, "variant")
    }
    assert found["monotone"]["status"] == found["gauge"]["status"] == "pass"
    assert found["monotone"]["examined"] == found["monotone"]["expected"] == 12
    assert found["baseline"]["status"] == "nothing_promised"
    assert not found["monotone"]["ffn_monotone"]  # GELU is not monotone


def test_the_report_holds_an_attack_against_its_control(run, cli):
    out, _ = run
    text = cli("report", out, "--tables", "all").out
    assert "hotflip" in text
    assert "random" in text
    latex = cli("report", out, "--format", "latex").out
    assert r"\toprule" in latex
