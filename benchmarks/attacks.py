r"""Time a search step: ours, loops over plain transformers, and nanoGCG.

Run from the repository's root, for example:

    python benchmarks/attacks.py --device cuda --dtype bfloat16 --texts TEXTS \
        --random-weights --nanogcg PYTHON
    python benchmarks/attacks.py --model FOLDER --texts TEXTS --fixed 44 --scored 64 \
        --width 256 --attackable 64 --flip-scored 64 --flip-width 64 --nanogcg PYTHON

A step takes a gradient, draws candidates that differ from the prompt in one token,
scores them all and picks the best. Two layouts: `gcg` has fixed tokens, then attacked
ones, then those that are scored; in `flips`, every token of the prompt may change.
TEXTS is a text file: prompts are cut from it. With --random-weights the model has
Pythia-1.4B's shape, and a vocabulary of 8,192 tokens in the layout `gcg`.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from harness.interfaces import AttackContext, Example, ExampleSets
from harness.subject import Subject

TOP_K = 256
PYTHIA = {
    "hidden_size": 2048,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 8192,
    "max_position_embeddings": 2048,
    "rotary_pct": 0.25,
}


@dataclass
class Row:
    """What one way of scoring did."""

    name: str
    steps: float = 0.0
    """Steps a second."""
    candidates: float = 0.0
    """Candidates scored in a second."""
    tokens: float = 0.0
    """Their tokens, prompt and reference."""
    flops: float = 0.0
    """Floating-point operations that were made, a second."""
    peak: int | None = None
    seconds: float | None = None
    """Time to the loss that nanoGCG came to."""


def main() -> None:
    """Run both layouts and print a table of each."""
    arguments = parse_arguments()
    ceiling = matmul_ceiling(arguments.device, arguments.dtype)
    print(f"torch {torch.__version__}, {device_name(arguments.device)}")
    print(f"matrix product of 8192 (CPU: 2048): {ceiling / 1e12:.3f} TFLOP/s")
    for layout in arguments.layouts.split(","):
        torch.manual_seed(0)
        model, tokenizer = load(arguments, layout)
        bench = Bench(arguments, layout, model, tokenizer)
        rows = []
        for row in bench.rows():
            print(
                f"measured: {row.name}, {row.candidates:.1f} candidates/s", flush=True
            )
            rows.append(row)
        show(layout, rows, ceiling)
    if arguments.growth:
        growth(arguments)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a Hugging Face folder")
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="for --random-weights, 50,304")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--layouts", default="gcg,flips")
    parser.add_argument("--fixed", type=int, default=108)
    parser.add_argument("--attacked", type=int, default=20)
    parser.add_argument("--scored", type=int, default=128)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--attackable", type=int, default=128)
    parser.add_argument("--flip-scored", type=int, default=128)
    parser.add_argument("--flip-width", type=int, default=512)
    parser.add_argument("--batch", type=int, default=128, help="of the plain loops")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--nanogcg", help="its Python; `PACKAGES:FOLDER` for a path")
    parser.add_argument("--nanogcg-steps", type=int, default=0, help="0: --steps")
    parser.add_argument("--growth", action="store_true")
    return parser.parse_args()


def device_name(device: str) -> str:
    """Name what is measured."""
    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


def load(arguments: argparse.Namespace, layout: str) -> tuple[Any, Any]:
    """Return a float32 model and its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if not arguments.random_weights:
        model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype="float32")
        return model.eval(), AutoTokenizer.from_pretrained(arguments.model)
    if layout == "gcg":
        tokenizer, rows = train_tokenizer(arguments.texts, 8192), 8192
    else:
        tokenizer, rows = AutoTokenizer.from_pretrained(arguments.tokenizer), 50304
    config = AutoConfig.for_model("gpt_neox", **PYTHIA, vocab_size=rows)
    with torch.device(arguments.device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    # What the search computes with is what others are given.
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return model.eval(), tokenizer


def train_tokenizer(texts: Path, size: int) -> Any:
    """Train a byte-level tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(texts)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>"
    )


class Bench:
    """One layout, and the ways of scoring it."""

    def __init__(
        self, arguments: argparse.Namespace, layout: str, model: Any, tokenizer: Any
    ) -> None:
        self.arguments, self.layout = arguments, layout
        self.flips = layout == "flips"
        a = arguments
        self.fixed = 0 if self.flips else a.fixed
        self.n = a.attackable if self.flips else a.fixed + a.attacked
        self.m = a.flip_scored if self.flips else a.scored
        self.width = a.flip_width if self.flips else a.width
        self.tokenizer, self.model = tokenizer, model
        self.plain = copy.deepcopy(model).to(a.device, getattr(torch, a.dtype))
        self.plain.requires_grad_(False)
        self.subject = Subject(
            model, tokenizer, device=a.device, dtype=a.dtype, batch_size=512
        )
        self.prompt, self.reference = self.cut()
        # Not the cost of a step: the list of what may be written.
        _ = self.subject.vocabulary.allowed, self.subject.embedding

    def cut(self, which: int = 0) -> tuple[Any, Any]:
        """Cut ids from the texts that are the encoding of their own text."""
        text = self.arguments.texts.read_text(encoding="utf-8")
        ids = self.subject.encode(text[10_000:400_000])
        for start in range(which * 600, len(ids) - self.n - self.m, 7):
            prompt, reference = np.split(ids[start : start + self.n + self.m], [self.n])
            if all(self.subject.reachable([prompt, prompt[: self.fixed], reference])):
                return prompt, reference
        raise SystemExit("the texts are too short")

    def rows(self) -> Iterator[Row]:
        """Measure each way."""
        theirs = None if self.flips else self.nanogcg()
        if theirs is not None:
            yield theirs[0]
        yield self.timed("stock loop, all logits", self.stock_step)
        yield self.timed("loop, scored logits", self.scored_step)
        yield self.timed("ours, no check", lambda: self.own_step(check=False))
        row = self.timed("ours", lambda: self.own_step(check=True))
        if theirs is not None:
            row.seconds = self.time_to(theirs[1])
        yield row
        print("settings", self.subject.settings)

    def timed(self, name: str, step: Callable[[], float]) -> Row:
        """Time steps after some that nobody times; a step returns its FLOPs."""
        for _ in range(4 if self.arguments.device == "cuda" else 1):
            step()
        self.synchronize()
        if self.arguments.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        flops = sum(step() for _ in range(self.arguments.steps))
        self.synchronize()
        seconds = time.perf_counter() - started
        steps = self.arguments.steps / seconds
        count = self.width * steps
        cuda = self.arguments.device == "cuda"
        return Row(
            name,
            steps,
            count,
            count * (self.n + self.m),
            flops / seconds,
            torch.cuda.max_memory_allocated() if cuda else None,
        )

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.arguments.device == "cuda":
            torch.cuda.synchronize()

    def candidates(self, gains: torch.Tensor) -> Any:
        """Draw prompts that differ in one token of high gain."""
        rng = np.random.default_rng(0)
        lists = gains.topk(TOP_K, dim=1).indices.cpu().numpy()
        prompts = np.tile(self.prompt, (self.width, 1))
        positions = rng.integers(self.fixed, self.n, self.width)
        drawn = lists[positions, rng.integers(0, TOP_K, self.width)]
        prompts[np.arange(self.width), positions] = drawn
        return prompts

    def own_step(self, *, check: bool) -> float:
        """Take a step through the subject; texts are checked while it scores."""
        with self.subject.metered() as meter, ThreadPoolExecutor(1) as pool:
            (gradient,) = self.subject.gradients([self.prompt], self.reference)
            prompts = self.candidates(self.subject.gains(self.prompt, gradient))
            checking = pool.submit(self.subject.reachable, prompts) if check else None
            losses = self.subject.losses(prompts, self.reference)
            if checking is not None:
                losses[~np.array(checking.result())] = -np.inf
            self.subject.best(prompts, self.reference, losses)
        return meter.flops

    def plain_gradient(self) -> Any:
        """Take a gradient with plain transformers."""
        ids = torch.as_tensor(np.concatenate([self.prompt, self.reference]))
        ids = ids.to(self.arguments.device)
        with torch.enable_grad():
            embedded = self.plain.get_input_embeddings()(ids[None]).requires_grad_()
            logits = self.plain(inputs_embeds=embedded).logits[0, self.n - 1 : -1]
            loss = cross_entropy(logits.float(), ids[self.n :])
            (gradient,) = torch.autograd.grad(loss, [embedded])
        return self.subject.gains(self.prompt, gradient[0, : self.n].float())

    def stock_step(self) -> float:
        """Take a step with all logits of all tokens."""

        def losses(ids: Any) -> Any:
            logits = self.plain(ids).logits[:, self.n - 1 : -1]
            targets = ids[:, self.n :]
            return cross_entropy(logits.transpose(1, 2), targets, reduction="none")

        return self.plain_step(losses, self.n + self.m)

    def scored_step(self) -> float:
        """Take a step with the logits that are scored."""

        def losses(ids: Any) -> Any:
            hidden = self.plain.base_model(ids[:, :-1])[0][:, self.n - 1 :]
            logits = self.plain.get_output_embeddings()(hidden).float()
            targets = ids[:, self.n :]
            return cross_entropy(logits.transpose(1, 2), targets, reduction="none")

        return self.plain_step(losses, self.m)

    def plain_step(self, losses: Callable[[Any], Any], logits: int) -> float:
        prompts = self.candidates(self.plain_gradient())
        rows = np.tile(self.reference, (self.width, 1))
        ids = torch.as_tensor(np.concatenate([prompts, rows], axis=1))
        ids = ids.to(self.arguments.device)
        with torch.inference_mode():
            parts = [losses(part).mean(1) for part in ids.split(self.arguments.batch)]
        torch.cat(parts).argmax().item()
        whole, _ = self.subject.pass_flops(self.n, self.m)
        head = 2.0 * self.plain.get_output_embeddings().weight.numel()
        return float(self.width * (whole + head * (logits - self.m)))

    # --- nanoGCG ------------------------------------------------------------------

    def nanogcg(self) -> tuple[Row, float] | None:
        """Run nanoGCG on the same weights; None where it is not there."""
        how = self.arguments.nanogcg
        if not how:
            print("nanoGCG is left out: --nanogcg does not say where it is")
            return None
        steps = self.arguments.nanogcg_steps or self.arguments.steps
        with tempfile.TemporaryDirectory() as folder:
            copied = copy.deepcopy(self.plain).cpu()
            copied.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            del copied
            name_old_class(Path(folder, "tokenizer_config.json"))
            work = {
                "model": folder,
                "device": self.arguments.device,
                "dtype": self.arguments.dtype,
                "width": self.width,
                "batch": self.arguments.batch,
                "steps": steps,
                "before": self.subject.decode(self.prompt[: self.fixed]),
                "start": self.subject.decode(self.prompt[self.fixed :]),
                "target": self.subject.decode(self.reference),
            }
            environment = dict(os.environ)
            python = how
            if how.startswith("PACKAGES:"):
                environment["PYTHONPATH"] = how.removeprefix("PACKAGES:")
                python = sys.executable
            script = Path(__file__).with_name("time_nanogcg.py")
            done = subprocess.run(
                [python, script],
                input=json.dumps(work),
                capture_output=True,
                text=True,
                env=environment,
            )
        if done.returncode:
            print("nanoGCG failed:", done.stderr[-1500:])
            return None
        found = json.loads(done.stdout.splitlines()[-1])
        each = found["seconds_per_step"]
        row = Row(
            "nanoGCG 0.3.0, its filter on",
            1 / each,
            self.width / each,
            self.width / each * (self.n + self.m),
            peak=found["peak"],
            seconds=each * steps,
        )
        print(
            f"nanoGCG: {steps} steps, loss {found['losses'][0]:.4f} to "
            f"{min(found['losses']):.4f}"
        )
        return row, min(found["losses"])

    def time_to(self, loss: float) -> float | None:
        """Return how long our `gcg` takes to come to a loss of the target."""
        from harness_plugins.attacks.gcg import GCG, GCGOptions

        steps = self.arguments.nanogcg_steps or self.arguments.steps
        example = Example("a", "a", self.prompt, self.reference, protected=self.fixed)
        for count in (2, steps):
            options = GCGOptions(
                steps=count,
                candidates=self.width,
                target=self.subject.decode(self.reference),
                reachable_only=True,
            )
            started = time.perf_counter()
            context = AttackContext(seed_key="benchmark")
            (found,) = GCG(options).run(self.subject, ExampleSets([example]), context)
            seconds = time.perf_counter() - started
        best = [step["best_target_loss"] for step in found.trace]
        print(f"ours: {len(best)} steps in {seconds:.1f} s, to {min(best):.4f}")
        reached = [i for i, value in enumerate(best, 1) if value <= loss]
        return reached[0] * seconds / len(best) if reached else None


def name_old_class(file: Path) -> None:
    """Let a tokenizer that transformers 5 saved be read by the older version."""
    kept = json.loads(file.read_text(encoding="utf-8"))
    kept["tokenizer_class"] = "PreTrainedTokenizerFast"
    kept.pop("extra_special_tokens", None)
    file.write_text(json.dumps(kept), encoding="utf-8")


def growth(arguments: argparse.Namespace) -> None:
    """Print candidates a second against layers, prompt length and examples."""
    print("\ncost of growth (flips, scoring alone)")
    base = {"layers": 24, "prompt": 128, "examples": 1}
    if not arguments.random_weights:
        base["layers"] = 0
    changes: list[tuple[str, int]] = [("prompt", n) for n in (32, 64, 128, 256)]
    changes += [("examples", n) for n in (1, 4, 16)]
    if arguments.random_weights:
        changes += [("layers", n) for n in (6, 12, 24)]
    for name, value in changes:
        setting = {**base, name: value}
        if arguments.random_weights:
            PYTHIA["num_hidden_layers"] = setting["layers"]
        changed = copy.copy(arguments)
        changed.attackable, changed.flip_width = setting["prompt"], 64
        bench = Bench(changed, "flips", *load(changed, "flips"))
        rng = np.random.default_rng(0)
        prompts, references = [], []
        for which in range(setting["examples"]):
            prompt, reference = bench.cut(which)
            for _ in range(64):
                candidate = prompt.copy()
                candidate[rng.integers(len(prompt))] = rng.integers(1, 8000)
                prompts.append(candidate)
                references.append(reference)
        bench.subject.losses(prompts, references)
        bench.subject.losses(prompts, references)
        started = time.perf_counter()
        for _ in range(3):
            bench.subject.losses(prompts, references)
        rate = 3 * len(prompts) / (time.perf_counter() - started)
        print(f"  {name:9} {value:4}  {rate:8.0f} candidates/s", flush=True)


def matmul_ceiling(device: str, dtype: str) -> float:
    """Return the FLOP/s of a large square matrix product on random numbers."""
    n = 8192 if device == "cuda" else 2048
    kind = getattr(torch, dtype)
    left, right = (torch.randn(n, n, device=device, dtype=kind) for _ in range(2))
    count = 20 if device == "cuda" else 3
    for _ in range(2):
        left @ right
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(count):
        left @ right
    if device == "cuda":
        torch.cuda.synchronize()
    return count * 2 * n**3 / (time.perf_counter() - started)


def show(layout: str, rows: list[Row], ceiling: float) -> None:
    """Print a table."""
    print(f"\nlayout {layout}")
    print(
        f"{'':30} {'steps/s':>8} {'cand/s':>8} {'tokens/s':>9} {'ceiling':>8} "
        f"{'peak GB':>8} {'to loss':>8}"
    )
    for row in rows:
        share = f"{row.flops / ceiling:.0%}" if row.flops else "-"
        peak = f"{row.peak / 1e9:.1f}" if row.peak else "-"
        spent = f"{row.seconds:.1f} s" if row.seconds else "-"
        print(
            f"{row.name:30} {row.steps:8.3f} {row.candidates:8.1f} {row.tokens:9.0f} "
            f"{share:>8} {peak:>8} {spent:>8}"
        )


if __name__ == "__main__":
    main()
