"""How long the rest of a run takes: the plan's share of what is done already."""

import json

import pytest

from harness.base import default_store_root
from harness.running import remaining, survey
from harness.suite import PricedPlan, find_device, plan_costs


def test_what_is_left_takes_as_much_longer_as_what_is_done_took(make_run):
    run = make_run(seeds=[1], absent=("monotone.s1.hotflip", "monotone.s1.random"))
    plan = survey(run).plan
    costs = plan_costs(plan, default_store_root(run))
    priced = PricedPlan(plan, costs, find_device("cpu"))
    for path in run.glob("*/*/record.json"):  # three times as slow as planned
        document = json.loads(path.read_text())
        whole = priced.whole_units[document["id"]]
        spent = {x: {"seconds": 3 * cost.seconds} for x, cost in whole.items()}
        document["ledger"] = {"kept": spent, "spent": spent}
        document["provenance"]["wall_seconds"] = 100
        path.write_text(json.dumps(document))

    found = remaining(survey(run))

    absent = [x.id for x in survey(run).units if x.state.status == "missing"]
    planned = sum(c.seconds for x in absent for c in priced.units[x].values())
    assert (found.units, found.spent_s) == (2, 400)
    assert found.scale == pytest.approx(3)
    besides = 2 * priced.device.per_unit_s
    assert found.left_s == pytest.approx(3 * planned + besides)
