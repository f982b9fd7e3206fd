"""Reports of whole runs: the numbers in them, and what they warn of."""

import csv
import hashlib
import io
import json
import math
import re
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import jsonschema
import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from harness import report
from harness.records import schemas
from harness.records.record import Record
from harness.records.samples import read_samples
from harness.report.content import Label, Missing, Number, Report, Table
from harness.report.formats.latex_words import escape
from harness.report.tables.success import held
from harness.running.folder import RunFolder
from harness.running.surveying import survey
from harness.verdicts.pairing import Attacked
from harness.verdicts.results import Results
from tests.run_fixtures import deltas, editing, read_all, sample_row

BASELINE, MONOTONE = "Pythia_1.4B (baseline)", "Pythia_1.4B (monotone)"
PAIR = "hotflip : random"
ONE = {"seeds": [1]}
"""Stories of runs: arguments of `make_run`."""
LOSING = {"delta_loss": deltas(0.40, 0.42, 0.60, 0.20)}
LOSING_ELSEWHERE = {"delta_loss": deltas(0.60, 0.40, 0.30, 0.31)}
BROKEN = {"clean_loss": {"baseline": 2.4, "monotone": 9.0}}
UNEQUAL = {"tokens": {"monotone": 500_000}}
AGAIN = "Pythia_1.4B (again)"
REPLICA = {
    "arms": "  again: {replicate: baseline, attacks: [hotflip]}",
    "clean_loss": {"baseline": 2.4, "monotone": 2.5, "again": 2.4},
    "delta_loss": {**deltas(0.6, 0.4, 0.45, 0.3), ("again", "hotflip"): 0.6},
}
HOLES = ONE | {"failed": ("monotone.s1.hotflip",), "absent": ("monotone.s1.random",)}
LIMITED = ONE | LOSING | {"more": "limit: 9"}


def _build(run: Path, threshold: float | None = None) -> Report:
    return report.build(survey(run), threshold)


def _table(made: Report, key: str) -> Table:
    (found,) = [table for table in made.tables if table.key == key]
    return found


def _row(made: Report, key: str, *names: str) -> dict[str, Any]:
    """Return a table's row by its first cells; keys are group and title."""
    table = _table(made, key)
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


def _rows(run: Path, arm: str, attack: str) -> list[Any]:
    return [row for _, rows in _cells(run, arm, attack) for row in rows]


def _perplexities(run: Path, arm: str) -> list[float]:
    variants = [r for r in read_all(run) if r.kind == "variant" and r.arm.label == arm]
    return [math.exp(r.results["perplexity"]["loss"].value) for r in variants]


# --- numbers ------------------------------------------------------------------------


def test_perplexity_is_mean_and_sample_deviation_over_seeds(make_run):
    run = make_run(seeds=[1, 2, 3])
    row = _row(_build(run), "main", MONOTONE)
    cell, values = row["perplexity"], _perplexities(run, "monotone")
    assert cell.value == pytest.approx(fmean(values))
    assert cell.std == pytest.approx(stdev(values))
    assert (cell.n, cell.planned, cell.interval) == (3, 3, None)
    ratios = np.divide(values, _perplexities(run, "baseline"))  # seed by seed
    assert row["change"].value == pytest.approx(np.exp(np.log(ratios).mean()) - 1)
    low, high = row["change"].interval
    assert low < row["change"].value < high


@pytest.mark.parametrize("threshold", [None, 0.15, 1.0])
def test_success_is_derived_from_the_rows_for_any_threshold(make_run, threshold):
    run = make_run()
    cell = _row(_build(run, threshold), "main", BASELINE)["hotflip success"]
    hits = np.array(
        [
            [math.exp(row.delta_loss) > 1 + (threshold or 0.15) for row in rows]
            for _, rows in _cells(run, "baseline", "hotflip")
        ]
    )
    everywhere = int(hits.all(axis=0).sum())  # of 40 documents, under both seeds
    assert 0 < everywhere < hits.mean() * 40 <= 40
    assert cell.value == pytest.approx(everywhere / 40)
    expected = proportion_confint(everywhere, 40, method="beta")
    assert cell.interval == pytest.approx(expected)
    assert cell.std is None


