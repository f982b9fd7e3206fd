r"""Time lm-eval's tasks: our metric beside lm-eval's own `hf` model.

Run from the repository's root, for example:

    python benchmarks/lm_eval_speed.py --model FOLDER --include-path FOLDER \
        --tasks lambada_local,hellaswag_local --limit 200 --repeats 2

Both have the same model in float32, the same tasks and the same number of sequences in
a batch, and take turns. Both are timed from the loaded model to the scores, on a CPU in
seconds of the processor.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.api import MetricContext
from harness.models import load_model, load_tokenizer
from harness.subject import Subject
from harness_plugins.metrics.lm_eval import LmEval, LmEvalOptions


def main() -> None:
    """Print seconds and scores, ours beside theirs."""
    arguments = parse_arguments()
    model, tokenizer = load_model(arguments.model), load_tokenizer(arguments.model)
    subject = Subject(
        model, tokenizer, device=arguments.device, batch_size=arguments.batch_size
    )
    for task in arguments.tasks.split(","):
        for _ in range(arguments.repeats):
            seconds, scores = timed(ours, subject, task, arguments)
            their_seconds, theirs_too = timed(theirs, subject, task, arguments)
            print(f"{task}: {seconds:.1f} s, hf {their_seconds:.1f} s")
        for name, value in theirs_too.items():
            print(f"  {name}: {scores[f'{task}.{name}']:.6g}, hf {value:.6g}")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a folder")
    parser.add_argument("--include-path", type=Path, required=True, help="of tasks")
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=1)
    return parser.parse_args()


def timed(
    measure: Callable[..., dict[str, float]], *arguments: Any
) -> tuple[float, dict[str, float]]:
    """Return how many seconds a measurement takes, on all cores, and its scores.

    They are those of the processor on a CPU, which others may use at the same time.
    """
    clock = time.process_time if arguments[-1].device == "cpu" else time.perf_counter
    started = clock()
    scores = measure(*arguments)
    return clock() - started, scores


def ours(
    subject: Subject, task: str, arguments: argparse.Namespace
) -> dict[str, float]:
    """Return the scores of the metric."""
    options = LmEvalOptions(
        tasks=(task,), include_path=str(arguments.include_path), limit=arguments.limit
    )
    metric = LmEval(options)
    context = MetricContext(documents=lambda name: iter(()), limit=None)
    rows = metric.measure(subject, context)
    found = metric.summarise([*rows])
    return {name: estimate.value for name, estimate in found.items()}


def theirs(
    subject: Subject, task: str, arguments: argparse.Namespace
) -> dict[str, float]:
    """Return the scores of lm-eval, called as its users call it."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model, tokenizer = subject.huggingface()
    found = lm_eval.simple_evaluate(
        HFLM(
            pretrained=model,
            tokenizer=copy.deepcopy(tokenizer),
            batch_size=arguments.batch_size,
        ),
        tasks=[task],
        task_manager=TaskManager(
            include_path=str(arguments.include_path), include_defaults=False
        ),
        limit=arguments.limit,
        bootstrap_iters=0,
    )["results"][task]
    return {
        key.removesuffix(",none"): value
        for key, value in found.items()
        if key.endswith(",none") and "stderr" not in key
    }


if __name__ == "__main__":
    main()
