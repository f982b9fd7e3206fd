"""Tasks of EleutherAI's lm-evaluation-harness, on the subject in memory."""

from __future__ import annotations

import contextlib
import copy
import difflib
import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pydantic

from harness import hookimpl, records
from harness.api import (
    CostContext,
    LocalPath,
    Metric,
    MetricContext,
    Options,
    Paper,
    Term,
)
from harness.base import (
    CellError,
    MissingResource,
    Positive,
    UsageError,
    fixed_random_state,
    offline,
    silenced,
)
from harness.records import Cost, Estimate
from harness.subject import Subject

Rows = Sequence[Mapping[str, Any]]

_SEED = 1234
"""What lm-eval seeds its few-shot samplers with."""


class _TaskSize(NamedTuple):
    """How much a task asks of a model, without examples in the prompt."""

    examples: int
    choices: float
    """Requests for each example."""
    prompt: int
    """Tokens before an answer."""
    answer: int
    """Tokens of an answer."""


_SIZES = {
    "lambada_openai": _TaskSize(5153, 1, 87, 2),
    "hellaswag": _TaskSize(10042, 4, 64, 30),
    "winogrande": _TaskSize(1267, 2, 21, 8),
    "truthfulqa_mc1": _TaskSize(817, 5.0, 210, 12),
    "truthfulqa_mc2": _TaskSize(817, 7.2, 210, 12),
    "arc_easy": _TaskSize(2376, 4, 30, 6),
    "arc_challenge": _TaskSize(1172, 4, 32, 7),
    "piqa": _TaskSize(1838, 2, 14, 25),
    "boolq": _TaskSize(3270, 2, 135, 1),
}
"""Common tasks: numbers of examples as published, lengths in Pythia's tokens."""
_UNKNOWN_TASK = _TaskSize(1000, 4, 100, 10)


class LmEvalOptions(Options):
    """Options of lm_eval."""

    tasks: Annotated[tuple[str, ...], pydantic.Field(min_length=1)]
    """Names of tasks, groups or tags, as lm-eval knows them."""
    include_path: LocalPath | None = None
    """A folder with task files of your own."""
    num_fewshot: Annotated[int, pydantic.Field(ge=0)] | None = None
    """Number of few-shot examples in the prompt; by default what the task states."""
    limit: Positive | None = None
    """Use only the first so many examples of each task: not for real numbers."""
    batch_size: Positive | None = None
    """Sequences in a forward pass; by default the suite's batch size."""


