"""Validation: a good run passes, and each kind of damage is found."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.base import Problem, UsageError, content_hash
from harness.records import read_samples
from harness.running import RunFolder, validate
from harness.running.diagnostics.rows import examine_rows
from tests.run_fixtures import ABSENT, edit, editing, read_all

HOTFLIP, VARIANT = "baseline.s1.hotflip", "baseline.s1-"


@pytest.fixture
def run(make_run):
    return make_run(seeds=[1])


def _problems(run: Path) -> list[Problem]:
    return list(validate([run]).problems)


def _file(run: Path, part: str, name: str = "record.json") -> Path:
    (found,) = [path for path in run.glob(f"*/*/{name}") if part in str(path)]
    return found


def _edit_row(run: Path, part: str, number: int, **changes: Any) -> None:
    """Change a row, and make the record's hash of the samples fit it again."""
    samples = _file(run, part, "samples.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    rows[number] |= changes
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    digest = hashlib.sha256(samples.read_bytes()).hexdigest()
    edit(samples.with_name("record.json"), "samples", "sha256", value=digest)


@pytest.mark.parametrize("story", [{}, {"errors": 3}, {"more": "limit: 7"}])
def test_a_whole_run_is_valid(make_run, story):
    """Also where examples ended in errors, and with a limit."""
    found = validate([make_run(seeds=[1], **story)])
    assert found.problems == ()
    assert found.exit_code == 0


# --- one corruption each ------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (("id",), "Pythia_1.4B.baseline.s1.hotflip-00000000", "labels and identity"),
        (("arm", "label"), "monotone", "labels and identity give"),
        (("identity", "options", "flips"), 99, "labels and identity give"),
        (("seed",), 2, "elsewhere the record says 2"),
        (("suite", "limit"), 5, "elsewhere the record says 5"),
        (("model", "fingerprint"), "hub:other@main", "elsewhere the record says"),
        (("arm", "constraint"), "softplus", "elsewhere the record says 'softplus'"),
        (("arm", "recovery"), None, "elsewhere the record says None"),
        (("attack", "options", "flips"), 99, "elsewhere the record says 99"),
        (("attack", "match"), "random", "elsewhere the record says 'random'"),
        (("variant",), "Pythia_1.4B.baseline.s2-01234567", "other labels or seed"),
        (("samples", "rows"), 39, "the record says 39"),
        (("samples", "sha256"), "0" * 64, "differs from its hash"),
        (("results", "attack", "success", "value"), 0.999, "but the samples give"),
        (("results", "attack", "success", "n"), 39, "but the samples give"),
        (("results", "attack", "delta_loss", "interval"), [0, 9], "the samples give"),
        (("results", "attack", "threshold", "value"), 0.9, "but the samples give"),
        (("results", "attack"), {}, "threshold) is missing"),
        (("ledger", "spent", "attack", "flops"), 1.0, "but 1.0 was spent in all"),
        (("ledger", "kept", "attack", "tokens_forward"), 1, "1 was kept, but 0"),
        (("ledger", "spent"), {}, "missing in what was spent"),
    ],
)
def test_a_changed_value_of_a_cell_is_found(run, keys, value, told):
    file = _file(run, HOTFLIP)
    edit(file, *keys, value=value)
    found = [f for f in _problems(run) if told in f.message]
    assert found
    assert {f.file for f in found} == {str(file)}
    assert validate([run]).exit_code == 1


def test_an_id_that_knows_of_no_match_is_none_of_a_control(run):
    file = _file(run, HOTFLIP)
    edit(file, "identity", "match", value=ABSENT)
    edit(file, "attack", "match", value="random")
    told = [f.message for f in _problems(run)]
    assert any("elsewhere the record says 'random'" in message for message in told)


def test_a_finding_names_the_line_of_the_value(run):
    file = _file(run, HOTFLIP)
    edit(file, "results", "attack", "success", "value", value=0.999)
    (finding,) = _problems(run)
    line = file.read_text().splitlines()[finding.line - 1]
    assert finding.key == "results.attack.success"
    assert '"success": {' in line


