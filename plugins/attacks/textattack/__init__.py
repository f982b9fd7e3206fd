"""TextAttack: its recipes and parts, with our subject as the victim.

The library is loaded when an attack runs and not before. It sees texts and their gains
alone: every score is a loss of the example's reference, computed by the metered
`Subject`, and what it returns is scored again by the core like any other prompt.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness import hookimpl, search
from harness.api import Adversarial, Attack, AttackContext, Budget, Paper
from harness.base import CellError, HarnessError, Ids, MissingResource
from harness.data import Example, ExampleSets
from harness_plugins.attacks.textattack.library import (
    DEFAULT_RECIPE,
    INSTALL,
    Parts,
    load_library,
    name_and_arguments,
)
from harness_plugins.attacks.textattack.offline import (
    cause,
    nothing_downloaded,
    quiet,
    stop_words,
)
from harness_plugins.attacks.textattack.options import TextAttackOptions
from harness_plugins.attacks.textattack.victim import Trial, Victim

if TYPE_CHECKING:
    from harness.subject import Subject

TRIAL_TEXT = (
    "Mary said that the weather in London was good. She bought 3 books there and "
    "didn't read them until the next day."
)
"""What a recipe is tried on, to find out what it lacks."""
_SEEDS = 2**32


class TextAttack(Attack[TextAttackOptions]):
    """Runs a recipe of TextAttack, or parts of it, against the reference's loss.

    The prompt is decoded, attacked as text and encoded again, so that what is returned
    is what a text encodes to; its length may change. A text is scored once for each
    example, and each score is in the ledger. Needs the extra: `pip install
    'harness[textattack]'`.
    """

    name = "textattack"
    papers = (
        Paper(
            "Morris et al. 2020",
            "TextAttack: A Framework for Adversarial Attacks, Data Augmentation, "
            "and Adversarial Training in NLP",
            "https://arxiv.org/abs/2005.05909",
        ),
    )
    example = {"recipe": "deepwordbug-gao-2018"}
    Options = TextAttackOptions

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        from harness.base import fixed_random_state

        if self.options.goal == "rouge" and not _writes_summaries(subject):
            raise CellError("the goal rouge needs an encoder-decoder model")
        load_library()
        with nothing_downloaded():
            parts = Parts.of(self.options)
        for example in examples.test:
            seed = int(context.rng(example.id).integers(_SEEDS))
            with fixed_random_state(seed), quiet():
                yield self._attack(subject, example, parts, context.checkpoints)

    def budget(self, examples: int) -> Budget:
        """Return the queries of an example; near ties that are scored again left out.

        A text that is a few tokens longer costs that much more.
        """
        return Budget(forward=self.options.query_budget, backward=0)

    def missing(self) -> list[str]:
        """Say what is not here, by trying the recipe on a sentence, offline."""
        if importlib.util.find_spec("textattack") is None:
            return [INSTALL]
        try:
            self._try_out()
        except HarnessError as error:
            return [str(error)]
        return []

    def doubled(self) -> TextAttackOptions | None:
        more = {"query_budget": 2 * self.options.query_budget}
        return self.options.model_copy(update=more)

    def _attack(
        self,
        subject: Subject,
        example: Example,
        parts: Parts,
        checkpoints: Sequence[float],
    ) -> Adversarial:
        victim = Victim(subject, example, self.options)
        text, valid = parts.attack(victim, victim.clean_text)
        chosen = text if self.options.tau is not None else victim.best([text, *valid])
        course = search.Course[Ids](checkpoints, self.options.query_budget)
        made = victim.queries
        for share in course.shares:
            queries = course.within(share)
            if queries >= made:
                earlier = chosen
            elif self.options.tau is not None:  # it had not succeeded yet
                earlier = victim.clean_text
            else:
                earlier = victim.best([text, *valid], queries)
            course.held[share] = self._prompt(victim, earlier)
        ids, gain = self._prompt(victim, chosen), victim.gains([chosen])[0]
        if gain <= 0:
            return Adversarial(example.id, ids, (), course.held)
        step = {
            "step": 1,
            "gain": gain,
            "queries": victim.queries,
            "passes": victim.queries,
            "gradients": 0,
            "stop_words": stop_words(),
        }
        if self.options.goal == "perplexity":
            step["loss"] = victim.clean + gain
        return Adversarial(example.id, ids, [step], course.held)

    def _prompt(self, victim: Victim, text: str) -> Ids:
        """Return the prompt of a text, the clean one where the text gains nothing."""
        if victim.gains([text])[0] <= 0:
            return victim.example.prompt_ids
        return victim.ids(text)

    def _try_out(self) -> None:
        what, _ = name_and_arguments(self.options.recipe or DEFAULT_RECIPE)
        if self.options.transformations:
            what = "this combination"
        load_library()
        with nothing_downloaded(), quiet():
            try:
                parts = Parts.of(self.options)
                parts.attack(Trial(), TRIAL_TEXT)
            except HarnessError:
                raise
            except Exception as error:  # whatever the libraries raise
                raise MissingResource(
                    f"TextAttack: {what} cannot run here: {cause(error)}"
                ) from error


def _writes_summaries(subject: Subject) -> bool:
    model, _ = subject.huggingface()
    return bool(model.config.is_encoder_decoder)


@hookimpl
def register_attacks() -> list[type[TextAttack]]:
    """Offer the attack."""
    return [TextAttack]
