"""What other cells found, scored again; sources that failed are no harmlessness."""

import numpy as np
import pytest

from harness.api import AttackContext, CellKey
from harness.data.document import Example
from harness.search.replay import replay
from harness.testing import tiny_subject
from tests.run_fixtures import sample_row

KEYS = [CellKey("other", "a", 1), CellKey("other", "b", 1), CellKey("other", "c", 1)]


class Peers:
    """Two examples: two sources failed on the first, all of them on the second."""

    def __init__(self, examples):
        self._examples = examples

    def rows(self, arm, attack, seed):
        found = []
        for i, example in enumerate(self._examples):
            error = attack != "b" or i == 1
            row = sample_row(i, 2.0, 0.1, error=error)
            ids = None if error else [*example.prompt_ids[:-1].tolist(), 99]
            changes = {"example_id": example.id, "adversarial_prompt_ids": ids}
            found.append(row.model_copy(update=changes))
        return found


def test_sources_in_error_have_no_loss_and_what_has_no_other_no_result():
    subject = tiny_subject()
    ids = np.arange(40, 52)
    examples = [Example(f"c/{i}", f"c/{i}", ids[i : i + 6], ids[8:]) for i in (0, 1)]
    context = AttackContext("key", peers=Peers(examples))
    [found] = replay(subject, examples, context, KEYS)
    assert found.example_id == "c/0"
    assert found.prompt_ids.tolist() == [*range(40, 45), 99]
    losses = subject.exact_losses([ids[:6], found.prompt_ids], ids[8:])
    assert [step["attack"] for step in found.trace] == ["a", "b", "c"]
    assert [step["loss"] for step in found.trace] == [None, losses[1], None]
    deltas = [step["delta_loss"] for step in found.trace]
    assert deltas == [None, pytest.approx(losses[1] - losses[0]), None]
