r"""Time recovery training beside stock loops: tokens a second, and peak memory.

Run from the repository's root, for example:

    python benchmarks/training.py --device cuda
    python benchmarks/training.py --device cuda --sizes 160m,410m,2.8b \
        --rows compiled,baseline,softplus
    python benchmarks/training.py --sizes tiny --context 64 --blocks 8
    python benchmarks/training.py --device cuda --devices 1,4,2 --pass 8 \
        --rows baseline,sharded --warm 1 --timed 2

Every row trains a GPT-NeoX of Pythia's shape with random weights on random tokens: the
weights and AdamW's state are float32, products are bfloat16 by autocast. The first
steps of a row, which compile, are not timed. Stock loops are plain torch and
transformers, with the model's own loss: `eager`, and `compiled` by `torch.compile`,
8 blocks in a pass, `compiled16` with 16. The others are
recovery as a suite has it, end to end: `baseline`, and `softplus`, whose feed-forward
weights are the softplus of what is trained. Variants of `baseline` change one thing:
`blocks8`, blocks in a pass; `logits1` and `logits16`, how many logits are made at once;
`liger`, the loss of Liger-Kernel, if it is installed; `cudnn`, attention by cuDNN.
`small` is `softplus` with its layers computed again, in at most 38 GiB.

With `--devices`, `baseline` and `softplus` are trained on so many devices each, and
`sharded` and `softplus_sharded`, the same with weights, gradients and moments spread,
on the most of them. Scaling is strong: a step has `--blocks` in all, however many
devices share them. Speed-up is against the same arm on one device, if it ran before;
the share is that of all their ceilings, the peak that of the fullest device.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from attacks import device_name, matmul_ceiling
from tabulate import tabulate

from harness.base import replaced
from harness.models import TrainingHooks, TrainingPlan, losses, train
from harness.models.losses import BlockLosses
from harness_plugins.constraints.none import Unconstrained
from harness_plugins.constraints.softplus import Softplus
from harness_plugins.models.pythia import Pythia

SHAPES = {  # width, layers, heads
    "tiny": (64, 2, 2),
    "160m": (768, 12, 12),
    "410m": (1024, 24, 16),
    "1.4b": (2048, 24, 16),
    "2.8b": (2560, 32, 32),
}
VOCABULARY = 50304
SMALL_BYTES = 38 * 2**30
RATE = 1e-4
HEADS = (
    *("size", "row", "devices", "tokens/s", "speed-up", "of ceilings"),
    *("blocks a pass", "peak GiB", "reserved GiB", "seconds"),
)
SHARDED = {"sharded": "baseline", "softplus_sharded": "softplus"}
"""Rows on several devices alone, and the arms that they train."""


class Timing(NamedTuple):
    """What a row gives."""

    seconds: float
    """Of the timed steps."""
    size: int
    """Blocks in a pass."""
    peak_bytes: int | None = None
    """Of the fullest device, where the row itself says."""


class Enough(Exception):
    """Ends a training whose steps are timed."""


@dataclass
class Bench:
    """One shape of model, and what every row has in common."""

    device: str
    size: str
    context: int
    blocks: int
    """In an optimizer step."""
    warm: int
    timed: int
    """Steps."""
    size_of_pass: int | None = None
    """Blocks, where a row says nothing else; None for as many as fit."""
    devices: int = 1

    def model(self) -> Any:
        """Return a model with random weights, made on the device."""
        from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

        width, layers, heads = SHAPES[self.size]
        config = GPTNeoXConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            max_position_embeddings=self.context,
            hidden_dropout=0.0,
            attention_dropout=0.0,
        )
        torch.manual_seed(0)
        with torch.device(self.device):
            return GPTNeoXForCausalLM(config)

    @property
    def tokens(self) -> Any:
        """The blocks of all steps."""
        shape = (self.blocks * (self.warm + self.timed + 1), self.context)
        return np.random.default_rng(0).integers(VOCABULARY, size=shape, dtype=np.int32)

    @property
    def timed_tokens(self) -> int:
        """How many tokens the timed steps have."""
        return self.timed * self.blocks * self.context

    # --- rows -----------------------------------------------------------------------

    def stock(self, compiled: bool, size: int = 8) -> Timing:
        """Train by plain torch and transformers; return seconds, blocks in a pass."""
        model = self.model().train()
        size = min(size, self.blocks)
        run = torch.compile(model) if compiled else model
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=RATE, fused=self.device == "cuda"
        )
        ids = torch.from_numpy(self.tokens).to(self.device).long()
        for step in range(self.warm + self.timed):
            if step == self.warm:
                self.wait()
                started = time.perf_counter()
            own = ids[step * self.blocks : (step + 1) * self.blocks]
            for part in own.split(size):
                with torch.autocast(self.device, torch.bfloat16):
                    loss = run(input_ids=part, labels=part, use_cache=False).loss
                (loss * len(part) / self.blocks).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        self.wait()
        return Timing(time.perf_counter() - started, size)

    def ours(
        self,
        constraint: Any = None,
        size: int | None = None,
        inside: Callable[[], AbstractContextManager[Any]] = nullcontext,
        **plan: Any,
    ) -> Timing:
        """Train as recovery does, up to the last timed step."""
        model, arm = self.model(), constraint or Unconstrained()
        arm.apply(Pythia(Pythia.Options(path="unused")), model, 0)
        last, lines = self.warm + self.timed, []

        def hear(line: dict[str, Any]) -> None:
            self.wait()
            lines.append(line)
            if line["step"] == last:
                raise Enough

        # One step more than are made: at their end, several processes write the model.
        first = TrainingPlan(
            last + 1, self.blocks, size or self.size_of_pass, 0, bf16=True
        )
        with tempfile.TemporaryDirectory() as work, inside(), suppress(Enough):
            train(
                model,
                self.tokens,
                arm.parameter_groups(model, RATE, 0.01),
                replace(first, devices=self.devices, **plan),
                work=Path(work),
                device=self.device,
                hooks=TrainingHooks(log=hear),
            )
        seconds = lines[-1]["seconds"] - lines[self.warm - 1]["seconds"]
        return Timing(seconds, lines[-1]["micro_batch"], lines[-1]["peak_memory_bytes"])

    def wait(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def rows(self) -> dict[str, Callable[[], Timing]]:
        """Return what can be run, by name."""
        if self.devices > 1:
            return {
                "baseline": self.ours,
                "softplus": lambda: self.ours(Softplus()),
                "sharded": lambda: self.ours(sharding="full"),
                "softplus_sharded": lambda: self.ours(Softplus(), sharding="full"),
            }
        return {
            "eager": lambda: self.stock(compiled=False),
            "compiled": lambda: self.stock(compiled=True),
            "baseline": self.ours,
            "softplus": lambda: self.ours(Softplus()),
            "small": lambda: self.ours(
                Softplus(), 8, inside=in_little_memory, checkpointing=True
            ),
            "cudnn": lambda: self.ours(inside=attention_by_cudnn),
            "liger": lambda: self.ours(inside=liger),
            "blocks8": lambda: self.ours(size=8),
            "logits1": lambda: self.ours(inside=partial(logits_at_once, 1)),
            "logits16": lambda: self.ours(inside=partial(logits_at_once, 16)),
            "compiled16": lambda: self.stock(compiled=True, size=16),
        }


def main() -> None:
    """Run the rows of every size, as long as there is time, and print a table."""
    arguments = parse_arguments()
    started = time.perf_counter()
    ceiling = matmul_ceiling(
        arguments.device, "bfloat16" if arguments.device == "cuda" else "float32"
    )
    print(f"torch {torch.__version__}, {device_name(arguments.device)}")
    print(f"matrix product: {ceiling / 1e12:.3f} TFLOP/s", flush=True)
    table, alone = [], {}
    for bench, name in asked(arguments):
        if time.perf_counter() - started > arguments.seconds:
            print(f"no time for {bench.size} {name} on {bench.devices}", flush=True)
            continue
        row = measured(bench, name, ceiling, alone)
        print(*row, sep="  ", flush=True)
        table.append(row)
    print("\n" + tabulate(table, HEADS))
    if arguments.profile:
        profile(bench)


def asked(arguments: argparse.Namespace) -> Iterator[tuple[Bench, str]]:
    """Yield the rows in the order of the command line, sharded ones on most devices."""
    numbers = [int(number) for number in arguments.devices.split(",")]
    for size in arguments.sizes.split(","):
        bench = Bench(
            arguments.device,
            size,
            arguments.context,
            arguments.blocks,
            arguments.warm,
            arguments.timed,
            arguments.size_of_pass,
        )
        for devices in numbers:
            for name in arguments.rows.split(","):
                if name not in SHARDED or devices == max(*numbers, 2):
                    yield replace(bench, devices=devices), name


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", default="1.4b", help=", ".join(SHAPES))
    parser.add_argument("--rows", default="eager,compiled,baseline,softplus,small")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--blocks", type=int, default=64, help="in a step")
    parser.add_argument("--warm", type=int, default=2, help="steps")
    parser.add_argument("--timed", type=int, default=3, help="steps")
    parser.add_argument(
        "--pass",
        dest="size_of_pass",
        type=int,
        help="blocks; by default as many as fit",
    )
    parser.add_argument("--devices", default="1", help="numbers of them, as 1,2,4")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no row after")
    parser.add_argument("--profile", action="store_true", help="one step of `baseline`")
    return parser.parse_args()


def measured(
    bench: Bench, name: str, ceiling: float, alone: dict[tuple[str, str], float]
) -> tuple[Any, ...]:
    """Run one row; return its cells. `alone` are the speeds on one device."""
    began = time.perf_counter()
    try:
        with peaks(bench.device) as here:
            timing = bench.rows()[name]()
    except Exception as error:  # noqa: BLE001 (the other rows are worth having)
        first = (str(error).strip().splitlines() or [repr(error)])[-1]
        return bench.size, name, bench.devices, first[:80], *"-" * 6
    speed = bench.timed_tokens / timing.seconds
    arm = bench.size, SHARDED.get(name, name)
    if bench.devices == 1:
        alone[arm] = speed
    else:
        here = [timing.peak_bytes, None]
    return (
        *(bench.size, name, bench.devices, f"{speed:,.0f}"),
        f"{speed / alone[arm]:.2f}" if arm in alone else "-",
        f"{speed * flops_of_a_token(bench) / (ceiling * bench.devices):.1%}",
        timing.size,
        *("-" if peak is None else f"{peak / 2**30:.1f}" for peak in here),
        f"{time.perf_counter() - began:.0f}",
    )


@contextmanager
def peaks(device: str) -> Iterator[list[int | None]]:
    """Give the bytes allocated and reserved at most inside, after it; free all then."""
    found: list[int | None] = [None, None]
    on_cuda = device == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    try:
        yield found
    finally:
        if on_cuda:
            found[:] = (
                torch.cuda.max_memory_allocated(),
                torch.cuda.max_memory_reserved(),
            )
        gc.collect()
        if on_cuda:
            torch.cuda.empty_cache()


def flops_of_a_token(bench: Bench) -> float:
    """Return the FLOPs of training on a token; attention's causal half counts whole."""
    with torch.device("meta"):
        model = replace(bench, device="meta").model()
    block = torch.empty(1, bench.context, dtype=torch.long, device="meta")
    return 3 * BlockLosses(model).flops(block) / bench.context


