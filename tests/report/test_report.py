"""Reports of whole runs: the numbers in them, and what they warn of."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest

from harness import report
from harness.records.record import Record
from harness.records.samples import read_samples
from harness.report.content import Label, Missing, Number, Table
from harness.run.folder import RunFolder
from harness.run.surveying import survey
from harness.verdicts.results import Results
from tests.run_fixtures import read_all

BASELINE, MONOTONE = "Pythia_1.4B (baseline)", "Pythia_1.4B (monotone)"
LOSING = {
    ("baseline", "hotflip"): 0.40,
    ("baseline", "random"): 0.42,
    ("monotone", "hotflip"): 0.60,
    ("monotone", "random"): 0.20,
}


def _build(run: Path, threshold: float | None = None) -> report.Report:
    return report.build(survey(run), threshold)


def _table(made: report.Report, key: str) -> Table:
    (found,) = [table for table in made.tables if table.key == key]
    return found


def _row(table: Table, *names: str) -> dict[str, Any]:
    """Return a row by its first cells; keys are group and title."""
    keys = [f"{column.group} {column.title}".strip() for column in table.columns]
    for row in table.rows:
        words = [cell.text for cell in row if isinstance(cell, Label)]
        if tuple(words[: len(names)]) == names:
            return dict(zip(keys, row, strict=True))
    raise AssertionError(f"no row {names}")


def _cells(run: Path, arm: str, attack: str) -> list[tuple[Record, list[Any]]]:
    found = []
    for record in read_all(run):
        if record.attack and (record.arm.label, record.attack.label) == (arm, attack):
            folder = RunFolder(run).unit_dir("cell", record.id)
            found.append((record, read_samples(folder / "samples.jsonl")))
    return found


def _perplexities(run: Path, arm: str) -> list[float]:
    variants = [r for r in read_all(run) if r.kind == "variant" and r.arm.label == arm]
    return [math.exp(r.results["perplexity"]["loss"].value) for r in variants]


# --- numbers ------------------------------------------------------------------------


def test_perplexity_is_mean_and_sample_deviation_over_seeds(make_run) -> None:
    run = make_run(seeds=[1, 2, 3])
    cell = _row(_table(_build(run), "main"), MONOTONE)["perplexity"]
    values = _perplexities(run, "monotone")
    assert cell.value == pytest.approx(fmean(values))
    assert cell.std == pytest.approx(stdev(values))
    assert (cell.n, cell.planned, cell.interval) == (3, 3, None)


def test_change_is_of_perplexity_seed_by_seed(make_run) -> None:
    run = make_run()
    cell = _row(_table(_build(run), "main"), MONOTONE)["change"]
    own, base = _perplexities(run, "monotone"), _perplexities(run, "baseline")
    assert cell.value == pytest.approx(fmean(np.divide(own, base) - 1))


@pytest.mark.parametrize("threshold", [None, 0.15, 1.0])
def test_success_is_derived_from_the_rows_for_any_threshold(
    make_run, threshold
) -> None:
    run = make_run()
    cell = _row(_table(_build(run, threshold), "main"), BASELINE)["hotflip success"]
    rates = [
        fmean(math.exp(row.delta_loss) > 1 + (threshold or 0.15) for row in rows)
        for _, rows in _cells(run, "baseline", "hotflip")
    ]
    assert cell.value == pytest.approx(fmean(rates))
    assert cell.std == pytest.approx(stdev(rates))


def test_one_seed_has_no_deviation_and_wilsons_interval(make_run) -> None:
    run = make_run(seeds=[1])
    row = _row(_table(_build(run), "main"), BASELINE)
    ((record, _),) = _cells(run, "baseline", "hotflip")
    success = record.results["attack"]["success"]
    assert row["perplexity"].std is None
    assert (row["hotflip success"].value, row["hotflip success"].std) == (
        success.value,
        None,
    )
    assert row["hotflip success"].interval == success.interval
    assert row["hotflip dL"].interval == record.results["attack"]["delta_loss"].interval


def test_a_cell_never_mixes_deviation_and_interval(make_run) -> None:
    for seeds in ([1], [1, 2]):
        for table in _build(make_run(name=f"run{len(seeds)}", seeds=seeds)).tables:
            numbers = [c for row in table.rows for c in row if isinstance(c, Number)]
            assert not [c for c in numbers if c.std is not None and c.interval]


def test_attack_and_control_are_paired_by_example(make_run) -> None:
    run = make_run()
    row = _row(_table(_build(run), "controls"), BASELINE, "hotflip : random")
    deltas = {
        attack: [
            r.delta_loss for _, rows in _cells(run, "baseline", attack) for r in rows
        ]
        for attack in ("hotflip", "random")
    }
    difference = np.subtract(deltas["hotflip"], deltas["random"])
    assert row["dL difference"].value == pytest.approx(difference.mean())
    low, high = row["dL difference"].interval
    assert low < difference.mean() < high
    assert row["pairs"].value == 80
    ((record, rows), _) = _cells(run, "baseline", "hotflip")
    expected = record.ledger.kept["attack"].flops / len(rows)
    assert row["FLOPs/example attack"].value == pytest.approx(expected)
    assert row["verdict"] == Label("beats random", short="beats it")


def test_arms_are_compared_in_absolute_nats_beside_their_clean_losses(make_run) -> None:
    run = make_run()
    row = _row(_table(_build(run), "arms"), MONOTONE, "hotflip")
    rows = {
        arm: [r for _, found in _cells(run, arm, "hotflip") for r in found]
        for arm in ("baseline", "monotone")
    }
    means = {arm: fmean(r.delta_loss for r in found) for arm, found in rows.items()}
    difference = means["monotone"] - means["baseline"]
    assert row["dL difference"].value == pytest.approx(difference)
    for arm, column in (("baseline", "baseline"), ("monotone", "arm")):
        clean = fmean(r.clean_loss for r in rows[arm])
        assert row[f"clean loss {column}"].value == pytest.approx(clean)


def test_certificates_are_shown_before_and_after(make_run) -> None:
    table = _table(_build(make_run()), "certificates")
    monotone, baseline = _row(table, MONOTONE), _row(table, BASELINE)
    assert monotone["certificate"].text == "pass -> pass"
    assert monotone["examined"].text == "48 of 48"
    assert monotone["smallest weight before"].value == 1e-6
    assert monotone["smallest weight after"].value == 1.5e-6
    assert baseline["certificate"].text == "nothing promised"


def test_recovery_is_shown_at_once_and_after(make_run) -> None:
    run = make_run()
    row = _row(_table(_build(run), "recovery"), MONOTONE)
    variants = [r for r in read_all(run) if r.id.startswith("Pythia_1.4B.monotone")]
    losses = [r.recovery.loss_before.value for r in variants if r.kind == "variant"]
    cell = row["held-out perplexity at once"]
    assert cell.value == pytest.approx(fmean(map(math.exp, losses)))
    assert row["tokens"].value == 1_000_000
    assert row["data and order"] == Label("as baseline")


# --- what must not be overlooked ----------------------------------------------------


def test_a_whole_run_warns_of_its_code_at_most(make_run) -> None:
    warnings = _build(make_run()).warnings
    assert [w for w in warnings if not w.startswith("UNCOMMITTED")] == []


def test_an_attack_that_loses_to_its_control_is_invalid_on_every_arm(make_run) -> None:
    made = _build(make_run(delta_loss=LOSING))
    table = _table(made, "controls")
    for name in (BASELINE, MONOTONE):
        verdict = _row(table, name, "hotflip : random")["verdict"]
        assert verdict == Label("ATTACK INVALID", alarm=True)
    assert any(
        "ATTACK INVALID: hotflip does not beat random" in w for w in made.warnings
    )


def test_an_attack_may_lose_on_another_arm_and_stay_valid(make_run) -> None:
    weak = {("monotone", "hotflip"): 0.3, ("monotone", "random"): 0.31}
    strong = {("baseline", "hotflip"): 0.6, ("baseline", "random"): 0.4}
    made = _build(make_run(delta_loss=strong | weak))
    row = _row(_table(made, "controls"), MONOTONE, "hotflip : random")
    verdict = Label("no better than random", alarm=True, short="no better")
    assert row["verdict"] == verdict
    assert not any("ATTACK INVALID" in warning for warning in made.warnings)


def test_an_arm_that_is_broken_is_said_to_be_wherever_its_numbers_stand(
    make_run,
) -> None:
    run = make_run(clean_loss={"baseline": 2.4, "monotone": 9.0})
    made = _build(run)
    [warning] = [w for w in made.warnings if w.startswith("BROKEN")]
    assert MONOTONE in warning
    table = _table(made, "main")
    marked = {
        name: {key for key, cell in _row(table, name).items() if "§" in _mark(cell)}
        for name in (BASELINE, MONOTONE)
    }
    assert marked == {BASELINE: set(), MONOTONE: {"hotflip success", "hotflip dL"}}
    assert [note[0] for note in table.notes] == ["§"]
    assert not any("BROKEN" in w for w in _build(make_run("whole")).warnings)


def _mark(cell: Any) -> str:
    return cell.mark if isinstance(cell, Number) else ""


def test_unequal_ledgers_are_marked(make_run) -> None:
    table = _table(_build(make_run(control_flops=0.5)), "controls")
    row = _row(table, BASELINE, "hotflip : random")
    assert row["FLOPs/example control"].mark
    assert "unequal ledgers" in table.notes[0]


def test_unequal_training_is_told(make_run) -> None:
    made = _build(make_run(tokens={"monotone": 500_000}))
    row = _row(_table(made, "recovery"), MONOTONE)
    assert row["data and order"] == Label("NOT EQUAL", alarm=True)
    assert any(w.startswith(f"NOT EQUAL: {MONOTONE}") for w in made.warnings)


def test_missing_and_failed_cells_are_marked_and_named(make_run) -> None:
    run = make_run(
        seeds=[1], failed=("monotone.s1.hotflip",), absent=("monotone.s1.random",)
    )
    made = _build(run)
    row = _row(_table(made, "main"), MONOTONE)
    assert row["hotflip success"] == row["hotflip dL"] == Missing("failed")
    assert any(w.startswith("FAILED") and "out of paper" in w for w in made.warnings)
    assert any(w.startswith("MISSING") for w in made.warnings)
    row = _row(_table(made, "controls"), MONOTONE, "hotflip : random")
    assert row["verdict"] == row["pairs"] == Missing("hotflip failed")
    text = report.render(made, "text")
    lines = [re.split(" {2,}", line) for line in text.splitlines()]
    parts = [x for x in lines if x[:2] == ["monotone", "hotflip : random"]]
    assert [x[2] for x in parts] == ["-- hotflip failed"] * len(parts)  # once in each
    assert {cell for x in parts for cell in x[3:]} == {"--"}


def test_a_seed_that_is_missing_shows_in_n(make_run) -> None:
    made = _build(make_run(absent=("baseline.s2.hotflip",)))
    cell = _row(_table(made, "main"), BASELINE)["hotflip success"]
    assert (cell.n, cell.planned, cell.std) == (1, 2, None)


def test_samples_that_changed_are_invalid_and_left_out(make_run) -> None:
    run = make_run(seeds=[1])
    (samples,) = run.glob("cells/*baseline*hotflip*/samples.jsonl")
    samples.write_text(samples.read_text().replace("some text", "any text"))
    made = _build(run)
    row = _row(_table(made, "main"), BASELINE)
    assert row["hotflip success"] == Missing("invalid")
    assert any(w.startswith("INVALID") and "hash" in w for w in made.warnings)


def test_errors_are_counted_and_noted(make_run) -> None:
    made = _build(make_run(seeds=[1], errors=3))
    table = _table(made, "main")
    assert _row(table, BASELINE)["hotflip success"].mark == "†"
    assert any("3 of 40 examples ended in an error" in note for note in table.notes)


def test_a_limit_is_told(make_run) -> None:
    made = _build(make_run(seeds=[1], more="limit: 9"))
    assert made.warnings[0].startswith(
        "NOT FOR REAL NUMBERS: only the first 9 examples"
    )


def test_records_of_another_suite_or_code_are_not_mixed_silently(make_run) -> None:
    run = make_run(seeds=[1])
    path = RunFolder(run).records("cell")[0]
    document = json.loads(path.read_text())
    document["suite"]["sha256"] = "f" * 64
    document["provenance"]["commit"] = "e" * 40
    document["provenance"]["versions"]["torch"] = "0.1"
    path.write_text(json.dumps(document))
    made = _build(run)
    assert sum(warning.startswith("MIXED") for warning in made.warnings) == 3
    assert any("other versions of torch" in warning for warning in made.warnings)
    assert "ffffffffffff (1 records)" in dict(made.provenance)["suite sha256"]


def test_records_of_another_schema_are_not_read(make_run) -> None:
    run = make_run(seeds=[1])
    path = RunFolder(run).records("cell")[0]
    path.write_text(
        path.read_text().replace('"schema_version": 1', '"schema_version": 2')
    )
    made = _build(run)
    assert any(
        "schema version 2" in w and w.startswith("INVALID") for w in made.warnings
    )


def test_records_that_left_the_plan_are_left_out_and_told(make_run) -> None:
    run = make_run(seeds=[1])
    before = _build(run)
    (folder,) = run.glob("cells/*baseline*hotflip*")
    folder.rename(folder.with_name("Pythia_1.4B.baseline.s1.hotflip-00000000"))
    made = _build(run)
    assert any(warning.startswith("LEFT OUT") for warning in made.warnings)
    assert not any(warning.startswith("LEFT OUT") for warning in before.warnings)


# --- formats ------------------------------------------------------------------------


def test_text_fits_the_terminal(make_run) -> None:
    for name, told in {"whole": {}, "holes": {"failed": ("hotflip",)}}.items():
        text = report.render(_build(make_run(name, **told)), "text")
        assert max(map(len, text.splitlines())) <= 100


def test_latex_rows_read_as_in_a_paper(make_run) -> None:
    made = report.render(_build(make_run()), "latex")
    rows = [[cell.strip() for cell in line.split("&")] for line in made.splitlines()]
    (cells,) = [x for x in rows if x[:2] == [r"Pythia\_1.4B (monotone)", "1.4B"]]
    assert cells[2].startswith(r"$12.1 \pm 0.")
    assert cells[3].startswith("$+")
    assert cells[3].endswith(r"$\,\%")
    assert r" \pm " in cells[5]


def test_latex_pins_its_numbers_down_and_is_the_same_on_a_rerun(make_run) -> None:
    run = make_run()
    first, second = (report.render(_build(run), "latex") for _ in range(2))
    assert first == second
    record = read_all(run)[0]
    head = first.splitlines()[:8]
    assert f"% suite sha256: {record.suite.sha256[:12]}" in head
    assert any(line.startswith("% code commit: ") for line in head)
    assert "% newest record: 2026-01-02T03:05:05+00:00" in head
    assert r"\toprule" in first


def test_latex_is_balanced(make_run) -> None:
    made = report.render(_build(make_run(failed=("monotone.s1.hotflip",))), "latex")
    body = [x for x in made.splitlines() if not x.startswith("%")]
    opened = []
    for step, name in re.findall(r"\\(begin|end)\{(\w+)\}", "\n".join(body)):
        if step == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    plain = "\n".join(body).replace(r"\{", "").replace(r"\}", "")
    assert plain.count("{") == plain.count("}")
    for line in body:
        assert line.replace(r"\$", "").count("$") % 2 == 0


def test_latex_rows_are_as_wide_as_their_tabular_says(make_run) -> None:
    made = report.render(_build(make_run()), "latex")
    for letters, body in re.findall(
        r"\\begin\{tabular\}\{(\w+)\}\n(.*?)\\end\{tabular\}", made, re.DOTALL
    ):
        rules = re.findall(r"^\\(\w+rule)$", body, re.MULTILINE)
        assert rules == ["toprule", "midrule", "bottomrule"]
        for line in body.splitlines():
            if "multicolumn" in line:
                spans = map(int, re.findall(r"multicolumn\{(\d+)\}", line))
                assert sum(spans) == len(letters)
            elif line.endswith(r"\\"):
                assert line.count(" & ") == len(letters) - 1


def test_json_holds_numbers_in_full_and_reasons_for_nulls(make_run) -> None:
    run = make_run(seeds=[1], absent=("monotone.s1.hotflip",))
    made = json.loads(report.render(_build(run), "json"))
    rows = {row["model (arm)"]: row for row in made["tables"]["main"]["rows"]}
    (value,) = _perplexities(run, "baseline")
    assert rows[BASELINE]["perplexity"]["value"] == value
    assert rows[MONOTONE]["hotflip: dL"] == {"value": None, "reason": "missing"}


def test_markdown_tables_are_rectangular(make_run) -> None:
    made = report.render(_build(make_run()), "markdown")
    for block in made.split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1


def test_labels_cannot_break_the_markup() -> None:
    from harness.report.formats.latex import escape

    assert escape(r"a_b%{\x}") == r"a\_b\%\{\textbackslash{}x\}"


def test_reports_are_written_beside_the_records(make_run: Callable[..., Path]) -> None:
    run = make_run(seeds=[1])
    folder = RunFolder(run).report_dir
    made = _build(run)
    report.write_reports(made, folder)
    assert (folder / "report.txt").read_text() == report.render(made, "text")
    endings = {path.suffix for path in folder.iterdir()}
    assert endings == {".txt", ".md", ".json", ".tex"}


def test_the_worst_case_is_the_highest_rise_of_each_example(make_run) -> None:
    found = Results(survey(make_run()), 0.15)
    arm = found.arm("Pythia_1.4B", "baseline")
    cells = [arm.cells(attack)[1].rows for attack in ("hotflip", "random")]
    worst = arm.worst(["hotflip", "random"])[1].rows
    for index, row in enumerate(worst):
        both = [rows[index].delta_loss for rows in cells]
        assert row.delta_loss == max(both)
        assert row.example_id == cells[0][index].example_id
    assert {row.delta_loss for row in worst} != {row.delta_loss for row in cells[0]}
    assert found.attacks == ["hotflip"]
