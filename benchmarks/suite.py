r"""Run a frozen suite, one arm a call, and say where its time goes.

Run from the repository's root, for example:

    python benchmarks/suite.py --device cuda --texts TEXTS --tokenizer FOLDER \
        --arm baseline --seconds 520
    python benchmarks/suite.py --shape tiny

What runs is `suites/pythia_1p4b.yaml --profile quick` by `harness run`, with one seed,
three arms (baseline, abs-unconstrained, monotone), 64 test examples, 3.1 M tokens of
recovery and without lm-eval: 45 units. The model has Pythia-1.4B's shape and is trained
here, for 40 s. A run whose time is over is stopped by a signal; the same call goes on.
Begin with the arm `baseline`: cells of the others read its rows. What reads cells of
all arms is done by a last call without `--arm`. The report of the run goes to a file.

TEXTS is a text file, of which documents are cut, and the tokenizer should be that of
Pythia. The shape `tiny` has a tokenizer of its own, and runs on a CPU in a minute.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from attacks import device_name, matmul_ceiling, train_tokenizer
from tabulate import tabulate
from trained import train

from harness.records import Cost, Record, read_record

SUITE = Path(__file__).parents[1] / "suites" / "pythia_1p4b.yaml"
ARMS = ("baseline", "abs-unconstrained", "monotone")
SEED = 42
DOCUMENT = 4000
"""Characters of a document, or more, up to the end of a line."""
PARTS = {"test": ":25%", "search": "25%:33%", "validation": "33%:40%", "train": "40%:"}
TRAINED_ON = 0.4
"""From which part of the texts on the model is trained, here and in recovery."""
GRACE_SECONDS = 20
"""How long a run may take to stop."""
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Shape:
    """A model, and what the suite is made for it."""

    config: Mapping[str, Any]
    """Of a GPT-NeoX."""
    settings: Mapping[str, Any]
    """What is set of the suite."""
    train_seconds: float
    vocabulary: int | None = None
    """Of a tokenizer that is trained here; None for one that is given."""


_SHARED = {
    "arms.gauge": "null",
    "metrics.lm_eval": "null",
    "claims": "null",
    "models.pythia-1.4b.revision": "null",
}
SHAPES = {
    "1.4b": Shape(
        config={
            "hidden_size": 2048,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 8192,
            "max_position_embeddings": 2048,
            "rotary_pct": 0.25,
            "vocab_size": 50304,
        },
        settings={
            **_SHARED,
            "recovery.tokens": 3_100_000,
            "recovery.batch_tokens": 131_072,
            "examples.test.count": 64,
        },
        train_seconds=40,
    ),
    "tiny": Shape(
        config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 128,
            "max_position_embeddings": 128,
            "rotary_pct": 0.25,
            "vocab_size": 500,
        },
        settings={
            **_SHARED,
            "models.pythia-1.4b.dtype": "float32",
            "recovery.tokens": 8192,
            "recovery.context": 64,
            "recovery.batch_tokens": 1024,
            "recovery.precision": "float32",
            "recovery.evaluation_tokens": 1024,
            "metrics.perplexity.context": 64,
            "metrics.perplexity.max_tokens": 2000,
            "examples.test.count": 4,
            "examples.search.count": 4,
            "examples.validation.count": 4,
            "examples.prompt_tokens": 12,
            "examples.reference_tokens": 8,
            "attacks.hotflip": "{flips: 2, candidates: 4}",
            "attacks.multiflip": "{steps: 2, candidates: 4}",
            "attacks.uat": "{trigger_tokens: 2, candidates: 4, sweeps: 1, restarts: 1}",
        },
        train_seconds=2,
        vocabulary=500,
    ),
}


def main(arguments: list[str] | None = None) -> None:
    """Make what is missing, run an arm, and print the tables of all that is done."""
    options = parse_arguments(arguments)
    deadline = time.monotonic() + options.seconds
    shape = SHAPES[options.shape]
    precision = "bfloat16" if options.device == "cuda" else "float32"
    ceiling = matmul_ceiling(options.device, precision)
    print(f"torch {torch.__version__}, {device_name(options.device)}")
    print(f"matrix product in {precision}: {ceiling / 1e12:.4g} TFLOP/s", flush=True)
    prepare(options, shape)
    command = harness_command(options, shape)
    print(" ".join(command), flush=True)
    started = datetime.now()
    code = run(command, options.work / "report.txt", deadline - time.monotonic())
    seconds = (datetime.now() - started).total_seconds()
    print(f"\n`harness run` ended with {code} after {seconds:.1f} s")
    show(options.work / "run", ceiling, started)
    sys.exit(code)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=[*SHAPES], default="1.4b")
    parser.add_argument("--arm", choices=ARMS, action="append", help="all by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--workers", type=int, help="processes, a GPU each if there are"
    )
    parser.add_argument("--texts", type=Path, help="Python's help texts by default")
    parser.add_argument("--tokenizer", type=Path, help="a folder that holds one")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--seconds", type=float, default=3600, help="for all of it")
    options = parser.parse_args(arguments)
    if SHAPES[options.shape].vocabulary is None and options.tokenizer is None:
        parser.error("--tokenizer: the shape 1.4b needs one")
    return options


# --- what the suite is run on -------------------------------------------------------


def prepare(options: argparse.Namespace, shape: Shape) -> None:
    """Make the documents and the model, unless an earlier call did."""
    model = options.work / "model"
    if (model / WEIGHTS).exists():
        return
    options.work.mkdir(parents=True, exist_ok=True)
    documents = [*cut(texts_of(options.texts))]
    lines = (json.dumps({"text": document}) + "\n" for document in documents)
    (options.work / "documents.jsonl").write_text("".join(lines), encoding="utf-8")
    plain = options.work / "train.txt"
    kept = "".join(documents[int(TRAINED_ON * len(documents)) :])
    plain.write_text(kept, encoding="utf-8")
    make_model(model, shape, plain, options)
    torch.cuda.empty_cache()


def texts_of(file: Path | None) -> str:
    """Return the texts of a file, by default those that come with Python."""
    if file is not None:
        return file.read_text(encoding="utf-8")
    from pydoc_data.topics import topics

    return "".join(topics.values())


def cut(texts: str) -> Iterator[str]:
    """Yield documents of whole lines; what is left in the end is none."""
    document: list[str] = []
    length = 0
    for line in texts.splitlines(keepends=True):
        document.append(line)
        length += len(line)
        if length >= DOCUMENT:
            yield "".join(document)
            document, length = [], 0


def make_model(
    folder: Path, shape: Shape, texts: Path, options: argparse.Namespace
) -> None:
    """Train a model for a while, and write it with its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if shape.vocabulary is not None:
        tokenizer = train_tokenizer(texts, shape.vocabulary)
    else:
        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt_neox", **shape.config)
    with torch.device(options.device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    text = texts.read_text(encoding="utf-8")
    train(model, tokenizer, text, shape.train_seconds, options.device)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder, max_shard_size="100GB")


