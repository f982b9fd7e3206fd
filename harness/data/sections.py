"""What a suite says of its corpora, and of the examples cut from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from harness.base import Positive, Strict

SLICE = r"^(\d+%?)?:(\d+%?)?$"
SPLIT = r"^[A-Za-z0-9_.-]+$"
FINGERPRINT = r"^(sha256:[0-9a-f]{64}|hub:.+@.+)$"
MEANINGS = {
    SLICE: "a slice such as ':80%' or '100:200'",
    SPLIT: "the name of a split (`slice` takes a part of it)",
    FINGERPRINT: "sha256:HASH or hub:ID@COMMIT",
}
"""What text that matches is, as a message says it."""
Fingerprint = Annotated[str, pydantic.Field(pattern=FINGERPRINT)]

CORPUS = "corpus-name"
CorpusName = Annotated[str, CORPUS]
"""The type of what names a corpus of the suite; suites are checked for it."""

_PAIR_FIELDS = ("prompt", "reference", "prefix", "choices", "gold")


class CorpusSection(Strict):
    """A source of documents; exactly one of `path`, `dataset` and `builtin`."""

    path: str | None = None
    """A local file (or glob): jsonl, jsonl.zst, parquet, csv or text, by its ending;
    relative to the suite."""
    dataset: str | None = None
    """A dataset id of the Hugging Face hub."""
    builtin: str | None = None
    """A text that comes with Python: ``python-topics``."""
    revision: str | None = None
    """The dataset's revision (branch, tag or commit)."""
    files: str | None = None
    """Files of the dataset (glob), where it has no split of that name."""
    split: Annotated[str, pydantic.Field(pattern=SPLIT)] = "train"
    """The dataset's split."""
    text: str = "text"
    """The field that holds the text, where there is no `prompt`."""
    prompt: str | None = None
    """For pairs and tasks: the field that holds the prompt. A list holds one for each
    choice."""
    reference: str | None = None
    """The field that holds what should follow the prompt; beside `choices` without
    `gold`, the right answer to their wrong ones."""
    prefix: str | None = None
    """Text that is put before every prompt, as ``"summarize: "``."""
    choices: str | None = None
    """For multiple choice: the field that holds the answers."""
    gold: str | None = None
    """The field that holds the number of the right answer, from 0."""
    cluster: str | None = None
    """The field that names what documents have in common, as a repository, a topic or
    an author: where stated, it is the unit of statistics in place of the document."""
    separator: str = r"\n\s*\n"
    """For text files: the regular expression between two documents."""
    slice: Annotated[str, pydantic.Field(pattern=SLICE)] = ":"
    """Which documents, as in Python, in numbers or percent: ``:80%``, ``100:200``."""
    fingerprint: Fingerprint | None = None
    """If set, the contents must have this fingerprint; resolved suites set it."""

    @pydantic.model_validator(mode="after")
    def _one_source(self) -> CorpusSection:
        if sum(x is not None for x in (self.path, self.dataset, self.builtin)) != 1:
            raise ValueError("needs exactly one of path, dataset and builtin")
        return self

    @pydantic.model_validator(mode="after")
    def _has_clusters(self) -> CorpusSection:
        if self.builtin is not None and self.cluster is not None:
            raise ValueError("a builtin text has no cluster")
        return self

    @pydantic.model_validator(mode="after")
    def _whole_pairs(self) -> CorpusSection:
        stated = {name for name in _PAIR_FIELDS if getattr(self, name) is not None}
        if not stated:
            return self
        if self.builtin is not None:
            raise ValueError(f"a builtin text has no {min(stated)}")
        if self.prompt is None:
            raise ValueError(f"{min(stated)} needs `prompt` beside it")
        if not stated & {"reference", "choices"}:
            raise ValueError("prompt needs `reference` or `choices` beside it")
        if self.choices is not None and (self.gold is None) == (self.reference is None):
            raise ValueError(
                "choices need either `gold`, which of them is right, or `reference`, "
                "the right answer to wrong ones"
            )
        return self

    @property
    def definition(self) -> dict[str, Any]:
        """What defines the documents, as JSON values, wherever they are kept."""
        keys = {"fingerprint", "text", "separator", "slice"}
        if self.dataset is not None:
            keys |= {"split", "files"}
        stated = {x for x in (*_PAIR_FIELDS, "cluster") if getattr(self, x) is not None}
        return self.model_dump(mode="json", include=keys | stated)


class ExampleSet(Strict):
    """Where one set of examples comes from."""

    corpus: CorpusName
    """The corpus whose documents give the examples, one from each."""
    count: Positive
    """How many."""


class ExamplesSection(Strict):
    """The examples that all attacks of the suite share."""

    test: ExampleSet
    """What is attacked and reported."""
    search: ExampleSet | None = None
    """What universal attacks search on."""
    validation: ExampleSet | None = None
    """What universal attacks choose among their restarts on."""
    prompt_tokens: Positive = 64
    """Length of a prompt; of pairs and answers, the greatest length."""
    reference_tokens: Positive = 64
    """Length of the reference that follows it; of pairs and answers, the greatest."""
    objective: Literal["loss", "answer"] = "loss"
    """`answer`: the reference is an answer (of a task, or a text's last word), and an
    attack succeeds where the answer was right and is lost."""
    rouge_tokens: Positive | None = None
    """If set, what the subject writes after each prompt, in so many tokens at most, is
    compared with the pair's reference by ROUGE-L, before the attack and after it."""

    @property
    def sets(self) -> dict[str, ExampleSet]:
        """The sets that are stated, by what they serve for."""
        sets = {"test": self.test, "search": self.search, "validation": self.validation}
        return {role: part for role, part in sets.items() if part is not None}

    @property
    def beyond_loss(self) -> dict[str, Any]:
        """What is asked of examples besides a loss, as JSON values; {} by default."""
        answers = {"objective": self.objective} if self.objective != "loss" else {}
        if self.rouge_tokens is None:
            return dict(answers)
        return {**answers, "rouge_tokens": self.rouge_tokens}
