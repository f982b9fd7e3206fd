"""A small world to attack: 50 tokens, each a letter, and models that read them."""

import itertools

import numpy as np
import pytest

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVW"


@pytest.fixture(scope="session")
def letter_tokenizer():
    """Return a tokenizer of 50 tokens: id 0 is special, the others are letters."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<|endoftext|>": 0} | {c: i for i, c in enumerate(LETTERS, 1)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>"
    )


@pytest.fixture(scope="session")
def letter_subject(tiny_model, letter_tokenizer):
    """Return a function that makes a subject of 50 tokens and 52 embedding rows."""
    from harness.subject.subject import Subject

    def make(family="gpt_neox", seed=0, **options):
        model = tiny_model(family, seed=seed, vocab_size=52)
        return Subject(model, letter_tokenizer, **options)

    return make


@pytest.fixture(scope="session")
def letter_examples():
    """Return a function that makes examples of random letters."""
    from harness.data.document import Example

    def make(count=1, prompt=4, reference=3, *, seed=0, protected=0):
        rng = np.random.default_rng([seed, count, prompt])
        ids = rng.integers(1, 50, (count, prompt + reference))
        return [
            Example(
                f"{seed}/{i}", f"{i}", row[:prompt], row[prompt:], protected=protected
            )
            for i, row in enumerate(ids)
        ]

    return make


@pytest.fixture(scope="session")
def plain_losses():
    """Return a function that scores prompts with plain transformers, no harness."""
    import torch

    def losses(subject, prompts, reference):
        model, _ = subject.huggingface()
        prompts = torch.tensor(np.array(prompts))
        references = torch.tensor(reference).expand(len(prompts), -1)
        with torch.no_grad():
            logits = model(torch.cat([prompts, references], 1)).logits
        predicted = logits[:, prompts.shape[1] - 1 : -1].double().log_softmax(-1)
        return -predicted.gather(2, references[..., None])[..., 0].mean(1).numpy()

    return losses


@pytest.fixture(scope="session")
def best_flips(plain_losses):
    """Return a function that searches all ways to flip so many positions."""

    def search(subject, example, flips):
        letters = range(1, 50)
        prompts = []
        free = range(example.protected, len(example.prompt_ids))
        for positions in itertools.combinations(free, flips):
            for tokens in itertools.product(letters, repeat=flips):
                prompt = example.prompt_ids.copy()
                prompt[list(positions)] = tokens
                prompts.append(prompt)
        losses = plain_losses(subject, prompts, example.reference_ids)
        return prompts[int(losses.argmax())], float(losses.max())

    return search


@pytest.fixture(scope="session")
def losses_of_examples():
    """Return a function that scores examples on a causal model, in plain torch."""
    import torch

    def losses(model, examples):
        found = []
        for example in examples:
            together = np.concatenate([example.prompt_ids, example.reference_ids])
            with torch.no_grad():
                logits = model(torch.tensor(together[None])).logits[0]
            predicted = logits[len(example.prompt_ids) - 1 : -1].double()
            reference = torch.tensor(example.reference_ids)[:, None]
            found.append(-predicted.log_softmax(-1).gather(1, reference).mean())
        return np.array(found)

    return losses


@pytest.fixture(scope="session")
def arm_context(tiny_model, tiny_tokenizer, losses_of_examples):
    """Return a function that makes a context for constraints that read examples.

    The references are what the clean model itself would write, so any change harms it.
    """
    import torch

    from harness.api import ArmContext
    from harness.data import Example, ExampleSets

    rng, model = np.random.default_rng(0), tiny_model()
    model.generation_config.eos_token_id = None
    greedy = {"do_sample": False, "max_new_tokens": 6, "pad_token_id": 0}
    ids = model.generate(torch.tensor(rng.integers(1, 240, (20, 8))), **greedy).numpy()
    examples = [Example(f"{i}", f"{i}", row[:8], row[8:]) for i, row in enumerate(ids)]
    sets = ExampleSets(test=examples[:8], validation=examples[8:])

    def make(**changes):
        return ArmContext(
            seed=3,
            tokenizer=tiny_tokenizer,
            examples=lambda: sets,
            losses=losses_of_examples,
            allowed=lambda: np.arange(1, 280),
            **changes,
        )

    return make
