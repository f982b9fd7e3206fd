"""What a suite names: fingerprinted, filled in, missing."""

import hashlib
from pathlib import Path

import pytest

from harness.base import HarnessError, MissingResource, SuiteError
from harness.suite import load_experiment, missing, resolve
from harness.suite.texts import encoded


def test_resolving_fills_in_fingerprints_and_defaults(toy_suite, tmp_path):
    experiment = load_experiment(toy_suite)
    assert not experiment.resolved
    resolved = resolve(experiment, tmp_path / "store")
    assert resolved.resolved
    suite = resolved.suite
    weights = hashlib.sha256(Path("weights/weights.txt").read_bytes()).hexdigest()
    assert suite.models["toy-1.5b"].fingerprint == f"sha256:{weights}"
    prints = {corpus.fingerprint for corpus in suite.corpora.values()}
    assert len(prints) == 1  # slices of one text
    assert suite.arms["monotone"].options == {"start": "abs", "layers": "all"}
    assert experiment.suite.models["toy-1.5b"].fingerprint is None


def test_a_pinned_fingerprint_must_be_found(toy_suite, tmp_path):
    pinned = f"sha256:{'0' * 64}"
    Path("s.yaml").write_text(
        f"extends: base.yaml\nmodels:\n  toy-1.5b: {{fingerprint: '{pinned}'}}\n"
        f"corpora:\n  train:\n    fingerprint: '{pinned}'\n"
    )
    with pytest.raises(SuiteError) as raised:
        resolve(load_experiment(Path("s.yaml")), tmp_path / "store")
    first, second = str(raised.value).splitlines()
    start = "s.yaml:3: models.toy-1.5b.fingerprint: "
    assert first.startswith(f"{start}expected {pinned}, found sha256:")
    assert second.startswith("s.yaml:6: corpora.train.fingerprint: ")


def test_all_that_is_missing_is_said_at_once(toy_suite, tmp_path):
    experiment = load_experiment(
        toy_suite,
        overrides=[
            "models.toy-1.5b.path=./gone",
            "corpora.train.path=gone.txt",
            "attacks.flip.words=gone.txt",
        ],
    )
    sentences = [str(problem) for problem in missing(experiment, tmp_path)]
    assert len(sentences) == 3
    folder, path = Path.cwd() / "gone", "--set models.toy-1.5b.path"
    assert sentences[0] == f"{path}: no weights in {folder}"
    assert sentences[2] == "--set attacks.flip.words: attacks.flip: no file gone.txt"
    with pytest.raises(MissingResource) as raised:
        resolve(experiment, tmp_path)
    assert all(sentence in str(raised.value) for sentence in sentences)
    assert "harness prefetch base.yaml" in str(raised.value)


def test_a_corpus_that_nothing_reads_need_not_be_there(toy_suite, tmp_path):
    overrides = ["corpora.spare={path: ./gone.txt}"]
    experiment = load_experiment(toy_suite, overrides=overrides)
    assert experiment.used_corpora == ["train", "held", "test"]
    assert resolve(experiment, tmp_path).resolved


def test_without_recovery_its_corpus_is_not_used(toy_suite):
    overrides = ["arms.baseline.recovery=false", "arms.monotone.recovery=false"]
    assert load_experiment(toy_suite, overrides=overrides).used_corpora == ["test"]


class PanicException(BaseException):
    """Called as what tokenizers raises where its Rust panics."""


@pytest.mark.parametrize(
    ("raised", "comes"),
    [(PanicException("t"), HarnessError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_panic_in_a_tokenizer_is_a_fault_of_it_and_ctrl_c_is_none(raised, comes):
    class Tokenizer:
        def encode_batch(self, texts, add_special_tokens):
            raise raised

    with pytest.raises(comes):
        encoded(Tokenizer(), ["a text"])
