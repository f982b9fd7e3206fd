"""Which flips of a prompt the suite's token rules allow.

The rules hold where flips come from and where they are verified, in
`harness.search.flips`, so that attacks and their controls keep to the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from harness.subject import Ask, Draft, Request, Search

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.base import Ids
    from harness.data import Example
    from harness.subject import Subject, TokenRules

ROUNDING = 1e-6
"""Of cosines and shares: so little below the bound is at it."""


@dataclass(frozen=True)
class FlipPolicy:
    """The token rules, applied to the clean prompt of one example.

    They are about the clean prompt however many flips have been made: what is compared
    with a token is the one that stood there at first.
    """

    subject: Subject = field(repr=False)
    clean_ids: Ids
    movable: NDArray[np.bool_]
    """Which positions [n] may be changed at all."""
    most_changed: int
    """How many of them may differ from the clean prompt, at most."""
    rules: TokenRules
    """The rules themselves."""

    @classmethod
    def of(
        cls,
        subject: Subject,
        example: Example,
        rules: TokenRules | None = None,
        flips: int | None = None,
    ) -> FlipPolicy:
        """Apply rules, those of the subject by default, to an example's prompt.

        No more than `flips` tokens may change, and no more than a share that the rules
        allow; one may always change: a share is not meant to forbid all.
        """
        rules, movable = rules or subject.vocabulary.rules, example.free
        share = 1.0 if rules.max_changed is None else rules.max_changed
        most = max(1, int(share * movable.sum() + ROUNDING))
        most = most if flips is None else min(most, flips)
        if rules.keep_stop_words:
            movable = movable & ~subject.vocabulary.stop_words(example.prompt_ids)
        return cls(subject, np.asarray(example.prompt_ids), movable, most, rules)

    def movable_after(self, prompt: Ids) -> NDArray[np.bool_]:
        """Return which positions [n] may be written once a prompt is reached.

        When as many differ as may, only they are left.
        """
        changed: NDArray[np.bool_] = np.asarray(prompt) != self.clean_ids
        if changed.sum() < self.most_changed:
            return self.movable
        return self.movable & changed

    def writable(self, position: int, allowed: Ids) -> Ids:
        """Return those of the `allowed` ids that may be written at a position.

        Where a cosine is asked for, those that are near enough to the clean token.
        """
        if self.near is None:
            return allowed
        with self.subject.aside():
            near: Ids = allowed[self.near[position].cpu().numpy()[allowed]]
        return near

    def permits(
        self, prompts: Sequence[Ids], since: Ids | None = None, *, mended: bool = False
    ) -> list[bool]:
        """Say of each prompt of the clean one's length whether all rules hold.

        Tokens that are as in the clean prompt are never at fault. Whether a text
        encodes to a prompt is a guess from the words that have changed `since` another
        prompt, the clean one by default: `Losses` decides, beside the passes. Of those
        that were `mended` since, it is known.
        """
        import torch

        since = self.clean_ids if since is None else since
        if not prompts:
            return []
        written = np.array(prompts)
        changed = written != self.clean_ids
        faults = changed & ~self.movable
        if self.near is not None:
            with self.subject.aside():
                tokens = torch.from_numpy(written).to(self.near.device)
                positions = torch.arange(written.shape[1], device=tokens.device)
                faults |= changed & ~self.near[positions, tokens].cpu().numpy()
        kept = ~faults.any(axis=1) & (changed.sum(axis=1) <= self.most_changed)
        if self.rules.reachable_only and not (mended and self._guess):
            left = np.flatnonzero(kept)
            kept[left] = self._may_be_reached(written[left], since)
        return [bool(one) for one in kept]

    def mended(self, prompts: Sequence[Ids], since: Ids) -> Search[list[Ids]]:
        """Take back changes, since another prompt, that break words.

        Prompts of which nothing is left are left out, and those where a word stays
        broken; see `Vocabulary.mended`. None is touched where they need not be
        reachable.
        """
        if not self.rules.reachable_only or not self._guess or not len(prompts):
            return list(prompts)
        drafts = [Draft(prompt, since) for prompt in prompts]
        mended = yield Request(Ask.MENDED, drafts)
        return [prompt for prompt in mended if prompt is not None]

    def _may_be_reached(self, written: Ids, since: Ids) -> NDArray[np.bool_]:
        if not self._guess:
            return np.array(self.subject.reachable(written), dtype=np.bool_)
        changed = written != since
        broken = self.subject.vocabulary.broken_words(written, changed)
        return np.logical_not(broken.any(axis=1))

    @cached_property
    def _guess(self) -> bool:
        """Whether words that have changed can be at fault and nothing else."""
        return self.subject.reachable([self.clean_ids])[0]

    @cached_property
    def near(self) -> Tensor | None:
        """Which tokens [n, V] are near enough to the clean ones, on the device."""
        import torch

        least = self.rules.min_cosine
        if least is None:
            return None
        rows = self.subject.embedding
        with self.subject.aside():
            clean = rows[torch.tensor(self.clean_ids, device=rows.device)]
            norms = clean.norm(dim=1)[:, None] * rows.norm(dim=1)
            cosines = (clean @ rows.T) / norms.clamp(min=torch.finfo(rows.dtype).tiny)
            near: Tensor = cosines >= least - ROUNDING
        return near
