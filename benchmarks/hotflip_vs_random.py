"""Compare HotFlip with random search at equal cost, on the same examples.

Run from the repository's root, for example:

    python benchmarks/hotflip_vs_random.py MODEL_FOLDER TEXTS.jsonl --count 64

Texts are JSON lines with a field `text`, or a text file with a document a line. The
table shows the mean dL in nats/token after each flip, and the paired difference to
random search with its 95 % bootstrap interval over examples.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.interfaces import Attack, AttackContext, Budget, Example, ExampleSets
from harness.subject import Subject
from harness_plugins.attacks.hotflip import HotFlip, HotFlipOptions
from harness_plugins.attacks.permuted import Permuted
from harness_plugins.attacks.random import Random


def main() -> None:
    """Run the attacks and print the table."""
    arguments = parse_arguments()
    subject = load(arguments.model, arguments.device)
    examples = cut_examples(subject, arguments)
    options = {"flips": arguments.flips, "candidates": arguments.candidates}
    default = HotFlip(HotFlipOptions(**options))
    print(f"{len(examples)} examples, {arguments.prompt_tokens} prompt tokens")
    control = measure(subject, Random(), examples, default.budget(len(examples)))
    show("random", control, control)
    permuted = measure(subject, Permuted(), examples, matched=default)
    show("hotflip, permuted gradient", permuted, control)
    for name, changes in VARIANTS.items():
        attack = HotFlip(HotFlipOptions(**options, **changes))
        show(name, measure(subject, attack, examples), control)


VARIANTS: dict[str, dict[str, Any]] = {
    "hotflip": {},
    "hotflip, textbook": {"candidates_from": "gradient"},
}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a Hugging Face folder")
    parser.add_argument("texts", type=Path, help=".jsonl with `text`, or text lines")
    parser.add_argument("--count", type=int, default=64, help="examples")
    parser.add_argument("--prompt-tokens", type=int, default=48)
    parser.add_argument("--reference-tokens", type=int, default=32)
    parser.add_argument("--flips", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=64, help="for each flip")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def load(folder: Path, device: str) -> Subject:
    """Load a model in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    return Subject(model, AutoTokenizer.from_pretrained(folder), device=device)


def texts_of(path: Path) -> Iterator[str]:
    """Yield the texts of a file."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"] if path.suffix == ".jsonl" else line


def cut_examples(subject: Subject, arguments: argparse.Namespace) -> list[Example]:
    """Take the first tokens of each text that is long enough."""
    n, m = arguments.prompt_tokens, arguments.reference_tokens
    examples = []
    for i, text in enumerate(texts_of(arguments.texts)):
        ids = subject.encode(text)
        if len(ids) >= n + m:
            examples.append(Example(str(i), str(i), ids[:n], ids[n : n + m]))
    return examples[: arguments.count]


def measure(
    subject: Subject,
    attack: Attack[Any],
    examples: list[Example],
    budget: Budget | None = None,
    matched: Attack[Any] | None = None,
) -> tuple[np.ndarray, float]:
    """Return dL [examples, flips] in nats/token after each flip, and the FLOPs."""
    context = AttackContext(seed_key="benchmark", budget=budget, matched=matched)
    with subject.metered() as meter:
        found = list(attack.run(subject, ExampleSets(examples), context))
    flips = (budget or (matched or attack).budget(len(examples))).flips
    curves = [
        curve(subject, example, one.trace, flips)
        for example, one in zip(examples, found, strict=True)
    ]
    return np.array(curves), meter.flops


def curve(subject: Subject, example: Example, trace: Any, flips: int) -> list[float]:
    """Replay a trace: dL after 1, 2, ... flips, each prompt alone in float32."""
    prompts = [example.prompt_ids.copy()]
    for step in range(flips):
        prompt = prompts[-1].copy()
        if step < len(trace):
            prompt[trace[step]["position"]] = trace[step]["token"]
        prompts.append(prompt)
    losses = subject.exact_losses(prompts, example.reference_ids)
    return list(losses[1:] - losses[0])


def show(
    name: str, measured: tuple[np.ndarray, float], control: tuple[np.ndarray, float]
) -> None:
    """Print a row: means after each flip, difference at the last, cost."""
    curves, flops = measured
    means = " ".join(f"{mean:.3f}" for mean in curves.mean(axis=0))
    cost = f"{flops / control[1]:.3f} of random's FLOPs"
    print(f"{name:28} {means}   {cost}")
    if measured is not control:
        for flip, difference in enumerate((curves - control[0]).T, 1):
            low, high = interval(difference)
            print(
                f"    after {flip}: {difference.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
            )


def interval(differences: np.ndarray, draws: int = 10_000) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean."""
    rng = np.random.default_rng(0)
    picked = rng.integers(0, len(differences), (draws, len(differences)))
    low, high = np.percentile(differences[picked].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
