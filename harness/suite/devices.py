"""Devices: how fast they compute, what they hold, and what an hour of them costs.

What work takes is a sum over its phases: FLOPs at a share of the speed of large matrix
products, which is the device's ceiling, and what each value, each sequence, each weight
and each beginning of a phase takes besides. The shares of a GPU were measured on one
kind of it (`SHARES`); a machine that was calibrated has terms of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from harness.base import (
    GIB,
    Strict,
    UsageError,
    available_cores,
    unknown_name,
    write_json,
)
from harness.records import Phase

Precision = Literal["float32", "tf32", "bfloat16"]
NotNegative = Annotated[float, pydantic.Field(ge=0)]

SHARES: Mapping[Phase, float] = {
    "load": 0.5,
    "train": 0.70,
    "certify": 0.05,
    "freeze": 0.5,
    "metrics": 0.4,
    "attack": 0.5,
    "rescore": 0.5,
}
"""The shares of the ceiling at which phases compute on a GPU. Of training, metrics and
attacks, as docs/performance.md has them for an H200 at the shape of Pythia-1.4B; the
others are guesses, of phases that take little."""
IN_FLOAT32: Mapping[Phase, float] = {"metrics": 0.75}
"""The same where products are in float32, if that is another share: they are slow
enough to hide what else a pass does."""


class Terms(Strict):
    """What a phase takes, in seconds, for each unit of its work."""

    flop: NotNegative = 0.0
    """A floating-point operation."""
    value: NotNegative = 0.0
    """A value that goes through a layer (tokens x layers x width), or six logits:
    what is written and read however fast matrices are multiplied."""
    gradient: NotNegative = 0.0
    """A gradient by which a search draws."""
    ranked: NotNegative = 0.0
    """A token of the vocabulary that a gradient ranks at one position."""
    sequence: NotNegative = 0.0
    """A sequence, forward or backward."""
    layer: NotNegative = 0.0
    """A layer that a sequence goes through, however short it is."""
    weight: NotNegative = 0.0
    """A weight that is read or written."""
    once: NotNegative = 0.0
    """Each time that the phase begins."""


class Device(Strict):
    """A device, and what phases take on it."""

    name: str
    """What it is called."""
    tflops: dict[Precision, Annotated[float, pydantic.Field(gt=0)]]
    """What large matrix products reach, in 1e12 operations a second: the ceiling. Of a
    precision that is not there, that of the slowest."""
    memory_gib: Annotated[float, pydantic.Field(gt=0)]
    """Its memory."""
    dollars_per_hour: NotNegative | None = None
    """What an hour costs; null where that is nobody's to say."""
    terms: dict[Phase, Terms] = {}
    """What phases take, where they were measured; for others it follows from `tflops`
    and the shares of GPUs."""
    per_unit_s: NotNegative = 1.0
    """What a variant or cell takes besides its phases."""
    per_run_s: NotNegative = 90.0
    """What a run takes besides its units: imports, compilation, the last replay."""
    base_memory_gib: NotNegative = 0.6
    """What is used before any model is there."""
    note: str = ""
    """What a reader should know of these numbers."""

    @property
    def is_cpu(self) -> bool:
        """Whether peak memory is that of the process."""
        return self.name.startswith("CPU")


_PRICES = "a round on-demand price of 2025; state yours with --rate"
BUILT_IN = {
    device.name: device
    for device in (
        Device(
            name="A100-40GB",
            tflops={"float32": 17.0, "tf32": 125.0, "bfloat16": 250.0},
            memory_gib=39.4,
            dollars_per_hour=1.3,
            note=f"ceilings are 80 % of the data sheet's; {_PRICES}",
        ),
        Device(
            name="H100",
            tflops={"float32": 50.0, "tf32": 350.0, "bfloat16": 700.0},
            memory_gib=79.0,
            dollars_per_hour=3.0,
            note=f"ceilings are some 70 to 75 % of the data sheet's; {_PRICES}",
        ),
        Device(
            name="H200",
            tflops={"float32": 50.0, "tf32": 370.0, "bfloat16": 790.0},
            memory_gib=139.0,
            dollars_per_hour=4.0,
            note=f"its ceilings were measured; {_PRICES}",
        ),
    )
}
"""The devices that have a name, as the data sheets of SXM cards describe them."""

