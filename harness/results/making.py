"""Run a suite, or attack one model, from Python."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from harness import report, running, suite as suites
from harness.api import load_registry
from harness.base import (
    Store,
    UsageError,
    default_store_root,
    stop_on_signals,
    write_atomic,
)
from harness.results.loaded import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Say = Callable[[str], None]
SUITE = "suite.yaml"
"""In a run folder: the suite that was written for it."""
DISTINCT = "distinct.jsonl"
"""Beside what was given: the texts that are attacked, where some stood twice."""


def run(
    suite: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    say: Say = print,
    **options: Any,
) -> Run:
    """Run what of a suite is not done yet, and return the run.

    `suite` is a suite file, or what one would say, as a mapping; `out` the run folder,
    by default ``runs/NAME``. `options` are those of the command line, as
    ``profile="quick"``, ``seeds=[42]``, ``limit=8`` or ``device="cuda"``. `say` gets a
    line for each unit. Units that fail do not raise: they are in the run's tables.

    Raises SuiteError with all that is wrong with the suite.
    """
    if isinstance(suite, Mapping):
        out = Path(out or Path("runs") / str(suite.get("name", "suite")))
        file = out / SUITE
        write_atomic(file, _yaml(suite))
    else:
        file = Path(suite)
    experiment = suites.load_experiment(file, **options)
    run_dir = Path(out or experiment.run_dir)
    with running.quick_imports():
        plan, folder, store = running.prepare(experiment, run_dir, say=say)
    with stop_on_signals() as stop:
        running.run_plan(plan, folder, store, stop, say=say)
    made = Run(folder.root, trust=True)  # it has just been run
    report.write_reports(made.report, folder.report_dir)
    warning = running.error_warning(made.survey)
    if warning is not None:
        say(warning)
    return made


def attack(
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    texts: str | Path | Sequence[str] | Sequence[tuple[str, str]],
    *,
    out: str | Path | None = None,
    examples: int = 24,
    flips: int = 5,
    seed: int = 42,
    fields: Mapping[str, str] | None = None,
    prompt_tokens: int = 64,
    say: Say = print,
    **options: Any,
) -> Run:
    """Attack one model on texts, with controls of the same budget; return the run.

    `model` is a folder (then `tokenizer` is None), or a model in memory with its
    tokenizer, which are saved beside the run. `texts` is a file, or the texts, or pairs
    of a prompt and what should follow it. `fields` names the fields of a file's rows:
    ``{"text": ...}``, or ``{"prompt": ..., "reference": ...}``; with ``"prefix"``, what
    is put before every prompt. At most `examples` texts are attacked, each by changing
    `flips` tokens at most; of the prompts of pairs, at most `prompt_tokens` are read.

    The run folder, by default ``runs/attack-MODEL``, has the suite that repeats it.
    """
    name = f"attack-{_name_of(model)}"
    folder = Path(out or Path("runs") / name)
    source = _saved(model, tokenizer, folder / "given")
    file, found = _texts(texts, folder / "given", fields)
    draft = suites.draft_suite(
        load_registry(options.get("plugins", ())),
        source,
        file,
        examples=examples,
        store=Store(default_store_root(folder)),
        kept=folder / "given" / DISTINCT,
        fields=found,
        longest=prompt_tokens,
    )
    stated = {"name": name, "seed": seed, "flips": flips, "out": folder}
    text = draft.text("attack", file=folder / SUITE, **stated)
    write_atomic(folder / SUITE, text)
    for note in draft.notes:
        say(f"note: {note}")
    return run(folder / SUITE, out=folder, say=say, **options)


def _name_of(model: str | Path | PreTrainedModel) -> str:
    if isinstance(model, str | Path):
        return suites.label_of(str(model))
    return str(model.config.model_type)


def _saved(
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    folder: Path,
) -> str:
    """Return the folder of a model, saving one that is in memory."""
    if isinstance(model, str | Path):
        return str(model)
    if tokenizer is None:
        raise UsageError("a model in memory needs its tokenizer beside it")
    model.save_pretrained(folder / "model", safe_serialization=True)
    tokenizer.save_pretrained(folder / "model")
    return str(folder / "model")


def _texts(
    texts: str | Path | Sequence[str] | Sequence[tuple[str, str]],
    folder: Path,
    fields: Mapping[str, str] | None,
) -> tuple[Path, Mapping[str, str] | None]:
    """Return the file of the texts and its fields; write those that are in memory."""
    if isinstance(texts, str | Path):
        return Path(texts), fields
    rows = [
        {"text": one} if isinstance(one, str) else dict(zip(PAIR, one, strict=True))
        for one in texts
    ]
    file = folder / "texts.jsonl"
    write_atomic(file, "".join(json.dumps(row) + "\n" for row in rows))
    pairs = bool(rows) and "text" not in rows[0]
    return file, {name: name for name in PAIR} if pairs else None


PAIR = ("prompt", "reference")


def _yaml(suite: Mapping[str, Any]) -> str:
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(dict(suite), stream)
    return stream.getvalue()
