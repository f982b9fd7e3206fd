"""Whether a suite can have what it asks for: of its texts, its models, this machine.

All of it is found in seconds, before anything is loaded or trained. Texts are read and
cut as a run will cut them, as far as that is quick; of what is not known, as of a
dataset that is not on this machine, nothing is said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from harness.api import LOCAL_PATH, Attack, ModelShape
from harness.base import (
    HarnessError,
    Problem,
    Store,
    SuiteError,
    UsageError,
    near_path,
)
from harness.data import Corpora, Document, example_fault, matching
from harness.models import RecoverySection
from harness.suite.experiment import Experiment
from harness.suite.marks import marked
from harness.suite.texts import Texts, Tokens, encoded, load_tokenizer
from harness.suite.unloaded import Unloaded
from harness.suite.yaml import Keys

MOST_BYTES = 2**28
"""Of a local corpus that is read: a slice in percent takes all of its rows."""
MOST_UNTRUSTED_BYTES = 2**25
MOST_CHARACTERS = 2**23
"""Of the documents of a corpus that are cut: some two million tokens, in seconds."""
PLAIN_ENDINGS = (".jsonl", ".csv", ".txt")
"""Of files that are no larger in memory than on disk."""
ROUNDED = 1.01
"""How many times the stated tokens are trained on where it is said."""
A_PASS = 1.05
ABOUT_A_PASS = 1.25
"""Of how many passes over a corpus on it is said how many there are; the second where
its tokens are only estimated, which may be a tenth off."""

Severity = Literal["error", "notice"]
Fault = tuple[Keys, Severity, str]
"""A path, how grave it is, and what is wrong there."""


def misfits(
    experiment: Experiment, store_root: Path, *, trust: bool = True
) -> list[Problem]:
    """Return what a suite asks for and cannot have, and what it will have instead.

    Errors are what would end a run or its cells, be it after their training; notices
    say what will be done, as that tokens are rounded up. Without `trust`, only plain
    files beside the suite are read, and no pattern that they bring is run; examples
    may then be counted from above.
    """
    corpora = _Quick(experiment, Store(store_root), trust)
    found = dict.fromkeys(
        (experiment.layer.place(keys), keys, message, severity)
        for rule in _RULES
        for label in experiment.models
        for keys, severity, message in rule(_Fit(experiment, corpora, label, trust))
    )
    return [
        replace(place.problem(keys, message), severity=severity)
        for place, keys, message, severity in found
    ]


def refuse_misfits(
    experiment: Experiment, store_root: Path, absent: Sequence[Problem] = ()
) -> list[Problem]:
    """Return the `misfits` that are notices; raise SuiteError with the errors.

    That names what is `absent`, too, which comes first.
    """
    found = misfits(experiment, store_root)
    errors = [problem for problem in found if problem.severity == "error"]
    if errors:
        raise SuiteError([*absent, *errors])
    return found


def lost_paths(experiment: Experiment) -> list[Problem]:
    """Return the paths of models and texts that lead nowhere, as warnings.

    On another machine they may lead somewhere. Of what may be an id of the hub, only
    those that are like a path beside them.
    """
    found = []
    for keys, text in _paths(experiment):
        place = experiment.layer.place(keys)
        path = place.base / Path(text).expanduser()
        if path.exists() or (keys[0] == "corpora" and matching(str(path))):
            continue
        near = near_path(path)
        if Path(text).is_absolute():
            message = f"{text} is not there{near}"
        elif near and len(Path(text).parts) == 1:
            message = f"{text} is no folder here{near}"
        else:
            continue
        found.append(replace(place.problem(keys, message), severity="warning"))
    return found


def _paths(experiment: Experiment) -> Iterator[tuple[Keys, str]]:
    for label, adapter in experiment.models.items():
        entry = experiment.layer.mapping("models", label)
        for one in marked(type(adapter.options), entry):
            if one.mark == LOCAL_PATH:
                yield ("models", label, *one.keys), one.text
    for label in experiment.used_corpora:
        path = experiment.suite.corpora[label].path
        if path is not None:
            yield ("corpora", label, "path"), path


# --- what is asked of one model -----------------------------------------------------


@dataclass(frozen=True)
class _Fit:
    """A suite, held against one of its models."""

    experiment: Experiment
    corpora: _Quick
    label: str
    trust: bool

    @cached_property
    def shape(self) -> ModelShape | None:
        """The model's sizes, where they are known."""
        try:
            shape = self.experiment.models[self.label].shape()
        except HarnessError:  # said of what is missing, or by the run
            return None
        if shape and shape.tokenizer and not (self.trust or _plain(shape.tokenizer)):
            return replace(shape, tokenizer=None)
        return shape

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer as far as it is known; or else one that makes too many."""
        path = self.shape.tokenizer if self.shape else None
        try:
            return _ATokenAByte() if path is None else _Tokenizer(load_tokenizer(path))
        except UsageError:  # loading the model says it, too
            return _ATokenAByte()

    @cached_property
    def attacks(self) -> dict[str, Attack[Any]]:
        """The attacks that results are about, as they act in the suite."""
        found = {}
        for label in self.experiment.suite.main_attacks:
            attack = self.experiment.attacks[label]
            if not isinstance(attack, Unloaded):
                found[label] = attack.placed(self.experiment.scene())
        return found


def _flips(fit: _Fit) -> Iterator[Fault]:
    """Find attacks that are to change more tokens than there are."""
    suite = fit.experiment.suite
    if suite.examples is None:
        return
    for label, attack in fit.attacks.items():
        try:
            flips = attack.budget(suite.examples.test.count).flips or 0
        except HarnessError:  # as of one that only replays
            continue
        beside = attack.beside_prompt()
        there = beside or suite.examples.prompt_tokens
        if flips > there:
            what = "it puts beside prompts" if beside else "a prompt has"
            named = "tokens" if beside else "examples.prompt_tokens"
            message = f"{flips} tokens may change, and {what} {there} (`{named}`)"
            yield ("attacks", label, "flips"), "error", message


def _positions(fit: _Fit) -> Iterator[Fault]:
    """Find what is longer than the model can read."""
    suite, shape = fit.experiment.suite, fit.shape
    if shape is None or shape.positions is None:
        return
    most = f"and models.{fit.label} reads {shape.positions}"
    recovery, examples = suite.recovery, suite.examples
    if recovery and _trains(fit) and recovery.context > shape.positions:
        message = f"{recovery.context} tokens are a block, {most} at most"
        yield ("recovery", "context"), "error", message
    if examples is None or not suite.attacks:
        return
    lengths = examples.prompt_tokens, examples.reference_tokens
    pairs = suite.corpora[examples.test.corpus].prompt is not None
    read = shape.tokens_read(*lengths)
    if read > shape.positions:
        what = f"with `reference_tokens`, an example has {sum(lengths)} tokens"
        severity: Severity = "notice" if pairs else "error"
        yield ("examples", "prompt_tokens"), severity, f"{what}, {most} at most"
        return
    for label, attack in fit.attacks.items():
        beside = attack.beside_prompt()
        if beside and not pairs and read + beside > shape.positions:
            what = f"with {beside} more, an example has {sum(lengths) + beside} tokens"
            yield ("attacks", label), "error", f"{what}, {most} at most"


def _metrics(fit: _Fit) -> Iterator[Fault]:
    """Find metrics that ask of the model what it cannot do."""
    for label, metric in fit.experiment.metrics.items():
        if fit.shape is not None and not isinstance(metric, Unloaded):
            for option, message in metric.faults(fit.shape):
                yield ("metrics", label, option), "error", message


def _examples(fit: _Fit) -> Iterator[Fault]:
    """Find sets of examples that their corpora are too short for."""
    experiment, examples = fit.experiment, fit.experiment.suite.examples
    if examples is None or not experiment.suite.attacks:
        return
    pairs = fit.shape is not None and fit.shape.encoder_decoder
    for role in examples.sets:
        try:
            fault = example_fault(
                examples,
                role,
                fit.corpora,
                fit.tokenizer,
                experiment.suite.limit,
                encoder_decoder=pairs,
            )
        except HarnessError:  # it is not here, or would take long
            continue
        if fault is not None:
            yield ("examples", role, "count"), "error", fault


def _tokens(fit: _Fit) -> Iterator[Fault]:
    """Say how many tokens are trained on, where they are more than are stated."""
    section, shape = fit.experiment.suite.recovery, fit.shape
    if section is None or shape is None or shape.encoder_decoder or not _trains(fit):
        return
    trained = _trained(section)
    if trained > ROUNDED * section.tokens:
        steps = section.steps()
        message = (
            f"{section.tokens:,} are rounded up to whole steps: "
            f"{steps:,} of {trained // steps:,}, which are {trained:,}"
        )
        yield ("recovery", "tokens"), "notice", message


def _training_texts(fit: _Fit) -> Iterator[Fault]:
    """Find corpora that give nothing to train on, and say how often one is read."""
    section, shape = fit.experiment.suite.recovery, fit.shape
    if section is None or shape is None or not _trains(fit):
        return
    if shape.encoder_decoder:
        if fit.experiment.suite.corpora[section.corpus].prompt is None:
            message = "models.{} is trained on pairs: state `prompt` and `reference`"
            yield ("corpora", section.corpus), "error", message.format(fit.label)
        return
    texts = Texts(fit.experiment.suite, fit.corpora, shape)
    for key in ("corpus", "validation"):
        name = getattr(section, key)
        if name is None:
            continue
        if _is_empty(fit, name):
            yield ("recovery", key), "error", f"the corpus {name} has no documents"
            continue
        there = texts.tokens(name)
        if there is None:
            continue
        if there.counted and there.tokens < section.context:
            message = (
                f"the corpus {name} has {there.tokens:,} tokens, and a block of "
                f"`recovery.context` has {section.context:,}"
            )
            yield ("recovery", key), "error", message
        elif key == "corpus":
            yield from _passes(name, _trained(section), there)


def _passes(corpus: str, trained: int, there: Tokens) -> Iterator[Fault]:
    if trained > (A_PASS if there.counted else ABOUT_A_PASS) * there.tokens:
        message = (
            f"the corpus {corpus} has {'' if there.counted else 'about '}"
            f"{there.tokens:,} tokens: {trained:,} are "
            f"{trained / there.tokens:,.1f} passes over it"
        )
        yield ("recovery", "tokens"), "notice", message


def _trained(section: RecoverySection) -> int:
    return section.steps() * section.blocks_per_step() * section.context


_RULES: tuple[Callable[[_Fit], Iterator[Fault]], ...] = (
    _flips,
    _positions,
    _metrics,
    _examples,
    _tokens,
    _training_texts,
)


def _is_empty(fit: _Fit, corpus: str) -> bool:
    try:
        return next(fit.corpora.all_documents(corpus), None) is None
    except HarnessError:  # it is not here, or would take long to look at
        return False


def _trains(fit: _Fit) -> bool:
    return any(map(fit.experiment.suite.trains, fit.experiment.suite.arms))


# --- texts and tokens, as far as that is quick --------------------------------------


class _TooMuch(HarnessError):
    """What would take longer than seconds to read."""


@dataclass(frozen=True)
class _Quick:
    """The corpora of a suite, as far as they are read in seconds."""

    experiment: Experiment
    store: Store
    trust: bool

    @cached_property
    def _corpora(self) -> Corpora:
        return Corpora(self.experiment.suite.corpora, self.store)

    def all_documents(self, name: str) -> Iterator[Document]:
        """Yield the documents of a corpus; raise `_TooMuch` where it is too large."""
        if not self._is_quick(name):
            raise _TooMuch(name)
        left = MOST_CHARACTERS
        for document in self._corpora.all_documents(name):
            left -= len(document.text) + len(document.reference or "")
            if left < 0:
                raise _TooMuch(name)
            yield document

    def _is_quick(self, name: str) -> bool:
        section = self.experiment.suite.corpora[name]
        if section.builtin is not None:
            return True
        if section.path is None:
            return self.trust and "%" not in section.slice
        files = self._corpora.files(name)
        size = sum(file.stat().st_size for file in files)
        if self.trust:
            return size <= MOST_BYTES
        default = type(section).model_fields["separator"].default
        return (
            size <= MOST_UNTRUSTED_BYTES
            and section.separator == default
            and all(file.name.endswith(PLAIN_ENDINGS) for file in files)
            and all(map(self._is_beside, files))
        )

    def _is_beside(self, file: Path) -> bool:
        """Say whether a file lies below the suite's folder, or the current one."""
        places = self.experiment.source.parent, Path.cwd()
        return any(file.resolve().is_relative_to(x.resolve()) for x in places)


@dataclass(frozen=True)
class _Tokenizer:
    """Encodes texts as transformers does, which takes long to import."""

    library: Any
    eos_token_id = 0
    """It is never read, only counted."""

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, verbose: bool = False
    ) -> dict[str, list[int]]:
        (ids,) = encoded(self.library, [text], special=add_special_tokens)
        return {"input_ids": ids}


class _ATokenAByte:
    """Makes a token of each byte: no tokenizer makes more of a text."""

    eos_token_id = 0

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode())}


def _plain(tokenizer: Path) -> bool:
    """Say whether a tokenizer runs no pattern of its own, which might not end."""
    try:
        if tokenizer.stat().st_size > MOST_UNTRUSTED_BYTES:
            return False
        return '"Regex"' not in json.dumps(json.loads(tokenizer.read_text("utf-8")))
    except (OSError, ValueError, RecursionError):
        return False