_GPU_TERMS: Mapping[Phase, Terms] = {
    "load": Terms(weight=1e-9, once=0.5),
    "train": Terms(once=10.0),
    "certify": Terms(weight=1e-9, once=0.5),
    "freeze": Terms(weight=4e-9, once=0.5),
    "metrics": Terms(sequence=1e-3, once=1.0),
    "attack": Terms(once=2.0),
    "rescore": Terms(sequence=3e-3, once=0.5),
}
"""What phases take on a GPU besides their FLOPs, from the same run."""


@dataclass(frozen=True)
class Work:
    """What one phase of a unit asks of a device."""

    flops: float = 0.0
    values: float = 0.0
    """Tokens x layers x width, and a sixth of the logits."""
    gradients: float = 0.0
    """Gradients by which a search draws."""
    ranked: float = 0.0
    """Tokens that gradients rank: gradients x positions x vocabulary."""
    sequences: float = 0.0
    layers: float = 0.0
    """Sequences x the layers that each goes through."""
    weights: float = 0.0
    """Weights that are read or written, as often as they are."""
    times: float = 1.0
    """How often the phase begins."""
    seconds: float = 0.0
    """What no device changes."""
    precision: Precision = "float32"

    def __add__(self, other: Work) -> Work:
        """Add up; the precision is the first one's."""
        sums = {
            name: value + getattr(other, name)
            for name, value in vars(self).items()
            if name != "precision"
        }
        return Work(**sums, precision=self.precision)


def phase_seconds(device: Device, phase: Phase, work: Work) -> float:
    """Return what a phase takes on a device."""
    terms = device.terms.get(phase)
    if terms is None:
        ceiling = device.tflops.get(work.precision, min(device.tflops.values()))
        share = SHARES[phase]
        if work.precision == "float32":
            share = IN_FLOAT32.get(phase, share)
        flop = 1 / (ceiling * 1e12 * share)
        terms = _GPU_TERMS[phase].model_copy(update={"flop": flop})
    return (
        work.seconds
        + terms.flop * work.flops
        + terms.value * work.values
        + terms.gradient * work.gradients
        + terms.ranked * work.ranked
        + terms.sequence * work.sequences
        + terms.layer * work.layers
        + terms.weight * work.weights
        + terms.once * work.times
    )


# --- which device -------------------------------------------------------------------


def find_device(name: str = "auto", file: Path | None = None) -> Device:
    """Return a device by its name, from a file of devices or the built-in ones.

    ``auto`` is the machine as it was calibrated, or else the GPU that is here, or else
    the CPU, at the speed of another one; ``cpu`` and ``cuda`` are what they name here.
    Raises UsageError on an unknown name.
    """
    known = {**BUILT_IN, **({} if file is None else read_devices(file))}
    if name in known:
        return known[name]
    if name != "cpu" and name != "auto" and not name.startswith("cuda"):
        raise UsageError(unknown_name("device", name, [*known, "cpu", "cuda"]))
    own = calibrated()
    if own is not None and (name == "auto" or own.is_cpu == (name == "cpu")):
        return own
    return _uncalibrated() if name == "cpu" else _detected()


def choose_device(device: str) -> str:
    """Return the device to use: for ``auto``, the GPU if there is one.

    Raises UsageError for a GPU that is not here.
    """
    if device == "cpu":
        return device
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if found else "cpu"
    if not found:
        raise UsageError(f"device {device}: torch finds no GPU here; use cpu or auto")
    if int(device.partition(":")[2] or 0) >= found:
        last = "only cuda:0 is" if found == 1 else f"cuda:0 to cuda:{found - 1} are"
        raise UsageError(f"device {device}: {last} here")
    return device


