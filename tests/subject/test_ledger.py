import time

import numpy as np
import pytest
import torch

from harness.subject import reference_key
from harness.subject.ledger import Meter, Meters, peak_memory_bytes
from tests.subject.plain import on_gpu

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


def test_what_a_batch_costs_is_told_apart_by_reference(subject):
    prompt, short, other = np.arange(6), np.array([7, 8]), np.array([8, 7])
    with subject.metered() as meter:
        subject.losses([prompt] * 4, [short, other, other, other.tolist()])
        subject.gradients([prompt], [short])
    forward, backward = subject.pass_flops(6, 2)
    assert meter.by_reference == {
        reference_key(short): pytest.approx(2 * forward + backward),
        reference_key(other): pytest.approx(3 * forward),
    }
    assert sum(meter.by_reference.values()) == pytest.approx(meter.flops_whole)


def test_a_span_ends_though_its_block_fails():
    meters = Meters(CPU)
    with pytest.raises(ZeroDivisionError), meters.span() as span:
        _ = 1 / 0
    meters.forward(1, 1, 1.0)

    assert span.sequences_forward == 0


def test_time_stands_still_after_the_stop():
    before = time.perf_counter()
    meter = Meter(CPU)
    started = time.perf_counter()
    time.sleep(0.01)
    ended = time.perf_counter()
    meter.stop()
    seconds = meter.seconds
    time.sleep(0.01)

    assert ended - started <= seconds <= time.perf_counter() - before
    assert meter.seconds == seconds


def test_peak_memory_is_in_bytes():
    block = torch.ones(2**24)

    assert 4 * len(block) < peak_memory_bytes(CPU) < 2**40
    assert Meters(CPU).total.cost().peak_memory_bytes >= 4 * len(block)


@pytest.mark.accelerator
@on_gpu
def test_an_inner_span_does_not_hide_the_peak_of_the_outer_one():
    device = torch.device("cuda")
    meters = Meters(device)
    with meters.span() as outer:
        torch.empty(2**26, dtype=torch.uint8, device=device)
        with meters.span() as inner:
            torch.empty(2**20, dtype=torch.uint8, device=device)

    hidden = outer.cost().peak_memory_bytes - inner.cost().peak_memory_bytes
    assert hidden > 2**25