@pytest.mark.parametrize(
    ("part", "changes", "keys"),
    [
        (VARIANT, {"nats": 1.0}, {"perplexity.loss", "perplexity.bits_per_byte"}),
        (
            HOTFLIP,
            {"clean_loss": 2.0, "adversarial_loss": 9.0, "delta_loss": 7.0},
            {"attack.delta_loss", "attack.clean_loss"},
        ),
    ],
)
def test_a_changed_row_changes_the_results(run, part, changes, keys):
    _edit_row(run, part, 3, **changes)
    told = {p.key for p in _problems(run) if "but the samples give" in p.message}
    assert {f"results.{key}" for key in keys} <= told


def test_rows_that_a_metric_cannot_read_are_found(run):
    _edit_row(run, VARIANT, 3, nats="many")
    (finding,) = _problems(run)
    assert "cannot be computed from the samples" in finding.message


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"delta_loss": 0.7}, "but the losses differ by"),
        ({"clean_loss": 0.7}, "but the losses differ by"),
        ({"example_id": "test/1"}, "stands in an earlier line"),
        ({"reference_ids": []}, "nothing is scored"),
        ({"status": "unchanged"}, "but the ids differ"),
        ({"adversarial_loss": None}, "must be given where status is 'attacked'"),
        ({"text_reachable": "yes"}, "valid boolean"),
    ],
)
def test_a_changed_row_of_a_cell_is_found(run, changes, told):
    _edit_row(run, HOTFLIP, 3, **changes)
    (finding,) = [f for f in _problems(run) if told in f.message]
    assert (finding.line, Path(finding.file).name) == (4, "samples.jsonl")


CHECKPOINT = {"share": 1.0, "adversarial_prompt_ids": [3]}
REPLICATE = {"adversarial_prompt_ids": [3]}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"share": 4.0}, "rows had {4.0} times the stated budget"),
        ({"checkpoints": [CHECKPOINT]}, "differ in the shares of the budget"),
        ({"replicates": [REPLICATE]}, "in their number of replicates: [0, 1]"),
    ],
)
def test_a_row_that_was_searched_otherwise_than_others_is_found(run, changes, told):
    row = json.loads(_file(run, HOTFLIP, "samples.jsonl").read_text().splitlines()[3])
    unharmed = {"adversarial_loss": row["clean_loss"], "delta_loss": 0.0}
    if "share" not in changes:
        changes = {k: [one | unharmed for one in v] for k, v in changes.items()}
    _edit_row(run, HOTFLIP, 3, **changes)
    assert any(told in problem.message for problem in _problems(run))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"clean_prompt_ids": [7] * 8}, "clean_prompt_ids differ"),
        ({"reference_ids": [7]}, "reference_ids differ"),
        (
            {"clean_loss": 9.0, "adversarial_loss": 9.5, "delta_loss": 0.5},
            "is 9.0, and",
        ),
    ],
)
def test_clean_rows_are_the_same_in_all_cells_of_a_variant(run, changes, told):
    first, second = "monotone.s1.hotflip", "monotone.s1.random"
    for number in (3, 5):
        _edit_row(run, second, number, **changes)
    (found,) = [p for p in _problems(run) if told in p.message]
    cell = _file(run, first).parent.name
    assert f"in the cell {cell} (and 1 more rows)" in str(found)
    assert found.file == str(_file(run, second, "samples.jsonl"))
    assert found.line == 4


def test_rounding_of_clean_losses_is_no_problem(run):
    samples = _file(run, HOTFLIP, "samples.jsonl")
    row = json.loads(samples.read_text().splitlines()[3])
    losses = {k: row[k] + 1e-5 for k in ("clean_loss", "adversarial_loss")}
    _edit_row(run, HOTFLIP, 3, **losses, delta_loss=row["delta_loss"])
    assert not [p for p in _problems(run) if "in the cell" in p.message]


