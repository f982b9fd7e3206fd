"""Draw dL against cost for attacks, their controls and others' programs.

Run from the repository's root, for example:

    python benchmarks/curves.py MODEL_FOLDER TEXTS.jsonl --count 16 --passes 1000

Texts are JSON lines with a field `text`; with `--prompt` and `--reference`, pairs of
fields, as encoder-decoders need. `quickstart` instead of a folder takes the model of
that suite, trained where it is not in the store.

Cost is analytic FLOPs in units of one forward pass over the whole; a gradient
costs about two. Every attack is run once at the largest budget, and its trace says how
far it was at smaller ones. With `--nanogcg PYTHON`, the interpreter of an environment
that has nanogcg, that program is run too, on prompts that some text encodes to; the
sign of its loss is turned, so that it raises the loss of the reference.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.api import Adversarial, Attack, AttackContext
from harness.data import Example, ExampleSets
from harness.models import load_model, load_tokenizer
from harness.records import paired_difference, wilson
from harness.subject import Subject
from harness_plugins.attacks.gcg import GCG, GCGOptions
from harness_plugins.attacks.hotflip import HotFlip, HotFlipOptions
from harness_plugins.attacks.multiflip import MultiFlip, MultiFlipOptions
from harness_plugins.attacks.permuted import Permuted
from harness_plugins.attacks.query import Query, QueryOptions
from harness_plugins.attacks.random import Random

SUCCESS = math.log1p(0.15)
FLIPS = 5
Curve = list[tuple[float, float]]
"""Cost and dL reached, ascending."""
Run = Callable[[], list[Curve]]
"""Measures an attack: a curve for each example."""


def main() -> None:
    """Run all, print a table for each threat model, write the numbers as JSON."""
    arguments = parse_arguments()
    subject = load(arguments.model, arguments.device)
    examples = cut_examples(subject, arguments)
    lab = Lab(subject, examples, arguments.passes)
    print(f"{len(examples)} examples, {subject.dtype}, {arguments.device}", flush=True)
    whole, few = any_token(lab), few_tokens(lab)
    if arguments.nanogcg:
        whole["nanoGCG"] = lambda: nanogcg(lab, arguments.nanogcg, arguments.model)
    measured = kept(arguments.json)
    for title, runs in (("any token", whole), (f"{FLIPS} tokens", few)):
        own = measured.setdefault(title, {})
        for name, run in runs.items():
            if name not in own:
                own[name] = run()
                keep(arguments.json, measured)
        show(title, {name: own[name] for name in runs}, lab)


def kept(file: Path | None) -> dict[str, dict[str, list[Curve]]]:
    """Return what an earlier run measured."""
    if file is None or not file.exists():
        return {}
    found: dict[str, dict[str, list[Curve]]] = json.loads(file.read_text())
    return found


def keep(file: Path | None, measured: Mapping[str, Any]) -> None:
    """Write what is measured so far."""
    if file is not None:
        file.write_text(json.dumps(measured, indent=1))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a Hugging Face folder, or quickstart")
    parser.add_argument("texts", type=Path, help="JSON lines")
    parser.add_argument("--prompt", help="the field of prompts; else texts are cut")
    parser.add_argument("--reference", help="the field of references")
    parser.add_argument("--count", type=int, default=16, help="examples")
    parser.add_argument("--skip", type=int, default=0, help="texts passed over first")
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--reference-tokens", type=int, default=16)
    parser.add_argument("--passes", type=int, default=1000, help="the largest budget")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--nanogcg", help="python of an environment with nanogcg")
    parser.add_argument("--json", type=Path, help="all numbers; what is there is kept")
    return parser.parse_args()


# --- what is attacked ---------------------------------------------------------------


def load(model: str, device: str) -> Subject:
    """Load a model in float32."""
    if model == "quickstart":
        from harness.base import default_store_root
        from harness_plugins.models.scratch import Scratch, ScratchOptions

        loaded = Scratch(ScratchOptions(steps=600)).load(
            default_store_root(Path("runs"))
        )
    else:
        loaded = load_model(Path(model)), load_tokenizer(Path(model))
    return Subject(*loaded, device=device, batch_size=256)


def cut_examples(subject: Subject, arguments: argparse.Namespace) -> list[Example]:
    """Take the first tokens of each text that is long enough and its own encoding."""
    n, m = arguments.prompt_tokens, arguments.reference_tokens
    encoder_decoder = subject.huggingface()[0].config.is_encoder_decoder
    closing = subject.huggingface()[1]("a")["input_ids"][-1:] if encoder_decoder else []
    examples = []
    for number, row in enumerate(rows(arguments.texts)):
        if arguments.prompt:
            prompt = subject.encode(row[arguments.prompt])[: n - len(closing)]
            prompt = np.concatenate([prompt, closing]).astype(np.int64)
            reference = subject.encode(row[arguments.reference])[:m]
        else:
            prompt, reference = np.split(subject.encode(row["text"])[: n + m], [n])
        fits = len(prompt) == n and len(reference) == m
        if fits and (arguments.prompt or subject.reachable([prompt])[0]):
            name = str(number)
            examples.append(
                Example(name, name, prompt, reference, protected_end=len(closing))
            )
    return examples[arguments.skip :][: arguments.count]


def rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the JSON objects of a file."""
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


