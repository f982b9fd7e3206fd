"""Draft a suite for a model folder and a file of texts: sizes fit what is there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import resources
from itertools import islice
from pathlib import Path
from string import Template
from typing import Any

import pydantic

from harness import models
from harness.api import ModelAdapter, Registry
from harness.base import Store, UsageError, write_atomic
from harness.data import Corpora, CorpusSection, Document, TextEncoder

MOST_READ = 2_000
"""Documents that are looked at, at most."""
LENGTHS = (64, 48, 32, 24, 16)
"""How long prompt and reference may be together, in tokens; the longest that fits."""
LONGEST_SIDE = 64
MOST_TOKENS = 2_000_000
SMOKE_STEPS = 16
FEWEST = 8
"""Documents without which there is nothing to attack."""


@dataclass(frozen=True)
class Draft:
    """What a suite says of a model and its texts."""

    label: str
    """What the model is called."""
    adapter: str
    """The model plugin that loads it."""
    model: str
    """Its folder, absolute, or an id of the hub."""
    corpus: Mapping[str, str]
    """Where the texts are, and in which fields, as a corpus states it."""
    prompt_tokens: int
    """Length of a prompt; of pairs, the greatest."""
    reference_tokens: int
    """Length of what follows it."""
    test: int
    """How many documents are attacked."""
    search: int
    """How many others attacks may learn from."""
    validation: int
    """How many others they may choose by."""
    test_end: int
    """The row behind the last document that is attacked."""
    search_end: int
    validation_end: int
    tokens: int
    """How many tokens to train on: those of the documents behind, of what was read."""
    context: int
    batch_tokens: int
    smoke_tokens: int
    """How many of the tokens to train on to see that everything works."""
    notes: tuple[str, ...]
    """Sentences on texts that are left out, and prompts of pairs that are cut."""
    trains: bool
    """Whether the texts are such that the model can train on them."""

    def text(self, template: str, **more: object) -> str:
        """Return a suite file: ``compare`` arms, or ``attack`` the model as it is.

        `more` is what that template asks for besides; values that are paths are quoted.
        """
        corpus = ", ".join(f"{key}: {_quoted(x)}" for key, x in self.corpus.items())
        stated = {**asdict(self), "model": _quoted(self.model), "corpus": corpus}
        training = "recovery" if self.trains else "untrained"
        recovery = _template(training).substitute(stated)
        smoke = (
            f"\n    recovery: {{tokens: {self.smoke_tokens}}}" if self.trains else ""
        )
        return _template(template).substitute(
            stated, **more, recovery=recovery, smoke_recovery=smoke
        )


def _template(name: str) -> Template:
    file = resources.files("harness.suite") / "templates" / f"{name}.yaml"
    return Template(file.read_text(encoding="utf-8"))


def draft_suite(
    registry: Registry,
    model: str,
    texts: Path,
    *,
    examples: int,
    store: Store,
    kept: Path,
    fields: Mapping[str, str] | None = None,
    longest: int = LONGEST_SIDE,
    spare: bool = False,
) -> Draft:
    """Return sizes that suit a model folder and a file of texts.

    `examples` is how many documents are to be attacked; fewer are where the file has no
    more. `fields` names the fields of a row (``text``, or ``prompt`` and
    ``reference``), and may state the ``prefix`` of prompts, of which at most `longest`
    tokens are read. Sets of examples share no text: where some stand twice, the
    documents that are looked at are written to `kept`, each once, and the draft names
    that file. With `spare`, some are left to train on. Raises UsageError where no
    plugin loads such a model, or where the file has too few documents, or all are too
    short.
    """
    config = _config(model)
    section = _section(texts, fields or {})
    corpora = Corpora({"texts": section}, store)
    documents = list(islice(corpora.documents("texts"), MOST_READ))
    encoder = TextEncoder(
        models.load_tokenizer(Path(model)),
        encoder_decoder=bool(config.get("is_encoder_decoder")),
    )
    if section.prompt is None:
        prompt, reference, fitting = _cut_texts(documents, encoder, examples)
        cut = ""
    else:
        prompt, reference, fitting, cut = _cut_pairs(documents, encoder, longest)
    if len(fitting) < FEWEST:
        raise UsageError(
            f"{texts}: {len(fitting)} of {len(documents)} documents have the "
            f"{LENGTHS[-1]} tokens of a prompt and what follows it; {FEWEST} must have"
        )
    if len({one.text for one in documents}) < len(documents):
        again = partial(
            draft_suite,
            registry,
            model,
            examples=examples,
            store=store,
            kept=kept,
            longest=longest,
            spare=spare,
        )
        return _without_copies(documents, kept, again)
    if spare:
        fitting = fitting[: max(FEWEST, len(fitting) // 2)]
        if fitting[-1] == int(documents[-1].id):
            raise UsageError(f"{texts}: beside {FEWEST} documents, some to train on")
    test = min(examples, max(FEWEST // 2, len(fitting) * 2 // 3))
    others = min(2 * test, len(fitting) - test)
    search = others - others // 3
    ends = (fitting[count - 1] + 1 for count in (test, test + search, test + others))
    test_end, search_end, validation_end = ends
    return Draft(
        label=label_of(model),
        adapter=_adapter(registry, model, config),
        model=str(Path(model).absolute()),
        corpus={"path": str(texts.absolute()), **(fields or {})},
        prompt_tokens=prompt,
        reference_tokens=reference,
        test=test,
        search=search,
        validation=others // 3,
        test_end=test_end,
        search_end=search_end,
        validation_end=validation_end,
        notes=(cut,) if cut else (),
        trains=section.prompt is not None or not encoder.encoder_decoder,
        **_recovery(
            sum(
                len(encoder.encode(one.whole))
                for one in documents
                if int(one.id) >= validation_end
            )
        ),
    )


def _section(texts: Path, fields: Mapping[str, str]) -> CorpusSection:
    try:
        return CorpusSection(path=str(texts.absolute()), **fields)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        message = first.get("ctx", {}).get("error", first["msg"])
        raise UsageError(f"{texts}: {message}") from error


def _without_copies(
    documents: Sequence[Document], kept: Path, draft: Callable[..., Draft]
) -> Draft:
    """Write documents to `kept`, those of one text once, and draft a suite for them."""
    first = {one.text: one for one in reversed(documents)}
    rows = [_row(one) for one in documents if first[one.text] is one]
    write_atomic(kept, "".join(f"{json.dumps(row)}\n" for row in rows))
    fields = {name: name for name in rows[0]}
    if documents[0].prefix:
        fields["prefix"] = documents[0].prefix
    found = draft(texts=kept, fields=fields)
    copies = len(documents) - len(rows)
    many = f"{copies} text{'s are copies' if copies > 1 else ' is a copy'} of others"
    note = f"{many}, left out: the rest is in {kept}"
    return replace(found, notes=(note, *found.notes))


def _row(document: Document) -> dict[str, str]:
    own = document.text.removeprefix(document.prefix)
    if document.reference is None:
        return {"text": own}
    return {"prompt": own, "reference": document.reference}


def _quoted(text: str) -> str:
    """Return a text as YAML in one line, whatever is in it."""
    return json.dumps(text)


def _config(model: str) -> dict[str, Any]:
    file = Path(model) / "config.json"
    if not file.is_file():
        raise UsageError(f"{model}: no folder of a model: it has no config.json")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"{file}: expected a JSON object")
    return config


def _adapter(registry: Registry, model: str, config: Mapping[str, Any]) -> str:
    """Return the model plugin that says it loads such a configuration."""
    plugins = registry.all("model")
    for info in plugins:
        if issubclass(info.plugin, ModelAdapter) and info.plugin.loads(config):
            return info.name
    known = ", ".join(info.name for info in plugins)
    kind = config.get("model_type")
    raise UsageError(
        f"{model} is of the family {kind!r}, which no model plugin loads ({known}); "
        "`harness new model NAME` writes one to start from"
    )


def label_of(model: str) -> str:
    """Return what a suite calls a model: its folder's name, where that is a label."""
    name = Path(model).absolute().name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "model"


