"""How products round while a subject is measured."""

import json

import pytest
import torch

from harness.cli import main
from harness.subject import Subject
from harness.testing import tiny_model, tiny_tokenizer
from tests.tiny_inputs import write_inputs

SUITE = """
name: measuring
models:
  tiny: {adapter: pythia, path: model, dtype: DTYPE}
arms:
  baseline: {}
corpora:
  test: {path: text.jsonl}
metrics:
  products: {}
seeds: [7]
"""
PLUGIN = '''
"""A metric that says how products round."""

import torch

from harness import hookimpl
from harness.api import Metric


class Products(Metric):
    """Say whether float32 products may be TF32's."""

    name = "products"

    def measure(self, subject, context):
        yield {"tf32": torch.backends.cuda.matmul.allow_tf32}

    def summarise(self, rows):
        return {}


@hookimpl
def register_metrics():
    return [Products]
'''


@pytest.mark.parametrize(
    ("dtype", "named"), [("float32", "float32"), ("bfloat16", "tf32")]
)
def test_a_gpu_s_products_are_named(dtype, named, monkeypatch):
    subject = Subject(tiny_model(), tiny_tokenizer(), dtype=dtype)
    assert subject.metric_products == "float32"
    monkeypatch.setattr(subject._passes, "device", torch.device("cuda"))
    assert subject.metric_products == named


@pytest.mark.parametrize(("dtype", "faster"), [("float32", False), ("bfloat16", True)])
def test_metrics_may_round_as_a_search_below_float32_does(tmp_path, dtype, faster):
    write_inputs(tmp_path, 6)
    (tmp_path / "suite.yaml").write_text(SUITE.replace("DTYPE", dtype))
    (tmp_path / "products.py").write_text(PLUGIN)
    before = torch.backends.cuda.matmul.allow_tf32

    command = ["run", str(tmp_path / "suite.yaml"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--plugins", str(tmp_path / "products.py")])

    assert ended.value.code == 0
    (folder,) = tmp_path.glob("out/variants/*")
    assert json.loads((folder / "samples.jsonl").read_text())["tf32"] is faster
    record = json.loads((folder / "record.json").read_text())
    assert record["provenance"]["settings"]["metric_products"] == "float32"  # a CPU
    assert torch.backends.cuda.matmul.allow_tf32 == before
