"""How products round while a subject is measured."""

import json

import pytest
import torch

from harness.cli import main
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
    (samples,) = tmp_path.glob("out/variants/*/samples.jsonl")
    assert json.loads(samples.read_text())["tf32"] is faster
    assert torch.backends.cuda.matmul.allow_tf32 == before