@pytest.mark.parametrize(
    ("hits", "expected"),
    [([1, 1, 1, 1], (2, 2)), ([1, 1, 0, 1], (1, 2)), ([0, 1, 1, 0], (0, 2))],
)
def test_a_unit_counts_where_all_its_rows_do_under_every_seed(hits, expected):
    rows = [
        sample_row(i, 2.0, float(hit)).model_copy(update={"cluster": f"c{i % 2}"})
        for i, hit in enumerate(hits)
    ]
    cells = {1: Attacked(rows[:2]), 2: Attacked(rows[2:])}
    assert held(cells, lambda x: [bool(row.delta_loss) for row in x]) == expected


def test_curves_fall_and_are_written_as_points(make_run):
    run = make_run()
    made = _build(run)
    report.write_reports(made, RunFolder(run).report_dir)
    file = (RunFolder(run).report_dir / "success.csv").read_text()
    lines = list(csv.DictReader(io.StringIO(file)))
    for arm in ("baseline", "monotone"):
        own = [x for x in lines if (x["arm"], x["attack"]) == (arm, "hotflip")]
        hits = [int(x["succeeded"]) for x in own]
        assert hits == sorted(hits, reverse=True)
        assert hits[0] > hits[-1] == 0
        at = [float(x["threshold"]) for x in own]
        rows = [x for _, x in _cells(run, arm, "hotflip")]
        least = [min(a.delta_loss, b.delta_loss) for a, b in zip(*rows, strict=True)]
        assert hits == [sum(math.expm1(x) > t for x in least) for t in at]


def test_one_seed_has_no_deviation_and_the_exact_interval(make_run):
    run = make_run(**ONE)
    row = _row(_build(run), "main", BASELINE)
    ((record, _),) = _cells(run, "baseline", "hotflip")
    found, shown = record.results["attack"], row["hotflip success"]
    assert row["perplexity"].std is shown.std is None
    assert shown.value == found["success"].value
    hits = round(found["success"].value * 40)
    assert shown.interval == pytest.approx(proportion_confint(hits, 40, method="beta"))
    mean = row["hotflip dL"]
    assert mean.value == pytest.approx(found["delta_loss"].value)
    # Forty values that are nearly normal: both bootstraps agree roughly.
    assert mean.interval == pytest.approx(found["delta_loss"].interval, rel=0.1)


@pytest.mark.parametrize("seeds", [[1], [1, 2]])
def test_a_cell_never_mixes_deviation_and_interval(make_run, seeds):
    for table in _build(make_run(seeds=seeds)).tables:
        numbers = [c for row in table.rows for c in row if isinstance(c, Number)]
        assert not [c for c in numbers if c.std is not None and c.interval]


def test_attack_and_control_are_paired_by_example(make_run):
    run = make_run()
    row = _row(_build(run), "controls", BASELINE, PAIR)
    attacked, random = (
        [x.delta_loss for x in _rows(run, "baseline", attack)]
        for attack in ("hotflip", "random")
    )
    difference = np.subtract(attacked, random)
    assert row["dL difference"].value == pytest.approx(difference.mean())
    low, high = row["dL difference"].interval
    assert low < difference.mean() < high
    assert row["pairs"].value == 80
    ((record, rows), _) = _cells(run, "baseline", "hotflip")
    expected = record.ledger.kept["attack"].flops / len(rows)
    assert row["FLOPs/example attack"].value == pytest.approx(expected)


def test_arms_are_compared_in_absolute_nats_beside_their_clean_losses(make_run):
    run = make_run()
    shown = _row(_build(run), "arms", MONOTONE, "baseline", "hotflip")
    means = {}
    for arm, column in (("baseline", "reference"), ("monotone", "arm")):
        rows = _rows(run, arm, "hotflip")
        means[arm] = fmean(row.delta_loss for row in rows)
        assert shown[f"dL {column}"].value == pytest.approx(means[arm])
        clean = fmean(row.clean_loss for row in rows)
        assert shown[f"clean loss {column}"].value == pytest.approx(clean)
        attacked = shown[f"attacked loss {column}"].value
        assert attacked == pytest.approx(clean + means[arm])
    difference = means["monotone"] - means["baseline"]
    assert shown["dL difference"].value == pytest.approx(difference)


def test_recovery_is_shown_at_once_and_after(make_run):
    run = make_run()
    cell = _row(_build(run), "recovery", MONOTONE)["held-out perplexity at once"]
    variants = [r for r in read_all(run) if r.id.startswith("Pythia_1.4B.monotone")]
    losses = [r.recovery.loss_before.value for r in variants if r.kind == "variant"]
    assert cell.value == pytest.approx(fmean(map(math.exp, losses)))


