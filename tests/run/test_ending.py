"""What a run says of errors among its examples, and of subjects that it makes again."""

import shutil

import pytest

from harness.running import error_warning, survey

HALF = '''
"""An attack that leaves examples out."""

from harness import hookimpl
from harness.api import Adversarial, Attack, Budget


class Half(Attack):
    """Answers for every other example."""

    name = "half"

    def run(self, subject, examples, context):
        for example in examples.test[::2]:
            yield Adversarial(example.id, example.prompt_ids)

    def budget(self, examples):
        return Budget(1, 0)


@hookimpl
def register_attacks():
    return [Half]
'''


def test_the_last_line_names_errors_and_a_lost_subject_is_made_again(
    suite, cli, tmp_path
):
    (tmp_path / "half.py").write_text(HALF)
    command = ["run", suite, "--out", tmp_path / "runs" / "tiny"]
    command += ["--plugins", tmp_path / "half.py", "--set", "attacks.half={}"]
    command += ["--only", "arm=baseline,attack=half"]
    first = cli(*command)
    (cell,) = tmp_path.glob("runs/tiny/cells/tiny*")
    assert first.err.splitlines()[-1] == (
        f"WARNING: over 1 % of examples ended in an error: 2 of 5 in {cell.name}; "
        f"`error` in {cell}/samples.jsonl says why"
    )
    assert "made again" not in first.err
    shutil.rmtree(cell)
    for made in tmp_path.glob("runs/.store/subjects/*"):
        shutil.rmtree(made)
    variant = next(tmp_path.glob("runs/tiny/variants/tiny*")).name
    again = cli(*command)
    assert again.code == 0
    assert f"  the subject of {variant} is not in the store as it was: " in again.err


@pytest.mark.parametrize("errors", [0, 1])
def test_a_warning_names_every_cell_in_turn(make_run, errors):
    found = survey(make_run(seeds=[1], errors=errors))
    said = error_warning(found)
    assert (said is not None) == bool(errors)
    cells = [unit.id for unit in found.units if unit.kind == "cell"]
    assert all(said is None or f"{errors} of 40 in {cell}" in said for cell in cells)


def test_one_error_in_a_hundred_is_not_many(make_run, monkeypatch):
    monkeypatch.setattr("harness.running.surveying.MANY", 1 / 40)
    assert error_warning(survey(make_run(seeds=[1], errors=1))) is None
