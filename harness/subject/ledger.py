"""Count what is spent: sequences, tokens, floating-point operations, time, memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from harness.base import Ids
from harness.records import Cost


@dataclass(eq=False)
class Meter:
    """Accumulates the compute of a span; `cost` is what a record holds of it."""

    device: torch.device
    """Whose memory is watched."""
    sequences_forward: int = 0
    sequences_backward: int = 0
    tokens_forward: int = 0
    tokens_backward: int = 0
    flops: float = 0.0
    flops_whole: float = 0.0
    by_reference: dict[bytes, float] = field(default_factory=dict)
    """Of `flops_whole`, what went into passes on each reference, by `reference_key`:
    so that work on many examples at once can be told apart."""
    _started: float = field(default_factory=time.perf_counter)
    _stopped: float | None = None
    _peak: int = 0

    @property
    def seconds(self) -> float:
        """Wall-clock time since the start, until the stop if there was one."""
        return (self._stopped or time.perf_counter()) - self._started

    def forward(
        self, sequences: int, tokens: int, flops: float, whole: float | None = None
    ) -> None:
        """Add forward passes: all their tokens, all their FLOPs.

        `whole` is what they would have cost if nothing had been reused or filled up;
        None where nothing was.
        """
        self.sequences_forward += sequences
        self.tokens_forward += tokens
        self.flops += flops
        self.flops_whole += flops if whole is None else whole

    def backward(
        self, sequences: int, tokens: int, flops: float, whole: float | None = None
    ) -> None:
        """Add backward passes: all their tokens, all their FLOPs; as `forward` does."""
        self.sequences_backward += sequences
        self.tokens_backward += tokens
        self.flops += flops
        self.flops_whole += flops if whole is None else whole

    def add(self, other: Meter) -> None:
        """Add the passes of another meter, whose time was this one's, too."""
        own = other.sequences_forward, other.tokens_forward
        self.forward(*own, other.flops, other.flops_whole)
        self.sequences_backward += other.sequences_backward
        self.tokens_backward += other.tokens_backward

    def attribute(self, reference: bytes, flops: float) -> None:
        """Say on which reference some of the FLOPs were spent."""
        self.by_reference[reference] = self.by_reference.get(reference, 0.0) + flops

    def observe_peak(self, elsewhere: int = 0) -> None:
        """Take note of the peak memory before somebody resets it, or at the end.

        Of several devices, it is the highest: `elsewhere` is that of others.
        """
        self._peak = max(self._peak, peak_memory_bytes(self.device), elsewhere)

    def stop(self) -> None:
        """End the span."""
        self.observe_peak()
        self._stopped = time.perf_counter()

    def cost(self) -> Cost:
        """Return what was spent so far."""
        if self._stopped is None:
            self.observe_peak()
        return Cost(
            sequences_forward=self.sequences_forward,
            sequences_backward=self.sequences_backward,
            tokens_forward=self.tokens_forward,
            tokens_backward=self.tokens_backward,
            flops=self.flops,
            flops_whole=self.flops_whole,
            seconds=self.seconds,
            peak_memory_bytes=self._peak,
        )


class Meters:
    """The running meters of one subject: what is spent counts in all of them."""

    def __init__(self, device: torch.device) -> None:
        self.total = Meter(device)
        """From the beginning, everything."""
        self._running = [self.total]

    @contextmanager
    def span(self) -> Iterator[Meter]:
        """Meter the passes made inside the ``with`` block; spans may nest."""
        for meter in self._running:
            meter.observe_peak()
        device = self.total.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        meter = Meter(device)
        self._running.append(meter)
        try:
            yield meter
        finally:
            meter.stop()
            self._running.remove(meter)

    def forward(
        self, sequences: int, tokens: int, flops: float, whole: float | None = None
    ) -> None:
        """Add forward passes to every running meter."""
        for meter in self._running:
            meter.forward(sequences, tokens, flops, whole)

    def backward(
        self, sequences: int, tokens: int, flops: float, whole: float | None = None
    ) -> None:
        """Add backward passes to every running meter."""
        for meter in self._running:
            meter.backward(sequences, tokens, flops, whole)

    def attribute(self, reference: Ids, flops: float) -> None:
        """Say in every running meter on which reference FLOPs were spent."""
        key = reference_key(reference)
        for meter in self._running:
            meter.attribute(key, flops)


def reference_key(reference: Ids) -> bytes:
    """Return what stands for a reference in `Meter.by_reference`."""
    return np.asarray(reference, dtype=np.int64).tobytes()


def peak_memory_bytes(device: torch.device) -> int:
    """Return the device's peak memory, or the process's peak resident set on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kibibytes on Linux
