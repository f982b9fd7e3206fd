"""Two runs side by side: paired differences, and what is refused."""

import json

import numpy as np
import pytest

from harness.base import UsageError, sha256_file
from harness.results import compare_runs, load_run
from tests.run_fixtures import deltas, edit


@pytest.fixture
def runs(make_run):
    stronger = deltas(0.60, 0.40, 0.45, 0.30)
    weaker = {key: value - 0.2 for key, value in stronger.items()}
    return load_run(make_run("a")), load_run(make_run("b", delta_loss=weaker))


def test_differences_are_means_of_pairs(runs):
    found = {one.key: one for one in compare_runs(*runs)}
    assert len(found) == 2 + 4  # variants and cells, seeds together
    assert not any(one.refused for one in found.values())
    columns = ["model", "arm", "attack", "seed", "example_id"]
    merged = runs[1].samples.merge(runs[0].samples, on=columns)
    merged["apart"] = merged.delta_loss_x - merged.delta_loss_y
    for key, apart in merged.groupby(["model", "arm", "attack"]).apart:
        shown = found[key].differences["delta_loss"]
        np.testing.assert_allclose(shown.value, apart.mean(), rtol=1e-9)
        assert shown.interval[0] < shown.value < shown.interval[1]
        assert found[key].differences["clean_loss"].value == pytest.approx(0, abs=1e-12)
    same = found["Pythia_1.4B", "baseline", None].differences["perplexity.loss"]
    assert same.value == pytest.approx(0, abs=1e-12)


def test_what_was_asked_otherwise_is_refused_with_the_fields(cli, make_run, runs):
    other = make_run("c", more="tokens: {reachable_only: false}")
    found = compare_runs(runs[0], load_run(other))
    cells = [one for one in found if one.key.attack]
    assert len(cells) == 4
    for one in cells:
        assert any(field.startswith("tokens.reachable_only") for field in one.refused)
        assert one.differences == {}
    outcome = cli("compare", runs[0].path, other)
    assert outcome.code == 0  # the metrics can be compared
    assert "not comparable: Pythia_1.4B (monotone) hotflip: tokens" in outcome.out
    assert "perplexity.loss" in outcome.out


def test_runs_with_nothing_in_common_are_refused(cli, make_run, runs):
    other = make_run("d", seeds=[7, 8])
    outcome = cli("compare", runs[0].path, other, "--json")
    assert outcome.code == 2
    assert "seed: none in common" in outcome.out
    empty = load_run(make_run("e", absent=("Pythia",)))
    with pytest.raises(UsageError, match="share no complete variant or cell"):
        compare_runs(runs[0], empty)


def test_examples_of_a_cluster_count_as_one(make_run, runs):
    other = make_run("f")
    for run in (runs[0].path, other):
        for path in run.glob("cells/*/samples.jsonl"):
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            for number, row in enumerate(rows):
                row["cluster"] = str(min(number, 8))
                # Of the second run alone, and not the same for all of a cluster.
                apart = number % 3 if run == other else 0
                row["clean_loss"] += apart
                row["adversarial_loss"] += apart
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            edit(
                path.with_name("record.json"),
                *("samples", "sha256"),
                value=sha256_file(path),
            )
    found = compare_runs(load_run(runs[0].path), load_run(other))
    expected = np.mean(
        [*(i % 3 for i in range(8)), np.mean([i % 3 for i in range(8, 40)])]
    )
    for one in found:
        if one.key.attack:
            shown = one.differences["clean_loss"].value
            np.testing.assert_allclose(shown, expected, rtol=1e-9)