def test_examples_without_a_clean_loss_are_compared_by_their_ids(make_run):
    run = make_run(seeds=[1], errors=3)
    _edit_row(run, "monotone.s1.random", 1, clean_loss=None)
    assert not [p for p in _problems(run) if "in the cell" in p.message]
    _edit_row(run, "monotone.s1.random", 1, reference_ids=[7])
    assert [p for p in _problems(run) if "reference_ids differ" in p.message]


@pytest.mark.parametrize(
    ("factor", "warnings"), [(1.09, 0), (0.91, 0), (1.2, 2), (0.8, 2)]
)
def test_a_control_off_its_budget_is_a_warning(make_run, factor, warnings):
    found = validate([make_run(seeds=[1], control_flops=factor)])
    assert found.exit_code == 0
    assert len(found.problems) == warnings
    for problem in found.problems:
        assert (problem.severity, problem.key) == ("warning", "ledger.kept.attack")
        assert "FLOPs per example, but 1.02e+12 in Pythia_1.4B." in problem.message
        assert ".hotflip-" in problem.message
        lines = Path(problem.file).read_text().splitlines()
        assert '"attack": {' in lines[problem.line - 1]


def test_controls_with_failed_examples_are_not_compared(make_run):
    assert _problems(make_run(seeds=[1], control_flops=0.5, errors=1)) == []


def test_a_lost_row_is_found_though_hash_and_count_fit(run):
    samples = _file(run, HOTFLIP, "samples.jsonl")
    samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:-1]))
    record = samples.with_name("record.json")
    digest = hashlib.sha256(samples.read_bytes()).hexdigest()
    edit(record, "samples", value={"path": samples.name, "rows": 39, "sha256": digest})
    messages = [finding.message for finding in _problems(run)]
    assert "39 examples, but the suite asks for 40" in messages


@pytest.mark.parametrize("part", [HOTFLIP, VARIANT])
def test_samples_that_are_not_utf_8_are_found(run, part):
    samples = _file(run, part, "samples.jsonl")
    samples.write_bytes(samples.read_bytes().replace(b"_id", b"\xff_id"))
    (found,) = [p for p in _problems(run) if p.file == str(samples)]
    assert "'utf-8' codec can't decode" in found.message
    assert str(samples) not in found.message


def test_lost_samples_are_found(run):
    _file(run, HOTFLIP, "samples.jsonl").unlink()
    (finding,) = _problems(run)
    assert finding.message == "samples.jsonl is missing"


def test_a_record_in_another_folder_is_found(run):
    folder = _file(run, HOTFLIP).parent
    shutil.copytree(folder, folder.with_name("copy"))
    (finding,) = _problems(run)
    assert "lies in the folder copy" in finding.message


def test_units_that_are_missing_or_failed_are_found(run, make_run):
    (failed,) = _problems(make_run("failed", seeds=[1], failed=(HOTFLIP,)))
    assert failed.message == "the cell failed: out of paper"
    cell = _file(run, HOTFLIP).parent
    shutil.rmtree(cell)
    (missing,) = _problems(run)
    assert missing.message == f"the cell {cell.name} is missing"
    bare = make_run("bare", seeds=[1])
    shutil.rmtree(_file(bare, VARIANT).parent)  # its two cells have no reference then
    messages = [finding.message for finding in _problems(bare)]
    assert sum("there is no record of the variant" in m for m in messages) == 2


def test_the_same_subject_measured_anew_is_reference_enough(run):
    """Other metrics give the variant another id, and its cells stay valid."""
    folder = _file(run, VARIANT).parent
    with editing(folder / "record.json") as document:
        document["identity"]["metrics"]["perplexity"]["options"]["max_tokens"] = 7
        digest = content_hash(document["identity"])[:8]
        name = f"{folder.name.rpartition('-')[0]}-{digest}"
        document["id"] = document["variant"] = name
    folder.rename(folder.with_name(document["id"]))
    (finding,) = _problems(run)  # the plan's own variant is missing, and that is all
    assert finding.message == f"the variant {folder.name} is missing"


