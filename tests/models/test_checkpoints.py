import json
import shutil
import time

import huggingface_hub
import huggingface_hub.constants
import pydantic
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from harness.base import CellError, MissingResource, UsageError
from harness.models import load_model
from harness.testing import tiny_model, tiny_tokenizer
from harness_plugins.models.causal_lm import CausalLM
from harness_plugins.models.pythia import Pythia

pytestmark = pytest.mark.transformers5

IDS = torch.arange(3, 43)[None]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def checkpoint(tmp_path):
    """Return a function that writes a checkpoint of a family and returns its folder."""

    def write(family="gpt_neox", name="checkpoint", **sizes):
        folder = tmp_path / name
        tiny_model(family).save_pretrained(folder, **sizes)
        tiny_tokenizer().save_pretrained(folder)
        return folder

    return write


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


def adapter(path, kind=Pythia, **options):
    return kind(kind.Options(path=str(path), **options))


def put_in_cache(cache, folder, revision):
    repository = cache / "models--somebody--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / revision).write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    return snapshot


def test_a_local_checkpoint_loads_as_plain_transformers_does(
    family, checkpoint, tmp_path
):
    folder = checkpoint(family)
    kind = Pythia if family == "gpt_neox" else CausalLM
    subject = adapter(folder, kind)
    assert subject.missing() == []
    model, tokenizer = subject.load(tmp_path / "store")
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert torch.equal(model(IDS).logits, plain(IDS).logits)
    assert not model.training
    assert tokenizer.is_fast
    assert len(subject.anatomy(model).ffns) == 2


