"""Claims in reports: a line for each, with its answer, what was found, and why."""

import json
import re

import pytest

from harness import report
from harness.results import load_run
from harness.running import RunFolder, survey
from tests.run_fixtures import Story, edit

CLAIMS = """claims:
  minimal:
    flip: {attack: hotflip, arm: monotone, dL: < 0}
    rare: {attack: hotflip, arm: monotone, success: reduced by 3 %}
  strong:
    each: {attack: hotflip, arm: monotone, dL: "> 0", seeds: every}
    fluent: {metric: perplexity.token_perplexity, arm: monotone, change: within 50 %}
"""


@pytest.fixture(scope="module")
def run(written_runs):

    return written_runs(Story(seeds=[1, 2, 3], documents=19, more=CLAIMS))


@pytest.fixture(scope="module")
def made(run):
    return report.build(survey(run))


def flat(text):
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "html"])
def test_every_form_has_a_claim_its_answer_and_its_reason(made, form):
    text = flat(report.render(made, form))
    for part in ("flip", "supported", "undecided", "fluent", "rows are fewer than 20"):
        assert part in text
    value, (low, high) = (
        made.verdicts.claims[0].estimate.value,
        made.verdicts.claims[0].estimate.interval,
    )
    for number in (value, low, high):
        assert f"{abs(number):.2f}" in text


def test_programs_get_every_number(made):
    document = json.loads(report.render(made, "json"))
    found = document["verdicts"]["claims"]
    assert [x["answer"] for x in found] == [
        "supported",
        "undecided",
        "refuted",
        "undecided",
    ]
    assert found[0]["estimate"]["interval"] == list(
        made.verdicts.claims[0].estimate.interval
    )
    rows = document["tables"]["claims"]["rows"]
    assert [row["group"] for row in rows] == ["minimal", "minimal", "strong", "strong"]
    assert rows[0]["claim"] == "dL of hotflip, monotone against baseline"
    assert rows[2]["bound"] == "> 0, every seed"


def test_claims_stand_after_the_verdicts(made):
    assert [table.key for table in made.tables][:2] == ["verdicts", "claims"]
    screen = report.render(made, "screen")
    (line,) = [x for x in screen.splitlines() if x.startswith("minimal.flip ")]
    assert "supported" in line
    assert "(< 0)" in line


def test_a_suite_without_claims_has_no_such_table(make_run):
    made = report.build(survey(make_run()))
    assert "claims" not in [table.key for table in made.tables]


def test_a_run_has_its_claims_as_a_table(run, made):
    table = load_run(run).claims
    assert [*table.group] == ["minimal", "minimal", "strong", "strong"]
    assert [*table.claim] == ["flip", "rare", "each", "fluent"]
    for row, found in zip(table.to_dict("records"), made.verdicts.claims, strict=True):
        assert row["answer"] == found.answer
        assert row["estimate"] == pytest.approx(found.estimate.value)
        shown = row["estimate_low"], row["estimate_high"]
        assert shown == pytest.approx(found.estimate.interval)


def test_what_was_changed_after_results_is_said_first(make_run):
    run = make_run(seeds=[1, 2, 3], more=CLAIMS)
    for record in RunFolder(run).records("cell")[:2]:
        edit(record, "claims", "strong", value={})
    made = report.build(survey(run))
    told = (
        "EXPLORATORY: claims changed after 2 records: strong.each is new; "
        "strong.fluent is new."
    )
    assert told in made.warnings
    answers = {x.label: x.exploratory for x in made.verdicts.claims}
    assert answers == {"flip": False, "rare": False, "each": True, "fluent": True}
    assert "exploratory" in report.render(made, "text")
