"""The section for a cluster: what may stand in it, who wins, and that no id sees it."""

from pathlib import Path

import pytest

from harness.base import SuiteError
from harness.suite import dump_suite, load_experiment, make_plan, resolve
from harness.suite.cluster import ClusterSection
from harness.suite.cluster_file import own_cluster
from harness.suite.loading import freeze_suite

CLUSTER = "cluster: {partition: gpu, account: lab-7, time: '4:00:00', gpus: 1}"


def given(experiment):
    """Return which options the suite states, by section and label."""
    return {
        (section, label): sorted(plugin.options.model_fields_set)
        for section, plugins in experiment.plugins.items()
        for label, plugin in plugins.items()
    }


def resolved(path, tmp_path, **choice):
    return resolve(load_experiment(path, **choice), tmp_path / "store")


def ids(experiment):
    return [unit.id for unit in make_plan(experiment).units]


def test_neither_ids_nor_the_resolved_suite_see_the_cluster(toy_suite, tmp_path):
    plain = resolved(toy_suite, tmp_path)
    Path("s.yaml").write_text(f"extends: base.yaml\nname: base\n{CLUSTER}\n")
    stated = resolved(Path("s.yaml"), tmp_path)
    assert stated.suite.cluster.partition == "gpu"
    assert ids(stated) == ids(plain)
    assert dump_suite(stated.suite) == dump_suite(plain.suite)
    assert "cluster" not in freeze_suite(stated)


@pytest.mark.parametrize("profile", [None, "quick"])
def test_a_frozen_suite_is_the_same_wherever_it_lies(toy_suite, tmp_path, profile):
    text = "extends: base.yaml\nname: base\narms: {twin: {replicate: monotone}}\n"
    Path("s.yaml").write_text(text + CLUSTER)
    experiment = resolved(
        Path("s.yaml"), tmp_path, profile=profile, overrides=["attacks.flip.flips=7"]
    )
    frozen = tmp_path / "a folder" / "frozen.yaml"
    frozen.parent.mkdir()
    frozen.write_text(freeze_suite(experiment), encoding="utf-8")
    for path in (Path("s.yaml"), toy_suite):
        path.unlink()
    again = resolved(frozen, tmp_path, profile=profile)
    assert ids(again) == ids(experiment)
    assert dump_suite(again.suite) == dump_suite(experiment.suite)
    assert given(again) == given(experiment)
    assert again.profile == profile


def test_a_frozen_suite_notices_that_what_it_names_has_changed(toy_suite, tmp_path):
    frozen = Path("frozen.yaml")
    frozen.write_text(freeze_suite(resolved(toy_suite, tmp_path)))
    (Path("weights") / "weights.txt").write_text("others")
    with pytest.raises(SuiteError, match=r"models\.toy-1\.5b\.fingerprint: expected"):
        resolved(frozen, tmp_path)


def test_flags_win_over_the_suite_and_that_over_the_users_own_file(
    toy_suite, tmp_path, monkeypatch
):
    own = tmp_path / "harness" / "cluster.yaml"
    own.parent.mkdir()
    own.write_text("{partition: mine, account: mine, qos: mine, cpus: 2}")
    monkeypatch.delenv("HARNESS_CLUSTER", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    Path("s.yaml").write_text("extends: base.yaml\ncluster: {partition: s, account: s}")
    experiment = load_experiment(
        Path("s.yaml"), overrides=["cluster.partition=flag", "cluster.time=0:30:00"]
    )
    found = experiment.suite.cluster.over(own_cluster())
    assert found == ClusterSection(
        partition="flag", account="s", qos="mine", cpus=2, time="0:30:00"
    )
    assert found.reserve == 2.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("partition: a b", "cluster.partition: expected a name without spaces"),
        ("time: '4:00'", "cluster.time: expected a time such as '4:00:00'"),
        ("gpus: -1", "cluster.gpus: expected a number of at least 0, got -1"),
        ("gpu: 1", "cluster.gpu: unknown key 'gpu'; did you mean 'gpus'?"),
        ("reserve: 0.5", "cluster.reserve: expected a number of at least 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    toy_suite, tmp_path, monkeypatch, text, said
):
    Path("s.yaml").write_text(f"extends: base.yaml\ncluster:\n  {text}\n")
    with pytest.raises(SuiteError) as raised:
        load_experiment(Path("s.yaml"))
    assert str(raised.value).startswith(f"s.yaml:3: {said}")
    own = tmp_path / "own.yaml"
    own.write_text(text)
    monkeypatch.setenv("HARNESS_CLUSTER", str(own))
    with pytest.raises(SuiteError) as raised:
        own_cluster()
    assert str(raised.value).startswith(f"{own}:1: {said.removeprefix('cluster.')}")