def test_records_are_checked_though_the_suite_is_broken(run):
    suite = RunFolder(run).suite_file
    suite.write_text(suite.read_text() + "surprise: 1\n")
    edit(_file(run, HOTFLIP), "seed", value=2)
    found = validate([run])
    assert any("surprise" in f.key + f.message for f in found.problems)
    assert any("elsewhere the record says 2" in f.message for f in found.problems)
    assert found.exit_code == 2


# --- records and suites by themselves -----------------------------------------------


def test_a_record_alone_is_checked_as_in_its_run(run):
    file = _file(run, VARIANT)
    assert validate([file]).problems == ()
    edit(file, "results", "perplexity", "loss", "value", value=1.0)
    for target in (file, run):
        (finding,) = validate([target]).problems
        assert finding.key == "results.perplexity.loss"
        assert "but the samples give" in finding.message


def test_a_record_without_its_run_is_checked_as_far_as_possible(run, tmp_path):
    folder = _file(run, HOTFLIP).parent
    copy = tmp_path / "elsewhere" / folder.name
    shutil.copytree(folder, copy)
    assert validate([copy / "record.json"]).problems == ()


def test_faults_of_a_suite_are_told_with_their_lines(tmp_path):
    suite = tmp_path / "mine.yaml"
    suite.write_text("name: mine\nseeds: []\nmodel: {}\n")
    found = validate([suite])
    assert found.exit_code == 2
    assert {finding.file for finding in found.problems} == {str(suite)}
    assert {2, 3} <= {finding.line for finding in found.problems}


def test_changed_diagnostics_of_a_cell_are_found(run: Path) -> None:
    rows = read_samples(_file(run, HOTFLIP, "samples.jsonl"))
    answers = [answer.model_dump(mode="json") for answer in examine_rows(rows)]
    edit(_file(run, HOTFLIP), "diagnostics", value=answers)
    assert _problems(run) == []

    changes = [{"n": 999}, {"id": "replay"}]
    changed = [one | change for one, change in zip(answers, changes, strict=True)]
    edit(_file(run, HOTFLIP), "diagnostics", value=changed)
    found = {finding.key: finding.message for finding in _problems(run)}
    assert "but the samples give" in found["diagnostics.iterative_beats_one_step"]
    assert found["diagnostics"] == "budget_curve is missing"
    assert found["diagnostics.replay"] == "cannot be computed from the samples"


def test_what_is_no_run_suite_or_record_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="is no run folder"):
        validate([tmp_path])
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match="neither a suite"):
        validate([tmp_path / "notes.txt"])


@pytest.mark.parametrize(
    ("keys", "value", "told", "code"),
    [
        (("largest",), 0.01, "a replayed loss is 0.01 nats/token off the record", 1),
        (("samples_sha256",), "0" * 64, "its samples are others", 0),
        ((), ABSENT, "it was not replayed", 0),
    ],
)
def test_what_a_replay_disputes_or_has_not_seen(make_run, keys, value, told, code):
    run = make_run(seeds=[1])
    cell = next(x.id for x in read_all(run) if x.kind == "cell")
    edit(run / "replay.json", cell, *keys, value=value)
    found = validate([run])
    (problem,) = found.problems
    assert told in problem.message
    assert (problem.key, found.exit_code) == (cell, code)


@pytest.mark.parametrize(
    ("text", "told", "code"), [(None, "no cell was replayed", 0), ("{", "no JSON", 1)]
)
def test_a_run_whose_replay_is_not_there_or_no_json(make_run, text, told, code):
    file = make_run(seeds=[1]) / "replay.json"
    file.unlink() if text is None else file.write_text(text)
    found = validate([file.parent])
    (problem,) = found.problems
    assert told in problem.message
    assert (problem.file, found.exit_code) == (str(file), code)