class Lab:
    """A subject, its examples, and how attacks on them are measured."""

    def __init__(self, subject: Subject, examples: list[Example], passes: int) -> None:
        self.subject, self.examples, self.passes = subject, examples, passes
        first = examples[0]
        self.shape = len(first.prompt_ids), len(first.reference_ids)
        forward, backward = subject.pass_flops(*self.shape)
        self.gradient = backward / forward
        self.clean = np.array(
            [subject.exact_losses([x.prompt_ids], x.reference_ids)[0] for x in examples]
        )

    def of(self, attack: Attack[Any], matched: Attack[Any] | None = None) -> Run:
        """Return what runs an attack, or a control of `matched`."""
        return lambda: self.anytime(self.run(attack, matched))

    def run(
        self, attack: Attack[Any], matched: Attack[Any] | None = None
    ) -> list[Adversarial]:
        """Run an attack, or a control of `matched`; results in the examples' order."""
        start = time.monotonic()
        budget = matched.budget(len(self.examples)) if matched else None
        context = AttackContext("curves", budget=budget, matched=matched)
        results = attack.run(self.subject, ExampleSets(self.examples), context)
        found = {one.example_id: one for one in results}
        name = f"{attack.name} of {matched.name}" if matched else attack.name
        print(f"  {name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
        return [found[example.id] for example in self.examples]

    def anytime(self, found: Sequence[Adversarial]) -> list[Curve]:
        """Return what the traces say: dL against cost."""
        return [
            running_best(
                (
                    step["passes"] + step["gradients"] * self.gradient,
                    step["loss"] - clean,
                )
                for step in one.trace
            )
            for one, clean in zip(found, self.clean, strict=True)
        ]


def running_best(points: Iterator[tuple[float, float]]) -> Curve:
    """Return the best until each point."""
    curve: Curve = [(1.0, 0.0)]
    for cost, value in points:
        curve.append((cost, max(value, curve[-1][1])))
    return curve


# --- the attacks --------------------------------------------------------------------


def any_token(lab: Lab) -> dict[str, Run]:
    """Return what may rewrite every token of the prompt."""
    gradient = 1 + lab.gradient
    per_step = MultiFlipOptions().candidates + gradient
    multi = MultiFlip(MultiFlipOptions(steps=math.ceil(lab.passes / per_step)))
    runs = {
        "multiflip": lab.of(multi),
        "multiflip, permuted": lab.of(Permuted(), multi),
        "multiflip, random": lab.of(Random(), multi),
        "uniform swaps": lambda: uniform_swaps(lab),
    }
    for candidates in (512, 32):
        steps = math.ceil(lab.passes / (candidates + gradient))
        gcg = GCGOptions(steps=steps, candidates=candidates)
        runs[f"gcg, {candidates}"] = lab.of(GCG(gcg))
    for candidates in (64, max(64, lab.passes // lab.shape[0])):
        flips = max(1, min(lab.shape[0], int(lab.passes / (candidates + gradient))))
        textbook = HotFlipOptions(
            flips=flips, candidates=candidates, candidates_from="gradient"
        )
        runs[f"textbook HotFlip, {candidates}"] = lab.of(HotFlip(textbook))
    return runs


def few_tokens(lab: Lab) -> dict[str, Run]:
    """Return what may flip five tokens."""
    per_step = MultiFlipOptions().candidates + 1 + lab.gradient
    steps = math.ceil(lab.passes / per_step)
    multi = MultiFlip(MultiFlipOptions(steps=steps, flips=FLIPS))
    runs = {
        "multiflip": lab.of(multi),
        "multiflip, permuted": lab.of(Permuted(), multi),
        "multiflip, random": lab.of(Random(), multi),
        "uniform swaps": lambda: uniform_swaps(lab, FLIPS),
    }
    kinds = {"hotflip": {}, "textbook HotFlip": {"candidates_from": "gradient"}}
    for kind, options in kinds.items():
        for size in (4, 16, 64, 256, 1024):
            if size * FLIPS <= lab.passes:
                some = HotFlipOptions(flips=FLIPS, candidates=size, **options)
                runs[f"{kind}, {size}"] = lab.of(HotFlip(some))
    for size in (4, 16, 64, 256, 1024):
        if size * FLIPS <= lab.passes:
            query = QueryOptions(flips=FLIPS, queries=1 + size * FLIPS)
            runs[f"query, {size}"] = lab.of(Query(query))
    return runs


def uniform_swaps(lab: Lab, flips: int | None = None) -> list[Curve]:
    """Swap one uniform token at a uniform position; keep it if it is better.

    Where `flips` tokens differ already, one of those is written. All examples together,
    one candidate each: without a gradient, no program can make more of so many passes
    by taking the best of several at once.
    """
    rng = np.random.default_rng(0)
    allowed = lab.subject.vocabulary.allowed
    prompts = [example.prompt_ids.copy() for example in lab.examples]
    best, curves = lab.clean.copy(), [[(1.0, 0.0)] for _ in prompts]
    for step in range(lab.passes):
        tried = [prompt.copy() for prompt in prompts]
        for prompt, example in zip(tried, lab.examples, strict=True):
            changed = prompt != example.prompt_ids
            full = flips is not None and changed.sum() >= flips
            places = np.flatnonzero(changed if full else example.free)
            prompt[rng.choice(places)] = rng.choice(allowed)
        losses = lab.subject.losses(tried, [x.reference_ids for x in lab.examples])
        for i in np.flatnonzero(losses > best):
            prompts[i], best[i] = tried[i], losses[i]
            curves[i].append((step + 2.0, float(best[i] - lab.clean[i])))
    return curves


def nanogcg(lab: Lab, python: str, model: str) -> list[Curve]:
    """Run nanoGCG in its own environment, on the prompts as texts."""
    work = {
        "model": model,
        "device": lab.subject.huggingface()[0].device.type,
        "passes": lab.passes,
        "gradient": 1 + lab.gradient,
        "prompts": [lab.subject.decode(x.prompt_ids) for x in lab.examples],
        "targets": [lab.subject.decode(x.reference_ids) for x in lab.examples],
    }
    program = Path(__file__).with_name("run_nanogcg.py")
    done = subprocess.run(
        [python, str(program)],
        input=json.dumps(work),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answers = json.loads(done.stdout.splitlines()[-1])
    return [running_best((c, v) for c, v in answer) for answer in answers]


# --- the tables ---------------------------------------------------------------------


def show(title: str, curves: Mapping[str, list[Curve]], lab: Lab) -> None:
    """Print mean dL and success at each budget, and how far ahead the first is."""
    budgets = [b for b in BUDGETS if b <= lab.passes]
    print(f"\n{title}: mean dL (success at 15 %) after so many passes")
    print("| |" + "|".join(f" {b} " for b in budgets) + "|")
    print("|---" * (len(budgets) + 1) + "|")
    values = {name: values_at(curve, budgets) for name, curve in curves.items()}
    for name, table in values.items():
        cells = [f" {column.mean():.2f} ({success(column):.0%}) " for column in table.T]
        print(f"| {name} |" + "|".join(cells) + "|")
    first, *others = values
    print(f"\n{first} minus each, paired by example, 95 % interval")
    for name in others:
        cells = [
            ahead(values[first].T[i], values[name].T[i]) for i in range(len(budgets))
        ]
        print(f"| {name} |" + "|".join(cells) + "|")
    sys.stdout.flush()


BUDGETS = (4, 12, 40, 120, 400, 1200, 4000, 10_000)


def values_at(curves: Sequence[Curve], budgets: Sequence[int]) -> np.ndarray:
    """Return dL [examples, budgets]: the last point that was in the budget."""
    return np.array(
        [
            [
                max(value for cost, value in curve if cost <= budget)
                for budget in budgets
            ]
            for curve in curves
        ]
    )


def success(column: np.ndarray) -> float:
    """Return the fraction of examples above the threshold."""
    return wilson(int((column > SUCCESS).sum()), len(column)).value or 0.0


def ahead(first: np.ndarray, second: np.ndarray) -> str:
    """Spell a paired difference and its interval."""
    found = paired_difference(first, second, unit="nats/token")
    low, high = found.interval or (math.nan, math.nan)
    return f" {found.value:+.2f} [{low:+.2f}, {high:+.2f}] "


if __name__ == "__main__":
    main()
