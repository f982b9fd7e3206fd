"""Attacks that search by token run on encoder-decoder models as they are."""

import numpy as np
import pytest

from harness.api.attacks import AttackContext
from harness.data.document import Example, ExampleSets
from harness.testing import tiny_subject
from harness_plugins.attacks.gcg import GCG, GCGOptions
from harness_plugins.attacks.query import Query, QueryOptions

pytestmark = pytest.mark.transformers5


@pytest.mark.parametrize(
    ("attack", "place"),
    [
        (GCG(GCGOptions(steps=3, candidates=12)), slice(0, 7)),
        (GCG(GCGOptions(positions="prefix", tokens=2, steps=3)), slice(0, 2)),
        (GCG(GCGOptions(positions="suffix", tokens=2, steps=3)), slice(7, 9)),
        (Query(QueryOptions(flips=2, queries=41)), slice(0, 7)),
    ],
)
def test_the_prompt_is_written_and_what_closes_it_stays(attack, place):
    subject = tiny_subject("t5")
    rng = np.random.default_rng(0)
    ids = rng.choice(subject.vocabulary.allowed, 12)
    example = Example("e", "d", np.r_[ids[:7], 1], ids[7:], protected_end=1)
    examples = ExampleSets([example], [example], [example])

    (found,) = attack.run(subject, examples, AttackContext("cell"))

    clean, raised = subject.exact_losses(
        [example.prompt_ids, found.prompt_ids], example.reference_ids
    )
    assert found.prompt_ids[-1] == 1
    assert found.trace
    written = found.prompt_ids.tolist()
    outside = written[: place.start] + written[place.stop :]
    kept = example.prompt_ids.tolist()
    cut = place if len(written) == len(kept) else slice(0, 0)
    assert outside == kept[: cut.start] + kept[cut.stop :]
    best = max(step["loss"] for step in found.trace)
    assert raised == pytest.approx(max(best, clean) if cut.stop else best, abs=1e-4)
