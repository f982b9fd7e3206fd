import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from harness.api.attacks import AttackContext
from harness.data.document import Example, ExampleSets
from harness.subject.subject import Subject
from harness_plugins.attacks.gcg import GCG, GCGOptions
from harness_plugins.attacks.random import Random

pytestmark = pytest.mark.transformers5
EVERYTHING = {"candidates": 4 * 49, "top_k": 49}


def attack(subject, examples, matched=None, plugin=GCG, **options):
    """Run an attack; returns its results by example id."""
    results = plugin(plugin.Options(**options)).run(
        subject, ExampleSets(examples), AttackContext("cell", matched=matched)
    )
    return {found.example_id: found for found in results}


def iterates(start, trace):
    """Replay a trace: the start and the prompt that each step leads to."""
    prompts = [np.array(start)]
    for number, step in enumerate(trace, 1):
        assert step["step"] == number
        prompt = prompts[step["from"]].copy()
        assert prompt[step["position"]] != step["token"]
        prompt[step["position"]] = step["token"]
        prompts.append(prompt)
    return prompts


@pytest.mark.parametrize("target", [None, "bad"])
def test_with_every_candidate_it_is_exhaustive_coordinate_search(
    target, letter_subject, letter_examples, plain_losses
):
    """It ascends without a target, and descends the target's loss with one."""
    subject, (example,) = letter_subject(), letter_examples()
    reference = example.reference_ids if target is None else subject.encode(target)
    sign = 1 if target is None else -1
    prompt, path = example.prompt_ids, [example.prompt_ids]
    for _ in range(4):
        changes = [
            np.concatenate([prompt[:i], [b], prompt[i + 1 :]])
            for i in range(4)
            for b in range(1, 50)
            if b != prompt[i]
        ]
        losses = sign * plain_losses(subject, changes, reference)
        prompt = changes[int(losses.argmax())]  # also where that is worse than before
        path.append(prompt)
    losses = sign * plain_losses(subject, path, reference)

    (found,) = attack(subject, [example], steps=4, target=target, **EVERYTHING).values()

    replayed = iterates(example.prompt_ids, found.trace)
    assert [x.tolist() for x in replayed] == [x.tolist() for x in path]
    assert found.prompt_ids.tolist() == path[int(losses.argmax())].tolist()
    kind = "loss" if target is None else "target_loss"
    stated = [sign * step[kind] for step in found.trace]
    assert stated == pytest.approx(losses[1:], abs=1e-5)
    best = [sign * step[f"best_{kind}"] for step in found.trace]
    assert best == pytest.approx(np.maximum.accumulate(losses)[1:], abs=1e-5)


def test_no_step_pairs_a_loss_with_the_ids_of_another(
    letter_subject, letter_examples, plain_losses
):
    subject, (example,) = letter_subject(), letter_examples(prompt=8)

    (found,) = attack(subject, [example], steps=12, candidates=10, top_k=8).values()

    prompts = iterates(example.prompt_ids, found.trace)
    losses = plain_losses(subject, prompts, example.reference_ids)
    stated = [step["loss"] for step in found.trace]
    assert stated == pytest.approx(losses[1:], abs=1e-5)
    assert [step["from"] for step in found.trace] == [*range(12)]
    assert np.any(np.diff(losses) < 0)  # the current iterate is not kept
    assert found.prompt_ids.tolist() == prompts[int(losses.argmax())].tolist()


def test_candidates_are_from_the_tokens_of_highest_first_order_gain(
    family, letter_subject, letter_examples
):
    subject, examples = letter_subject(family), letter_examples(6, prompt=6)
    model, _ = subject.huggingface()
    rows = model.get_input_embeddings()(torch.arange(52)).detach()

    found = attack(subject, examples, steps=1, candidates=6, top_k=3)

    for example in examples:
        ids = torch.tensor([[*example.prompt_ids, *example.reference_ids]])
        inputs = rows[ids].clone().requires_grad_()
        log_p = model(inputs_embeds=inputs).logits[0, 5:-1].log_softmax(-1)
        loss = -log_p[range(3), example.reference_ids].mean()
        (gradient,) = torch.autograd.grad(loss, inputs)
        (step,) = found[example.id].trace
        gains = (rows[1:50] @ gradient[0, step["position"]]).numpy()
        gains[example.prompt_ids[step["position"]] - 1] = -np.inf
        assert step["token"] in np.argsort(-gains)[:3] + 1
        assert step["verified"] == 6


