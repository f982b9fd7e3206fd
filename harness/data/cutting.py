"""Documents cut into examples: a text, a prompt with its reference, or a task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base import Ids, UsageError
from harness.data.document import Choice, Document, Example
from harness.data.encoding import Entangled, Prompt, TextEncoder, shared_start
from harness.data.sections import ExamplesSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENTANGLED = "the answer shares a token with what precedes it"
NO_LAST_WORD = "there is no space before a last word"


class Unfit(Exception):
    """Why a document gives no example; the text is the reason."""


@dataclass(frozen=True)
class Cutter:
    """Turns documents into examples, by what they hold and what is asked of them."""

    section: ExamplesSection
    encoder: TextEncoder

    @classmethod
    def of(
        cls,
        section: ExamplesSection,
        tokenizer: PreTrainedTokenizerBase,
        *,
        encoder_decoder: bool = False,
    ) -> Cutter:
        """Cut as a section says, with the ids of a tokenizer."""
        return cls(section, TextEncoder(tokenizer, encoder_decoder=encoder_decoder))

    def __call__(self, corpus: str, document: Document) -> Example:
        """Return the example of a document; `Unfit` says why there is none."""
        name = f"{corpus}/{document.id}"
        if self.section.objective == "answer":
            parts = self._answer(corpus, document)
        elif document.reference is not None:
            parts = self._pair(corpus, document)
        else:
            parts = self._text(document)
        return Example(id=name, document_id=name, cluster=document.cluster, **parts)

    def further(self, corpus: str, document: Document) -> Iterator[Example]:
        """Yield examples of what follows the example of a text, part by part.

        None of a pair, nor where answers are asked for.
        """
        name = f"{corpus}/{document.id}"
        if self.section.objective == "answer" or document.reference is not None:
            return
        ids = self.encoder.encode(document.text)
        for part, start in enumerate(range(self._read, len(ids), self._read), 2):
            if start + self._read <= len(ids):
                parts = self._parts(ids[start : start + self._read])
                yield Example(f"{name}#{part}", name, cluster=document.cluster, **parts)

    # --- texts and pairs ------------------------------------------------------------

    def _text(self, document: Document) -> dict[str, Any]:
        """Take the first tokens as the prompt, and the next ones as the reference."""
        ids = self.encoder.encode(document.text)[: self._read]
        if len(ids) < self._read:
            raise Unfit(f"shorter than {self._read} tokens")
        return self._parts(ids)

    @property
    def _read(self) -> int:
        """How many tokens of a text an example has."""
        section = self.section
        return section.prompt_tokens - len(self.encoder.end) + section.reference_tokens

    def _parts(self, ids: list[int]) -> dict[str, Any]:
        own = self._read - self.section.reference_tokens
        return {
            **_prompt_parts(self.encoder.framed(ids[:own])),
            "reference_ids": _array(ids[own:]),
        }

    def _pair(self, corpus: str, document: Document) -> dict[str, Any]:
        """Take the first tokens of the prompt, and those of the reference."""
        assert document.reference is not None
        ids = self.encoder.encode(document.text)
        fixed = self._fixed(corpus, ids, document)
        gap = "" if self.encoder.encoder_decoder else document.gap
        reference = self.encoder.reference(
            gap + document.reference, self.section.reference_tokens
        )
        limit = self.section.prompt_tokens
        return {
            **_prompt_parts(self.encoder.prompt(ids, fixed, limit)),
            "reference_ids": _array(reference),
            "reference_text": document.reference,
        }

    def _fixed(self, corpus: str, ids: list[int], document: Document) -> int:
        """Return how many first tokens are the corpus's prefix."""
        if not document.prefix:
            return 0
        fixed = self.encoder.fixed(ids, document.prefix)
        room = self.section.prompt_tokens - len(self.encoder.end)
        if fixed >= room:
            raise UsageError(
                f"examples.prompt_tokens: the prefix of corpus {corpus} has {fixed} "
                f"tokens, which leaves none of {room} to the prompt"
            )
        return fixed

    # --- answers --------------------------------------------------------------------

    def _answer(self, corpus: str, document: Document) -> dict[str, Any]:
        """Take the tokens just before the answer, and the answer whole."""
        if document.reference is None:
            document = _last_word(document)
        assert document.reference is not None
        answers = document.choices or (document.reference,)
        prompts = document.prompts or (document.text,) * len(answers)
        encoded = [
            self._continued(prompt, answer)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        contexts = [context for context, _ in encoded]
        common = shared_start(contexts)
        fixed = min(self._fixed(corpus, contexts[0], document), common)
        head = self._head(contexts[0][:common], fixed, max(map(len, contexts)) - common)
        choices = tuple(
            Choice(
                tail_ids=_array([*context[common:], *self.encoder.end]),
                answer_ids=_array(ids),
                characters=len(answer),
            )
            for (context, ids), answer in zip(encoded, answers, strict=True)
        )
        right = choices[document.gold or 0]
        start = self.encoder.start
        return {
            "prompt_ids": np.concatenate([_array([*start, *head]), right.tail_ids]),
            "reference_ids": right.answer_ids,
            "protected": len(start) + fixed,
            "protected_end": len(right.tail_ids),
            "reference_text": document.reference,
            "choices": choices if document.choices else (),
            "gold": document.gold,
            "answer": True,
        }

    def _continued(self, context: str, answer: str) -> tuple[list[int], list[int]]:
        try:  # a space goes before every answer, as in lm-eval
            ids, continuation = self.encoder.continuation(context, f" {answer}")
        except Entangled as error:
            raise Unfit(ENTANGLED) from error
        limit = self.section.reference_tokens
        if len(continuation) > limit:
            raise Unfit(f"an answer has more than {limit} tokens")
        return ids, continuation

    def _head(self, ids: list[int], fixed: int, tail: int) -> list[int]:
        """Return the part that an attack may change: the prefix, and the last tokens.

        What was said long before the answer is left out, as lm-eval does.
        """
        room = self.section.prompt_tokens - len(self.encoder.end) - tail - fixed
        if room < 1 or len(ids) <= fixed:
            raise Unfit("the answers leave nothing of the prompt to attack")
        return ids[:fixed] + ids[fixed:][-room:]


def _last_word(document: Document) -> Document:
    """Return a text as a prompt whose reference is its last word."""
    before, space, word = document.text.rstrip().rpartition(" ")
    if not space or not before.strip() or not word:
        raise Unfit(NO_LAST_WORD)
    return Document(document.id, before, word, prefix=document.prefix)


def _prompt_parts(prompt: Prompt) -> dict[str, Any]:
    return {
        "prompt_ids": _array(prompt.ids),
        "protected": prompt.protected,
        "protected_end": prompt.protected_end,
    }


def _array(ids: list[int]) -> Ids:
    return np.array(ids, dtype=np.int64)
