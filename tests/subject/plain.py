"""What subjects are held against: plain transformers, a sequence at a time."""

import contextlib
import copy

import numpy as np
import pytest
import torch

from harness.testing import FAMILIES, GATED_T5, tiny_model

N, M = 20, 7
"""Tokens of a prompt and of a reference."""
T5_KINDS = {
    "t5": {},
    "t5 v1.1": GATED_T5,
    "t5 shallow": {"num_layers": 1, "num_decoder_layers": 1},
}
KINDS = sorted(FAMILIES.keys() | T5_KINDS)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def model_of(kind):
    return tiny_model(kind.split()[0], **T5_KINDS.get(kind, {}))


def random_ids(*shape, seed=0):
    return np.random.default_rng(seed).integers(1, 282, size=shape)


def candidates(prompt, count, seed=0, first=0, changes=2):
    """Return prompts [count, n], a token or two of each changed from `first` on."""
    rng = np.random.default_rng(seed)
    prompts = np.tile(prompt, (count, 1))
    for _ in range(changes):
        positions = rng.integers(first, len(prompt), count)
        prompts[np.arange(count), positions] = rng.integers(1, 282, count)
    return prompts


def log_probs(model, ids):
    """Return log p of every next token, in float64."""
    with torch.no_grad():
        logits = model(torch.as_tensor(ids)[None]).logits[0, :-1]
    targets = torch.as_tensor(ids[1:])[:, None]
    return logits.double().log_softmax(-1).gather(1, targets)[:, 0].numpy()


def plain_loss(model, prompt, reference):
    if model.config.is_encoder_decoder:
        ids, labels = (torch.as_tensor(each)[None] for each in (prompt, reference))
        with torch.no_grad():
            return float(model(input_ids=ids, labels=labels).loss)
    scored = log_probs(model, np.concatenate([prompt, reference]))[len(prompt) - 1 :]
    return -scored.mean()


def plain_losses(model, prompts, references):
    pairs = zip(prompts, references, strict=True)
    return [plain_loss(model, *pair) for pair in pairs]


def plain_gradient(model, prompt, reference):
    """Return the gradient [n, d] of one pair, in float64.

    The prompt is given as embeddings, so that what a decoder or a tied head makes of
    the same weights has no part in it.
    """
    double = copy.deepcopy(model).double()
    table = double.get_input_embeddings()
    leaf = table(torch.as_tensor(prompt)[None]).detach().requires_grad_(True)
    if model.config.is_encoder_decoder:
        labels = torch.as_tensor(reference)[None]
        loss = double(inputs_embeds=leaf, labels=labels).loss
    else:
        tail = table(torch.as_tensor(reference))[None]
        logits = double(inputs_embeds=torch.cat([leaf, tail], dim=1)).logits
        loss = torch.nn.functional.cross_entropy(
            logits[0, len(prompt) - 1 : -1], torch.as_tensor(reference)
        )
    return torch.autograd.grad(loss, leaf)[0][0]


def make_memory_small(subject, rows):
    """Let passes of more rows than that run out of memory."""

    def check(module, args, kwargs):
        if len(kwargs["input_ids"]) > rows:
            raise torch.OutOfMemoryError("the test's device is small")

    base = subject.huggingface()[0].base_model
    base.register_forward_pre_hook(check, with_kwargs=True)


@contextlib.contextmanager
def gpu_memory(size):
    """Let this process have so many bytes of the GPU's memory, besides what it has."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    held = torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction((held + size) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
