from harness_plugins.attacks.query import Query
from tests.plugins.letters import letter_sets, letter_subject, make, run


def test_where_there_is_little_to_try_it_stops():
    found = run(make(Query, flips=3, queries=1000), letter_subject(), letter_sets(1))

    for one in found.values():
        assert len(one.trace) == 1
        assert 20 < one.trace[0]["verified"] <= 48


def test_its_trace_counts_its_passes():
    sets = letter_sets(9, protected=2)
    attack = make(Query, flips=4, queries=81)

    found = run(attack, letter_subject("opt"), sets)

    for one in found.values():
        assert len(one.trace) == 4
        assert one.trace[-1]["passes"] == 81
