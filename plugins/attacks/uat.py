"""Universal adversarial triggers: one prefix that raises the loss of all prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from harness import hookimpl, search
from harness.api import Adversarial, Attack, AttackContext, Budget, Options, Paper
from harness.base import Positive
from harness.data import ExampleSets
from harness.subject import Subject


class UATOptions(Options):
    """Options of universal triggers."""

    trigger_tokens: Positive = 4
    """Length of the trigger."""
    candidates: Positive = 16
    """Tokens tried at each place of the trigger, besides the one that is there."""
    candidates_from: Literal["scaled", "gradient"] = "scaled"
    """`gradient` is the textbook: the tokens of highest first-order gain. `scaled`
    divides the gain by the token's squared distance in the embedding."""
    beam_width: Positive = 1
    """Triggers kept from place to place."""
    restarts: Positive = 2
    """Random triggers to start from, at least."""
    sweeps: Positive = 6
    """Sweeps over the trigger from one start, at most; what a start leaves when a whole
    sweep brings nothing goes to further starts."""
    search_prompts: Positive = 32
    """How many of the search examples are used, at most."""
    batch_prompts: Positive = 32
    """Search examples that share a gradient and a loss; a sweep goes over all."""
    validation_prompts: Positive = 32
    """How many of the validation examples are used, at most."""
    replicates: Positive = 1
    """Independent searches under the same seed. The first is the attack; what the
    others find stands beside it, and says how far searches differ. Each costs the whole
    budget, of the attack and of its controls alike."""


class UAT(Attack[UATOptions]):
    """Searches one trigger for all prompts, left to right, on the true mean loss.

    Candidates for a place are the tokens of highest ``(E_b - E_t)^T G``, `scaled` or
    not, for the gradient G at the token t, averaged over a batch of search prompts
    [Wallace et al. 2019]. The start that does best on the validation prompts is used on
    the test prompts, which the search never sees. Where prompts have to be texts, a
    prompt that no text gives with the trigger before it stays as it is.
    """

    name = "uat"
    papers = (
        Paper(
            "Wallace et al. 2019",
            "Universal Adversarial Triggers for Attacking and Analyzing NLP",
            "https://arxiv.org/abs/1908.07125",
        ),
    )
    example = {"trigger_tokens": 4, "replicates": 3}
    Options = UATOptions
    uses_search_examples = True
    universal = True
    controls = ("random", "permuted", "benign")
    blinds = ("uniform", "text")

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        found, *others = [
            self._search(subject, examples, context, replicate).run()
            for replicate in range(self.options.replicates)
        ]
        triggers = [found.trigger, *found.held.values(), *(x.trigger for x in others)]
        for example in examples.test:
            own, *more = search.with_triggers(subject, [example], triggers)
            yield Adversarial(
                example.id,
                own,
                found.trace,
                checkpoints=dict(zip(found.held, more, strict=False)),
                replicates=more[len(found.held) :],
            )

    def _search(
        self,
        subject: Subject,
        examples: ExampleSets,
        context: AttackContext,
        replicate: int,
    ) -> search.TriggerSearch:
        options = self.options
        return search.TriggerSearch(
            subject,
            examples.search[: options.search_prompts],
            examples.validation[: options.validation_prompts],
            context,
            tokens=options.trigger_tokens,
            starts=options.restarts,
            sweeps=options.sweeps,
            batch_prompts=options.batch_prompts,
            candidates=options.candidates,
            scaled=options.candidates_from == "scaled",
            beam_width=options.beam_width,
            replicate=replicate,
        )

    def budget(self, examples: int) -> Budget:
        """Return an example's share of one search, where all its prompts are given.

        Near ties that are scored again are left out.
        """
        options, places = self.options, self.options.trigger_tokens
        sweeps = options.restarts * options.sweeps
        triggers = 1 + options.candidates * (1 + (places - 1) * options.beam_width)
        forward = options.search_prompts * (triggers + places)
        return Budget(
            forward=_share(sweeps * (forward + options.validation_prompts), examples),
            backward=_share(sweeps * options.search_prompts * places, examples),
            prepended=places,
        )

    def beside_prompt(self) -> int:
        return self.options.trigger_tokens

    def doubled(self) -> UATOptions | None:
        return self.options.model_copy(update={"restarts": 2 * self.options.restarts})


def _share(total: int, examples: int) -> int:
    return -(-total // examples)


@hookimpl
def register_attacks() -> list[type[UAT]]:
    """Offer the attack."""
    return [UAT]
