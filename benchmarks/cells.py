"""Time whole attacks on many examples, as a suite runs them, and profile one."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from harness.api import AttackContext
from harness.data import Example, ExampleSets
from harness.subject import Subject, TokenRules

TOKENS = 64
"""Of a prompt, and of a reference."""
WAITS = ("Memcpy", "Synchronize", "item", "local_scalar", "nonzero")
"""What a host waits for, by a part of its name in a profile."""
TOP = 25
"""Rows of each table of a profile."""
CHARACTERS = 400_000
"""Of the texts, examples are cut from so many."""


def examples_of(
    subject: Subject, text: str, prompt: int, reference: int, count: int
) -> list[Example]:
    """Cut examples from a text, each of which some text encodes to."""
    ids, both = subject.encode(text), prompt + reference
    starts = range(both, len(ids) - both, both)
    blocks = [np.split(ids[i : i + both], [prompt]) for i in starts[: 2 * count]]
    kept = subject.reachable([first for first, _ in blocks])
    texts = [block for block, is_text in zip(blocks, kept, strict=True) if is_text]
    return [Example(str(i), "a", *block) for i, block in enumerate(texts[:count])]


def attacks() -> Iterator[tuple[str, Any, AttackContext, bool]]:
    """Yield what is timed: its name, what runs, how, and whether on texts only."""
    from harness_plugins.attacks.hotflip import HotFlip
    from harness_plugins.attacks.multiflip import MultiFlip
    from harness_plugins.attacks.permuted import Permuted
    from harness_plugins.attacks.uat import UAT

    hotflip = HotFlip(HotFlip.Options(candidates=16))
    multiflip = MultiFlip(MultiFlip.Options(steps=40))
    uat = UAT(UAT.Options(restarts=1, sweeps=1))
    own, key = AttackContext("benchmark"), "benchmark"
    yield "hotflip", hotflip, own, True
    yield "its random", hotflip, AttackContext(key, blind="uniform"), True
    yield "its permuted", Permuted(), AttackContext(key, matched=hotflip), True
    yield "hotflip, no check", hotflip, own, False
    yield "multiflip", multiflip, own, True
    yield "its random", multiflip, AttackContext(key, blind="uniform"), True
    yield "uat", uat, own, True


def cells(
    arguments: argparse.Namespace, model: Any, tokenizer: Any, ceiling: float
) -> None:
    """Print what each attack takes, and which share of the ceiling that is."""
    free = Subject(model, tokenizer, device=arguments.device, dtype=arguments.dtype)
    checked, count = free.with_rules(TokenRules()), arguments.examples
    text = arguments.texts.read_text(encoding="utf-8")[:CHARACTERS]
    every = examples_of(free, text, TOKENS, TOKENS, count + 64)
    sets = ExampleSets(every[:count], every[count:][:32], every[count + 32 :])
    _ = free.vocabulary.allowed, checked.vocabulary.allowed, free.embedding
    few = ExampleSets(sets.test[:32], sets.search[:4], sets.validation[:4])
    print(f"\ncells: {len(sets.test)} examples, {TOKENS} + {TOKENS} tokens")
    print(
        f"{'':20} {'first':>7} {'s':>7} {'passes/s':>9} {'again':>6} {'ceiling':>8} dL"
    )
    for number, (name, attack, context, texts) in enumerate(attacks()):
        started = time.perf_counter()  # of what compiles, records, remembers
        list(_shorter(attack).run(checked if texts else free, few, context))
        first = time.perf_counter() - started
        subject = checked if texts else free
        with subject.metered() as meter:
            found = {x.example_id: x for x in attack.run(subject, sets, context)}
        cost = meter.cost()
        rises = [
            np.subtract(
                *subject.exact_losses(
                    [found[one.id].prompt_ids, one.prompt_ids], one.reference_ids
                )
            )
            for one in sets.test[:16]
        ]
        print(
            f"{name:20} {first:7.2f} {cost.seconds:7.2f} "
            f"{cost.sequences_forward / cost.seconds:9.0f} "
            f"{_again(attack, context, cost, count):6.1%} "
            f"{cost.flops / cost.seconds / ceiling:8.0%} "
            f"{np.mean(rises):6.3f}",
            flush=True,
        )
        if arguments.profile and number == 2:
            profile(checked, sets)
    print("settings", free.settings)


def _again(attack: Any, context: AttackContext, cost: Any, count: int) -> float:
    """Return the share of the passes that decide near ties, beyond the budget."""
    budget = (context.matched or attack).budget(count)
    forward, backward = budget.forward * count, budget.backward * count
    made = cost.sequences_forward + cost.sequences_backward
    return float(made / (forward + backward) - 1)


def profile(subject: Subject, sets: ExampleSets) -> None:
    """Print where the time of one short attack goes, on the host and on the device."""
    from torch.profiler import ProfilerActivity

    kinds = [ProfilerActivity.CPU]
    cuda = torch.cuda.is_available()
    kinds += [ProfilerActivity.CUDA] if cuda else []
    [(_, attack, context, _), *_] = attacks()
    started = time.perf_counter()
    with torch.profiler.profile(activities=kinds) as seen:
        list(_shorter(attack).run(subject, sets, context))
        if cuda:
            torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    found = seen.key_averages()
    kinds = [one for one in found if str(one.device_type).endswith("CUDA")]
    busy = sum(one.self_device_time_total for one in kinds) / 1e6
    print(f"\nprofile of {seconds:.2f} s of hotflip; kernels take {busy:.2f} s")
    for key in ["self_device_time_total"] * cuda + ["self_cpu_time_total"]:
        print(found.table(sort_by=key, row_limit=TOP, max_name_column_width=60))
    for one in found:
        if any(part in one.key for part in WAITS):
            print(
                f"  {one.key[:60]:60} {one.count:8} times, host "
                f"{one.self_cpu_time_total / 1e3:9.1f} ms"
            )


def _shorter(attack: Any) -> Any:
    """Return an attack with few steps of the same shapes."""
    if attack.name == "permuted":
        return attack
    few = {"hotflip": {"candidates": 4}, "multiflip": {"steps": 12}}
    less = few.get(attack.name, {"candidates": 4})
    return type(attack)(attack.options.model_copy(update=less))