def test_half_precision_files_load_as_float32(checkpoint, tmp_path):
    folder = checkpoint()
    tiny_model().half().save_pretrained(folder)
    model, _ = adapter(folder).load(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    expected = tiny_model().half().float()
    assert torch.equal(model(IDS).logits, expected(IDS).logits)


def test_dropout_is_off_in_training_too(checkpoint, tmp_path):
    model, _ = adapter(checkpoint("gpt2"), CausalLM).load(tmp_path)
    model.train()
    assert torch.equal(model(IDS).logits, model(IDS).logits)


def test_the_fingerprint_follows_contents_and_not_the_place(checkpoint, tmp_path):
    one, other = checkpoint(name="one"), checkpoint(name="other")
    store = tmp_path / "store"
    first = adapter(one).fingerprint(store)
    assert first.startswith("sha256:")
    assert adapter(other).fingerprint(store) == first
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    assert adapter(other).fingerprint(store) != first


def test_the_fingerprint_covers_weights_and_tokenizer(checkpoint, tmp_path):
    before = adapter(checkpoint(name="a")).fingerprint(tmp_path)
    for file in ("model.safetensors", "tokenizer.json"):
        folder = checkpoint(name=file)
        (folder / file).write_bytes((folder / file).read_bytes() + b" ")
        assert adapter(folder).fingerprint(tmp_path) != before


def test_sharded_weights_load_and_a_lost_shard_is_named(checkpoint, tmp_path):
    folder = checkpoint(max_shard_size="40KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    model, _ = adapter(folder).load(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert torch.equal(model(IDS).logits, plain(IDS).logits)
    shards[1].unlink()
    assert shards[1].name in adapter(folder).missing()[0]


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_lost_file_is_named(file, checkpoint, tmp_path):
    folder = checkpoint()
    (folder / file).unlink()
    (sentence,) = adapter(folder).missing()
    assert file in sentence
    assert str(folder) in sentence
    for method in (adapter(folder).load, adapter(folder).fingerprint):
        with pytest.raises(MissingResource, match=file):
            method(tmp_path)


def test_weights_that_the_file_lacks_are_not_invented(checkpoint):
    folder = checkpoint()
    weights = load_file(folder / "model.safetensors")
    lost = "gpt_neox.layers.1.mlp.dense_4h_to_h.weight"
    del weights[lost]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CellError, match=lost):
        load_model(folder)


def test_code_of_a_checkpoint_is_never_run(checkpoint, tmp_path):
    folder = checkpoint()
    trace = tmp_path / "was-run"
    (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w').close()")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "evil.Config",
        "AutoModelForCausalLM": "evil.Model",
    }
    (folder / "config.json").write_text(json.dumps(config))
    adapter(folder).load(tmp_path)
    assert not trace.exists()


def test_running_code_of_a_checkpoint_is_no_option():
    with pytest.raises(pydantic.ValidationError, match="trust_remote_code"):
        Pythia.Options(path="x", trust_remote_code=True)


@pytest.mark.parametrize(
    ("kind", "given", "known"),
    [
        (Pythia, "gpt2", "gpt_neox"),
        (CausalLM, "gpt_neox", "gpt2, gpt_neo, llama, opt, qwen2"),
    ],
)
def test_another_family_is_refused_with_those_it_knows(
    kind, given, known, checkpoint, tmp_path
):
    subject = adapter(checkpoint(given), kind)
    for method in (subject.fingerprint, subject.load):
        with pytest.raises(UsageError, match=f"'{given}'.*knows {known}$"):
            method(tmp_path)


@pytest.mark.parametrize("path", ["/no/such/folder", "--", "a/b/c", ".hidden"])
def test_a_folder_that_is_not_there_is_named(path):
    assert adapter(path).missing() == [f"there is no folder {path}"]


def test_a_hub_id_that_is_not_cached_is_missing_within_a_second(hub_cache):
    subject = adapter("EleutherAI/pythia-1.4b", revision="step143000")
    begun = time.perf_counter()
    (sentence,) = subject.missing()
    assert time.perf_counter() - begun < 1
    assert "EleutherAI/pythia-1.4b@step143000" in sentence
    assert "config.json" in sentence
    assert "harness prefetch" in sentence


def test_a_cached_hub_id_loads_and_its_fingerprint_is_the_commit(
    hub_cache, checkpoint, tmp_path
):
    put_in_cache(hub_cache, checkpoint(), "step3")
    subject = adapter("somebody/tiny", revision="step3")
    assert subject.missing() == []
    assert subject.fingerprint(tmp_path) == f"hub:somebody/tiny@{COMMIT}"
    model, _ = subject.load(tmp_path)
    assert model.config.num_hidden_layers == 2


def test_a_half_fetched_hub_id_says_how_to_get_the_rest(hub_cache, checkpoint):
    snapshot = put_in_cache(hub_cache, checkpoint(), "main")
    (snapshot / "model.safetensors").unlink()
    (sentence,) = adapter("somebody/tiny").missing()
    assert "model.safetensors" in sentence
    assert "harness prefetch" in sentence


def test_fetching_without_a_network_is_one_sentence(hub_cache):
    with pytest.raises(MissingResource, match=r"cannot fetch somebody/tiny@x: .+") as e:
        adapter("somebody/tiny", revision="x").fetch()
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("pickled", [True, False])
def test_pickled_weights_are_fetched_where_there_are_no_others(
    pickled, hub_cache, checkpoint, monkeypatch
):
    snapshot, asked = put_in_cache(hub_cache, checkpoint(), "main"), []
    if pickled:
        weights = load_file(snapshot / "model.safetensors")
        (snapshot / "model.safetensors").unlink()

    def download(hub_id, revision, allow_patterns):
        asked.append(allow_patterns)
        if allow_patterns == ["pytorch_model*.bin"]:
            torch.save(weights, snapshot / "pytorch_model.bin")
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    adapter("somebody/tiny").fetch()
    assert len(asked) == 1 + pickled
    assert "pytorch_model*.bin" not in asked[0]
    assert adapter("somebody/tiny").missing() == []


def test_fetching_a_local_folder_does_nothing(checkpoint):
    adapter(checkpoint()).fetch()


def test_a_local_folder_has_no_revision(checkpoint):
    with pytest.raises(UsageError, match="has no revision"):
        adapter(checkpoint(), revision="main").missing()
