"""Commands that read run no code that the data names."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

EVIL = "from pathlib import Path\nPath({flag!r}).touch()\n"
OFFER = """
from harness import hookimpl
from harness_plugins.attacks.hotflip import HotFlip

class Mine(HotFlip):
    name = "mine"

@hookimpl
def register_attacks():
    return [Mine]
"""
TASK = """
task: evil
dataset_path: json
doc_to_text: !function beside.text
"""


def restate(run, old, new):
    """Change the resolved suite of a run."""
    file = run / "suite.resolved.yaml"
    text = file.read_text()
    assert re.search(old, text, re.MULTILINE)
    file.write_text(re.sub(old, new, text, count=1, flags=re.MULTILINE))


@pytest.fixture
def flag(tmp_path):
    """Return the file that hostile code writes."""
    return tmp_path / "code-was-run"


@pytest.fixture
def run(make_run, flag):
    """Return a run whose suite names a plugin beside it, and offers an attack of it."""
    run = make_run(seeds=[1, 2])
    (run / "evil.py").write_text(EVIL.format(flag=str(flag)) + OFFER)
    restate(run, r"\A", "plugins: [evil.py]\n")
    restate(run, "^  hotflip:\n    attack: hotflip", "  hotflip:\n    attack: mine")
    return run


@pytest.mark.parametrize(
    "command",
    ["validate RUN", "status RUN", "report RUN", "power SUITE --from RUN"],
)
def test_a_reader_runs_no_code_that_a_run_names(cli, run, flag, command):
    suite = run / "suite.resolved.yaml"
    words = command.replace("RUN", str(run)).replace("SUITE", str(suite)).split()
    outcome = cli(*words)
    # Without its only attack, the run has nothing that power could read.
    assert outcome.code == (2 if "power" in command else 0), outcome.err
    assert not flag.exists()
    told = f"not loaded, as its code would run: {run / 'evil.py'}"
    assert told in outcome.out + outcome.err
    assert "(--trust loads it)" in outcome.out + outcome.err
    cli(*words, "--trust")
    assert flag.exists()


def test_the_rest_is_judged_without_them(cli, run):
    answer = json.loads(cli("status", run, "--json").out)
    assert answer["counts"]["complete"] == len(answer["units"]) == 12
    assert answer["strays"] == []
    told = "nothing is said of the attack 'mine'"
    assert told in cli("validate", run).out
    made = cli("report", run, "--json").out
    assert told in json.loads(made)["warnings"][0]
    (samples,) = run.glob("cells/*baseline.s1.random*/samples.jsonl")
    samples.write_text(
        samples.read_text().replace('"delta_loss": 0', '"delta_loss": 9')
    )
    assert cli("validate", run).code == 1


def test_plugins_that_the_user_gives_are_loaded(cli, run, flag):
    outcome = cli("validate", run, "--plugins", run)
    assert flag.exists()
    # Now the ids that the suite gives are those of another attack than was run.
    assert "not loaded" not in outcome.out
    assert "is missing" in outcome.out


def test_a_suite_is_judged_without_its_plugins(cli, toy_suite):
    outcome = cli("validate", toy_suite, "--format", "github")
    assert outcome.code == 0
    assert outcome.out.startswith(
        "::warning file=base.yaml,line=1::plugins: not loaded"
    )
    assert "attack 'toy_flip', constraint 'toy_softplus'" in outcome.out
    toy_suite.write_text(toy_suite.read_text().replace("slice:", "slize:", 1))
    outcome = cli("validate", toy_suite)
    assert outcome.code == 2
    assert "unknown key 'slize'; did you mean 'slice'?" in outcome.out


def test_without_plugins_of_its_own_an_unknown_name_is_a_fault(cli, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("models:\n  m: {adapter: pithia, path: x}\n")
    outcome = cli("validate", path)
    assert "unknown model 'pithia'; did you mean 'pythia'?" in outcome.out


def test_task_files_of_lm_eval_are_not_read(cli, make_run, flag, tmp_path):
    """They may name functions of Python files beside them."""
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "evil.yaml").write_text(TASK)
    (tasks / "beside.py").write_text(EVIL.format(flag=str(flag)))
    run = make_run(seeds=[1])
    metric = (
        f"  lm:\n    metric: lm_eval\n    tasks: [evil]\n    include_path: {tasks}\n"
    )
    restate(run, "^metrics:\n", f"metrics:\n{metric}")
    for command in ("validate", "status", "report"):
        cli(command, run)
    cli("validate", run / "suite.resolved.yaml")
    assert not flag.exists()


@pytest.mark.parametrize("recipe", ["validate --format github suites/evil.yaml run"])
def test_the_recipe_for_ci_is_safe_on_a_stranger_s_files(run, flag, tmp_path, recipe):
    """Nothing of the checked-out folder is imported, not even by its name."""
    readme = Path(__file__).parents[2] / "README.md"
    assert "harness validate --format github suites/*.yaml" in readme.read_text()
    (tmp_path / "suites").mkdir()
    code = EVIL.format(flag=str(flag))
    for name in ("harness", "yaml", "torch", "click", "sitecustomize", "json"):
        (tmp_path / f"{name}.py").write_text(code)
        (tmp_path / "suites" / f"{name}.py").write_text(code)
    suite = (run / "suite.resolved.yaml").read_text()
    stated = suite.replace("[evil.py]", "[., evil.py, ../torch.py]")
    (tmp_path / "suites" / "evil.yaml").write_text(stated)
    (tmp_path / "suites" / "evil.py").write_text(code)
    harness = Path(sys.executable).with_name("harness")
    done = subprocess.run(
        [harness, *recipe.split()], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "::warning file=suites/evil.yaml,line=1::plugins: not loaded" in done.stdout
    assert not flag.exists()
