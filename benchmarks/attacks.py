r"""Time a search step: ours, loops over plain transformers, and nanoGCG.

Run from the repository's root, for example:

    python benchmarks/attacks.py --device cuda --dtype bfloat16 --texts TEXTS \
        --random-weights --nanogcg PYTHON
    python benchmarks/attacks.py --model FOLDER --texts TEXTS --fixed 44 --scored 64 \
        --width 256 --attackable 64 --flip-scored 64 --flip-width 64 --nanogcg PYTHON
    python benchmarks/attacks.py --model FOLDER --texts TEXTS --layouts hotflip \
        --attackable 64 --flip-scored 64

A step takes a gradient, draws candidates that differ from the prompt in one token,
scores them all and picks the best. Two layouts: `gcg` has fixed tokens, then attacked
ones, then those that are scored; in `flips`, every token of the prompt may change.
`hotflip` has the flips' layout and times whole attacks on many examples; `cells` times
attacks and their controls as a suite runs them, and takes a profile with --profile.
TEXTS is a text file: prompts are cut from it. With --random-weights the model has
Pythia-1.4B's shape, and a vocabulary of 8,192 tokens in the layout `gcg`; with
--train-seconds it is trained for so long on the texts that no prompt is cut from.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import cells, examples_of
from torch.nn.functional import cross_entropy
from trained import train

from harness.api import AttackContext
from harness.data import Example, ExampleSets
from harness.subject import Subject, TokenRules

TOP_K = 256
CUT_FROM = slice(10_000, 400_000)
"""Which characters of the texts prompts are cut from."""
TRAINED_ON = slice(400_000, 2_400_000)
FLIPS = 5
FLIP_CANDIDATES = 64
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


@dataclass
class Theirs:
    """What nanoGCG came to."""

    row: Row
    loss: float
    """In nats/token, of its best text, in float32."""


def main() -> None:
    """Run both layouts and print a table of each."""
    arguments = parse_arguments()
    ceiling = matmul_ceiling(arguments.device, arguments.dtype)
    print(f"torch {torch.__version__}, {device_name(arguments.device)}")
    print(f"matrix product of 8192 (CPU: 2048): {ceiling / 1e12:.3f} TFLOP/s")
    for layout in arguments.layouts.split(","):
        torch.manual_seed(0)
        if layout == "hotflip":
            hotflip(arguments)
            continue
        model, tokenizer = load(arguments, layout)
        if layout == "cells":
            cells(arguments, model, tokenizer, ceiling)
            continue
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
    parser.add_argument("--train-seconds", type=float, default=0, help="them, first")
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
    parser.add_argument("--multiflip-steps", type=int, default=0, help="0: as many")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--ours", action="store_true", help="leave plain loops out")
    parser.add_argument("--profile", action="store_true", help="of `cells`")
    parser.add_argument("--examples", type=int, default=200, help="of whole attacks")
    parser.add_argument("--plain-examples", type=int, default=10, help="of its loop")
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
    if arguments.train_seconds:
        unused = arguments.texts.read_text(encoding="utf-8")[TRAINED_ON]
        train(model, tokenizer, unused, arguments.train_seconds, arguments.device)
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
        self.flips = layout != "gcg"
        a = arguments
        self.fixed = 0 if self.flips else a.fixed
        self.n = a.attackable if self.flips else a.fixed + a.attacked
        self.m = a.flip_scored if self.flips else a.scored
        self.width = a.flip_width if self.flips else a.width
        self.tokenizer, self.model, self.draws = tokenizer, model, 0
        self.plain = copy.deepcopy(model).to(a.device, getattr(torch, a.dtype))
        self.plain.requires_grad_(False)
        self.subject = Subject(model, tokenizer, device=a.device, dtype=a.dtype)
        if layout != "hotflip":
            # A pass with a gradient is never shared where there is one prompt.
            self.subject.gradient_tokens = 1
        self.prompt, self.reference = self.cut()
        # Not the cost of a step: the list of what may be written.
        _ = self.subject.vocabulary.allowed, self.subject.embedding

    def cut(self, which: int = 0) -> tuple[Any, Any]:
        """Cut ids from the texts that are the encoding of their own text."""
        text = self.arguments.texts.read_text(encoding="utf-8")
        ids = self.subject.encode(text[CUT_FROM])
        for start in range(which * 300, len(ids) - self.n - self.m, 7):
            prompt, reference = np.split(ids[start : start + self.n + self.m], [self.n])
            if all(self.subject.reachable([prompt, prompt[: self.fixed], reference])):
                return prompt, reference
        raise SystemExit("the texts are too short")

    def rows(self) -> Iterator[Row]:
        """Measure each way."""
        theirs = None if self.flips else self.nanogcg()
        soonest = None
        if theirs is not None:
            yield theirs.row
            # First of all, so that nothing is compiled yet.
            soonest = self.time_to(theirs.loss)
        if not self.arguments.ours:
            yield self.timed("stock loop, all logits", self.stock_step)
            yield self.timed("loop, scored logits", self.scored_step)
        yield self.timed("ours, no check", lambda: self.own_step(check=False))
        row = self.timed("ours, texts checked", lambda: self.own_step(check=True))
        row.seconds = soonest
        yield row
        print("settings", self.subject.settings)

    def timed(self, name: str, step: Callable[[], float]) -> Row:
        """Time steps after some that nobody times; a step returns its FLOPs."""
        self.draws = 0
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

    def candidates(self, gains: torch.Tensor, *, check: bool = False) -> Any:
        """Draw prompts that differ in one token of high gain."""
        self.draws += 1  # each step draws others: some have ties near the best
        rng = np.random.default_rng(self.draws)
        lists = gains.topk(TOP_K, dim=1).indices.cpu().numpy()
        kept = np.empty((0, self.n), dtype=np.int64)
        while (count := self.width - len(kept)) > 0:
            prompts = np.tile(self.prompt, (count, 1))
            positions = rng.integers(self.fixed, self.n, count)
            drawn = lists[positions, rng.integers(0, TOP_K, count)]
            prompts[np.arange(count), positions] = drawn
            if check:  # as our searches do
                changed = prompts != self.prompt
                broken = self.subject.vocabulary.broken_words(prompts, changed)
                prompts = prompts[~broken.any(axis=1)]
            kept = np.concatenate([kept, prompts])
        return kept

    def own_step(self, *, check: bool) -> float:
        """Take a step through the subject; texts are checked while it scores."""
        with self.subject.metered() as meter:
            (gradient,) = self.subject.gradients([self.prompt], self.reference)
            gains = self.subject.gains(self.prompt, gradient)
            prompts = self.candidates(gains, check=check)
            losses = self.subject.losses(prompts, self.reference, reachable_only=check)
            self.subject.best(prompts, self.reference, losses)
        return meter.flops

    def plain_gradient(self, prompt: Any, reference: Any) -> Any:
        """Take a gradient with plain transformers; return what it says of flips."""
        ids = torch.as_tensor(np.concatenate([prompt, reference]))
        ids = ids.to(self.arguments.device)
        with torch.enable_grad():
            embedded = self.plain.get_input_embeddings()(ids[None]).requires_grad_()
            logits = self.plain(inputs_embeds=embedded).logits[0, self.n - 1 : -1]
            loss = cross_entropy(logits.float(), ids[self.n :])
            (gradient,) = torch.autograd.grad(loss, [embedded])
        return self.subject.gains(prompt, gradient[0, : self.n].float())

    def stock_step(self) -> float:
        """Take a step with all logits of all tokens."""

        def losses(ids: Any) -> Any:
            logits = self.plain(ids).logits[:, self.n - 1 : -1]
            targets = ids[:, self.n :]
            return cross_entropy(logits.transpose(1, 2), targets, reduction="none")

        return self.plain_step(losses, self.n + self.m)

    def scored_losses(self, ids: Any) -> Any:
        """Score ids with the logits of the reference's tokens alone."""
        hidden = self.plain.base_model(ids[:, :-1])[0][:, self.n - 1 :]
        logits = self.plain.get_output_embeddings()(hidden).float()
        targets = ids[:, self.n :]
        return cross_entropy(logits.transpose(1, 2), targets, reduction="none")

    def scored_step(self) -> float:
        """Take a step with the logits that are scored."""
        return self.plain_step(self.scored_losses, self.m)

    def plain_step(self, losses: Callable[[Any], Any], logits: int) -> float:
        prompts = self.candidates(self.plain_gradient(self.prompt, self.reference))
        rows = np.tile(self.reference, (self.width, 1))
        ids = torch.as_tensor(np.concatenate([prompts, rows], axis=1))
        ids = ids.to(self.arguments.device)
        with torch.inference_mode():
            parts = [losses(part).mean(1) for part in ids.split(self.arguments.batch)]
        torch.cat(parts).argmax().item()
        whole, _ = self.subject.pass_flops(self.n, self.m)
        head = 2.0 * self.plain.get_output_embeddings().weight.numel()
        return float(self.width * (whole + head * (logits - self.m)))

    def plain_hotflip(self, example: Example) -> Any:
        """Flip tokens as the textbook says: a gradient, the best, one by one.

        Candidates go in batches of their own example.
        """
        prompt, free = example.prompt_ids, np.ones(self.n, dtype=np.bool_)
        target = torch.as_tensor(example.reference_ids).to(self.arguments.device)

        def losses(prompts: Any) -> Any:
            ids = torch.as_tensor(prompts).to(target.device)
            ids = torch.cat([ids, target.expand(len(ids), -1)], dim=1)
            with torch.inference_mode():
                return self.scored_losses(ids).mean(dim=1)

        (loss,) = losses(prompt[None])
        for _ in range(FLIPS):
            gains = self.plain_gradient(prompt, example.reference_ids)
            gains[torch.as_tensor(~free)] = -torch.inf
            best = gains.flatten().topk(FLIP_CANDIDATES).indices.cpu().numpy()
            prompts = np.tile(prompt, (FLIP_CANDIDATES, 1))
            positions, tokens = np.divmod(best, gains.shape[1])
            prompts[np.arange(FLIP_CANDIDATES), positions] = tokens
            found = losses(prompts)
            if found.max() > loss:
                loss, chosen = found.max(), int(found.argmax())
                prompt, free[positions[chosen]] = prompts[chosen], False
        return prompt

    # --- nanoGCG ------------------------------------------------------------------

    def nanogcg(self) -> Theirs | None:
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
        each, losses = found["seconds_per_step"], found["losses"]
        best = losses.index(min(losses))
        text = work["before"] + found["best"]
        loss = self.subject.exact_losses([self.subject.encode(text)], self.reference)[0]
        row = Row(
            "nanoGCG 0.3.0, its filter on",
            1 / each,
            self.width / each,
            self.width / each * (self.n + self.m),
            peak=found["peak"],
            seconds=found["seconds"][best],
        )
        print(
            f"nanoGCG: {len(losses)} steps in {found['seconds'][-1]:.1f} s, loss "
            f"{losses[0]:.4f} to {losses[best]:.4f} ({loss:.4f} in float32) after "
            f"{row.seconds:.1f} s"
        )
        return Theirs(row, float(loss))

    def time_to(self, loss: float) -> float | None:
        """Return how long multiflip, or else gcg, takes to a loss of the target.

        All that a user pays is in it, but for loading the model.
        """
        from harness_plugins.attacks.gcg import GCG
        from harness_plugins.attacks.multiflip import MultiFlip

        arguments = self.arguments
        subject = Subject(
            copy.deepcopy(self.model),
            self.tokenizer,
            device=arguments.device,
            dtype=arguments.dtype,
            rules=TokenRules(),  # texts alone, as nanoGCG's filter leaves
        )
        subject.gradient_tokens = 1
        steps = arguments.nanogcg_steps or arguments.steps
        options = {"target": self.subject.decode(self.reference)}
        many = MultiFlip.Options(steps=arguments.multiflip_steps or steps, **options)
        one = GCG.Options(steps=steps, candidates=self.width, **options)
        print(f"time to {loss:.4f} nats/token:")
        found = self.time_attack(subject, MultiFlip(many), loss)
        if found is None:
            found = self.time_attack(subject, GCG(one), loss)
        return found

    def time_attack(self, subject: Subject, attack: Any, loss: float) -> float | None:
        """Run an attack; return when it came to a loss, None if it did not.

        A gradient is the first thing that a step takes: what is found by then has
        been found when it is taken.
        """
        stamps: list[float] = []

        def stamp(prompts: Any, references: Any) -> Any:
            stamps.append(time.perf_counter() - started)
            return subject.gradients(prompts, references)

        example = Example("a", "a", self.prompt, self.reference, protected=self.fixed)
        watched = subject.with_gradients_from(stamp)
        started = time.perf_counter()
        context = AttackContext(seed_key="benchmark")
        (found,) = attack.run(watched, ExampleSets([example]), context)
        stamps.append(time.perf_counter() - started)
        reached = [
            stamps[step["gradients"]]
            for step in found.trace
            if step["target_loss"] <= loss
        ]
        (final,) = subject.exact_losses([found.prompt_ids], self.reference)
        said = f"after {reached[0]:.1f} s" if reached else "not reached"
        print(
            f"  {attack.name}: {said}; {len(stamps) - 1} steps in "
            f"{stamps[-1]:.1f} s, to {final:.4f}, "
            f"reachable: {subject.reachable([found.prompt_ids])[0]}",
            flush=True,
        )
        return reached[0] if reached else None


