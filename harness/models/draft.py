"""A second model that helps to search the first one: smaller, of the same tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.base import CellError
from harness.models.checkpoints import CheckpointAdapter, load_model, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.subject import Subject


class DraftModel(CheckpointAdapter):
    """Loads a checkpoint of any family: its parts do not matter."""

    name = "draft"
    families = {}

    def load(self, store_root: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        folder = self._complete_folder()
        return load_model(folder), load_tokenizer(folder)


def draft_of(subject: Subject, path: str) -> Subject:
    """Load the model at a path to help search a subject, in whose ledger it counts."""
    from harness.subject import Subject

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
