import time

import pytest
import torch

from harness.subject.ledger import Meter, Meters, peak_memory_bytes

pytestmark = pytest.mark.transformers5

CPU = torch.device("cpu")


def test_spans_see_what_is_spent_inside_them_and_the_total_sees_all():
    meters = Meters(CPU)
    meters.forward(1, 10, 100.0)
    with meters.span() as outer:
        meters.forward(2, 20, 200.0)
        with meters.span() as inner:
            meters.backward(3, 30, 300.0)
    meters.forward(4, 40, 400.0)

    assert inner.cost().model_dump(exclude={"seconds", "peak_memory_bytes"}) == {
        "sequences_forward": 0,
        "sequences_backward": 3,
        "tokens_forward": 0,
        "tokens_backward": 30,
        "flops": 300.0,
        "flops_whole": 300.0,
    }
    assert (outer.sequences_forward, outer.sequences_backward) == (2, 3)
    assert (outer.tokens_forward, outer.tokens_backward) == (20, 30)
    assert meters.total.flops == 1000.0


def test_a_span_ends_though_its_block_fails():
    meters = Meters(CPU)
    with pytest.raises(ZeroDivisionError), meters.span() as span:
        _ = 1 / 0
    meters.forward(1, 1, 1.0)

    assert span.sequences_forward == 0


def test_time_stands_still_after_the_stop():
    meter = Meter(CPU)
    time.sleep(0.01)
    meter.stop()
    seconds = meter.seconds
    time.sleep(0.01)

    assert 0.01 <= seconds < 5
    assert meter.seconds == seconds


def test_peak_memory_is_in_bytes():
    block = torch.ones(2**24)

    assert 4 * len(block) < peak_memory_bytes(CPU) < 2**40
    assert Meters(CPU).total.cost().peak_memory_bytes >= 4 * len(block)


@pytest.mark.accelerator
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_an_inner_span_does_not_hide_the_peak_of_the_outer_one():
    device = torch.device("cuda")
    meters = Meters(device)
    with meters.span() as outer:
        torch.empty(2**26, dtype=torch.uint8, device=device)
        with meters.span() as inner:
            torch.empty(2**20, dtype=torch.uint8, device=device)

    hidden = outer.cost().peak_memory_bytes - inner.cost().peak_memory_bytes
    assert hidden > 2**25