class LmEval(Metric[LmEvalOptions]):
    """Runs tasks of lm-evaluation-harness and keeps the scores of each example.

    Values equal lm-eval's own. Intervals are Wilson's for scores of 0 and 1, else
    bootstraps over examples. Its response and request caches are not used; its random
    seeds, logs and progress bars stay inside the metric. It makes no network calls:
    datasets come from the local cache, which `harness prefetch` fills.
    """

    name = "lm_eval"
    papers = (
        Paper(
            "Biderman et al. 2024",
            "Lessons from the Trenches on Reproducible Evaluation of Language Models",
            "https://arxiv.org/abs/2405.14782",
        ),
    )
    example = {"tasks": ["lambada_openai"]}
    Options = LmEvalOptions

    def measure(
        self, subject: Subject, context: MetricContext
    ) -> Iterator[Mapping[str, Any]]:
        """Yield a row for each example, task and filter, with its scores."""
        if subject.encoder_decoder:
            raise CellError(
                "lm_eval scores the continuation of a text; measure an encoder-decoder "
                "model with `perplexity` or `rouge` on a corpus of pairs"
            )
        limits = [n for n in (self.options.limit, context.limit) if n is not None]
        with _contained(), offline():
            tasks, samples = self._evaluate(
                subject, min(limits, default=None), context.report
            )
        for name, examples in samples.items():
            aggregations = _aggregations(tasks[name])
            for example in examples:
                yield _row(name, example, aggregations)

    def expected_cost(self, context: CostContext) -> Cost:
        """Return the cost of all requests, as far as the tasks' sizes are known."""
        limits = [n for n in (self.options.limit, context.limit) if n is not None]
        shots, cost = self.options.num_fewshot or 0, Cost()
        for name in self.options.tasks:
            size = _SIZES.get(name, _UNKNOWN_TASK)
            if name not in _SIZES:
                context.assumptions.append(
                    f"lm_eval: the task {name} is taken for {size.examples:,} examples "
                    f"of {size.choices} answers after {size.prompt} tokens"
                )
            requests = min([size.examples, *limits]) * size.choices
            prompt = size.prompt + shots * (size.prompt + size.answer)
            cost += context.shape.forward(requests, prompt, size.answer)
        return cost

    def summarise(self, rows: Rows) -> dict[str, Estimate]:
        """Aggregate the scores of the rows as the tasks say, by ``task.score``."""
        scores: dict[tuple[str, str], list[Any]] = defaultdict(list)
        for row in rows:
            for score, value in row["scores"].items():
                name = _name(row, score)
                scores[name, row["aggregations"][score]].append(value)
        return {
            key: _estimate(values, aggregation)
            for (key, aggregation), values in scores.items()
        }

    def estimate_names(self) -> list[str]:
        """Return the beginnings of the tasks' scores; none where one may be a group."""
        known = set(self.options.tasks) <= set(_SIZES)
        return [f"{task}." for task in self.options.tasks] if known else []

    def terms(self, row: Mapping[str, Any]) -> dict[str, Term]:
        """Return an example's scores; of a perplexity, negative log-likelihoods."""
        found = {
            _name(row, score): _term(row, value, row["aggregations"][score])
            for score, value in row["scores"].items()
            if not _incomplete(value)
        }
        return {name: term for name, term in found.items() if term is not None}

    def missing(self) -> list[str]:
        """Say which tasks are unknown, and whose datasets are not here."""
        with _contained(), offline():
            return list(self._faults())

    def fetch(self) -> None:
        """Download the datasets of the tasks."""
        with _contained():
            for fault in self._faults():
                raise MissingResource(fault)

    def _faults(self) -> Iterator[str]:
        try:
            manager = _task_manager(self.options.tasks, self.options.include_path)
        except UsageError as error:
            yield str(error)
            return
        for name in self.options.tasks:
            try:
                _load(manager, [name])
            except UsageError as error:
                yield str(error)

    def _evaluate(
        self,
        subject: Subject,
        limit: int | None,
        report: Callable[[int, int], None],
    ) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
        """Return the tasks and their samples; in smaller batches if need be."""
        import torch

        manager = _task_manager(self.options.tasks, self.options.include_path)
        batch_size = self.options.batch_size or subject.batch_size
        while True:
            loaded = _load(manager, self.options.tasks)
            self._prepare(loaded["tasks"].values())
            with contextlib.suppress(torch.OutOfMemoryError):
                model = _language_model(subject, batch_size, report)
                return loaded["tasks"], _samples(model, loaded, limit)
            if batch_size == 1:
                raise CellError("a single sequence does not fit the device's memory")
            batch_size //= 2

    def _prepare(self, tasks: Any) -> None:
        """Do what lm-eval's `simple_evaluate` does before it evaluates.

        That itself would also ask git, pip and the driver about this machine.
        """
        for task in tasks:
            stated = task.get_config("num_fewshot")
            # A task that states 0 works with no other number, lm-eval holds.
            if stated is None or (stated and self.options.num_fewshot is not None):
                task.set_config("num_fewshot", self.options.num_fewshot or 0)
            task.set_fewshot_seed(_SEED)


@hookimpl
def register_metrics() -> list[type[Metric[Any]]]:
    """Offer lm_eval."""
    return [LmEval]


