"""Checkpoints that are damaged, lie or do harm: each is refused with a sentence."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.base import HarnessError
from harness.models import CheckpointAdapter
from harness.testing import tiny_model, tiny_tokenizer
from harness_plugins.models.causal_lm import CausalLM
from harness_plugins.models.pythia import Pythia

pytestmark = pytest.mark.transformers5

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = "pytorch_model.bin"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "checkpoint")


def load(folder, tmp_path, kind=Pythia):
    """Load a checkpoint as a run does: what is missing is said first."""
    adapter: CheckpointAdapter = kind(kind.Options(path=str(folder)))
    missing = adapter.missing()
    if missing:
        raise HarnessError("; ".join(missing))
    adapter.fingerprint(tmp_path / "store")
    return adapter.load(tmp_path / "store")


def states(**values):
    """Return what changes the configuration."""

    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **values}))

    return change


def holds(name, content):
    """Return what replaces a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def leads_outside(name):
    """Return what puts a link in the place of a file."""

    def change(folder):
        outside = folder.parent / f"outside-{name}"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return change


def indexed(index):
    """Return what puts an index in the place of the one file of weights."""

    def change(folder):
        (folder / WEIGHTS).unlink()
        (folder / INDEX).write_text(json.dumps(index))

    return change


def rewritten(change):
    """Return what changes the weights by name."""

    def write(folder):
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return write


def cut_short(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-1000])


def without_header(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:40])


def set_nan(weights):
    weights["gpt_neox.layers.0.mlp.dense_4h_to_h.weight"][3, 5] = float("nan")


def set_infinities(weights):
    weights["gpt_neox.layers.1.mlp.dense_h_to_4h.bias"][:2] = torch.tensor(
        [float("inf"), float("-inf")]
    )


def drop_one(weights):
    del weights["gpt_neox.final_layer_norm.bias"]


def more_ids(folder):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<{i}>" for i in range(320)])
    tokenizer.save_pretrained(folder)