def test_a_buffer_goes_on_from_the_best_so_far(letter_subject, letter_examples):
    subject, (example,) = letter_subject(), letter_examples(prompt=6)
    options = {"steps": 15, "candidates": 8, "top_k": 20}

    (found,) = attack(subject, [example], buffer_size=2, **options).values()

    losses = [subject.exact_losses([example.prompt_ids], example.reference_ids)[0]]
    losses += [step["loss"] for step in found.trace]
    for step in found.trace:
        assert step["from"] == int(np.argmax(losses[: step["step"]]))
    again = len({step["from"] for step in found.trace})
    assert found.trace[-1]["gradients"] == again < 15  # one for each, however often
    for one, before in zip(found.trace[1:], found.trace, strict=False):
        more = one["gradients"] == before["gradients"]  # for what no gradient cost
        assert one["verified"] in ((9, 10, 11) if more else (8,))


@pytest.mark.parametrize("positions", ["prefix", "suffix"])
@pytest.mark.parametrize("plugin", [GCG, Random])
def test_a_prefix_or_suffix_is_all_that_is_written(
    plugin, positions, letter_subject, letter_examples
):
    subject, (example,) = letter_subject("opt"), letter_examples(prompt=5, protected=1)
    options = {"positions": positions, "tokens": 3, "steps": 5, "candidates": 12}
    matched = GCG(GCGOptions(**options)) if plugin is Random else None

    (found,) = attack(
        subject, [example], matched, plugin, **({} if matched else options)
    ).values()

    place = {"prefix": 1, "suffix": 5}[positions]
    ids = found.prompt_ids
    rest = [*ids[:place], *ids[place + 3 :]]
    assert rest == example.prompt_ids.tolist()
    assert {step["position"] for step in found.trace} <= {place, place + 1, place + 2}
    assert np.isin(ids[place : place + 3], subject.vocabulary.allowed).all()
    assert len(found.trace) == 5


def test_a_text_may_stand_there_at_first(letter_subject, letter_examples):
    subject, (example,) = letter_subject(), letter_examples()

    (found,) = attack(
        subject, [example], positions="suffix", tokens=5, start="ab", steps=1
    ).values()

    start = [*example.prompt_ids, *subject.encode("ababa")]
    (step,) = found.trace
    changed = {*np.flatnonzero(found.prompt_ids != start).tolist()}
    assert changed <= {step["position"]}


def test_with_a_target_the_reference_has_no_part_in_the_search(
    letter_subject, letter_examples
):
    from dataclasses import replace

    subject, (example,) = letter_subject(), letter_examples(prompt=6)
    other = replace(example, reference_ids=example.reference_ids[::-1].copy())
    options = {"steps": 3, "candidates": 10, "target": "Q"}

    (one,) = attack(subject, [example], **options).values()
    (same,) = attack(subject, [other], **options).values()

    assert one.prompt_ids.tolist() == same.prompt_ids.tolist()
    last = subject.exact_losses([one.prompt_ids], subject.encode("Q"))[0]
    first = subject.exact_losses([example.prompt_ids], subject.encode("Q"))[0]
    assert last == pytest.approx(min(s["target_loss"] for s in one.trace), abs=1e-5)
    assert last < first