# --- lm-eval, kept to itself --------------------------------------------------------


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Import lm-eval; keep its seeds, logs and bars inside the block."""
    import lm_eval.evaluator
    import lm_eval.models.huggingface  # noqa: F401 (what is imported can be silenced)

    with fixed_random_state(_SEED), silenced("lm_eval"):
        yield


def _task_manager(names: Sequence[str], include_path: str | None) -> Any:
    """Return a task manager that knows the names.

    lm-eval's own index of some 14,000 tasks takes seconds. Where the folders that are
    called like the start of a task's name hold all of the tasks, they suffice.
    """
    from lm_eval import tasks

    if include_path is not None and not Path(include_path).is_dir():
        raise MissingResource(f"include_path: there is no folder {include_path}")
    own = [] if include_path is None else [Path(include_path)]
    near = [
        folder
        for folder in sorted(Path(tasks.__file__).parent.iterdir())
        if folder.is_dir() and any(name.startswith(folder.name) for name in names)
    ]
    manager = tasks.TaskManager(include_path=[*near, *own], include_defaults=False)
    if set(names) <= set(manager.all_subtasks):
        return manager
    return tasks.TaskManager(include_path=own or None)


def _load(manager: Any, names: Sequence[str]) -> Any:
    for name in names:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"tasks: lm-eval knows no task {name!r}{hint}")
    try:
        return manager.load(list(names))
    except Exception as error:
        # Loaders of datasets and of task files raise whatever they like.
        cause = " ".join(str(error).split()) or type(error).__name__
        raise MissingResource(
            f"lm-eval task {', '.join(names)} cannot be loaded: {cause}; "
            "`harness prefetch SUITE` fetches datasets where there is a network"
        ) from error


def _samples(model: Any, loaded: Any, limit: int | None) -> dict[str, list[Any]]:
    from lm_eval.evaluator import evaluate

    originals = {task: task.aggregation for task in loaded["tasks"].values()}
    for task in originals:
        # Theirs end in math.exp, which overflows for broken models. We use none.
        task.aggregation = lambda: defaultdict(lambda: len)
    results = evaluate(
        lm=model, task_dict=loaded, limit=limit, bootstrap_iters=0, log_samples=True
    )
    for task, original in originals.items():
        task.aggregation = original
    return dict(results["samples"])


def _language_model(
    subject: Subject,
    batch_size: int,
    report: Callable[[int, int], None],
) -> Any:
    """Wrap the subject's model for lm-eval; report requests as they are answered."""
    import torch
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = subject.huggingface()
    tails = "logits_to_keep" in inspect.signature(model.forward).parameters

    class Batched(HFLM):
        """Computes the logits of continuations alone, longest requests first."""

        done = 0
        wanted = 0
        tail = 0

        def loglikelihood(self, requests: Any, *args: Any, **kwargs: Any) -> Any:
            self.wanted += len(requests)
            return super().loglikelihood(requests, *args, **kwargs)

        def _loglikelihood_tokens(
            self, requests: Any, *args: Any, **kwargs: Any
        ) -> list[Any]:
            # Its cache takes windows of repeated text, which have no name, for one.
            self.logits_cache = all(name is not None for name, *_ in requests)
            answers: dict[int, Any] = {}
            for batch in _batches(requests, batch_size):
                chosen = [requests[i] for i in batch]
                self.tail = _tail(chosen, self.max_length)
                found = super()._loglikelihood_tokens(chosen, disable_tqdm=True)
                answers.update(zip(batch, found, strict=True))
                self.done += len(batch)
                report(self.done, max(self.done, self.wanted))
            return [answers[i] for i in range(len(requests))]

        def _model_call(self, inps: Any, *args: Any, **kwargs: Any) -> Any:
            if not tails:
                return super()._model_call(inps, *args, **kwargs)
            with torch.no_grad():
                return self.model(inps, logits_to_keep=self.tail).logits

    return Batched(
        pretrained=model,
        # A copy: lm-eval gives it a padding token.
        tokenizer=copy.deepcopy(tokenizer),
        batch_size=batch_size,
    )


def _batches(requests: Sequence[Any], size: int) -> Iterator[list[int]]:
    """Yield the numbers of requests in batches of `size` inputs, the longest first.

    Requests that are about the next token after the same text share an input.
    """
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, (_, context, continuation) in enumerate(requests):
        alike[(*context, *continuation[:-1])].append(number)
    ordered = sorted(alike, key=lambda ids: (-len(ids), ids))
    for start in range(0, len(ordered), size):
        yield [i for ids in ordered[start : start + size] for i in alike[ids]]


def _tail(requests: Sequence[Any], longest: int) -> int:
    """Return how many positions at the end of a padded batch hold all continuations."""
    lengths = [min(len(x) + len(y) - 1, longest) for _, x, y in requests]
    begins = [
        length - len(continuation)
        for length, (_, _, continuation) in zip(lengths, requests, strict=True)
    ]
    return max(lengths) - min(begins)


