"""What the rows of a cell cannot be: traces followed by hand, triggers, budgets."""

from pathlib import Path

import pytest

from harness.api import Budget
from harness.running.validation.limits import Limits, _Bounds, followed
from harness.running.validation.spending import _flops, _scored
from harness.testing import tiny_model
from tests.run_fixtures import read_all, sample_row

CLEAN = [5, 6, 7, 8]


class Universal:
    """An attack with one trigger for all examples."""

    universal = True


class Alone:
    """An attack on each example by itself."""

    universal = False


def bounds(attack, **budget):
    return _Bounds(attack, Budget(1, 0, **budget), control=False, tolerance=1e-3)


def row(prompt, trace=(), loss=3.0, clean=CLEAN):
    return sample_row(0, 2.0, loss - 2.0).model_copy(
        update={
            "clean_prompt_ids": clean,
            "adversarial_prompt_ids": prompt,
            "trace": [*trace],
        }
    )


def told(bound, *rows):
    triggers = set()
    return [x for each in rows for x in bound.complaints(each, triggers)]


def flip(position, token, **more):
    return {"position": position, "token": token, "loss": 3.0, **more}


def test_a_trace_is_followed_from_where_its_steps_say():
    steps = [
        {"positions": [0, 2], "tokens": [1, 2]},
        flip(3, 4),
        flip(0, 9, **{"from": 0}),
    ]
    assert followed(CLEAN, steps) == [
        CLEAN,
        [1, 6, 2, 8],
        [1, 6, 2, 4],
        [9, 6, 7, 8],
    ]
    assert followed(CLEAN, [flip(4, 1)]) is None
    assert followed(CLEAN, [flip(0, 1, **{"from": 1})]) is None


@pytest.mark.parametrize(
    ("prompt", "trace", "expected"),
    [
        ([1, 6, 7, 8], [flip(0, 1)], None),
        ([1, 6, 7, 8], [], None),
        ([1, 6, 7, 8], [{"step": 1, "note": "mine"}], None),
        ([1, 6, 7, 8], [flip(0, 2)], "does not lead to"),
        ([1, 6, 7, 8], [flip(9, 1)], "position that the prompt does not have"),
        ([1, 6, 7, 8], [flip(0, 1, loss=2.5)], "but its trace ends at 2.5"),
        ([1, 2, 7, 8], [flip(0, 1), flip(1, 2)], "2 tokens differ, and"),
        ([9, 6, 7, 8], [flip(1, 1), flip(0, 9, **{"from": 0}), flip(2, 3)], None),
    ],
)
def test_an_attack_of_one_flip(prompt, trace, expected):
    found = told(bounds(Alone, flips=1), row(prompt, trace))
    assert (found == []) if expected is None else any(expected in x for x in found)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row([1, 2, *CLEAN])], None),
        ([row(CLEAN)], None),
        ([row([1, 2, *CLEAN]), row([1, 2, 9], clean=[9])], None),
        ([row([1, 2, *CLEAN]), row([1, 3, 9], clean=[9])], "its trigger is another"),
        ([row([5, 1, 2, 6, 7, 8])], None),  # after a token that opens every text
        ([row([1, 2, 5, 6, 7, 9])], "is not the clean one with 2 tokens before it"),
        ([row([1, *CLEAN])], "is not the clean one with 2 tokens before it"),
        ([row([1, 2, *CLEAN], [flip(0, 1), flip(1, 2)])], None),
        ([row([1, 2, *CLEAN], [flip(1, 3)])], "are not those of its trigger"),
    ],
)
def test_one_trigger_stands_before_all_prompts(rows, expected):
    found = told(bounds(Universal, prepended=2), *rows)
    assert (found == []) if expected is None else any(expected in x for x in found)


@pytest.mark.parametrize(("token", "problems"), [(319, 0), (320, 1), (-1, 1)])
def test_ids_are_those_of_the_model(make_run, token, problems):
    from harness.running import RunFolder

    run = make_run(seeds=[1])
    cell = next(x for x in read_all(run) if x.kind == "cell")
    folder = RunFolder(run)
    model = folder.unit_dir("variant", cell.variant) / "model"
    tiny_model().config.save_pretrained(model)
    rows = [row([token, 6, 7, 8])]
    found = list(Limits(folder, None).compare(Path("x"), cell, rows))
    assert len(found) == problems


def _cell(make_run, **costs):
    cell = next(x for x in read_all(make_run(seeds=[1])) if x.kind == "cell")
    known = {
        phase: cell.ledger.kept["attack"].model_copy(update=cost)
        for phase, cost in costs.items()
    }
    return cell.model_copy(
        update={"ledger": cell.ledger.model_copy(update={"kept": known})}
    )


@pytest.mark.parametrize(("scored", "problems"), [(3, 0), (2, 1), (4, 1)])
def test_as_many_prompts_were_scored_as_the_rows_have(make_run, scored, problems):
    cell = _cell(make_run, rescore={"sequences_forward": scored})
    rows = [row([1, 6, 7, 8]), row(CLEAN)]
    assert len(list(_scored(Path("x"), cell, rows))) == problems


@pytest.mark.parametrize(
    ("flops", "problems"), [(1e6, 0), (1.8e6, 0), (3e6, 1), (1e5, 1)]
)
def test_a_token_costs_what_it_does_where_rows_are_scored(make_run, flops, problems):
    attack = {"tokens_forward": 90, "tokens_backward": 10, "flops": flops}
    cell = _cell(make_run, attack=attack, rescore={"tokens_forward": 10, "flops": 1e5})
    assert len(list(_flops(Path("x"), cell))) == problems