def name_old_class(file: Path) -> None:
    """Let a tokenizer that transformers 5 saved be read by the older version."""
    kept = json.loads(file.read_text(encoding="utf-8"))
    kept["tokenizer_class"] = "PreTrainedTokenizerFast"
    kept.pop("extra_special_tokens", None)
    file.write_text(json.dumps(kept), encoding="utf-8")


def hotflip(arguments: argparse.Namespace) -> None:
    """Time HotFlip over many examples, and a plain loop over a few of them."""
    from harness_plugins.attacks.hotflip import HotFlip

    bench = Bench(arguments, "hotflip", *load(arguments, "hotflip"))
    text = arguments.texts.read_text(encoding="utf-8")
    few = arguments.plain_examples
    # What others do on the machine does not count where its processor does the work.
    cpu = arguments.device == "cpu"
    clock = time.process_time if cpu else time.perf_counter
    examples = examples_of(bench.subject, text, bench.n, bench.m, arguments.examples)
    print(
        f"\nhotflip: {FLIPS} flips, {FLIP_CANDIDATES} candidates a flip; seconds of "
        f"{'the processor' if cpu else 'the clock'}"
    )

    def own(count: int, **options: Any) -> tuple[float, dict[str, Any]]:
        attack = HotFlip(
            HotFlip.Options(flips=FLIPS, candidates=FLIP_CANDIDATES, **options)
        )
        context = AttackContext(seed_key="benchmark")
        started = clock()
        found = list(attack.run(bench.subject, ExampleSets(examples[:count]), context))
        seconds = (clock() - started) / count
        return seconds, {one.example_id: one.prompt_ids for one in found}

    def plain(chosen: list[Example]) -> tuple[float, dict[str, Any]]:
        started = clock()
        prompts = {one.id: bench.plain_hotflip(one) for one in chosen}
        seconds = (clock() - started) / len(chosen)
        print(
            f"  plain loop, {len(chosen)} examples: {seconds:.3f} s/example", flush=True
        )
        return seconds, prompts

    def say(name: str, seconds: float, prompts: dict[str, Any]) -> None:
        """Print the time, and the mean rise of the loss on what the loop has seen."""
        rises = [
            np.subtract(
                *bench.subject.exact_losses(
                    [prompts[one.id], one.prompt_ids], one.reference_ids
                )
            )
            for one in examples[:few]
        ]
        print(f"  {name}: {seconds:.3f} s/example, dL {np.mean(rises):.3f}", flush=True)

    # The loop runs before and after, in case the machine's speed changes meanwhile.
    before, prompts = plain(examples[: few // 2])
    same = own(len(examples), candidates_from="gradient")
    say(f"ours, the same candidates, {len(examples)} examples", *same)
    some = max(few, len(examples) // 5)
    default = own(some)
    say(f"ours, by default, {some} examples", *default)
    after, more = plain(examples[few // 2 : few])
    seconds = (before + after) / 2
    say(f"plain loop, {few} examples", seconds, prompts | more)
    print(f"  ours, the same candidates: {seconds / same[0]:.1f} times as fast")
    print(f"  ours, by default: {seconds / default[0]:.1f} times as fast")


def growth(arguments: argparse.Namespace) -> None:
    """Print candidates a second against prompt length, examples and layers."""
    print("\ncost of growth (flips, scoring alone, 64 candidates an example)")
    untrained = copy.copy(arguments)
    untrained.train_seconds = 0
    bench = Bench(untrained, "flips", *load(untrained, "flips"))
    for tokens in (32, 64, 128, 256, 512):
        bench.n = tokens
        grown(bench, "prompt tokens", tokens)
    bench.n = arguments.attackable
    for examples in (1, 4, 16, 64):
        grown(bench, "examples", examples, examples)
    for layers in (6, 12, 24, 48) if arguments.random_weights else ():
        del bench
        PYTHIA["num_hidden_layers"] = layers
        bench = Bench(untrained, "flips", *load(untrained, "flips"))
        grown(bench, "layers", layers)


def grown(bench: Bench, what: str, value: int, examples: int = 1) -> None:
    """Score candidates that each have one token changed; print the rate."""
    rng = np.random.default_rng(0)
    prompts, references = [], []
    for which in range(examples):
        prompt, reference = bench.cut(which)
        for _ in range(64):
            candidate = prompt.copy()
            candidate[rng.integers(len(prompt))] = rng.integers(1, 8000)
            prompts.append(candidate)
            references.append(reference)
    cuda = bench.arguments.device == "cuda"
    for _ in range(4 if cuda else 1):
        bench.subject.losses(prompts, references)
    rounds = 5 if cuda else 2
    started = time.perf_counter()
    for _ in range(rounds):
        bench.subject.losses(prompts, references)
    rate = rounds * len(prompts) / (time.perf_counter() - started)
    print(f"  {what:14} {value:4}  {rate:8.0f} candidates/s", flush=True)


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
