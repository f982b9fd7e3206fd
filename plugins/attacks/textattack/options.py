"""What a suite can ask of TextAttack."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from harness.api import Options

Component = str | dict[str, dict[str, Any]]
"""A part of an attack: its name, or a mapping of its name to its arguments."""


class TextAttackOptions(Options):
    """Options of TextAttack: a recipe, or the parts of an attack."""

    recipe: Component | None = None
    """A recipe of TextAttack by its name, as `deepwordbug-gao-2018`, `deepwordbug` or
    `DeepWordBugGao2018`, or `{name: {argument: value}}`; DeepWordBug, where no
    transformations are stated either."""
    transformations: tuple[Component, ...] = ()
    """For an attack of your own: what changes a text, by name (`word-swap-qwerty`) or
    as `{name: {argument: value}}`."""
    constraints: tuple[Component, ...] = ()
    """Which changes are allowed, likewise: `repeat`, `stopword`, ..."""
    search: Component | None = None
    """How changes are searched, likewise; `greedy` where there are transformations."""
    goal: Literal["perplexity", "rouge"] = "perplexity"
    """`perplexity`: the reference's loss rises, the score is dL. `rouge`: ROUGE-L of
    what an encoder-decoder model writes falls, against the reference's text."""
    tau: Annotated[float, pydantic.Field(gt=0)] | None = None
    """If set, stop once the perplexity has risen, or ROUGE-L fallen, by more than this
    share, with as few changes as the recipe finds; by default go on for the most."""
    query_budget: Annotated[int, pydantic.Field(gt=1)] = 500
    """Texts of one example that are scored, at most, the clean one included."""

    @pydantic.model_validator(mode="after")
    def _recipe_or_parts(self) -> TextAttackOptions:
        if self.recipe is not None and self.transformations:
            raise ValueError("state a recipe or transformations, not both")
        if not self.transformations and (self.constraints or self.search):
            raise ValueError("constraints and search go with transformations")
        for part in (
            self.recipe,
            *self.transformations,
            *self.constraints,
            self.search,
        ):
            if isinstance(part, dict) and len(part) != 1:
                raise ValueError("a part is a name, or a mapping of one name")
        return self
