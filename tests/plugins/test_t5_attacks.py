"""The attacks on an encoder-decoder subject, unchanged, against brute force."""

import numpy as np
import pytest

from harness.base import CellError
from harness.data import Example
from harness.testing import tiny_subject
from harness_plugins.attacks.hotflip import HotFlip
from harness_plugins.metrics.lm_eval import LmEval
from tests.plugins.letters import best_flips, make, run

pytestmark = pytest.mark.transformers5


@pytest.mark.parametrize("seed", range(2))
def test_with_every_candidate_one_flip_is_exhaustive_search(seed):
    subject = tiny_subject("t5")
    allowed = subject.vocabulary.allowed
    ids = np.random.default_rng(seed).choice(np.arange(60, 260), 6)
    prompt, reference = np.append(ids[:3], 0), np.append(ids[3:], 0)
    example = Example("e", "d", prompt, reference, protected_end=1)
    expected, loss = best_flips(subject, example, 1, allowed)
    every = {"candidates": 3 * len(allowed), "candidates_from": "gradient"}

    (found,) = run(make(HotFlip, flips=1, **every), subject, [example]).values()

    assert found.prompt_ids.tolist() == expected
    assert found.trace[0]["loss"] == pytest.approx(loss, abs=1e-5)


def test_lm_eval_says_what_to_measure_instead():
    metric = make(LmEval, tasks=["lambada_openai"])
    with pytest.raises(CellError, match="with `perplexity` or `rouge`"):
        list(metric.measure(tiny_subject("t5"), None))
