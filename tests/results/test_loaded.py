"""A run folder as tables: every number is that of a record."""

import json

import numpy as np
import pandas
import pytest

from harness.base import UsageError
from harness.results import load_run
from harness.running.folder import RunFolder
from tests.run_fixtures import read_all


@pytest.fixture
def run(make_run):
    return load_run(make_run(failed=("monotone.s2.random",), errors=3))


def test_a_row_for_each_unit_with_the_numbers_of_its_record(run):
    records = {record.id: record for record in read_all(run.path)}
    assert {*run.variants.id, *run.cells.id} == records.keys()
    for row in run.cells.to_dict("records"):
        record = records[row["id"]]
        named = record.model.label, record.arm.label, record.seed, record.attack.label
        assert (row["model"], row["arm"], row["seed"], row["attack"]) == named
        assert row["status"] == record.status
        if record.status == "failed":
            assert row["reason"] == "out of paper"
            assert pandas.isna(row["delta_loss"])
            continue
        found = record.results["attack"]["delta_loss"]
        shown = row["delta_loss"], row["delta_loss_low"], row["delta_loss_high"]
        assert shown == (found.value, *found.interval)
        assert row["flops"] == record.ledger.spent["attack"].flops
    for row in run.variants.to_dict("records"):
        record = records[row["id"]]
        loss = record.results["perplexity"]["loss"].value
        assert row["perplexity.loss"] == loss
        assert row["recovery_tokens"] == 1_000_000


def test_samples_are_the_lines_of_the_files(run):
    folder = RunFolder(run.path)
    lines = [
        {"cell": record.id, **json.loads(line)}
        for record in read_all(run.path)
        if record.kind == "cell" and record.status == "complete"
        for line in (folder.unit_dir("cell", record.id) / record.samples.path)
        .read_text()
        .splitlines()
    ]
    assert len(run.samples) == len(lines) == 7 * 40
    columns = ["cell", "example_id", "delta_loss", "status"]
    shown = run.samples[columns].to_dict("records")
    for row, line in zip(shown, lines, strict=True):
        if pandas.isna(row["delta_loss"]):
            row["delta_loss"] = None
        assert row == {name: line[name] for name in columns}
    assert sum(run.samples.status == "error") == 7 * 3
    # What users do first: the mean of a group is that of the record.
    means = run.samples.groupby("cell").delta_loss.mean()
    cells = run.cells.dropna(subset="delta_loss").set_index("id").delta_loss
    np.testing.assert_allclose(means.sort_index(), cells.sort_index(), rtol=1e-12)


def test_verdicts_and_contrasts_are_those_of_the_report(run):
    arms = {arm.arm: arm for arm in run.report.verdicts.arms}
    assert list(run.verdicts.arm) == ["baseline", "monotone"]
    assert list(run.verdicts.verdict) == [arm.verdict for arm in arms.values()]
    (contrast,) = run.contrasts.to_dict("records")
    known = arms["monotone"].difference
    assert (contrast["arm"], contrast["reference"]) == ("monotone", "baseline")
    assert contrast["difference"] == known.value
    assert (contrast["difference_low"], contrast["difference_high"]) == known.interval
    assert contrast["equivalent_p"] == known.claims[-1].p
    assert "monotone" in run._repr_html_()


def test_a_folder_that_is_no_run_is_said(tmp_path):
    with pytest.raises(UsageError, match="is no run folder"):
        load_run(tmp_path)
