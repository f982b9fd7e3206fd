"""What figures show: the numbers of tables and verdicts, and nothing else."""

import json
import re
from statistics import fmean

import pytest

from harness import report
from harness.report.figures import drawing
from harness.report.figures.making import figures
from harness.report.figures.parts import At, Axis, Figure, Panel, Series
from harness.running.surveying import survey
from harness.verdicts import mean_flops
from tests.run_fixtures import editing

CURVE = {42: [5.0, 4.0, 3.5], 43: [5.5, 4.2, 3.3]}
"""Training losses of two seeds."""
LOG = "training.jsonl"


@pytest.fixture(scope="module")
def made(tmp_path_factory, written_runs):
    """Return the report of a run with training logs, and its figures by key."""
    import shutil

    from tests.run_fixtures import Story

    run = tmp_path_factory.mktemp("drawn") / "run"
    shutil.copytree(written_runs(Story(seeds=[42, 43, 44])), run)
    for path in run.glob("variants/*monotone*"):
        seed = int(path.name.partition(".s")[2].partition("-")[0].rpartition(".s")[2])
        losses = CURVE.get(seed, CURVE[42])
        lines = [
            json.dumps({"kind": "train", "step": step, "loss": loss})
            for step, loss in enumerate([9.0, *losses[1:], 0.0])
        ]
        again = json.dumps({"kind": "train", "step": 0, "loss": losses[0]})
        spoilt = ["", "no JSON", "[1]", '{"kind": "train", "step": 1, "loss": null}']
        (path / LOG).write_text("\n".join([*lines[:-1], again, *spoilt, lines[-1][:9]]))
    for path in run.glob("variants/*/record.json"):
        with editing(path) as document:
            for when, minima in (
                ("before", [0.5, -0.25]),
                ("after", [0.25, None, "x"]),
            ):
                check = document["certificate"][when]["checks"][0]
                check["measured"]["minimum_by_layer"] = minima
    built = report.build(survey(run))
    return built, {figure.key: figure for figure in figures(built)}


def points(figure, title, name):
    (panel,) = [panel for panel in figure.panels if panel.title == title]
    (series,) = [one for one in panel.series if one.name == name]
    return series.points


def test_every_kind_of_figure_is_there(made):
    assert list(made[1]) == [
        "contrasts",
        "losses",
        "budget",
        "success",
        "differences",
        "recovery",
        "certificates",
        "costs",
    ]


def test_contrasts_and_paired_differences_are_those_of_verdicts(made):
    built, found = made
    (known,) = [x.difference for x in built.verdicts.arms if x.difference]
    (point,) = points(found["contrasts"], "Pythia_1.4B", "difference")
    assert (point.x, point.low, point.high) == (known.value, *known.interval)
    dots = points(found["differences"], "monotone - baseline", "a document")
    assert len(dots) == known.documents
    assert [at.y for at in dots] == sorted(at.y for at in dots)
    assert fmean(at.y for at in dots) == pytest.approx(known.value)


def test_budget_curves_end_at_what_attacks_spent_and_found(made):
    built, found = made
    arm = built.results.arm("Pythia_1.4B", "baseline")
    for attack in ("hotflip", "random"):
        *_, last = points(found["budget"], "baseline", attack)
        rows = [row for cell in arm.cells(attack).values() for row in cell.rows]
        assert last.y == pytest.approx(fmean(row.delta_loss for row in rows))
        assert last.low < last.y < last.high
        assert last.x == mean_flops(arm.cells(attack))
    marks = {one.name: one.mark for one in found["budget"].panels[0].series}
    assert marks == {"hotflip": "line", "random": "dashed"}


def test_success_is_that_of_the_curves(made):
    built, found = made
    own = [x for x in built.curves if (x.arm, x.attack) == ("monotone", "hotflip")]
    shown = points(found["success"], "hotflip", "monotone")
    assert [at.x for at in shown] == [x.threshold for x in own]
    assert [at.y for at in shown] == [x.succeeded / x.documents for x in own]


def test_losses_with_and_without_an_attack_are_means_over_rows(made):
    built, found = made
    for row, label in enumerate(("baseline", "monotone")):
        cells = built.results.arm("Pythia_1.4B", label).cells("hotflip").values()
        rows = [row for cell in cells for row in cell.rows]
        for name, field in (
            ("clean", "clean_loss"),
            ("under the worst attack", "adversarial_loss"),
        ):
            at = points(found["losses"], "Pythia_1.4B", name)[row]
            mean = fmean(getattr(one, field) for one in rows)
            assert (at.x, at.y) == (pytest.approx(mean), row)