def read_devices(file: Path) -> dict[str, Device]:
    """Read a JSON file of devices: a list of objects as `Device` describes them.

    Raises UsageError with the first thing that is wrong.
    """
    if not file.is_file():
        raise UsageError(f"--devices: {file} is no regular file")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        devices = pydantic.TypeAdapter(list[Device]).validate_python(content)
    except OSError as error:
        raise UsageError(f"--devices: {file} cannot be read: {error}") from error
    except pydantic.ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "the whole"
        raise UsageError(f"--devices: {file}: {where}: {fault['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--devices: {file} is no JSON: {error}") from error
    return {device.name: device for device in devices}


def calibration_file() -> Path:
    """Return where the calibration of this machine is kept: in the user's cache."""
    stated = os.environ.get("XDG_CACHE_HOME")
    cache = Path(stated) if stated else Path.home() / ".cache"
    return cache / "harness" / "device.json"


def calibrated() -> Device | None:
    """Return this machine as it was calibrated; None where it was not.

    Nor where an earlier version did so, which measured less of a GPU.
    """
    try:
        found = Device.model_validate_json(calibration_file().read_text())
    except (OSError, pydantic.ValidationError):
        return None
    return found if found.is_cpu or "tf32" in found.tflops else None


def keep_device(device: Device) -> None:
    """Keep a calibration of this machine for later plans."""
    write_json(calibration_file(), device.model_dump(mode="json"))


def cpu_device(
    terms: Mapping[Phase, Terms], *, tflops: float | None = None, **more: Any
) -> Device:
    """Return this machine's CPU, with what phases take on it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    cores = available_cores()
    return Device(
        name=f"CPU, {cores} core{'s' * (cores > 1)}",
        tflops={"float32": tflops or _TFLOPS_A_CORE * cores},
        memory_gib=memory,
        terms=dict(terms),
        **more,
    )


def gpu_device(
    name: str, tflops: Mapping[Precision, float], memory_gib: float
) -> Device:
    """Return a GPU whose ceilings were measured; its price is that of its kind."""
    return Device(
        name=name,
        tflops=dict(tflops),
        memory_gib=memory_gib,
        dollars_per_hour=next(
            (x.dollars_per_hour for x in BUILT_IN.values() if _is(x, name)), None
        ),
        note="its ceilings were measured; phases take the shares of other GPUs",
    )


_TFLOPS_A_CORE = 0.05


def _is(device: Device, name: str) -> bool:
    """Say whether a driver's name of a GPU is of the kind that a device describes."""
    return all(part in name for part in device.name.split("-"))


def _detected() -> Device:
    """Return what is here: a GPU by what its driver calls it, or the CPU."""
    found = gpu_name()
    for device in BUILT_IN.values():
        if found and _is(device, found):
            return device
    return _uncalibrated()


def _uncalibrated() -> Device:
    return cpu_device(
        _CPU_TERMS,
        per_unit_s=0.3,
        per_run_s=20.0,
        note="not calibrated: its speed is that of another CPU, and may be far off; "
        "`harness plan SUITE --calibrate` measures this one",
    )


def gpu_name() -> str | None:
    """Return what the driver calls the first GPU; None where there is none."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().partition("\n")[0] or None


_CPU_TERMS: Mapping[Phase, Terms] = {
    "load": Terms(flop=5e-11, weight=2e-8, once=0.2),
    "train": Terms(flop=5e-11, once=0.1),
    "certify": Terms(flop=1e-10, once=0.4),
    "freeze": Terms(weight=1e-8, once=0.1),
    "metrics": Terms(flop=5e-11, once=0.3),
    "attack": Terms(flop=5e-11, sequence=1e-3),
    "rescore": Terms(flop=5e-11, sequence=6e-3),
}
"""What phases took on one CPU: rough, for machines that nobody calibrated."""
