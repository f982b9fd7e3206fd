"""TextAttack's side: its parts by name, and our classes for it."""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from harness.base import MissingResource, UsageError
from harness_plugins.attacks.textattack.offline import import_textattack
from harness_plugins.attacks.textattack.victim import Spent

if TYPE_CHECKING:
    from harness_plugins.attacks.textattack.options import Component, TextAttackOptions
    from harness_plugins.attacks.textattack.victim import Trial, Victim

DEFAULT_RECIPE = "deepwordbug-gao-2018"
SEARCH = "greedy"
INSTALL = "TextAttack is not installed: pip install 'harness[textattack]'"
NO_GRADIENT = (
    "TextAttack: it reads the gradient of a classifier of words; on language models, "
    "`hotflip` and `gcg` use gradients"
)


@dataclass(frozen=True)
class Parts:
    """What an attack of TextAttack is made of, its goal left out."""

    transformation: Any
    constraints: list[Any]
    search: Any

    @classmethod
    def of(cls, options: TextAttackOptions) -> Parts:
        """Build the recipe, or the parts that are stated.

        Raises UsageError for unknown names and arguments; what else is wrong passes.
        """
        library = load_library()
        if not options.transformations:
            built = _recipe(library, options.recipe or DEFAULT_RECIPE)
            return cls(
                built.transformation,
                [*built.pre_transformation_constraints, *built.constraints],
                built.search_method,
            )
        changes = [
            _built(library.transformations, "transformation", part)
            for part in options.transformations
        ]
        constraints = [
            _built(library.constraints, "constraint", part)
            for part in options.constraints
        ]
        search = _built(library.searches, "search", options.search or SEARCH)
        whole = changes[0] if len(changes) == 1 else library.composite(changes)
        return cls(whole, constraints, search)

    def attack(self, victim: Victim | Trial, text: str) -> tuple[str, list[str]]:
        """Attack a text; returns what the search ends with, and all it could have.

        The second are the texts that obeyed the constraints, scored or not.
        """
        library = load_library()
        goal = library.goal(victim)
        try:
            attack = library.attack(
                goal, self.constraints, self.transformation, self.search
            )
        except ValueError as error:  # a search that cannot use the transformation
            raise UsageError(f"TextAttack: {error}") from error
        try:
            found = attack.attack(text, 0).perturbed_result.attacked_text.text
        except Spent:
            found = text
        return found, list(attack.valid)


def _named(known: Mapping[str, Any], kind: str, name: str) -> Any:
    from harness.base import unknown_name

    found = {_plain(key): value for key, value in known.items()}.get(_plain(name))
    if found is None:
        raise UsageError(unknown_name(f"TextAttack {kind}", name, known))
    return found


def _plain(name: str) -> str:
    """Leave out case and what stands between words: textfooler-jin-2019 is a class."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def name_and_arguments(part: Component) -> tuple[str, dict[str, Any]]:
    """Take a part of an attack apart, as a suite states it."""
    return (part, {}) if isinstance(part, str) else next(iter(part.items()))


def _built(known: Mapping[str, Any], kind: str, part: Component) -> Any:
    name, arguments = name_and_arguments(part)
    return _called(_named(known, kind, name), f"TextAttack {kind} {name}", arguments)


def _recipe(library: SimpleNamespace, part: Component) -> Any:
    """Build a recipe; its own goal, of which nothing is kept, may need a choice."""
    name, arguments = name_and_arguments(part)
    build = _named(library.recipes, "recipe", name).build
    if "goal_function_type" in inspect.signature(build).parameters:
        arguments = {"goal_function_type": "targeted_classification", **arguments}
    arguments = {"model_wrapper": library.wrapper(), **arguments}
    return _called(build, f"TextAttack recipe {name}", arguments)


def _called(make: Any, what: str, arguments: Mapping[str, Any]) -> Any:
    try:
        inspect.signature(make).bind(**arguments)
    except TypeError as error:
        raise UsageError(f"{what}: {error}") from error
    return make(**arguments)


@cache
def load_library() -> SimpleNamespace:
    """Load TextAttack; return its parts by name, and our classes for it."""
    if importlib.util.find_spec("textattack") is None:
        raise MissingResource(INSTALL)
    import_textattack()
    import textattack
    from textattack.attack_args import (
        ATTACK_RECIPE_NAMES,
        BLACK_BOX_TRANSFORMATION_CLASS_NAMES,
        CONSTRAINT_CLASS_NAMES,
        SEARCH_METHOD_CLASS_NAMES,
        WHITE_BOX_TRANSFORMATION_CLASS_NAMES,
    )
    from textattack.attack_recipes import AttackRecipe
    from textattack.constraints import Constraint, PreTransformationConstraint
    from textattack.search_methods import SearchMethod
    from textattack.transformations import CompositeTransformation, Transformation

    return SimpleNamespace(
        recipes=_catalogue((AttackRecipe,), ATTACK_RECIPE_NAMES),
        transformations=_catalogue(
            (Transformation,),
            BLACK_BOX_TRANSFORMATION_CLASS_NAMES | WHITE_BOX_TRANSFORMATION_CLASS_NAMES,
        ),
        constraints=_catalogue(
            (Constraint, PreTransformationConstraint), CONSTRAINT_CLASS_NAMES
        ),
        searches=_catalogue((SearchMethod,), SEARCH_METHOD_CLASS_NAMES),
        composite=CompositeTransformation,
        wrapper=_wrapper_class(textattack),
        goal=_goal_class(textattack),
        attack=_attack_class(textattack),
    )


def _catalogue(bases: tuple[type, ...], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the classes by TextAttack's short names, and by their own."""
    classes = {one.__name__: one for base in bases for one in _below(base)}
    short = {name: path.rpartition(".")[2] for name, path in names.items()}
    known = {name: classes[own] for name, own in short.items() if own in classes}
    return {**classes, **known}


