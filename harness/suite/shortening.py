"""What would make a plan fit into a time: fewer tokens, examples, seeds or arms."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.records import Cost
from harness.suite.costs import plan_costs
from harness.suite.plan import Plan
from harness.suite.pricing import PricedPlan

FEWEST_EXAMPLES = 8
"""Test examples that are proposed at the least."""


def would_fit(
    priced: PricedPlan, ids: Collection[str], hours: float, store_root: Path
) -> Iterator[str]:
    """Yield what would make the units `ids` fit into some hours, if they do not.

    Each is one change by itself; or, where none is enough, the most seeds with which
    fewer test examples are. `store_root` is the store in which the plan's costs were
    looked up.
    """
    allowed = 3600 * hours
    if not ids or priced.run_seconds(ids) <= allowed:
        return
    wish = _Wish(priced, store_root, allowed)
    found = [*wish.tokens(ids), *wish.examples(ids), *wish.seeds(ids), *wish.arms(ids)]
    yield from found or wish.seeds_and_examples(ids)


@dataclass(frozen=True)
class _Wish:
    """Looks for changes with which units of a plan take no more than some seconds."""

    priced: PricedPlan
    store_root: Path
    allowed: float
    """Seconds."""
    _counted: dict[int, PricedPlan] = field(default_factory=dict)
    """The plan with other numbers of test examples."""

    def tokens(self, ids: Collection[str]) -> Iterator[str]:
        section = self.priced.plan.experiment.suite.recovery
        train = self.priced.by_phase(ids).get("train", Cost()).seconds
        left = self.allowed - self.priced.run_seconds(ids) + train
        if section is not None and left > 0:
            most = left / train * section.tokens
            yield f"`recovery.tokens: {int(float(f'{most:.2e}'))}`"

    def examples(self, ids: Collection[str]) -> Iterator[str]:
        """Yield the most test examples with which it fits, by false position.

        Seconds are a concave function of examples, since what searches for all of them
        at once is shared: a chord lies below it, and passes over no number that fits.
        """
        suite = self.priced.plan.experiment.suite
        if suite.examples is None:
            return
        few, most = FEWEST_EXAMPLES, suite.examples.test.count
        most = min(most, suite.limit or most)
        least = self._with_examples(few).run_seconds(ids)
        if most <= few or least > self.allowed:
            return
        while (taken := self._with_examples(most).run_seconds(ids)) > self.allowed:
            share = (self.allowed - least) / (taken - least)
            most = few + int(share * (most - few))
        yield f"`examples.test.count: {most}`"

    def seeds(self, ids: Collection[str]) -> Iterator[str]:
        yield from self._most("seed", [*self.priced.plan.experiment.suite.seeds], ids)

    def arms(self, ids: Collection[str]) -> Iterator[str]:
        yield from self._most("arm", [*self.priced.plan.experiment.suite.arms], ids)

    def seeds_and_examples(self, ids: Collection[str]) -> Iterator[str]:
        seeds = self.priced.plan.experiment.suite.seeds
        for count, own in self._first("seed", [*seeds], ids):
            found = [*self.examples(own)]
            if found:
                yield f"{count} of {len(seeds)} seeds with {found[0]}"
                return

    def _most(
        self, what: str, values: list[object], ids: Collection[str]
    ) -> Iterator[str]:
        for count, own in self._first(what, values, ids):
            if self.priced.run_seconds(own) <= self.allowed:
                yield f"{count} of {len(values)} {what}s"
                return

    def _first(
        self, what: str, values: list[object], ids: Collection[str]
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield the units of all values but the last, of all but two, and so on."""
        units = [x for x in self.priced.plan.units if x.id in ids]
        for count in range(len(values) - 1, 0, -1):
            first = values[:count]
            yield count, [x.id for x in units if getattr(x.variant, what) in first]

    def _with_examples(self, count: int) -> PricedPlan:
        if count not in self._counted:
            plan = _with_examples(self.priced.plan, count)
            costs = plan_costs(plan, self.store_root)
            self._counted[count] = replace(self.priced, plan=plan, costs=costs)
        return self._counted[count]


def _with_examples(plan: Plan, count: int) -> Plan:
    """Return the same units, ids and all, with so many test examples to attack."""
    suite = plan.experiment.suite
    assert suite.examples is not None  # the caller has asked
    test = suite.examples.test.model_copy(update={"count": count})
    examples = suite.examples.model_copy(update={"test": test})
    changed = suite.model_copy(update={"examples": examples})
    return replace(plan, experiment=replace(plan.experiment, suite=changed))
