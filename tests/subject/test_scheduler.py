import numpy as np
import pytest

from harness.api.attacks import AttackContext
from harness.data.document import ExampleSets
from harness.search.spent import Spent
from harness.subject import Subject, passes
from harness.subject.rounding import rounding_margin
from harness.subject.scheduler import SOON, Ask, Lanes, Request, alone, lockstep
from harness.testing import tiny_examples, tiny_model, tiny_tokenizer
from harness_plugins.attacks.hotflip import HotFlip
from harness_plugins.attacks.random import Random

pytestmark = pytest.mark.transformers5


@pytest.fixture(scope="module")
def subject():
    return Subject(tiny_model(), tiny_tokenizer())


def rows(seed, count, length):
    return list(np.random.default_rng(seed).integers(1, 250, (count, length)))


def ask_for(ask, prompts, reference):
    return Request(ask, [(prompt, reference) for prompt in prompts])


def asking(subject, seed, rounds):
    """Ask for the losses of a few prompts, for a gradient and for the best, again."""
    (reference,) = rows([seed, 0], 1, 4)
    told = []
    for number in range(rounds):
        prompts = rows([seed, number, 1], 3, 5 + seed % 2)
        losses = yield ask_for(Ask.LOSSES, prompts, reference)
        gradients = yield ask_for(Ask.GRADIENTS, prompts[:2], reference)
        best = yield from subject.choice(prompts, reference, losses, 2)
        told.append((losses, gradients, best))
    return seed, told


def test_every_search_gets_the_answers_to_its_own_requests(subject):
    rounds = {0: 2, 1: 1, 2: 3, 3: 0, 4: 1, 5: 2}

    searches = (asking(subject, *each) for each in rounds.items())
    found = dict(lockstep(subject, searches, Lanes(4, 2, 2, ahead=2)))

    assert {seed: len(told) for seed, told in found.items()} == rounds
    for seed, told in found.items():
        (reference,) = rows([seed, 0], 1, 4)
        for number, (losses, gradients, best) in enumerate(told):
            prompts = rows([seed, number, 1], 3, 5 + seed % 2)
            exact = subject.exact_losses(prompts, reference)
            assert losses == pytest.approx(exact, abs=1e-5)
            assert best == np.argsort(-exact)[:2].tolist()
            expected = subject.gradients(prompts[:2], reference)
            for gradient, own in zip(gradients, expected, strict=True):
                np.testing.assert_allclose(gradient, own, rtol=1e-4, atol=1e-7)


class Doubling:
    """Answers with twice each prompt, and notes which calls were made."""

    def __init__(self):
        self.calls = []

    lanes = Lanes(searches=4)

    def launched(self, ask, pairs):
        self.calls.append((ask, len(pairs)))
        return lambda: [2 * int(prompt) for prompt, _ in pairs]


def pairs_of(numbers):
    return [(np.array(number), np.array(0)) for number in numbers]


def test_who_asks_the_same_gets_it_by_one_call_and_losses_wait_for_all():
    def search(*asked):
        told = []
        for ask, *numbers in asked:
            told.append(list((yield Request(ask, pairs_of(numbers)))))
        return told

    ties, slopes, losses = Ask.DECIDING_LOSSES, Ask.GRADIENTS, Ask.LOSSES
    searches = [
        search((losses, 1, 2), (losses, 3)),
        search(),
        search((slopes, 4), (losses, 5), (ties, 6), (slopes, 7), (losses, 8)),
        search((ties, 9), (ties, 10), (losses, 11), (slopes, 12), (losses, 13)),
    ]
    subject = Doubling()

    found = sorted(lockstep(subject, searches))

    assert found == [
        [],
        [[2, 4], [6]],
        [[8], [10], [12], [14], [16]],
        [[18], [20], [22], [24], [26]],
    ]
    before = [(ties, 1), (ties, 1), (slopes, 1), (losses, 4)]
    assert subject.calls == [*before, (ties, 1), (slopes, 2), (losses, 3)]