def test_the_worst_case_is_the_highest_rise_of_each_example(make_run):
    equal = deltas(0.5, 0.5, 0.4, 0.4)  # each is the worst of some
    found = Results(survey(make_run(delta_loss=equal)), 0.15)
    arm = found.arm("Pythia_1.4B", "baseline")
    cells = [arm.cells(attack)[1].rows for attack in ("hotflip", "random")]
    worst = arm.worst(["hotflip", "random"])[1].rows
    for index, row in enumerate(worst):
        both = [rows[index].delta_loss for rows in cells]
        assert row.delta_loss == max(both)
        assert row.example_id == cells[0][index].example_id
    assert {row.delta_loss for row in worst} != {row.delta_loss for row in cells[0]}
    assert found.attacks == ["hotflip"]


# --- what must not be overlooked ----------------------------------------------------


@pytest.mark.parametrize(
    ("story", "table", "name", "expected"),
    [
        (
            {},
            "controls",
            BASELINE,
            {"verdict": Label("beats random", short="beats it")},
        ),
        (LOSING, "controls", BASELINE, {"verdict": Label("ATTACK INVALID", True)}),
        (LOSING, "controls", MONOTONE, {"verdict": Label("ATTACK INVALID", True)}),
        (
            LOSING_ELSEWHERE,
            "controls",
            MONOTONE,
            {"verdict": Label("not shown to beat random", True, "not shown")},
        ),
        (
            HOLES,
            "controls",
            MONOTONE,
            dict.fromkeys(("verdict", "p", "pairs"), Missing("hotflip failed")),
        ),
        (
            HOLES,
            "main",
            MONOTONE,
            dict.fromkeys(("hotflip success", "hotflip dL"), Missing("failed")),
        ),
        (
            {},
            "certificates",
            MONOTONE,
            {
                "certificate": Label("pass -> pass"),
                "examined": Label("48 of 48"),
                "smallest weight before": Number(1e-6, "weight", signed=True),
                "smallest weight after": Number(1.5e-6, "weight", signed=True),
            },
        ),
        ({}, "certificates", BASELINE, {"certificate": Label("nothing promised")}),
        ({}, "recovery", BASELINE, {"data and order": Label("reference")}),
        (
            {},
            "recovery",
            MONOTONE,
            {"data and order": Label("as baseline"), "tokens": Number(1e6, "count")},
        ),
        (UNEQUAL, "recovery", MONOTONE, {"data and order": Label("NOT EQUAL", True)}),
        (
            {},
            "costs",
            MONOTONE,
            {
                "seconds attack": Number(0.0, "seconds"),
                "seconds load": Missing("none", brief=True),
                # Two seeds: what the fixture writes for a variant and two cells.
                "FLOP": Number(2 * (1e9 + 2 * 4.1e13), "flops"),
                "peak GiB": Missing("not noted"),
            },
        ),
        (
            REPLICA,
            "recovery",
            AGAIN,
            {"data and order": Label("as baseline, reordered")},
        ),
        (
            {**REPLICA, "tokens": {"again": 900_000}},
            "recovery",
            AGAIN,
            {"data and order": Label("NOT EQUAL", True)},
        ),
    ],
)
def test_cells_say_what_was_found(make_run, story, table, name, expected):
    names = (name, PAIR) if table == "controls" else (name,)
    row = _row(_build(make_run(**story)), table, *names)
    assert {key: row[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("story", "starts"),
    [
        ({}, []),
        (LOSING, ["ATTACK INVALID: hotflip is not shown to beat random"]),
        (LOSING_ELSEWHERE, []),
        (BROKEN, [f"BROKEN: {MONOTONE}"]),
        (UNEQUAL, [f"NOT EQUAL: {MONOTONE}"]),
        (HOLES, ["FAILED: Pythia_1.4B.monotone.s1.hotflip", "MISSING"]),
        (
            LIMITED,
            ["NOT FOR REAL NUMBERS: only the first 9 examples", "ATTACK INVALID"],
        ),
    ],
)
def test_what_a_reader_must_know_first_is_said_first(make_run, story, starts):
    warnings = _build(make_run(**story)).warnings
    said = [x for x in warnings if not x.startswith("UNCOMMITTED")]
    assert [x[: len(start)] for x, start in zip(said, starts, strict=True)] == starts
    assert all("out of paper" in x for x in said if x.startswith("FAILED"))


@pytest.mark.parametrize(
    ("story", "table", "names", "titles", "note"),
    [
        (BROKEN, "main", [MONOTONE], {"hotflip success", "hotflip dL"}, "§"),
        (
            LOSING,
            "main",
            [BASELINE, MONOTONE],
            {"hotflip success", "hotflip dL"},
            "‡ invalid: not shown to beat random search at the same budget: hotflip on",
        ),
        (
            ONE | {"errors": 3},
            "main",
            [BASELINE, MONOTONE],
            {"hotflip success"},
            "† hotflip on Pythia_1.4B (baseline): 3 of 40 examples ended in an error",
        ),
        (
            {"control_flops": 0.5},
            "controls",
            [BASELINE, MONOTONE],
            {"FLOPs/example control"},
            "‡ unequal ledgers",
        ),
    ],
)
def test_doubtful_numbers_have_a_mark_and_a_note(
    make_run, story, table, names, titles, note
):
    made = _build(make_run(**story))
    for name in (BASELINE, MONOTONE):
        cells = _row(made, table, name).items()
        numbers = {key: cell for key, cell in cells if isinstance(cell, Number)}
        marked = {key for key, cell in numbers.items() if note[0] in cell.mark}
        assert marked == (titles if name in names else set())
    assert _table(made, table).notes[0].startswith(note)


def test_what_interrupted_attacks_spent_is_told_and_not_compared(make_run):
    run = make_run(**ONE)
    before = _build(run)
    (path,) = run.glob("cells/*baseline*random*/record.json")
    with editing(path) as document:
        kept = document["ledger"]["kept"]["attack"]["flops"]
        document["ledger"]["spent"]["attack"]["flops"] = 2 * kept
    made = _build(run)
    rows = [_row(x, "controls", BASELINE, PAIR) for x in (before, made)]
    assert rows[0] == rows[1]
    assert _table(before, "controls").notes == []
    assert _table(made, "controls").notes == [
        f"random on {BASELINE} was interrupted and spent {2 * kept / 40:.3g} "
        "FLOPs/example in all"
    ]


def test_a_reason_is_given_once_in_each_part_of_a_row(make_run):
    text = report.render(_build(make_run(**HOLES)), "text")
    lines = [re.split(" {2,}", line) for line in text.splitlines()]
    parts = [x for x in lines if x[:2] == ["monotone", PAIR]]
    assert [x[2] for x in parts] == ["-- hotflip failed"] * len(parts)
    assert {cell for x in parts for cell in x[3:]} == {"--"}


def test_a_seed_that_is_missing_shows_in_n(make_run):
    made = _build(make_run(absent=("baseline.s2.hotflip",)))
    cell = _row(made, "main", BASELINE)["hotflip success"]
    assert (cell.n, cell.planned, cell.std) == (1, 2, None)


def test_an_arm_that_was_to_get_fewer_seeds_lacks_none(make_run):
    arms = ("baseline", "monotone", "short")
    made = _build(
        make_run(
            arms="  short: {constraint: softplus, seeds: [2]}\n",
            clean_loss=dict.fromkeys(arms, 2.5),
            delta_loss={(x, y): 0.5 for x in arms for y in ("hotflip", "random")},
        )
    )
    seeds = {
        (row[0].text.split("(")[-1].rstrip(")"), cell.n, cell.planned)
        for name in ("main", "recovery", "success")
        for row in _table(made, name).rows
        for cell in row
        if isinstance(cell, Number) and cell.n is not None
    }
    assert seeds == {("baseline", 2, 2), ("monotone", 2, 2), ("short", 1, 1)}


def _write_in(cell, name, old, new):
    path = cell / name
    path.write_text(path.read_text().replace(old, new))


def _edit_samples(cell):
    _write_in(cell, "samples.jsonl", "some text", "any text")


def _edit_schema(cell):
    _write_in(cell, "record.json", '"schema_version": 1', '"schema_version": 2')


def _leave_the_plan(cell):
    cell.rename(cell.with_name("Pythia_1.4B.baseline.s1.hotflip-00000000"))


@pytest.mark.parametrize(
    ("edit", "start", "part", "reason"),
    [
        (_edit_samples, "INVALID", "hash", "invalid"),
        (_edit_schema, "INVALID", "schema version 2", "invalid"),
        (_leave_the_plan, "LEFT OUT", "not part of the suite", "missing"),
    ],
)
def test_what_cannot_be_trusted_is_left_out_and_told(
    make_run, edit, start, part, reason
):
    run = make_run(**ONE)
    (cell,) = run.glob("cells/*baseline*hotflip*")
    edit(cell)
    made = _build(run)
    assert _row(made, "main", BASELINE)["hotflip success"] == Missing(reason)
    assert any(w.startswith(start) and part in w for w in made.warnings)


def test_records_of_another_suite_or_code_are_not_mixed_silently(make_run):
    run = make_run(**ONE)
    with editing(RunFolder(run).records("cell")[0]) as document:
        document["suite"]["sha256"] = "f" * 64
        document["provenance"]["commit"] = "e" * 40
        document["provenance"]["versions"]["torch"] = "0.1"
    made = _build(run)
    assert sum(warning.startswith("MIXED") for warning in made.warnings) == 3
    assert any("other versions of torch" in warning for warning in made.warnings)
    assert "ffffffffffff (1 record)" in dict(made.provenance)["suite sha256"]


# --- formats ------------------------------------------------------------------------


@pytest.mark.parametrize("story", [{}, {"failed": ("hotflip",)}])
def test_text_fits_the_terminal(make_run, story):
    text = report.render(_build(make_run(**story)), "text")
    assert max(map(len, text.splitlines())) <= 100


def test_latex_rows_read_as_in_a_paper(make_run):
    made = report.render(_build(make_run()), "latex")
    rows = [[cell.strip() for cell in line.split("&")] for line in made.splitlines()]
    (cells,) = [x for x in rows if x[:2] == ["monotone", r"\num{1.4}B"]]
    assert re.fullmatch(r"\\num\{12\.1\} \$\\pm\$ \\num\{0\.\d\}", cells[3])
    number = r"\\num\{\+\d+\.\d\}"
    assert re.match(rf"{number} \{{\[\}}{number}, {number}\]", cells[4])
    interval = r"\\num\{\d+\} \{\[\}\\num\{\d+\}, \\num\{\d+\}\]"
    assert any(re.match(interval, y) for x in rows if x[0] == "monotone" for y in x)


def test_latex_pins_its_numbers_down_and_is_the_same_on_a_rerun(make_run):
    run = make_run()
    first, second = (report.render(_build(run), "latex") for _ in range(2))
    assert first == second
    record = read_all(run)[0]
    head = first.splitlines()[:8]
    assert f"% suite sha256: {record.suite.sha256[:12]}" in head
    assert any(line.startswith("% code commit: ") for line in head)
    assert "% newest record: 2026-01-02T03:05:05+00:00" in head
    assert r"\toprule" in first


def test_latex_is_balanced(make_run):
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


def test_latex_rows_are_as_wide_as_their_tabular_says(make_run):
    made = report.render(_build(make_run()), "latex")
    tabular = r"\\begin\{tabular\}\{@\{\}([^\n]*)@\{\}\}\n(.*?)\\end\{tabular\}"
    tables = re.findall(tabular, made, re.DOTALL)
    assert len(tables) == made.count("tabular}") // 2 > 0
    for specs, body in tables:
        columns = len(re.sub(r">\{.*?\}|\[.*?\]|\{.*?\}", "", specs))
        rules = re.findall(r"^\\(\w+rule)$", body, re.MULTILINE)
        assert rules == ["toprule", "midrule", "bottomrule"]
        for line in body.splitlines():
            if "multicolumn" in line:
                spans = map(int, re.findall(r"multicolumn\{(\d+)\}", line))
                assert sum(spans) == columns
            elif line.endswith(r"\\"):
                assert line.count(" & ") == columns - 1


def test_json_holds_numbers_in_full_and_reasons_for_nulls(make_run):
    run = make_run(seeds=[1], absent=("monotone.s1.hotflip",))
    made = json.loads(report.render(_build(run), "json"))
    rows = {row["model (arm)"]: row for row in made["tables"]["main"]["rows"]}
    (value,) = _perplexities(run, "baseline")
    assert rows[BASELINE]["perplexity"]["value"] == value
    assert rows[MONOTONE]["hotflip: dL"] == {"value": None, "reason": "missing"}


def test_json_names_what_rows_and_columns_are_about(make_run):
    """In fields, which together name what the joined name of the row does."""
    text = report.render(_build(make_run()), "json")
    made = json.loads(text)
    jsonschema.validate(made, schemas.load("report"))
    settings = made["tables"].pop("appendix")["rows"]
    assert {x.get(x["about"]) for x in settings} - {None} == {
        "Pythia_1.4B",
        "baseline",
        "monotone",
        "hotflip",
        "random",
    }
    for key, table in made["tables"].items():
        by_arm = key == "diagnostics" or key.startswith(("metrics.", "gaps."))
        for part in table["columns"][1:] if by_arm else table["rows"]:
            named = f"{part['model']} ({part['arm']})"
            assert part.get("model (arm)", named) == named
    tables = made["tables"]
    assert all(
        f"{row['attack']} : {row['control']}" == row["attack : control"]
        for row in tables["controls"]["rows"]
    )
    about = {x["name"]: x.get("attack") for x in tables["main"]["columns"]}
    assert about["hotflip: dL"] == "hotflip"
    assert about["perplexity"] is None
    names = [x["name"] for x in tables["main"]["columns"]]
    assert set(names) | {"model", "arm"} == set(tables["main"]["rows"][0])


def test_markdown_tables_are_rectangular(make_run):
    made = report.render(_build(make_run()), "markdown")
    tables = [x.splitlines() for x in made.split("\n\n") if x.startswith("|")]
    assert tables
    for lines in tables:
        assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1


def test_labels_cannot_break_the_markup():
    assert escape(r"a_b%{\x}") == r"a\_b\%\{\textbackslash{}x\}"


def test_reports_are_written_beside_the_records(make_run):
    run = make_run(**ONE)
    folder = RunFolder(run).report_dir
    made = _build(run)
    report.write_reports(made, folder)
    assert (folder / "report.txt").read_text() == report.render(made, "text")
    endings = {path.suffix for path in folder.iterdir()}
    assert endings == {".txt", ".md", ".json", ".tex", ".csv"}


# --- exploratory --------------------------------------------------------------------


def test_what_is_asked_for_afterwards_is_exploratory(make_run):
    run = make_run()
    assert not [x for x in _build(run).warnings if x.startswith("EXPLORATORY")]
    made = _build(run, 0.3)
    assert made.warnings[0].startswith("EXPLORATORY: success is shown at 0.3")
    assert made.verdicts == _build(run).verdicts


def test_a_margin_that_was_changed_stands_above_all(make_run):
    run = make_run(more="limit: 9")
    with editing(RunFolder(run).records("cell")[0]) as document:
        document["margin"] = {"relative": None, "nats": 0.02}
    first, second, *_ = _build(run).warnings
    assert first.startswith("EXPLORATORY: margin changed after 1 record,")
    assert second.startswith("NOT FOR REAL NUMBERS")


def test_budget_curves_have_every_share_and_the_difference(make_run):
    run = make_run(seeds=[1, 2, 3])
    for path in run.glob("cells/*hotflip*"):
        _give_checkpoints(path)
    row = _row(_build(run), "budgets", BASELINE, "hotflip")
    rows = _rows(run, "baseline", "hotflip")
    mean = fmean(x.delta_loss for x in rows)
    found = [row[f"dL at {share}"].value for share in ("1/4", "1/2", "1", "2")]
    assert found == pytest.approx([0.5 * mean, 0.8 * mean, 0.9 * mean, mean])
    shown = _row(_build(run), "budgets", MONOTONE, "worst, minus baseline")
    assert shown["dL at 2"].value < 0
    assert shown["dL at 1/4"].interval is not None


def test_attacks_beyond_texts_stand_beside_those_that_keep_to_them(make_run):
    more = "verdicts: {token_level: true}"
    losses = deltas(0.6, 0.4, 0.45, 0.3)
    losses |= {(arm, "hotflip-tokens"): 0.9 for arm in ("baseline", "monotone")}
    run = make_run(seeds=[1], more=more, delta_loss=losses)
    row = _row(_build(run), "token_level", BASELINE, "hotflip")
    for column, attack in (("texts", "hotflip"), ("any tokens", "hotflip-tokens")):
        mean = fmean(x.delta_loss for x in _rows(run, "baseline", attack))
        assert row[f"dL {column}"].value == pytest.approx(mean)


def _give_checkpoints(cell: Path) -> None:
    """Say that a cell ran to twice its budget, and what it held on the way."""
    file = cell / "samples.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["share"] = 2.0
        row["checkpoints"] = [
            {
                "share": share,
                "adversarial_prompt_ids": row["adversarial_prompt_ids"],
                "delta_loss": part * row["delta_loss"],
                "adversarial_loss": row["clean_loss"] + part * row["delta_loss"],
            }
            for share, part in ((0.25, 0.5), (0.5, 0.8), (1.0, 0.9))
        ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with editing(cell / "record.json") as document:
        document["attack"]["share"] = 2.0
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        document["samples"]["sha256"] = sha256
