"""What passes write: found from tokens and FLOPs, held against what was put in."""

import pytest

from harness.models import divisor, shape_of
from harness.records import Cost
from harness.suite.values import depth, trained_values, values_of

NEOX = shape_of(
    {
        "model_type": "gpt_neox",
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "vocab_size": 50304,
        "max_position_embeddings": 2048,
    }
)
T5 = shape_of(
    {
        "model_type": "t5",
        "d_model": 128,
        "d_kv": 32,
        "d_ff": 512,
        "num_layers": 4,
        "num_decoder_layers": 3,
        "num_heads": 4,
        "vocab_size": 32128,
        "feed_forward_proj": "relu",
    }
)


def test_values_of_texts_are_tokens_by_layers_by_width_and_a_sixth_of_the_logits():
    forward = NEOX.forward(10, 48, 24)
    wanted = 10 * (71 * 6 * 128 + 24 * 50304 / 6)
    assert values_of(NEOX, forward) == pytest.approx(wanted)
    assert values_of(NEOX, NEOX.gradient(10, 48, 24)) == pytest.approx(wanted)
    both = forward + NEOX.gradient(10, 48, 24)
    assert values_of(NEOX, both) == pytest.approx(2 * wanted)
    assert depth(NEOX) == 6


def test_values_of_pairs_count_a_layer_that_looks_at_the_prompt_half_more():
    """But for attention, which is taken for matrices: 7 % of the FLOPs here."""
    wanted = 10 * ((64 * 4 + 32 * 1.5 * 3) * 128 + 32 * 32128 / 6)
    assert values_of(T5, T5.forward(10, 64, 32)) == pytest.approx(wanted, rel=0.1)
    assert values_of(T5, T5.gradient(10, 64, 32)) == pytest.approx(wanted, rel=0.1)
    assert depth(T5) == 4 + 4.5


@pytest.mark.parametrize(("shape", "pair"), [(NEOX, (1, 256)), (T5, (64, 32))])
def test_training_writes_three_times_what_a_forward_pass_does(shape, pair):
    forward = values_of(shape, shape.forward(8, *pair))
    assert trained_values(shape, shape.training(8, *pair)) == pytest.approx(3 * forward)


def test_what_reads_no_tokens_writes_no_values():
    assert values_of(NEOX, Cost(flops=1e9)) == 0
    assert trained_values(NEOX, Cost()) == 0


@pytest.mark.parametrize("blocks", range(1, 25))
def test_a_divisor_is_the_largest_that_leaves_no_rest(blocks):
    for most in range(1, 30):
        found = divisor(blocks, most)
        rest = [n for n in range(found + 1, blocks + 1) if n <= most]
        assert blocks % found == 0
        assert found <= max(1, most)
        assert all(blocks % n for n in rest)
