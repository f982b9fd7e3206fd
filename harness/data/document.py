"""Documents of a corpus, and the examples that are cut from them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base import Ids

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Document:
    """One text of a corpus, or a prompt and what should follow it."""

    id: str
    text: str
    """The whole text; where there is a reference, the prompt before it."""
    reference: str | None = None
    """What should follow: a summary, or the right answer."""
    choices: tuple[str, ...] = ()
    """The answers of a multiple-choice task, the right one among them."""
    gold: int | None = None
    """Which of the choices is right."""
    prompts: tuple[str, ...] = ()
    """The prompt of each choice, where they differ."""
    prefix: str = ""
    """What the text begins with that is the corpus's, not this row's."""
    cluster: str | None = None
    """What it has in common with other documents, as its author; None if not stated."""

    @property
    def names(self) -> dict[str, str]:
        """What rows say of it: its id, and its cluster where the corpus states one."""
        own = {} if self.cluster is None else {"cluster": self.cluster}
        return {"document_id": self.id, **own}

    @property
    def whole(self) -> str:
        """The text that a model of plain text reads: prompt, space and reference."""
        if self.reference is None:
            return self.text
        return self.text + self.gap + self.reference

    @property
    def gap(self) -> str:
        """A space, unless white space is between prompt and reference already."""
        touching = (self.text[-1:], (self.reference or "")[:1])
        return "" if any(part.isspace() for part in touching) else " "


@dataclass(frozen=True)
class Choice:
    """An answer of a multiple-choice task, as token ids."""

    tail_ids: Ids
    """What stands at the prompt's end, in the place of its protected tokens."""
    answer_ids: Ids
    characters: int
    """Of the answer's text; log-likelihoods are compared for each of them."""


@dataclass(frozen=True)
class Example:
    """What is attacked, and what is scored."""

    id: str
    document_id: str
    """Results are clustered by it, unless there is a `cluster`."""
    prompt_ids: Ids
    """Token ids [n] that an attack may change or prepend to."""
    reference_ids: Ids
    """Token ids [m] that never change, and that alone are scored."""
    protected: int = 0
    """How many leading prompt tokens must stay first (OPT's ``</s>``)."""
    protected_end: int = 0
    """How many tokens at the prompt's end must stay last (T5's ``</s>``)."""
    reference_text: str | None = None
    """The whole text that the reference is the beginning of, where it is a pair's."""
    answer: bool = False
    """Whether the reference is an answer, which a subject gives rightly or not."""
    choices: tuple[Choice, ...] = ()
    """The answers to choose from, the reference among them; none for a last word."""
    gold: int | None = None
    """Which of the choices is the reference."""
    cluster: str | None = None
    """What its document has in common with others, where the corpus states it."""

    @property
    def unit(self) -> str:
        """What statistics take as one: the cluster, or else the document."""
        return self.document_id if self.cluster is None else self.cluster

    @property
    def free(self) -> NDArray[np.bool_]:
        """Which positions [n] of the prompt an attack may write."""
        import numpy as np

        positions = np.arange(len(self.prompt_ids))
        end = len(positions) - self.protected_end
        return (positions >= self.protected) & (positions < end)


@dataclass(frozen=True)
class ExampleSets:
    """The examples of a cell; the three sets share no document."""

    test: Sequence[Example]
    search: Sequence[Example] = ()
    validation: Sequence[Example] = ()


def content_key(
    prompt_ids: Sequence[int] | Ids, reference_ids: Sequence[int] | Ids
) -> str:
    """Identify an example by what it holds, whatever a suite calls it."""
    parts = (",".join(str(int(i)) for i in ids) for ids in (prompt_ids, reference_ids))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def content_of(example: Example) -> str:
    """Identify an example by its prompt and reference."""
    return content_key(example.prompt_ids, example.reference_ids)
