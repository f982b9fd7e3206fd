"""Runs in the formats of other tools: what they read is what the run holds."""

import json
import math
from datetime import datetime

import pytest

from harness import results
from harness.records.samples import read_samples
from harness.running.folder import RunFolder
from tests.run_fixtures import editing, read_all


def files(run, folder):
    return sorted(results.export_lm_eval(results.load_run(run), folder))


# --- lm-eval ------------------------------------------------------------------------


def test_every_variant_has_a_file_that_says_what_its_record_says(make_run, tmp_path):
    run = make_run(seeds=[1, 2])
    found = files(run, tmp_path / "out")
    variants = [x for x in read_all(run) if x.kind == "variant"]
    assert len(found) == len(variants) == 4
    for record in variants:
        name = f"{record.model.label}.{record.arm.label}.s{record.seed}"
        (file,) = (tmp_path / "out" / name).iterdir()
        assert file.name == "results_2026-01-02T03-05-05+00-00.json"
        document = json.loads(file.read_text())
        told = document["results"]["perplexity"]
        for estimate, known in record.results["perplexity"].items():
            assert told[f"{estimate},none"] == known.value
            assert told[f"{estimate}_stderr,none"] == "N/A"
        n = record.results["perplexity"]["loss"].n
        assert document["n-samples"]["perplexity"] == {"original": n, "effective": n}
        config = document["config"]
        assert config["model_num_parameters"] == record.model.parameters
        assert document["model_name"] == name
        finished = datetime.fromisoformat(record.provenance.finished)
        assert document["end_time"] == finished.timestamp()


def test_lm_evals_own_table_reads_it(make_run, tmp_path):
    from lm_eval.utils import make_table

    run = make_run(seeds=[1])
    document = json.loads(files(run, tmp_path)[0].read_text())
    variant = next(x for x in read_all(run) if x.arm.label == "baseline")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in make_table(document).splitlines()[2:]
    ]
    shown = {row[4]: (row[5], row[6]) for row in rows}
    for name, estimate in variant.results["perplexity"].items():
        assert shown[name] == ("↓", f"{estimate.value:.4f}")
    assert rows[0][0] == "perplexity"


ROWS = [
    {
        "metric": "tasks",
        "task": task,
        "doc_id": i,
        "filter": filtered,
        "doc_hash": "0",
        "prompt_hash": "0",
        "target_hash": "0",
        "scores": {"acc": float(i % 3 == 0), "ppl": -1.5},
        "aggregations": {"acc": "mean", "ppl": "perplexity"},
    }
    for task, filtered in (("my.task", "none"), ("other", "strict"))
    for i in range(10)
]


def test_tasks_of_lm_eval_keep_their_names_and_standard_errors(make_run, tmp_path):
    from lm_eval.api.metrics import mean_stderr

    run = make_run(seeds=[1])
    record = next(x for x in read_all(run) if x.arm.label == "baseline")
    folder = RunFolder(run).unit_dir("variant", record.id)
    share = {"value": 0.4, "n": 10, "unit": "fraction", "method": "mean"}
    rise = {"value": math.exp(1.5), "n": 10, "unit": "perplexity", "method": "exp"}
    found = {"my.task.acc": share, "my.task.ppl": rise, "other.acc.strict": share}
    with editing(folder / "record.json") as document:
        document["results"] = {"tasks": found}
        asked = {"metric": "lm_eval", "options": {"tasks": ["my.task", "other"]}}
        asked["options"] |= {"num_fewshot": 2, "include_path": "/home/me/tasks"}
        document["identity"]["metrics"] = {"tasks": asked}
    samples = folder / "samples.jsonl"
    samples.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    made = _document(run, record.id)
    expected = mean_stderr([float(i % 3 == 0) for i in range(10)])
    told = made["results"]["my.task"]
    assert told["acc,none"] == 0.4
    assert told["acc_stderr,none"] == pytest.approx(expected)
    assert told["ppl_stderr,none"] == "N/A"
    assert made["results"]["other"]["acc,strict"] == 0.4
    better = {"my.task": {"acc": True, "ppl": False}, "other": {"acc": True}}
    assert made["higher_is_better"] == better
    assert made["n-shot"] == {"my.task": 2, "other": 2}
    assert "/home/me" not in json.dumps(made)