def _recovery(tokens: int) -> dict[str, int]:
    """Return how to train on so many tokens: with 50 steps at least, if it can be."""
    tokens = max(LENGTHS[0], min(MOST_TOKENS, tokens))
    batch = max(LENGTHS[0], min(16_384, tokens // 50))
    context = min(1024, batch)
    batch -= batch % context
    tokens -= tokens % batch
    return {
        "tokens": tokens,
        "context": context,
        "batch_tokens": batch,
        "smoke_tokens": min(tokens, SMOKE_STEPS * batch),
    }


def _cut_texts(
    documents: Sequence[Document], encoder: TextEncoder, examples: int
) -> tuple[int, int, list[int]]:
    """Return how long prompt and reference are, and which documents are as long."""
    lengths = {int(one.id): len(encoder.encode(one.text)) for one in documents}
    wanted = min(len(documents), examples + examples // 2)

    def fitting(total: int) -> list[int]:
        return [row for row, length in lengths.items() if length >= total]

    enough = (total for total in LENGTHS if len(fitting(total)) >= wanted)
    total = next(enough, None)
    if total is None:  # the length that wastes the fewest tokens
        total = max(LENGTHS, key=lambda one: one * len(fitting(one)))
        if len(fitting(total)) < FEWEST:
            total = LENGTHS[-1]
    return total // 2, total // 2, fitting(total)


def _cut_pairs(
    documents: Sequence[Document], encoder: TextEncoder, longest: int
) -> tuple[int, int, list[int], str]:
    """Return the lengths of prompt and reference, all documents, and what is cut."""
    prompts = [len(encoder.encode(one.text)) for one in documents]
    references = [len(encoder.encode(one.reference or "")) for one in documents]
    prompt = min(longest, max([2, *prompts]))
    reference = min(LONGEST_SIDE, max([2, *references]))
    longer = sum(one > prompt for one in prompts)
    cut = (
        f"{longer} of {len(prompts)} prompts are longer than {prompt} tokens, and are "
        "cut there: `examples.prompt_tokens`, or --prompt-tokens of `harness attack`"
    )
    rows = [int(one.id) for one in documents]
    return prompt, reference, rows, cut if longer else ""
