"""HotFlip: token flips proposed by gradients, verified by forward passes."""

from __future__ import annotations

from itertools import repeat
from typing import Annotated, Literal

import pydantic

from harness import hookimpl, search
from harness.api import Adversarial, AttackContext, Budget, Options, Paper
from harness.base import Positive
from harness.data import Example
from harness.subject import Search, Subject

PER_GRADIENT = 4
"""How many candidates are verified for each gradient, which costs as much as two."""
UNBOUNDED = 4
"""How many times its stated passes it gets, at most, where every token may change."""
_A_STEP = 3
"""Forward passes that a step of the textbook costs beside its candidates: a gradient,
which costs two, and the prompt's own."""
TOP_K = 8
"""How many tokens each position draws from."""


class HotFlipOptions(Options):
    """Options of HotFlip."""

    flips: Positive = 5
    """How many positions may change."""
    candidates: Positive = 64
    """Prompts that are verified by a forward pass for each flip that may be made; for
    `ascent`, the next higher multiple of four (68 of 64), but for a few at first."""
    candidates_from: Literal["ascent", "gradient"] = "ascent"
    """`gradient` is the textbook: the flips of highest first-order gain, one position
    after another. `ascent` rewrites several positions at once and exchanges some for
    others, with a gradient for every four candidates, as multiflip does."""
    beam_width: Positive = 1
    """Prompts kept after each flip, for the textbook; 1 is greedy."""
    searches: Positive = 1
    """For the textbook, searches from the clean prompt, one after another. Each goes on
    in the gradient's order where those before it left off; the best is returned."""
    stop_on_success: Annotated[float, pydantic.Field(gt=0)] | None = None
    """If set, stop once exp(dL) > 1 + this; by default the whole budget is used."""

    @pydantic.model_validator(mode="after")
    def _beams_are_the_textbooks(self) -> HotFlipOptions:
        for name in ("beam_width", "searches"):
            if getattr(self, name) > 1 and self.candidates_from == "ascent":
                raise ValueError(f"a {name} needs candidates_from: gradient")
        return self


class HotFlip(search.GuidedAttack[HotFlipOptions]):
    """Flips the few tokens that raise the loss most.

    The first-order gain of writing b over a at position i is ``(E_b - E_a)^T g_i``
    [Ebrahimi et al. 2018]. Taken at the clean token it says little of so long a step,
    so the textbook (`candidates_from: gradient`) is not the default: flips are found by
    multi-coordinate ascent, limited to `flips` positions.
    """

    name = "hotflip"
    papers = (
        Paper(
            "Ebrahimi et al. 2018",
            "HotFlip: White-Box Adversarial Examples for Text Classification",
            "https://arxiv.org/abs/1712.06751",
        ),
    )
    example = {"flips": 5, "candidates": 64}
    Options = HotFlipOptions
    controls = ("random", "permuted")
    in_training = {"flips": 4, "candidates": 1}

    def budget(self, examples: int) -> Budget:
        """Return the cost of an example.

        Near ties that are scored again are left out, and checks of success.
        """
        options, clean, drawn = self.options, 1, 1
        if options.candidates_from == "ascent":
            steps = len(self._counts)
            forward = clean + drawn + steps + sum(self._counts)
        else:
            a_search = 1 + (options.flips - 1) * options.beam_width
            steps = options.searches * a_search
            forward = clean + steps * (1 + options.candidates)
        return Budget(forward, backward=steps, flips=options.flips)

    def unbounded(self, prompt_tokens: int) -> HotFlipOptions | None:
        """Return options with which every token of such a prompt may change.

        They take up to four times the passes that are stated: with more tokens than
        that, fewer for each.
        """
        options = self.options
        most = min(1.0, UNBOUNDED * options.flips / prompt_tokens)
        if options.candidates_from == "ascent":
            candidates = PER_GRADIENT * (int(most * self._a_flip) - 1)
        else:
            candidates = int(most * (_A_STEP + options.candidates)) - _A_STEP
        if most < 1:
            options = options.model_copy(update={"candidates": max(1, candidates)})
        return options.model_copy(update={"flips": prompt_tokens})

    def doubled(self) -> HotFlipOptions | None:
        if self.options.candidates_from == "gradient":
            more = {"searches": 2 * self.options.searches}
        else:
            more = {"candidates": PER_GRADIENT * (2 * self._a_flip - 1)}
        return self.options.model_copy(update=more)

    def search_for(
        self, subject: Subject, example: Example, context: AttackContext
    ) -> Search[Adversarial]:
        """Return the search for one example."""
        options, rng = self.options, context.rng(example.id)
        guide = search.Guide(subject, example.reference_ids, context)
        if options.candidates_from == "gradient":
            return search.flip_search(
                subject,
                example,
                search.Explorer(guide, repeat(options.candidates), rng),
                flips=options.flips,
                beam_width=options.beam_width,
                stop_on_success=options.stop_on_success,
                searches=options.searches,
                checkpoints=context.checkpoints,
            )
        policy = search.FlipPolicy.of(subject, example, flips=options.flips)
        block = search.Block(example.prompt_ids, example.reference_ids, policy)
        return search.MultiSearch(
            block,
            guide,
            TOP_K,
            self._counts,
            rng,
            enough=search.Success(subject, example, options.stop_on_success),
            checkpoints=context.checkpoints,
        ).run(example.id)

    @property
    def _counts(self) -> list[int]:
        return search.candidate_counts(PER_GRADIENT, self.options.flips * self._a_flip)

    @property
    def _a_flip(self) -> int:
        """How many gradients `ascent` takes for each flip that may be made."""
        return 1 + self.options.candidates // PER_GRADIENT


@hookimpl
def register_attacks() -> list[type[HotFlip]]:
    """Offer the attack."""
    return [HotFlip]