def test_no_search_has_a_pair_scored_twice_to_decide_near_ties():
    ties, losses = Ask.DECIDING_LOSSES, Ask.LOSSES
    asked = [(ties, [1, 2]), (losses, [1]), (ties, [3, 2, 3, 1]), (ties, [3])]

    def search():
        told = []
        for ask, numbers in asked:
            told.append(list((yield Request(ask, pairs_of(numbers)))))
        return told

    subject = Doubling()

    found = list(lockstep(subject, [search()]))
    list(lockstep(subject, [search()]))

    assert found == [[[2 * number for number in numbers] for _, numbers in asked]]
    # Another search pays for itself, so that the ledger of a cell is its own.
    assert subject.calls == 2 * [(ties, 2), (losses, 1), (ties, 1)]


class Device:
    """Works while others are advanced; notes what it was asked, and what it lacked."""

    lanes = Lanes(searches=12, fewest=2, most=4, ahead=3)

    def __init__(self):
        self.work, self.asked, self.idle = [], [], 0
        self.waited_for_soon = 0

    def launched(self, ask, pairs):
        work = [number for number, _ in pairs]
        self.asked.append((ask, len(work)))
        if ask in SOON:
            return lambda: self.soon(ask, work)
        self.work.append(work)

        def fetch():
            assert self.work[0] is work  # the device keeps the order
            self.idle += len(self.work) < 2
            self.work.remove(work)
            self.asked.append(None)
            return work

        return fetch

    def soon(self, ask, work):
        """Note whether nothing else was waited for since they were asked for."""
        lately = self.asked[-1] == (ask, len(work))
        self.waited_for_soon += lately and len(self.work) > 1
        return work


@pytest.mark.parametrize("soon", SOON)
def test_a_device_has_other_work_while_searches_are_advanced(soon):
    def search(number):
        for ask in 3 * (Ask.GRADIENTS, soon, Ask.LOSSES):
            assert (yield Request(ask, [(number, None)])) == [number]
        return number

    device = Device()
    found = list(lockstep(device, (search(number) for number in range(12))))

    assert sorted(found) == list(range(12))
    counts = {asked[1] for asked in device.asked if asked}
    assert counts <= {2, 4}  # passes are full
    assert device.idle <= 1  # at the end
    assert device.waited_for_soon == 0


def test_requests_that_wait_together_are_one_call(subject, monkeypatch):
    sizes = []
    score = subject._passes.losses

    def losses(network, pairs):
        sizes.append(len(pairs))
        return score(network, pairs)

    monkeypatch.setattr(subject._passes, "losses", losses)

    searches = (asking(subject, seed, 1) for seed in range(5))
    list(lockstep(subject, searches, Lanes(searches=3)))

    assert sizes == [9, 6]


def test_each_request_says_whether_prompts_must_be_reachable(subject):
    def ask(seed, only):
        (reference,) = rows([seed, 0], 1, 4)
        prompts = rows([seed, 1], 30, 3)
        ask = Ask.REACHABLE_LOSSES if only else Ask.LOSSES
        losses = yield ask_for(ask, prompts, reference)
        return only, losses, prompts, reference

    asked = [ask(seed, seed % 2 == 1) for seed in range(4)]
    for only, losses, prompts, reference in lockstep(subject, asked):
        expected = subject.losses(prompts, reference)
        reachable = np.array(subject.reachable(prompts))
        assert 0 < sum(reachable) < 30
        if only:
            expected[~reachable] = np.nan
        assert losses == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_choices_that_wait_together_share_the_passes_that_decide(monkeypatch):
    subject = Subject(tiny_model(), tiny_tokenizer(), dtype="bfloat16")
    (reference,) = rows(0, 1, 4)
    prompts = {seed: rows(seed, 6, 5) for seed in range(4)}
    sizes = []
    score = subject._passes.deciding_losses

    def deciding(pairs):
        sizes.append(len(pairs))
        return score(pairs)

    def choosing(seed):
        losses = subject.losses(prompts[seed], reference)
        # All within the margin, so that nothing but passes in float32 can decide.
        losses = 3 + 1e-4 * (losses - losses.mean())
        asked = prompts[seed], reference, losses, 3
        return seed, (yield from subject.choice(*asked, lowest=seed > 1))

    monkeypatch.setattr(subject._passes, "deciding_losses", deciding)
    found = dict(lockstep(subject, (choosing(seed) for seed in range(4))))

    for seed, best in found.items():
        exact = subject.exact_losses(prompts[seed], reference)
        assert best == np.argsort(exact if seed > 1 else -exact)[:3].tolist()
    assert sizes == [24]


