"""TextAttack: its recipes and parts, with our subject as the victim.

The library is loaded when an attack runs and not before. It sees texts and their gains
alone: every score is a loss of the example's reference, computed by the metered
`Subject`, and what it returns is scored again by the core like any other prompt.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic

from harness import hookimpl
from harness.errors import CellError, HarnessError, MissingResource, UsageError
from harness.interfaces import (
    Adversarial,
    Attack,
    AttackContext,
    Budget,
    Example,
    ExampleSets,
    Options,
)

if TYPE_CHECKING:
    import numpy as np

    from harness.interfaces import Ids
    from harness.subject import Subject

Positive = Annotated[int, pydantic.Field(gt=0)]
Component = str | dict[str, dict[str, Any]]
"""A part of an attack: its name, or a mapping of its name to its arguments."""

DEFAULT_RECIPE = "deepwordbug-gao-2018"
SEARCH = "greedy"
NO_SCORE = -1e6
"""The gain of what may not be scored: a text that is too long, or breaks a rule."""
INSTALL = "TextAttack is not installed: pip install 'harness[textattack]'"
NO_GRADIENT = (
    "TextAttack: it reads the gradient of a classifier of words; on language models, "
    "`hotflip` and `gcg` use gradients"
)
TRIAL_TEXT = (
    "Mary said that the weather in London was good. She bought 3 books there and "
    "didn't read them until the next day."
)
"""What a recipe is tried on, to find out what it lacks."""
TRIAL_QUERIES = 80
_SEEDS = 2**32


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


class TextAttack(Attack[TextAttackOptions]):
    """Runs a recipe of TextAttack, or parts of it, against the reference's loss.

    The prompt is decoded, attacked as text and encoded again, so that what is returned
    is what a text encodes to; its length may change. A text is scored once for each
    example, and each score is in the ledger. Needs the extra: `pip install
    'harness[textattack]'`.
    """

    name = "textattack"
    Options = TextAttackOptions

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        from harness.isolation import fixed_random_state

        if self.options.goal == "rouge" and not _writes_summaries(subject):
            raise CellError("the goal rouge needs an encoder-decoder model")
        with _nothing_downloaded():
            parts = _Parts.of(self.options)
        for example in examples.test:
            seed = int(context.rng(example.id).integers(_SEEDS))
            with fixed_random_state(seed), _quiet():
                yield self._attack(subject, example, parts)

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

    def _attack(self, subject: Subject, example: Example, parts: _Parts) -> Adversarial:
        victim = Victim(subject, example, self.options)
        text, valid = parts.attack(victim, victim.clean_text)
        chosen = text if self.options.tau is not None else victim.best([text, *valid])
        ids, gain = victim.ids(chosen), victim.gains([chosen])[0]
        if gain <= 0:
            return Adversarial(example.id, example.prompt_ids)
        step = {
            "step": 1,
            "gain": gain,
            "queries": victim.queries,
            "passes": victim.queries,
            "gradients": 0,
            "stop_words": _stop_words(),
        }
        if self.options.goal == "perplexity":
            step["loss"] = victim.clean + gain
        return Adversarial(example.id, ids, [step])

    def _try_out(self) -> None:
        what, _ = _name_and_arguments(self.options.recipe or DEFAULT_RECIPE)
        if self.options.transformations:
            what = "this combination"
        with _nothing_downloaded(), _quiet():
            try:
                parts = _Parts.of(self.options)
                parts.attack(_Trial(), TRIAL_TEXT)
            except HarnessError:
                raise
            except Exception as error:  # whatever the libraries raise
                raise MissingResource(
                    f"TextAttack: {what} cannot run here: {_cause(error)}"
                ) from error


def _writes_summaries(subject: Subject) -> bool:
    model, _ = subject.huggingface()
    return bool(model.config.is_encoder_decoder)


# --- the victim ---------------------------------------------------------------------


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

    def best(self, texts: Sequence[str]) -> str:
        """Return the text of highest gain among those scored; ties to the first.

        Losses that rounding could swap are computed again, each alone.
        """
        import numpy as np

        scored = {self._key(self.ids(t)): t for t in reversed(texts)}
        known = [text for key, text in reversed(scored.items()) if key in self._known]
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
        from harness.rouge import rouge

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


class _Trial:
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


# --- the library's side -------------------------------------------------------------


@dataclass(frozen=True)
class _Parts:
    """What an attack of TextAttack is made of, its goal left out."""

    transformation: Any
    constraints: list[Any]
    search: Any

    @classmethod
    def of(cls, options: TextAttackOptions) -> _Parts:
        """Build the recipe, or the parts that are stated.

        Raises UsageError for unknown names and arguments; what else is wrong passes.
        """
        library = _library()
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

    def attack(self, victim: Victim | _Trial, text: str) -> tuple[str, list[str]]:
        """Attack a text; returns what the search ends with, and all it could have.

        The second are the texts that obeyed the constraints, scored or not.
        """
        library = _library()
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
    from harness.errors import unknown_name

    found = {_plain(key): value for key, value in known.items()}.get(_plain(name))
    if found is None:
        raise UsageError(unknown_name(f"TextAttack {kind}", name, known))
    return found


def _plain(name: str) -> str:
    """Leave out case and what stands between words: textfooler-jin-2019 is a class."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _name_and_arguments(part: Component) -> tuple[str, dict[str, Any]]:
    return (part, {}) if isinstance(part, str) else next(iter(part.items()))