# --- running it ---------------------------------------------------------------------


def harness_command(options: argparse.Namespace, shape: Shape) -> list[str]:
    """Return the command line of the run."""
    work = options.work.absolute()
    settings = {"models.pythia-1.4b.path": work / "model", **shape.settings}
    for part, rows in PARTS.items():
        source = f"{{path: {work / 'documents.jsonl'}, slice: '{rows}'}}"
        settings[f"corpora.pile_{part}"] = source
    command = [sys.executable, "-c", "from harness.cli import main; main()"]
    command += ["run", str(SUITE), "--profile", "quick", "--seeds", str(SEED)]
    command += ["--only", "arm=" + ",".join(options.arm or ARMS)]
    command += ["--device", options.device, "--out", str(work / "run")]
    if options.workers:
        command += ["--workers", str(options.workers)]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    return command


def run(command: list[str], report: Path, seconds: float) -> int:
    """Run a command, stopped by a signal when its time is over; return its code."""
    with report.open("w") as file, subprocess.Popen(command, stdout=file) as process:
        for last in (signal.SIGTERM, signal.SIGKILL):
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(last)
                seconds = GRACE_SECONDS
        return process.wait()


# --- tables -------------------------------------------------------------------------


def show(run: Path, ceiling: float, started: datetime) -> None:
    """Print what is done: stages of variants, phases of cells, shares of the ceiling.

    Stages are those of the log, of every attempt. FLOPs and share of the ceiling are
    those of the attack, or of training, by the ledger; `whole` counts the same passes
    without caches and padding.
    """
    for log in sorted((run / "variants").glob("*/log.txt")):
        print(f"\n{log.parent.name}")
        for name, seconds in stages(log):
            print(f"  {seconds:7.1f} s  {name}")
        first = first_pass(log, started)
        if first is not None:
            print(
                f"  {first:7.1f} s  from the start of `harness run` to the first pass"
            )
    records = [read_record(path) for path in sorted(run.glob("*/*/record.json"))]
    records.sort(key=lambda record: record.provenance.started)
    for arm in dict.fromkeys(record.arm.label for record in records):
        own = [record for record in records if record.arm.label == arm]
        total = sum(record.provenance.wall_seconds or 0 for record in own)
        print(f"{arm}: {len(own)} units in {total:.0f} s")
    print("\n" + tabulate([row(x, ceiling) for x in records], "keys"))


STAGE = re.compile(r"^(\S+ \S+) INFO harness\.running\.journal: (.*)$", re.MULTILINE)


def stages(log: Path) -> Iterator[tuple[str, float]]:
    """Yield the stages of a unit that came to an end, and their seconds."""
    for _, message in STAGE.findall(log.read_text(encoding="utf-8")):
        ended = re.fullmatch(r"(.*) took ([\d.]+) s", message)
        if ended:
            yield ended[1], float(ended[2])


def first_pass(log: Path, started: datetime) -> float | None:
    """Return the seconds from a time to the first pass after it that makes a subject.

    That is the first certificate's: it follows the loading.
    """
    for when, message in STAGE.findall(log.read_text(encoding="utf-8")):
        seconds = (
            datetime.strptime(when, "%Y-%m-%d %H:%M:%S,%f") - started
        ).total_seconds()
        if seconds > 0 and message.startswith("certify") and message.endswith("..."):
            return seconds
    return None


def row(record: Record, ceiling: float) -> dict[str, Any]:
    """Return a unit's line of the table."""
    costs: Mapping[str, Cost] = record.ledger.kept
    main = costs.get("attack") or costs.get("train") or Cost()
    found = record.results.get("attack", {}).get("delta_loss")
    seconds = {
        phase: round(costs[phase].seconds, 1) if phase in costs else None
        for phase in PHASES
    }
    return {
        "arm": record.arm.label,
        "cell": record.attack.label if record.attack else None,
        "s": record.provenance.wall_seconds,
        **seconds,
        "TFLOP": float(f"{main.flops / 1e12:.4g}"),
        "whole": float(f"{main.compared_flops / 1e12:.4g}"),
        "share": f"{main.flops / main.seconds / ceiling:.0%}" if main.seconds else None,
        "GB": round((main.peak_memory_bytes or 0) / 1e9, 1),
        "dL": found.value if found else None,
    }


PHASES = ("load", "train", "certify", "freeze", "metrics", "attack", "rescore")


if __name__ == "__main__":
    main()