def _below(base: type) -> Iterator[type]:
    for one in base.__subclasses__():
        yield from _below(one)
        if not getattr(one, "__abstractmethods__", None):
            yield one


def _wrapper_class(textattack: Any) -> type:
    class Wrapper(textattack.models.wrappers.ModelWrapper):  # type: ignore[misc]
        """Stands where a recipe wants a model: ours is asked by the goal alone."""

        model = None

        @property
        def tokenizer(self) -> Any:
            raise UsageError(NO_GRADIENT)

        def get_grad(self, text: str) -> Any:
            raise UsageError(NO_GRADIENT)

        def __call__(self, texts: Sequence[str], **options: Any) -> Any:
            raise NotImplementedError

    return Wrapper


def _goal_class(textattack: Any) -> type:
    status = textattack.goal_function_results.GoalFunctionResultStatus
    result = textattack.goal_function_results.TextToTextGoalFunctionResult

    class Goal(textattack.goal_functions.GoalFunction):  # type: ignore[misc]
        """Scores texts by their gain; counts the prompts that were really scored."""

        def __init__(self, victim: Victim | Trial) -> None:
            wrapper = load_library().wrapper()
            super().__init__(wrapper, maximizable=True, use_cache=False)
            self.victim = victim

        def get_results(
            self, attacked_text_list: Sequence[Any], check_skip: bool = False
        ) -> tuple[list[Any], bool]:
            """Return the results that the budget pays for, and whether it is spent."""
            wanted = [one.tokenizer_input for one in attacked_text_list]
            count = self.victim.affordable(wanted)
            if wanted and not count:
                raise Spent
            gains = self.victim.gains(wanted[:count])
            self.num_queries = self.victim.queries
            found = [
                result(text, gain, gain, self._status(gain), gain, self.num_queries, "")
                for text, gain in zip(attacked_text_list, gains, strict=False)
            ]
            return found, count < len(wanted) or not self.victim.left

        def _status(self, gain: float) -> int:
            if self.victim.succeeded(gain):
                return int(status.SUCCEEDED)
            tau = self.victim.options.tau
            return int(status.MAXIMIZING if tau is None else status.SEARCHING)

        def _is_goal_complete(self, output: float, text: Any) -> bool:
            return self.victim.succeeded(output)

        def _get_score(self, output: float, text: Any) -> float:
            return output

        def _goal_function_result_type(self) -> type:
            return type(result)

        def _process_model_outputs(self, inputs: Any, outputs: Any) -> Any:
            return outputs

    return Goal


def _attack_class(textattack: Any) -> type:
    class Remembering(textattack.Attack):  # type: ignore[misc]
        """Remembers the texts that obeyed the constraints, the best may be passed."""

        def __init__(self, *parts: Any) -> None:
            self.valid: dict[str, None] = {}
            super().__init__(*parts)

        def filter_transformations(self, *arguments: Any, **options: Any) -> Any:
            found = super().filter_transformations(*arguments, **options)
            self.valid.update((one.tokenizer_input, None) for one in found)
            return found

    return Remembering
