"""A small world to attack: 50 tokens, each a letter, and models that read them."""

import itertools

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from harness.api import AttackContext
from harness.data import Example, ExampleSets
from harness.subject import Subject
from harness.testing import tiny_model

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVW"


def letter_tokenizer():
    """Return a tokenizer of 50 tokens: id 0 is special, the others are letters."""
    vocabulary = {"<|endoftext|>": 0} | {c: i for i, c in enumerate(LETTERS, 1)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>"
    )


def letter_subject(family="gpt_neox", seed=0, **options):
    """Return a subject of 50 tokens and 52 embedding rows."""
    model = tiny_model(family, seed=seed, vocab_size=52)
    return Subject(model, letter_tokenizer(), **options)


def letter_examples(count=1, prompt=4, reference=3, *, seed=0, protected=0):
    """Return examples of random letters."""
    rng = np.random.default_rng([seed, count, prompt])
    ids = rng.integers(1, 50, (count, prompt + reference))
    return [
        Example(f"{seed}/{i}", f"{i}", row[:prompt], row[prompt:], protected=protected)
        for i, row in enumerate(ids)
    ]


def letter_sets(prompt, reference=3, *, protected=0):
    """Return 3 test, 6 search and 5 validation examples of random letters."""
    test, search, validation = (
        letter_examples(count, prompt, reference, seed=seed, protected=protected)
        for seed, count in ((0, 3), (2, 6), (3, 5))
    )
    return ExampleSets(test, search, validation)


def make(plugin, **options):
    """Return a plugin with these options."""
    return plugin(plugin.Options(**options))


def run(attack, subject, examples, matched=None):
    """Run an attack, or a control of `matched`; return its results by example id."""
    sets = examples if isinstance(examples, ExampleSets) else ExampleSets(examples)
    budget = matched.budget(len(sets.test)) if matched else None
    results = attack.run(subject, sets, AttackContext("cell", budget, matched))
    return {found.example_id: found for found in results}


def prompts_of(found):
    """Return the prompts that an attack found, by example id."""
    return {key: one.prompt_ids.tolist() for key, one in found.items()}


def plain_losses(subject, prompts, reference):
    """Score prompts of one length with plain transformers, no harness."""
    model, _ = subject.huggingface()
    prompts = torch.tensor(np.array(prompts))
    references = torch.tensor(reference).repeat(len(prompts), 1)
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            logits = model(input_ids=prompts, labels=references).logits
        else:
            logits = model(torch.cat([prompts, references], 1)).logits
            logits = logits[:, prompts.shape[1] - 1 : -1]
    predicted = logits.double().log_softmax(-1)
    return -predicted.gather(2, references[..., None])[..., 0].mean(1).numpy()


def plain_gains(subject, example):
    """Return the first-order gain of each flip to a letter, by position and token."""
    model, _ = subject.huggingface()
    prompt, reference = example.prompt_ids, torch.tensor(example.reference_ids)
    rows = model.get_input_embeddings()(torch.arange(52)).detach()
    inputs = rows[torch.tensor([*prompt, *example.reference_ids])][None]
    inputs.requires_grad_()  # no tied head mixes in
    logits = model(inputs_embeds=inputs).logits[0, len(prompt) - 1 : -1]
    loss = torch.nn.functional.cross_entropy(logits, reference)
    (gradient,) = torch.autograd.grad(loss, inputs)
    return {
        (i, b): float((rows[b] - rows[a]) @ gradient[0, i])
        for i, a in enumerate(prompt)
        for b in range(1, 50)
        if b != a
    }


def best_flips(subject, example, flips, tokens=range(1, 50)):
    """Search all ways to flip so many free positions; return prompt and loss."""
    prompts = []
    for positions in itertools.combinations(np.flatnonzero(example.free), flips):
        for written in itertools.product(tokens, repeat=flips):
            prompt = example.prompt_ids.copy()
            prompt[list(positions)] = written
            prompts.append(prompt)
    losses = plain_losses(subject, prompts, example.reference_ids)
    return prompts[int(losses.argmax())].tolist(), float(losses.max())


def rises(subject, examples, found):
    """Return dL of each example, in fresh passes."""
    pairs = [([found[x.id].prompt_ids, x.prompt_ids], x) for x in examples]
    losses = [subject.exact_losses(both, x.reference_ids) for both, x in pairs]
    return np.subtract(*np.transpose(losses))