def profile(bench: Bench) -> None:
    """Print the kernels that a step of `baseline` spends its time in."""
    with torch.profiler.profile(acc_events=True) as seen:
        replace(bench, warm=1, timed=1).ours()
    by = "self_cuda_time_total" if bench.device == "cuda" else "self_cpu_time_total"
    table = seen.key_averages().table(
        sort_by=by, row_limit=30, max_name_column_width=70
    )
    print(table)


# --- variants -------------------------------------------------------------------------


@contextmanager
def in_little_memory() -> Iterator[None]:
    """Leave this process no more than a small card's memory."""
    if not torch.cuda.is_available():
        yield
        return
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(SMALL_BYTES / whole)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@contextmanager
def logits_at_once(factor: int) -> Iterator[None]:
    """Make so many times as many logits at once as on a CPU."""
    with replaced(losses, "ON_A_GPU", factor):
        yield


@contextmanager
def attention_by_cudnn() -> Iterator[None]:
    """Let cuDNN compute attention where it can, in code that is compiled anew."""
    from torch._functorch import config
    from torch.nn.attention import SDPBackend, sdpa_kernel

    order = [
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ]
    torch._dynamo.reset()
    with (
        config.patch(enable_autograd_cache=False),
        sdpa_kernel(order, set_priority=True),
    ):
        yield
    torch._dynamo.reset()


@contextmanager
def liger() -> Iterator[None]:
    """Let Liger-Kernel compute the loss and its gradient."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss(accum_dtype=torch.float32)

    def mean(head: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        states = hidden.flatten(0, 1).bfloat16()
        value: torch.Tensor = loss(head.weight.bfloat16(), states, targets.flatten())
        return value

    with replaced(losses, "_mean_of_rows", mean):
        yield


if __name__ == "__main__":
    main()
