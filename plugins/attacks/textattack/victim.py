"""Our subject as TextAttack's victim: texts go in, and gains come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from harness_plugins.attacks.textattack.options import TextAttackOptions

if TYPE_CHECKING:
    import numpy as np

    from harness.base import Ids
    from harness.data import Example
    from harness.subject import Subject

NO_SCORE = -1e6
"""The gain of what may not be scored: a text that is too long, or breaks a rule."""
TRIAL_QUERIES = 80


class Spent(Exception):
    """The query budget is used up, and a search wants more."""


@dataclass
class Victim:
    """Scores texts as prompts of one example; a prompt is scored once."""

    subject: Subject
    example: Example
    options: TextAttackOptions
    _known: dict[bytes, float] = field(default_factory=dict)
    """Losses, or ROUGE-L scores with the sign changed, by the prompt's ids."""

    @cached_property
    def clean_text(self) -> str:
        """The prompt without what stays first and last, decoded."""
        return self.subject.decode(self.example.prompt_ids[self.example.free])

    @cached_property
    def clean(self) -> float:
        """The score of the clean prompt's ids."""
        self._score([self.example.prompt_ids])
        return self._known[self._key(self.example.prompt_ids)]

    @property
    def queries(self) -> int:
        """How many prompts were scored, the clean one included."""
        return len(self._known)

    @property
    def left(self) -> int:
        """How many more may be."""
        return self.options.query_budget - self.queries

    def ids(self, text: str) -> Ids:
        """Return the prompt that a text makes: between what stays first and last."""
        import numpy as np

        prompt, example = self.example.prompt_ids, self.example
        first, last = example.protected, len(prompt) - example.protected_end
        parts = [prompt[:first], self.subject.encode(text), prompt[last:]]
        return np.concatenate(parts).astype(np.int64)

    def gains(self, texts: Sequence[str]) -> list[float]:
        """Return how far the score of each text lies above the clean prompt's.

        For the goal perplexity that is dL, in nats/token. The texts must be
        `affordable`.
        """
        clean, prompts = self.clean, [self.ids(text) for text in texts]
        may = [self._may_be_scored(ids) for ids in prompts]
        new = {self._key(ids): ids for ids, ok in zip(prompts, may, strict=True) if ok}
        self._score([ids for key, ids in new.items() if key not in self._known])
        return [
            self._known[self._key(ids)] - clean if ok else NO_SCORE
            for ids, ok in zip(prompts, may, strict=True)
        ]

    def affordable(self, texts: Sequence[str]) -> int:
        """Return how many of the texts, from the first on, the budget pays for."""
        _ = self.clean  # is paid for first
        left, seen = self.left, set(self._known)
        for count, text in enumerate(texts):
            ids = self.ids(text)
            key = self._key(ids)
            if key not in seen and self._may_be_scored(ids):
                seen.add(key)
                left -= 1
            if left < 0:
                return count
        return len(texts)

    def best(self, texts: Sequence[str], queries: int | None = None) -> str:
        """Return the text of highest gain among those scored; ties to the first.

        Of the first `queries` scored, or all. Losses that rounding could swap are
        computed again, each alone.
        """
        import numpy as np

        seen = set(islice(self._known, queries))
        scored = {self._key(self.ids(t)): t for t in reversed(texts)}
        known = [text for key, text in reversed(scored.items()) if key in seen]
        prompts = [self.ids(text) for text in known]
        losses = np.array([self._known[self._key(ids)] for ids in prompts])
        if not known:
            return self.clean_text
        if self.options.goal == "rouge":
            return known[int(losses.argmax())]
        return known[self.subject.best(prompts, self.example.reference_ids, losses)]

    def _score(self, prompts: Sequence[Ids]) -> None:
        if not prompts:
            return
        score = self._losses if self.options.goal == "perplexity" else self._rouge
        for ids, value in zip(prompts, score(prompts), strict=True):
            self._known[self._key(ids)] = value

    def _losses(self, prompts: Sequence[Ids]) -> list[float]:
        losses = self.subject.losses(prompts, self.example.reference_ids)
        return [float(loss) for loss in losses]

    def _rouge(self, prompts: Sequence[Ids]) -> list[float]:
        """Return ROUGE-L of what the model writes, with the sign changed."""
        from harness.records import rouge

        reference = self._words(self.example.reference_ids)
        written = self.subject.generate(prompts, len(self.example.reference_ids))
        return [-rouge(reference, self._words(ids))["rougeL"] for ids in written]

    def _words(self, ids: Ids) -> str:
        import numpy as np

        special = self.subject.vocabulary.tokenizer.all_special_ids
        return self.subject.decode(ids[~np.isin(ids, special)])

    def _may_be_scored(self, prompt: Ids) -> bool:
        """Whether a prompt fits the model and keeps to the suite's token rules."""
        import numpy as np

        limit = self.subject.max_positions
        length = len(prompt) + len(self.example.reference_ids) - 1
        if not len(prompt) or (limit is not None and length > limit):
            return False
        new = np.setdiff1d(prompt, self.example.prompt_ids)
        return not self._forbidden[new].any()

    @cached_property
    def _forbidden(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which ids may not come in: special ones, and those that a rule names."""
        import numpy as np

        vocabulary = self.subject.vocabulary
        rules = vocabulary.rules
        forbidden = np.zeros(vocabulary.rows, dtype=np.bool_)
        if rules.ascii_only or rules.words_only or rules.no_stop_words:
            forbidden = ~vocabulary.mask()
        special = [
            i for i in vocabulary.tokenizer.all_special_ids if i < len(forbidden)
        ]
        forbidden[special] = True
        return forbidden

    @staticmethod
    def _key(ids: Ids) -> bytes:
        return bytes(ids.astype("int64").tobytes())

    def succeeded(self, gain: float) -> bool:
        """Return whether a gain is more than `tau` asks for."""
        import math

        tau = self.options.tau
        if tau is None:
            return False
        if self.options.goal == "perplexity":
            return gain > math.log1p(tau)
        return gain > -tau * self.clean > 0


class Trial:
    """Stands for a victim where a recipe is only tried out: gains of no meaning."""

    def __init__(self) -> None:
        self.queries = 0
        self.left = TRIAL_QUERIES
        self.options = TextAttackOptions()

    def affordable(self, texts: Sequence[str]) -> int:
        return min(len(texts), self.left)

    def gains(self, texts: Sequence[str]) -> list[float]:
        self.queries += len(texts)
        self.left -= len(texts)
        return [len(set(text)) / 100 for text in texts]

    def succeeded(self, gain: float) -> bool:
        return False