def test_what_decides_is_exact_and_depends_on_no_company():
    subject = Subject(tiny_model(), tiny_tokenizer())
    pairs = [(prompt, rows(i, 1, 4)[0]) for i, prompt in enumerate(rows(7, 9, 5))]
    expected = [subject.exact_losses([one], other)[0] for one, other in pairs]
    subject.gradient_tokens = (
        4 * 8
    )  # the tokens of four pairs, whatever is read of them

    with subject.metered() as meter:
        together = subject.launched(Ask.DECIDING_LOSSES, pairs)()
    alone = [subject.launched(Ask.DECIDING_LOSSES, [pair])()[0] for pair in pairs]

    assert together == pytest.approx(expected, abs=1e-5)
    assert together.tolist() == alone
    assert meter.cost().sequences_forward == 9  # what fills a pass up is no pass


def test_a_search_is_begun_when_there_is_room(subject):
    begun = []

    def searches():
        for seed in range(5):
            begun.append(seed)
            yield asking(subject, seed, rounds=1 + seed)

    results = lockstep(subject, searches(), Lanes(searches=2))

    next(results)
    assert begun == [0, 1]
    next(results)
    assert begun == [0, 1, 2]


@pytest.mark.parametrize("attack", [HotFlip, Random])
def test_neither_width_nor_batch_size_changes_prompts_or_traces(attack, monkeypatch):
    sets = ExampleSets(tiny_examples(9, prompt_tokens=7).test)
    plugin = attack(attack.Options(flips=2, candidates=12))
    found = []
    for lanes, batch_size in (((1,), 64), ((8, 2, 3, 2), 64), ((32,), 5)):
        monkeypatch.setitem(passes.LANES, "cpu", Lanes(*lanes))
        subject = Subject(tiny_model(), tiny_tokenizer(), batch_size=batch_size)
        results = plugin.run(subject, sets, AttackContext("cell"))
        found.append({one.example_id: one for one in results})

    for other in found[1:]:
        for name, one in found[0].items():
            assert other[name].prompt_ids.tolist() == one.prompt_ids.tolist()
            assert len(other[name].trace) == len(one.trace) > 0
            for step, same in zip(one.trace, other[name].trace, strict=True):
                assert step.keys() == same.keys()
                for key, value in step.items():
                    assert value == pytest.approx(same[key], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attack", [HotFlip, Random])
def test_what_a_pass_moves_within_the_margin_changes_no_prompt(
    attack, dtype, monkeypatch
):
    sets = ExampleSets(tiny_examples(9, prompt_tokens=7).test)
    plugin = attack(attack.Options(flips=2, candidates=12))
    rng, score, found = np.random.default_rng(0), passes.Passes.losses, []

    def moved(self, network, pairs):
        losses = score(self, network, pairs)()
        most = rounding_margin(dtype, len(pairs[0][1])) / 2
        return lambda: losses + rng.uniform(-most, most, len(losses))

    for lanes in (1, 4, 32):
        monkeypatch.setitem(passes.LANES, "cpu", Lanes(lanes))
        monkeypatch.setattr(passes.Passes, "losses", moved)
        subject = Subject(tiny_model(), tiny_tokenizer(), dtype=dtype)
        results = plugin.run(subject, sets, AttackContext("cell"))
        found.append({one.example_id: one.prompt_ids.tolist() for one in results})

    assert found[0] == found[1] == found[2]


def test_what_is_spent_is_counted(subject):
    spent = Spent()

    alone(subject, spent.count(asking(subject, 1, rounds=2)))

    assert spent == Spent(passes=2 * (3 + 2), gradients=2 * 2)