@pytest.mark.parametrize("plugin", [GCG, Random])
def test_only_what_a_text_encodes_to_is_verified_if_so_wished(
    plugin, tiny_model, merging_tokenizer
):
    subject = Subject(tiny_model(vocab_size=52), merging_tokenizer)
    prompt = subject.encode("dabacadbcbdcaab")
    example = Example("e", "d", prompt, subject.encode("abd"))

    def texts(**more):
        """Run the attack; say of each iterate whether a text encodes to it."""
        gcg = GCG(GCGOptions(steps=8, candidates=20, **more))
        matched = gcg if plugin is Random else None
        options = {} if matched else gcg.options.model_dump()
        (found,) = attack(subject, [example], matched, plugin, **options).values()
        return subject.reachable(iterates(prompt, found.trace))

    assert not all(texts())
    assert texts(reachable_only=True) == [True] * 9


@pytest.mark.parametrize("positions", ["prefix", "suffix"])
def test_what_is_drawn_at_first_is_text_too(positions, tiny_model, tiny_tokenizer):
    subject = Subject(tiny_model(), tiny_tokenizer)
    prompt = subject.encode(" the cat sat on the mat")
    example = Example("e", "d", prompt, subject.encode(" dog"))
    options = {"positions": positions, "tokens": 8, "steps": 3, "candidates": 30}

    (found,) = attack(subject, [example], reachable_only=True, **options).values()

    assert len(found.trace) == 3
    assert subject.reachable([found.prompt_ids]) == [True]


def test_it_beats_random_search_at_equal_cost(
    tiny_model, tiny_tokenizer, letter_examples
):
    subject, examples = Subject(tiny_model(), tiny_tokenizer), letter_examples(24, 12)
    gcg = GCG(GCGOptions(steps=8, candidates=24, top_k=12))

    def rises(**how):
        with subject.metered() as spent:
            found = attack(subject, examples, **how)
        pairs = [([found[x.id].prompt_ids, x.prompt_ids], x) for x in examples]
        losses = [subject.exact_losses(p, x.reference_ids) for p, x in pairs]
        return np.subtract(*np.transpose(losses)), spent.flops_whole

    own, flops = rises(**gcg.options.model_dump())
    control, control_flops = rises(matched=gcg, plugin=Random)

    interval = bootstrap((own - control,), np.mean, rng=0).confidence_interval
    assert interval.low > 0
    assert control_flops == pytest.approx(flops, rel=0.02)


def test_neither_batch_size_nor_order_nor_company_changes_a_prompt(
    letter_subject, letter_examples
):
    examples = letter_examples(3, prompt=6)
    options = {"steps": 3, "candidates": 9, "top_k": 10}

    together = attack(letter_subject(batch_size=256), examples, **options)
    some = attack(letter_subject(batch_size=7), examples[:0:-1], **options)

    for name, one in some.items():
        assert one.prompt_ids.tolist() == together[name].prompt_ids.tolist()


def test_the_budget_is_what_is_spent(letter_subject, letter_examples):
    subject, (example,) = letter_subject(), letter_examples(prompt=12)
    options = {"steps": 5, "candidates": 30}
    budget = GCG(GCGOptions(**options)).budget(1)

    with subject.metered() as spent:
        attack(subject, [example], **options)

    assert spent.sequences_backward == budget.backward
    ties = 10  # scored again
    assert budget.forward <= spent.sequences_forward <= budget.forward + ties


def test_without_limits_it_is_the_attack_on_the_whole_prompt():
    gcg = GCG(GCGOptions(positions="suffix", tokens=4, steps=7))

    assert gcg.unbounded(16) == GCGOptions(positions="prompt", tokens=4, steps=7)
    assert gcg.longer() == GCGOptions(positions="suffix", tokens=4, steps=14)
    assert GCG().unbounded(16) is None


def test_no_more_tokens_differ_than_may(letter_subject, letter_examples):
    subject, examples = letter_subject(), letter_examples(3, prompt=8)

    found = attack(subject, examples, flips=2, steps=8, candidates=10)

    for example in examples:
        for prompt in iterates(example.prompt_ids, found[example.id].trace):
            assert (prompt != example.prompt_ids).sum() <= 2
