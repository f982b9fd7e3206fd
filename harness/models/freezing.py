"""Frozen subjects: plain Hugging Face folders that load without any constraint.

`save_pretrained` of a parametrized model writes names like
``dense_h_to_4h.parametrizations.weight.original``; `from_pretrained` then finds no
``dense_h_to_4h.weight`` and fills every such matrix with random numbers. Therefore the
weights are folded first, and the folder is loaded again and compared with the model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.parametrize import is_parametrized
from transformers.utils.logging import disable_progress_bar

from harness.base import CellError, fixed_random_state, flushed_meanwhile
from harness.models.activations import register_activations
from harness.models.checkpoints import load_model, load_tokenizer
from harness.subject import text_inputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TOKENS = 48
_TEXT = (
    "The harbour froze in the winter of 1709, and for eleven weeks nobody came or went "
    "but on foot; the pilots' ledger has one line for it: 'No tides worth noting.'"
)


def plain_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the effective weights, named as in a model without parametrizations.

    Folds every torch parametrization into its weight; does not change the model.
    """
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if "parametrizations" not in name.split(".")
    }
    with torch.no_grad():
        for path, module in model.named_modules():
            if is_parametrized(module):
                for name in module.parametrizations:
                    key = f"{path}.{name}".lstrip(".")
                    state[key] = getattr(module, name).detach()
    return state


def freeze(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Write a model and its tokenizer, and return them, as `frozen_meanwhile` does.

    The folder is on disk when this returns.
    """
    with frozen_meanwhile(model, tokenizer, folder) as frozen:
        return frozen


@contextmanager
def frozen_meanwhile(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> Iterator[tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
    """Write a model and its tokenizer as a plain folder; yield them as read from it.

    What is yielded is as `load_frozen` gives it, on the model's device. The folder is
    brought to disk while the block runs. The model itself stays as it is, in evaluation
    mode; it moves to the CPU where its device has no room for both. Raises CellError
    unless the folder, loaded again, gives bitwise equal logits.
    """
    model.eval()
    register_activations()
    disable_progress_bar()
    _plain(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with flushed_meanwhile(folder):
        frozen, again = load_frozen(folder)
        _bring_together(model, frozen)
        _check(model, tokenizer, folder, frozen, again)
        yield frozen, again


def load_frozen(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a frozen subject: float32, CPU, evaluation mode, no gradients of weights."""
    model = load_model(folder).requires_grad_(False)
    return model, load_tokenizer(folder)


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model of the effective weights, which it shares where it can.

    It is no model to run: what is not among its weights has no values.
    """
    with torch.device("meta"):
        plain: PreTrainedModel = type(model)(copy.deepcopy(model.config))
    if not _tied(model):
        _untie(plain)
    plain.load_state_dict(plain_state(model), strict=True, assign=True)
    if _tied(model):
        plain.tie_weights()
    return plain


def _bring_together(model: PreTrainedModel, frozen: PreTrainedModel) -> None:
    """Move the frozen model to the other's device; that makes room if it must."""
    device = model.device
    try:
        frozen.to(device)
    except torch.OutOfMemoryError:
        frozen.to("cpu")
        model.to("cpu")


def _check(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    frozen: PreTrainedModel,
    again: PreTrainedTokenizerBase,
) -> None:
    ids, read = (_ids(each) for each in (tokenizer, again))
    if not torch.equal(ids, read):
        raise CellError(f"the tokenizer in {folder} encodes text differently")
    ours, theirs = (_logits(each, ids) for each in (model, frozen))
    if not torch.equal(ours, theirs):
        apart = float((ours - theirs).abs().max())
        raise CellError(
            f"the frozen subject in {folder} computes other logits than the trained "
            f"model (they differ by up to {apart:.3g})"
        )


@torch.no_grad()
def _logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Return logits; two models that draw at random draw the same."""
    with fixed_random_state(0):
        logits: torch.Tensor = model(**text_inputs(model, ids.to(model.device))).logits
    return logits


def _tied(model: PreTrainedModel) -> bool:
    one, other = model.get_input_embeddings(), model.get_output_embeddings()
    return one.weight is other.weight


def _untie(model: PreTrainedModel) -> None:
    """Give the head a weight of its own.

    transformers 5 builds every T5 with tied embeddings, whatever its configuration
    says, and unties those of T5 v1.1 only as it finds the head in a file.
    """
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())


def _ids(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    encoded = tokenizer(_TEXT, truncation=True, max_length=_TOKENS)
    return torch.tensor([encoded["input_ids"]])