def test_training_is_averaged_over_seeds_and_the_last_try_counts(made):
    shown = points(made[1]["recovery"], "Pythia_1.4B", "monotone")
    seeds = [CURVE[42], CURVE[43], CURVE[42]]
    for step, at in enumerate(shown):
        values = [losses[step] for losses in seeds]
        assert at == (step, pytest.approx(fmean(values)), min(values), max(values))
    assert len(shown) == 3


def test_certificates_are_shown_layer_by_layer(made):
    name = "Pythia_1.4B"
    before = points(made[1]["certificates"], name, "monotone, before recovery")
    assert before == [At(0, 0.5), At(1, -0.25)]
    assert points(made[1]["certificates"], name, "monotone") == [At(0, 0.25)]


def test_bars_of_costs_reach_what_an_arm_spent(made):
    built, found = made
    series = found["costs"].panels[0].series
    for row, arm in enumerate(built.results.arms):
        units = [x for x in built.results.survey.units if x.arm == arm.label]
        spent = [
            cost.seconds
            for unit in units
            for cost in unit.state.record.ledger.spent.values()
        ]
        ends = [at.x for one in series for at in one.points if at.y == row]
        assert max(ends) == pytest.approx(sum(spent))


@pytest.mark.parametrize("arm", ["abs-unconstrained", "a-name-as-long-as-a-line-of-40"])
def test_nothing_of_a_figure_is_cut_off(arm):
    """One panel is as wide as a column: legends and labels have to fit below it."""
    at = [At(0, 0.5, 0.4, 0.6), At(1, 0.7, 0.6, 0.8)]
    names = ("baseline, before recovery", "baseline", f"{arm}, before recovery", arm)
    series = [Series(name, at, i, "line") for i, name in enumerate(names)]
    axis = Axis("difference of dL, nats/token")
    layers = Panel("m", Axis("layer"), axis, series)
    rows = Panel("m", axis, Axis(""), series[:1], rows=[f"{arm} - baseline", arm])
    for panel in (layers, rows):
        canvas = drawing.drawn(Figure("key", "T", "", [panel], legend=panel is layers))
        canvas.draw_without_rendering()
        found = canvas.get_tightbbox()
        wide, high = canvas.get_size_inches()
        assert found.x0 >= 0
        assert found.y0 >= 0
        assert found.x1 <= wide
        assert canvas.axes[0].get_window_extent().width > canvas.dpi  # an inch
        assert found.y1 <= high


def test_a_run_without_anything_has_no_figures(make_run):
    built = report.build(survey(make_run(seeds=[1], absent=("Pythia",))))
    assert figures(built) == []


def test_figures_are_written_for_papers_and_do_not_change(
    tmp_path, cli, made, monkeypatch
):
    some = [made[1][key] for key in ("contrasts", "losses")]
    monkeypatch.setattr("harness.report.writing.figures", lambda built: some)
    monkeypatch.setattr("harness.report.build", lambda *told: made[0])
    run, folders = made[0].results.survey.folder.root, [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        outcome = cli("report", run, "--figures", folder)
        assert outcome.code == 0
    names = ["contrasts.pdf", "contrasts.svg", "losses.pdf", "losses.svg"]
    assert outcome.out.splitlines() == [str(folders[1] / name) for name in names]
    for name in names:
        first, second = ((folder / name).read_bytes() for folder in folders)
        assert first == second
        assert first.startswith(b"%PDF" if name.endswith("pdf") else b"<?xml")


def test_names_are_text_whatever_they_hold():
    name = "$x_1$ <b>\x1b[2J\u202e & \\alpha"
    lines = [Series(f"{name}{i}", [At(1, 2, 1, 3), At(2, 3)], i) for i in range(2)]
    panel = Panel(name, Axis("x", "flops", "log"), Axis("y", "share"), lines)
    drawn = drawing.panel_svg(panel)
    assert "$x_1$ &lt;b&gt;\\x1b[2J&lt;U+202E&gt; &amp; \\alpha" in drawn


def test_panels_of_a_figure_share_a_scale_and_leave_no_empty_axes(tmp_path):
    heights = [(2, 3), (0, 1), (5, 7)]
    panels = [
        Panel("", Axis("x"), Axis("y", "share"), [Series("a", [At(100, y, None, top)])])
        for y, top in heights
    ]
    figure = Figure("key", "", "", panels)
    assert drawing.shared_limits(figure) == pytest.approx((-0.35, 7.35))
    _, path = drawing.write_figures([figure], tmp_path)
    # Empty axes would go from 0 to 1.
    texts = set(re.findall(r">([^<>]+)</text>", path.read_text()))
    assert {"x", "y", "600 %", "100"} <= texts
    assert not texts & {"0.2", "0.4", "0.6", "0.8"}
