"""What a metric implements, and what it may use."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, NamedTuple

from harness.api.costs import CostContext, ModelShape
from harness.api.plugin import OptionsT, Plugin
from harness.data import Document
from harness.records import Cost, Estimate
from harness.subject import Subject


@dataclass(frozen=True)
class MetricContext:
    """What a metric may use besides the subject."""

    documents: Callable[[str], Iterator[Document]]
    """The documents of a corpus of the suite, by its name; cut by ``--limit``."""
    limit: int | None
    """First so many examples of a task only; marked in every record."""
    report: Callable[[int, int], None] = lambda done, total: None
    """Tell the progress display how many of how many units are done."""

    def batches(
        self, corpus: str, size: int, limit: int | None = None
    ) -> Iterator[list[Document]]:
        """Yield the documents of a corpus, the first `limit`, in lists of `size`.

        A list is reported as done when the next one is asked for.
        """
        documents = islice(self.documents(corpus), limit)
        limits = [n for n in (limit, self.limit) if n is not None]
        done = 0
        while batch := list(islice(documents, size)):
            yield batch
            done += len(batch)
            self.report(done, max(done, min(limits, default=0)))


class Term(NamedTuple):
    """What one document or task example adds to an estimate.

    The estimate is the sum of numerators over that of denominators; of an estimate in
    the unit ``perplexity``, this is its logarithm.
    """

    unit: str
    """The document, the cluster of documents that its corpus states, or the task
    example: the same for every subject."""
    numerator: float
    denominator: float = 1.0


class Metric(Plugin[OptionsT]):
    """Measures a frozen subject: rows first, estimates from the rows alone."""

    rolling: ClassVar[bool] = False
    """True where its rows have the `tokens` and `nats` of each document of its option
    `corpus`, scored in windows of its options `context` and `stride`: a replay then
    computes them again."""

    @abstractmethod
    def measure(
        self, subject: Subject, context: MetricContext
    ) -> Iterable[Mapping[str, Any]]:
        """Yield a row for each document or task example; JSON values, all finite.

        On a GPU, what the subject computes in float32 is multiplied in TensorFloat-32
        meanwhile, where it searches in bfloat16.
        """

    @abstractmethod
    def summarise(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
        """Compute the estimates from the rows, and from nothing else."""

    def estimate_names(self) -> Sequence[str]:
        """Return the names that `summarise` gives, as far as they are known beforehand.

        A name that ends in a dot is the beginning of any number of names. By default
        none: then no name in a suite's claims is checked before there are results.
        """
        return ()

    def terms(self, row: Mapping[str, Any]) -> Mapping[str, Term]:
        """Return what a row adds to estimates that are ratios of sums, by their names.

        From terms come intervals of what two arms differ by, paired row by row. By
        default none: then such intervals are over seeds alone.
        """
        return {}

    def expected_cost(self, context: CostContext) -> Cost:
        """Return what `measure` costs on a model, without loading anything.

        By default nothing, and a note that it says nothing of its cost.
        """
        context.assumptions.append(
            f"the metric {self.name} does not say what it costs: it counts as nothing"
        )
        return Cost()

    def faults(self, shape: ModelShape) -> Iterable[tuple[str, str]]:
        """Yield options that a model of such sizes cannot meet: option, sentence."""
        return ()

    def missing(self) -> list[str]:
        """Return a sentence for each thing that `measure` needs and is not here."""
        return []

    def fetch(self) -> None:
        """Download what `measure` needs, on a machine with a network."""
