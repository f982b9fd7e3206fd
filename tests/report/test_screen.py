"""One screen at the end of a run: every verdict, what fits, and where the rest is."""

import re
from pathlib import Path

import pytest

from harness import report
from harness.running.surveying import survey

ATTACKS = [f"attack{i}" for i in range(6)]


@pytest.fixture
def screen(monkeypatch):
    """Return a function that renders the screen of a run, seen from its folder."""

    def render(run):
        monkeypatch.chdir(run.parent)
        return report.render(report.build(survey(Path(run.name))), "screen")

    return render


@pytest.fixture
def many_attacks(make_run):
    """Return a run with attacks that do not all fit."""
    losses = {
        (arm, attack): 0.5
        for arm in ("baseline", "monotone")
        for attack in ("hotflip", "random", *ATTACKS)
    }
    attacks = "\n".join(f"  {x}: {{attack: hotflip}}" for x in ATTACKS)
    return make_run(seeds=[1, 2, 3], attacks=attacks, delta_loss=losses)


def test_a_screen_has_the_verdicts_the_main_table_and_what_is_next(make_run):
    run = make_run(seeds=[1, 2, 3])
    made = report.build(survey(run))
    text = report.render(made, "screen")
    for found in made.verdicts.arms:
        against = f" against {found.reference}" if found.reference else ""
        assert re.search(
            rf"^{found.arm}{against} +{found.verdict}\b", text, re.MULTILINE
        )
    (table,) = [x for x in made.tables if x.key == "main"]
    for column in table.columns[1:]:
        assert column.title.split()[0] in text
    for command in ("show {} --worst 10", "report {} --format html"):
        assert f"harness {command}".format(run) in text
    assert f"all {len(made.tables)} tables" in text


def test_a_screen_is_one_however_many_attacks_there_are(screen, many_attacks):
    text = screen(many_attacks)
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("\n") <= 50
    assert "worst case dL" in text
    (left,) = [x for x in text.splitlines() if x.startswith("Not shown: ")]
    shown = [x for x in ATTACKS if f"{x} dL" in text]
    for attack in ATTACKS:
        assert (attack in left) != (attack in shown)
    assert left.endswith("see --tables main")


@pytest.mark.parametrize(
    "story",
    [
        {},
        {"failed": ("hotflip",)},
        {"absent": ("s1", "s2")},
        {"errors": 3},
        {"more": "limit: 9"},
    ],
)
def test_each_verdict_takes_two_lines_at_most(make_run, screen, story):
    lines = screen(make_run(**story)).splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 50
    begun = [
        i for i, line in enumerate(lines) if re.match(r"(baseline|monotone) ", line)
    ]
    first, second = begun[:2]
    assert second - first <= 2
    assert lines[second + 1 : second + 3].count("") >= 1


@pytest.mark.parametrize(("columns", "widest"), [(80, 80), (10, 80), (90, 90)])
def test_a_screen_is_no_wider_than_its_terminal(many_attacks, columns, widest):
    """What has no room is said to be left out, the commands below it apart."""
    made = report.build(survey(many_attacks))
    lines = report.render(made, "screen", terminal=columns).splitlines()
    told = [line for line in lines if str(many_attacks) not in line]
    assert widest - 15 < max(map(len, told)) <= widest
    assert len(lines) <= 60
    wide = report.render(made, "screen", terminal=1000)
    assert wide == report.render(made, "screen")
    assert lines != wide.splitlines()


def test_what_a_reader_must_know_first_comes_first(make_run):
    run = make_run(seeds=[1], absent=("random",), more="limit: 9")
    made = report.build(survey(run))
    text = report.render(made, "screen")
    for warning in made.warnings[:4]:
        assert f"! {warning[:60]}" in text
    assert text.index("! NOT FOR REAL") < text.index("\nbaseline")


def test_verdicts_hide_nothing_in_a_terminal(make_run):
    made = report.build(survey(make_run(seeds=[1])))
    made.verdicts.arms[1].reasons[:] = ["\x1b]0;pwned\x07\nverdict: harder"]
    text = report.render(made, "screen")
    assert r"\x1b]0;pwned\x07\nverdict: harder" in text
    assert "\x1b" not in text