def _document(run, variant):
    """Return what is written of a variant whose record is taken as it is."""
    from harness.records import Record
    from harness.results.as_lm_eval import document_of

    folder = RunFolder(run).unit_dir("variant", variant)
    record = Record.model_validate_json((folder / "record.json").read_text())
    lines = (folder / "samples.jsonl").read_text().splitlines()
    return document_of("name", record, [json.loads(line) for line in lines])


# --- parquet ------------------------------------------------------------------------


def test_parquet_holds_every_row_of_every_cell(make_run, tmp_path):
    from pyarrow import parquet

    run = make_run(seeds=[1, 2], errors=3)
    file = results.export_parquet(results.load_run(run), tmp_path / "new" / "s.parquet")
    table = parquet.read_table(file)
    rows = {}
    for row in table.to_pylist():
        rows.setdefault(row["cell"], []).append(row)
    cells = [x for x in read_all(run) if x.attack]
    assert parquet.ParquetFile(file).num_row_groups == len(cells) == 8
    for record in cells:
        folder = RunFolder(run).unit_dir("cell", record.id)
        own = rows[record.id]
        kept = read_samples(folder / "samples.jsonl")
        assert len(own) == len(kept) == 40
        for row, known in zip(own, kept, strict=True):
            labels = [
                row.pop(name) for name in ("model", "arm", "seed", "attack", "cell")
            ]
            assert labels[:4] == [
                record.model.label,
                record.arm.label,
                record.seed,
                record.attack.label,
            ]
            row["trace"] = json.loads(row["trace"])
            assert row == known.model_dump(mode="json")


def test_parquet_is_typed_where_all_is_null(make_run, tmp_path):
    import pyarrow
    from pyarrow import parquet

    run = make_run(seeds=[1])
    file = results.export_parquet(results.load_run(run), tmp_path / "s.parquet")
    schema = parquet.read_schema(file)
    expected = {
        "seed": pyarrow.int64(),
        "delta_loss": pyarrow.float64(),
        "text_reachable": pyarrow.bool_(),
        "adversarial_prompt_ids": pyarrow.list_(pyarrow.int64()),
        "clean_token_losses": pyarrow.list_(pyarrow.float64()),
        "answer_correct_clean": pyarrow.bool_(),
        "rouge_clean": pyarrow.float64(),
        "status": pyarrow.string(),
        "trace": pyarrow.string(),
    }
    for name, kind in expected.items():
        assert schema.field(name).type.equals(kind), name
    checkpoint = schema.field("checkpoints").type.value_type
    assert checkpoint.field("share").type == pyarrow.float64()


# --- the command --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("style", "made", "count"),
    [("lm-eval", "mine-lm-eval/*/results_*.json", 2), ("parquet", "mine.parquet", 1)],
)
def test_export_writes_beside_and_names_what_it_wrote(
    cli, make_run, tmp_path, monkeypatch, style, made, count
):
    run = make_run("mine", seeds=[1])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    outcome = cli("export", run, "--format", style)
    assert outcome.code == 0, outcome.err
    found = sorted((tmp_path / "here").glob(made))
    assert len(found) == count
    for file in found:
        assert f"wrote {file.relative_to(tmp_path / 'here')}" in outcome.out


@pytest.mark.parametrize("style", ["lm-eval", "parquet"])
def test_what_has_nothing_to_export_is_wrong_usage(cli, make_run, tmp_path, style):
    run = make_run(seeds=[1], absent=("s1",))
    outcome = cli("export", run, "--format", style, "-o", tmp_path / "x")
    assert outcome.code == 2
    assert "has no complete" in outcome.err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("more", [["--format", "parquet"], ["--format", "lm-eval"]])
def test_other_formats_are_of_run_folders_and_without_models(cli, make_run, more):
    run = make_run(seeds=[1])
    file = run / "suite.resolved.yaml"
    assert "is no run folder" in cli("export", file, *more).err
    outcome = cli("export", run, *more, "--models")
    assert outcome.code == 2
    assert "--models is for the archive" in outcome.err
