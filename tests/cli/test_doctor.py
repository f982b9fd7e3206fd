"""``harness doctor``."""

import importlib.metadata
import json
import platform

import pytest
import torch
import transformers


def findings(outcome):
    return {one["name"]: one for one in json.loads(outcome.out)}


def test_it_names_versions_devices_room_and_caches(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("HARNESS_STORE", str(tmp_path))
    outcome = cli("doctor", "--json")
    found = findings(outcome)
    assert outcome.code == 0
    assert found["python"]["detail"].startswith(platform.python_version())
    assert found["torch"]["detail"].startswith(torch.__version__)
    assert found["transformers"]["detail"].startswith(transformers.__version__)
    assert ("cuda:0" in found) == torch.cuda.is_available()
    assert str(tmp_path) in found["disk"]["detail"]
    assert found["network"]["detail"].startswith("offline (HF_HUB_OFFLINE")
    assert {"cpu", "memory", "hub cache", "plugins"} <= set(found)


@pytest.mark.parametrize("option", [["--set", "limit=1"], ["--profile", "smoke"]])
def test_what_is_said_of_a_suite_needs_one(cli, option):
    outcome = cli("doctor", *option)
    assert outcome.code == 2
    assert outcome.err.endswith(": name one\n")


def test_the_text_says_the_same(cli):
    found = json.loads(cli("doctor", "--json").out)
    lines = cli("doctor").out.splitlines()
    assert [line.split()[0] for line in lines] == [one["status"] for one in found]


@pytest.mark.parametrize(
    ("requirement", "detail"),
    [
        ("torch>=99", f"{torch.__version__} (needs >=99)"),
        ("no-such-library>=1", "not installed; needs >=1"),
    ],
)
def test_a_library_that_does_not_fit_fails(cli, monkeypatch, requirement, detail):
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: [requirement])
    outcome = cli("doctor", "--json")
    assert outcome.code == 2
    finding = findings(outcome)[requirement.split(">")[0]]
    assert (finding["status"], finding["detail"]) == ("fail", detail)


def test_a_store_that_cannot_be_written_fails(cli, monkeypatch):
    monkeypatch.setenv("HARNESS_STORE", "/proc/store")
    outcome = cli("doctor", "--json")
    assert outcome.code == 2
    assert findings(outcome)["disk"]["status"] == "fail"


def test_what_a_suite_lacks_fails_and_is_named(cli, suite, save_model):
    outcome = cli("doctor", suite)
    assert outcome.code == 2
    (line,) = [line for line in outcome.out.splitlines() if "fail" in line]
    assert "models.tiny" in line
    assert "model" in line
    save_model()
    outcome = cli("doctor", suite)
    assert outcome.code == 0
    assert f"all that {suite} names is here" in outcome.out


def test_an_invalid_suite_says_what_is_wrong(cli, suite):
    suite.write_text(suite.read_text().replace("seeds: [1]", "seeds: []"))
    outcome = cli("doctor", suite)
    assert outcome.code == 2
    assert "seeds" in outcome.err


def test_what_a_suite_cannot_have_fails_and_what_it_gets_is_noted(
    cli, suite, save_model
):
    save_model()
    text = suite.read_text().replace("context: 100", "context: 400")
    suite.write_text(text.replace("batch_tokens: 1000", "batch_tokens: 800"))
    outcome = cli("doctor", suite)
    assert outcome.code == 2
    said = [line for line in outcome.out.splitlines() if f"{suite}:" in line]
    assert [line.split()[0] for line in said] == ["fail", "note"]
    assert "recovery.context: 400 tokens are a block" in said[0]
    assert "1,000 are rounded up to whole steps: 2 of 800" in said[1]
