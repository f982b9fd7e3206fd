"""A draft model: a smaller one with the same tokenizer that helps to search another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.base import CellError
from harness.models.checkpoints import CheckpointAdapter, load_model, load_tokenizer
from harness.subject import Subject

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class DraftModel(CheckpointAdapter):
    """Loads a checkpoint of any family, since nothing looks at its parts."""

    name = "draft"
    families = {}

    def load(self, store_root: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        folder = self._complete_folder()
        return load_model(folder), load_tokenizer(folder)


def draft_of(subject: Subject, path: str) -> Subject:
    """Load the draft model at a path; its passes count in the subject's ledger."""
    model, tokenizer = DraftModel(DraftModel.Options(path=path)).load(Path())
    if tokenizer.get_vocab() != subject.vocabulary.tokenizer.get_vocab():
        raise CellError(f"the draft model {path} has another tokenizer: other tokens")
    return Subject(
        model,
        tokenizer,
        device=str(subject.ledger.device),
        dtype=subject.dtype,
        batch_size=subject.batch_size,
    ).metered_by(subject)