class Harm:
    """What runs code as it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (os.environ["HARM"],)


def harmful(folder):
    (folder / WEIGHTS).unlink()
    torch.save({"weight": Harm()}, folder / PICKLED)


def plainly_harmful(folder):
    (folder / WEIGHTS).unlink()
    (folder / PICKLED).write_bytes(pickle.dumps(Harm()))


def with_a_list(folder):
    (folder / WEIGHTS).unlink()
    torch.save([torch.zeros(2)], folder / PICKLED)


DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000
REFUSED = {
    "pickled-code": (harmful, "is not opened, for it is damaged or holds more than"),
    "plain-pickle": (plainly_harmful, "is not opened, for it is damaged or holds more"),
    "pickled-list": (with_a_list, "holds something else than tensors by name"),
    "config-link": (leads_outside("config.json"), "is a link that leaves its folder"),
    "weights-link": (leads_outside(WEIGHTS), "is a link that leaves its folder, to"),
    "cut-short": (cut_short, "is cut short: it has "),
    "no-header": (without_header, "is no whole safetensors file: its header is not"),
    "no-safetensors": (holds(WEIGHTS, "not at all"), "is no whole safetensors file"),
    "index-above": (
        indexed({"weight_map": {"a": "../model.safetensors"}}),
        "'../model.safetensors' is no name of a file in the same folder",
    ),
    "index-lists": (
        indexed({"weight_map": {"a": ["x"]}}),
        "['x'] is no name of a file in the same folder",
    ),
    "index-list": (indexed(["a"]), "holds a list; expected a mapping"),
    "index-map-list": (indexed({"weight_map": []}), "`weight_map` is no mapping"),
    "config-list": (holds("config.json", "[1]"), "holds a list; expected a mapping"),
    "config-utf16": (
        holds("config.json", '{"a": 1}'.encode("utf-16")),
        "config.json is no UTF-8 text",
    ),
    "config-deep": (holds("config.json", DEEP), "config.json is nested too deeply"),
    "type-list": (
        states(model_type=["gpt_neox"]),
        "is of the family ['gpt_neox']; the",
    ),
    "huge": (
        states(hidden_size=10**6),
        # 2 layers of 4 d^2 + 2 d 64 + 9 d + 64, two embeddings of 320 d, a norm of 2 d.
        "describes a model of 8,000,916,000,128 parameters",
    ),
    "many-layers": (
        states(num_hidden_layers=10**6),
        "and the files of its weights hold",
    ),
    "size-text": (states(hidden_size="large"), "the model cannot be loaded ("),
    "other-size": (states(intermediate_size=96), "the model cannot be loaded ("),
    "nan": (
        rewritten(set_nan),
        "the weight gpt_neox.layers.0.mlp.dense_4h_to_h.weight is not finite",
    ),
    "infinite": (
        rewritten(set_infinities),
        "the weight gpt_neox.layers.1.mlp.dense_h_to_4h.bias is not finite",
    ),
    "lacks-one": (rewritten(drop_one), "lacks 1 weights of its model, as gpt_neox.fin"),
    "more-ids": (more_ids, "and the model has embeddings for 0 to 319; they do not"),
    "tokenizer-list": (
        holds("tokenizer.json", "[]"),
        "the tokenizer cannot be loaded (",
    ),
    "tokenizer-text": (
        holds("tokenizer.json", "so"),
        "the tokenizer cannot be loaded (",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_a_sentence(name, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    change, sentence = REFUSED[name]
    change(folder)
    with pytest.raises(HarnessError) as refused:
        load(folder, tmp_path)
    said = str(refused.value)
    assert sentence in said
    assert str(folder) in said
    assert "\n" not in said
    assert len(said) < 400
    assert not (tmp_path / "harm").exists()


def test_weights_whose_sum_is_beyond_float32_are_finite(folder, tmp_path):
    def enlarge(weights):
        weights["gpt_neox.final_layer_norm.bias"][:] = 3e38

    rewritten(enlarge)(folder)
    model, _ = load(folder, tmp_path)
    assert model.gpt_neox.final_layer_norm.bias.sum().isinf()


CODE = "import os, sys; os.mkdir(os.environ['HARM'])"


def with_code(folder):
    """Offer code for config, model and tokenizer."""
    (folder / "evil.py").write_text(CODE)
    states(auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})(folder)
    path = folder / "tokenizer_config.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["evil.T", "evil.T"]}
    path.write_text(json.dumps(tokenizer))


def with_a_pickle_beside(folder):
    (folder / PICKLED).write_bytes(pickle.dumps(Harm()))


@pytest.mark.parametrize("change", [with_code, with_a_pickle_beside])
def test_what_could_do_harm_lies_unused(change, good, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    change(folder)
    model, _ = load(folder, tmp_path)
    plain, _ = load(good, tmp_path)
    assert all(map(torch.equal, model.parameters(), plain.parameters()))
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("sharded", [False, True])
def test_pickled_weights_are_converted_once(sharded, tmp_path, monkeypatch):
    folder, model = tmp_path / "opt", tiny_model("opt")
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    (folder / WEIGHTS).unlink()
    state = model.state_dict()  # embedding and head are one tensor in it
    if sharded:
        parts = [{k: state[k] for k in list(state)[i::2]} for i in (0, 1)]
        names = [f"pytorch_model-{i}-of-2.bin" for i in (1, 2)]
        for part, name in zip(parts, names, strict=True):
            torch.save(part, folder / name)
        placed = {k: n for p, n in zip(parts, names, strict=True) for k in p}
        index = json.dumps({"weight_map": placed})
        (folder / "pytorch_model.bin.index.json").write_text(index)
    else:
        torch.save(state, folder / PICKLED)
    first, _ = load(folder, tmp_path, CausalLM)
    monkeypatch.delattr(torch, "load")  # the second time there is nothing to unpickle
    again, _ = load(folder, tmp_path, CausalLM)
    ids = torch.arange(3, 43)[None]
    expected = model.eval()(ids).logits
    for loaded in (first, again):
        assert torch.equal(loaded(ids).logits, expected)


def test_a_pickled_checkpoint_has_a_fingerprint_of_its_own(good, folder, tmp_path):
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    found = set()
    for value in (0.0, 1.0):
        weights["gpt_neox.final_layer_norm.bias"][0] = value
        torch.save(weights, folder / PICKLED)
        adapter = Pythia(Pythia.Options(path=str(folder)))
        found.add(adapter.fingerprint(tmp_path / f"store-{value}"))
    assert len(found) == 2


def test_shifted_ids_are_noticed(folder, tmp_path):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    kept = {t: i + 1 for t, i in vocabulary.items() if i < 300}
    content["model"]["vocab"] = kept
    content["model"]["merges"] = []
    for token in content["added_tokens"]:
        token["id"] += 1
    path.write_text(json.dumps(content))
    with pytest.warns(
        UserWarning, match="the first id of the tokenizer is 1 and not 0"
    ):
        load(folder, tmp_path)


def test_nothing_is_allocated_for_what_a_configuration_claims(folder):
    """A process that may have 2 GiB more refuses it as quickly as any other."""
    states(hidden_size=10**6)(folder)
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "from harness_plugins.models.pythia import Pythia\n"
        "print(Pythia(Pythia.Options(path=sys.argv[1])).missing())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "describes a model of 8,000,916,000,128" in done.stdout