def _built(known: Mapping[str, Any], kind: str, part: Component) -> Any:
    name, arguments = _name_and_arguments(part)
    return _called(_named(known, kind, name), f"TextAttack {kind} {name}", arguments)


def _recipe(library: SimpleNamespace, part: Component) -> Any:
    """Build a recipe; its own goal, of which nothing is kept, may need a choice."""
    name, arguments = _name_and_arguments(part)
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
def _library() -> SimpleNamespace:
    """Load TextAttack; return its parts by name, and our classes for it."""
    if importlib.util.find_spec("textattack") is None:
        raise MissingResource(INSTALL)
    _import_textattack()
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

        def __init__(self, victim: Victim | _Trial) -> None:
            super().__init__(_library().wrapper(), maximizable=True, use_cache=False)
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


# --- loading it, offline ------------------------------------------------------------


def _import_textattack() -> None:
    """Import TextAttack, and keep to itself what it does to the process.

    On its first import it downloads from NLTK, notes in its cache that it did, moves
    other libraries' caches and disables all loggers. None of that is let happen. Where
    NLTK's stop words are absent, without which it cannot be imported, ours stand in.
    """
    import datasets  # noqa: F401 (these read the environment as they are imported)
    import huggingface_hub  # noqa: F401
    import nltk
    import transformers  # noqa: F401

    environment = dict(os.environ)
    logging.disable()
    with (
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory() as folder,
        _replaced(nltk, "download", lambda *names, **options: False),
        _loggers_left_alone(),
    ):
        warnings.simplefilter("ignore")
        import flair  # noqa: F401

        _provide_stop_words(nltk)
        os.environ["TA_CACHE_DIR"] = folder
        try:
            import textattack
        finally:
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)
            logging.disable(logging.NOTSET)
    home = Path("~/.cache/textattack").expanduser()
    textattack.shared.utils.install.TEXTATTACK_CACHE_DIR = environment.get(
        "TA_CACHE_DIR", str(home)
    )
    logging.getLogger("textattack").setLevel(logging.ERROR)
    textattack.shared.utils.logger.setLevel(logging.ERROR)


def _provide_stop_words(nltk: Any) -> None:
    """Put our stop words where NLTK looks for its own, if those are absent."""
    import atexit
    import shutil

    from harness.scoring.rules import STOP_WORDS

    with contextlib.suppress(LookupError):
        nltk.data.find("corpora/stopwords")
        return
    folder = Path(tempfile.mkdtemp(prefix="harness-nltk-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / "corpora" / "stopwords" / "english"
    file.parent.mkdir(parents=True)
    file.write_text("".join(f"{word}\n" for word in sorted(STOP_WORDS)))
    nltk.data.path.append(str(folder))
    _stood_in.append(folder)


_stood_in: list[Path] = []


def _stop_words() -> str:
    """Name the stop words that TextAttack was given."""
    return "harness" if _stood_in else "nltk"


@contextlib.contextmanager
def _loggers_left_alone() -> Iterator[None]:
    """Keep `dictConfig` from disabling the loggers that it is not about."""
    import logging.config

    original = logging.config.dictConfig

    def configure(config: dict[str, Any]) -> None:
        original({**config, "disable_existing_loggers": False})

    with _replaced(logging.config, "dictConfig", configure):
        yield


@contextlib.contextmanager
def _nothing_downloaded() -> Iterator[None]:
    """Make downloads fail at once: what is in the libraries' caches still serves."""
    import nltk
    from requests.adapters import HTTPAdapter

    from harness.isolation import offline

    _library()

    def refuse(adapter: Any, request: Any, **options: Any) -> Any:
        raise _Download(request.url)

    with (
        offline(),
        _replaced(nltk, "download", lambda *names, **options: False),
        _replaced(HTTPAdapter, "send", refuse),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


class _Download(Exception):
    """Something would be downloaded; the message is its address."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _replaced(place: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


_CAUSES: tuple[tuple[type[Exception], str, str], ...] = (
    (_Download, r"(.+)", "it needs {0}, which TextAttack downloads at its first use"),
    (
        Exception,
        r"huggingface\.co/((?:[\w.-]+/)?[\w.-]+)/resolve/",
        "it needs the model {0} of the Hugging Face hub, which is in no cache",
    ),
    (
        OSError,
        r"(couldn't connect to 'https://huggingface)",
        "it needs a model of the Hugging Face hub, which is in no cache",
    ),
    (
        LookupError,
        r"Resource '?(?:\x1b\[\d+m)*([\w.-]+)(?:\x1b\[\d+m)*'? not found",
        "it needs NLTK's {0}: python -m nltk.downloader {0}",
    ),
    (
        Exception,
        r"(?:No module named|cannot find module named) ['`]([\w.]+)['`]",
        "it needs the package {0}, which the extra leaves out",
    ),
    (
        FileNotFoundError,
        r"No such file or directory: '(.+)'",
        "it needs the file {0}, which is not there",
    ),
)


def _cause(error: BaseException) -> str:
    """Say in a sentence what a recipe lacked, by the errors that led to this one."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for kind, pattern, sentence in _CAUSES:
        for one in chain:
            match = re.search(pattern, " ".join(str(one).split()))
            if isinstance(one, kind) and match:
                return sentence.format(match.group(1))
    return " ".join(str(error).split()) or type(error).__name__


@hookimpl
def register_attacks() -> list[type[TextAttack]]:
    """Offer the attack."""
    return [TextAttack]
