"""Budgets in terms of forward passes: what a control without gradients may spend."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.api.attacks import Budget
    from harness.data.document import Example, ExampleSets
    from harness.subject.subject import Subject


def passes(
    subject: Subject, budget: Budget, example: Example, draft: Subject | None = None
) -> float:
    """Return how many forward passes cost as many FLOPs as a budget for an example.

    `draft` is the model that the budget's draft passes go through, if there are any.
    """
    block, inserted = budget.block, budget.trigger or budget.block
    prompt = len(example.prompt_ids) + (inserted.tokens if inserted else 0)
    reference = len(example.reference_ids)
    if block is not None and block.target is not None:
        reference = len(subject.encode(block.target))
    forward, backward = subject.pass_flops(prompt, reference)
    count = budget.forward + budget.backward * backward / forward
    if block is not None and draft is not None:
        drafted, _ = draft.pass_flops(prompt, reference)
        count += block.draft_forward * drafted / forward
    return count


def shares(total: int, parts: int) -> list[int]:
    """Split a number into so many that differ by 1 at most."""
    ends = [total * i // parts for i in range(parts + 1)]
    return [after - before for before, after in pairwise(ends)]


def trigger_passes(subject: Subject, budget: Budget, examples: ExampleSets) -> float:
    """Return how many forward passes the whole search for a trigger may cost.

    A budget is stated for as many prompts as the attack uses at most; where the suite
    gives fewer, the attack spends less, and so may its control.
    """
    trigger = budget.trigger
    assert trigger is not None
    sweeps = trigger.starts * trigger.sweeps
    whole = budget.examples * passes(subject, budget, examples.test[0])
    searching = whole - sweeps * trigger.validation_prompts
    given = min(1.0, len(examples.search) / trigger.search_prompts)
    chosen_on = min(trigger.validation_prompts, len(examples.validation))
    return searching * given + sweeps * chosen_on