# --- rows ---------------------------------------------------------------------------


def _aggregations(task: Any) -> dict[str, str]:
    """Name the aggregation of each score of a task; empty for one of its own."""
    from lm_eval.api.registry import AGGREGATION_REGISTRY, get_aggregation

    names = {get_aggregation(name): name for name in AGGREGATION_REGISTRY}
    return {
        score: names.get(function, "") for score, function in task.aggregation().items()
    }


def _row(
    task: str, example: Mapping[str, Any], aggregations: Mapping[str, str]
) -> dict[str, Any]:
    hashes = ("doc_hash", "prompt_hash", "target_hash")
    scores = example["metrics"]
    return {
        "task": task,
        **{key: example[key] for key in ("doc_id", "filter", *hashes)},
        "scores": {name: _plain(example[name]) for name in scores},
        # lm-eval takes the mean of scores that the task says nothing about.
        "aggregations": {name: aggregations.get(name, "mean") for name in scores},
    }


def _plain(value: Any) -> Any:
    """Turn a score into JSON; None stands for what is not finite."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# --- estimates ----------------------------------------------------------------------


def _name(row: Mapping[str, Any], score: str) -> str:
    """Return what the estimate of a row's score is called."""
    name = f"{row['task']}.{score}"
    return name if row["filter"] == "none" else f"{name}.{row['filter']}"


def _term(row: Mapping[str, Any], value: Any, aggregation: str) -> Term | None:
    unit = f"{row['task']} {row['doc_id']}"
    if aggregation == "mean" and isinstance(value, int | float):
        return Term(unit, value)
    if aggregation == "perplexity":
        return Term(unit, -value)
    if aggregation == "weighted_perplexity":
        return Term(unit, -value[0], value[1])
    if aggregation == "bits_per_byte":
        return Term(unit, -value[0] / math.log(2), value[1])
    return None


def _estimate(values: Sequence[Any], aggregation: str) -> Estimate:
    broken = sum(_incomplete(value) for value in values)
    if broken:
        reason = f"the score of {broken} of {len(values)} examples is not finite"
        return _null(values, reason)
    if aggregation == "mean":
        return _mean(values)
    if aggregation == "perplexity":
        return _ratio([(value, 1) for value in values], 1, "perplexity")
    if aggregation == "weighted_perplexity":
        return _ratio(values, 1, "perplexity")
    if aggregation == "bits_per_byte":
        return _ratio(values, math.log(2), "bits/byte")
    return _by_lm_eval(values, aggregation)


def _mean(values: Sequence[Any]) -> Estimate:
    if not all(isinstance(value, int | float) for value in values):
        return _null(values, "the scores are no numbers")
    if set(values) <= {0, 1}:
        return records.wilson(int(sum(values)), len(values))
    return records.bootstrap_mean(values, unit="score", over="examples")


def _ratio(pairs: Sequence[Sequence[float]], nats: float, unit: str) -> Estimate:
    """Estimate from (log-likelihood, weight) of each example, in units of `nats`."""
    logs, weights = np.array(pairs, dtype=np.float64).T
    transform = np.exp if unit == "perplexity" else None
    return records.bootstrap_ratio(
        -logs / nats, weights, transform, unit=unit, over="examples"
    )


def _by_lm_eval(values: Sequence[Any], aggregation: str) -> Estimate:
    """Aggregate as lm-eval does, without an interval."""
    if not aggregation:
        return _null(values, "the task aggregates by a function of its own")
    from lm_eval.api.registry import get_aggregation

    try:
        value = float(get_aggregation(aggregation)(list(values)))
    except (ArithmeticError, TypeError, ValueError) as error:
        return _null(values, f"lm-eval's {aggregation} failed: {error}")
    if not math.isfinite(value):
        return _null(values, f"lm-eval's {aggregation} is not finite")
    return Estimate(
        value=value,
        n=len(values),
        unit="score",
        method=f"lm-eval's {aggregation}",
        reason=f"no interval is computed for {aggregation}",
    )


def _null(values: Sequence[Any], reason: str) -> Estimate:
    return Estimate(
        value=None, n=len(values), unit="score", method="none", reason=reason
    )


def _incomplete(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_incomplete, value))
    return value is None
