"""Checkpoints of a training: used if written to its end, and not otherwise.

A checkpoint holds the weights, the optimizer's state, the learning rate's schedule, the
random generator and how far training is, so that it goes on as if it had never stopped.
What is spread over devices is gathered: it does not matter how many go on. All of it is
on disk before it gets its name, and compared with its manifest before it is used.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pydantic
import torch
from accelerate import Accelerator
from torch import nn

from harness.base import fault_of, seal, write_json
from harness.models.devices import agreed, full_tensor, placed_like
from harness.records import Cost

logger = logging.getLogger(__name__)

State = dict[str, Any]

_PROGRESS = "training.json"
_WEIGHTS, _OPTIMIZER, _REST = "pytorch_model.bin", "optimizer.bin", "rest.bin"
_SPENT = "spent.json"
_KEPT = 2


def last_checkpoint(work: Path) -> Path | None:
    """Return the newest checkpoint that is what was written, if there is one."""
    for checkpoint in reversed(_checkpoints(work)):
        fault = fault_of(checkpoint)
        if fault is None:
            return checkpoint
        logger.warning("%s is not used: %s", checkpoint, fault)
    return None


def shared_checkpoint(work: Path, accelerator: Accelerator) -> Path | None:
    """Return the last checkpoint, which the first of several processes looks for.

    It reads all of it to do so; the others could also see other files.
    """
    found = last_checkpoint(work) if accelerator.is_main_process else None
    step = agreed(-1 if found is None else _step(found), accelerator)
    return None if step < 0 else _place(work, step)


def spent_training(work: Path) -> Cost:
    """Return what training in a folder has spent, interrupted attempts included."""
    try:
        return Cost.model_validate_json((work / _SPENT).read_bytes())
    except FileNotFoundError:
        return Cost()
    except pydantic.ValidationError:
        logger.warning("%s is damaged: what was spent before is not known", _SPENT)
        return Cost()


def note_spent(work: Path, spent: Cost) -> None:
    """Write down what was spent, for a process that may have to go on."""
    write_json(work / _SPENT, spent.model_dump(mode="json"))


class Checkpoints:
    """Saves and restores what changes in a training."""

    def __init__(
        self,
        work: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        left_out: Collection[str],
        *,
        writes: bool = True,
    ) -> None:
        """Take over what is trained; weights that are `left_out` follow from it.

        Of several processes one `writes`, but all gather what is spread over them.
        """
        self._work, self._model = work, model
        self._optimizer, self._schedule = optimizer, schedule
        self._left_out, self._writes = left_out, writes

    def save(self, step: int, progress: Mapping[str, Any], *, done: bool) -> None:
        """Write the checkpoint of a step; of a training that is done, weights alone.

        The last ones are kept.
        """
        weights = self._whole(self._weights())
        state = {} if done else self._gathered(self._optimizer.state_dict())
        if not self._writes:
            return
        for cut_short in self._work.glob("checkpoint-*.tmp"):
            shutil.rmtree(cut_short)
        place = _place(self._work, step)
        folder = place.with_suffix(".tmp")
        folder.mkdir(parents=True)
        torch.save(weights, folder / _WEIGHTS)
        if not done:
            torch.save(state, folder / _OPTIMIZER)
            rest = {
                "schedule": self._schedule.state_dict(),
                "generators": _random_states(),
            }
            torch.save(rest, folder / _REST)
        write_json(folder / _PROGRESS, progress)
        seal(folder)
        shutil.rmtree(place, ignore_errors=True)  # one that was not used
        folder.rename(place)
        for old in _checkpoints(self._work)[:-_KEPT]:
            shutil.rmtree(old)

    def restore(self, folder: Path) -> State:
        """Go back to a checkpoint; return its progress."""
        load_weights(self._model, folder)
        if (folder / _REST).exists():
            self._optimizer.load_state_dict(self._placed(_load(folder / _OPTIMIZER)))
            rest = _load(folder / _REST)
            self._schedule.load_state_dict(rest["schedule"])
            _set_random_states(rest["generators"])
        progress: State = json.loads((folder / _PROGRESS).read_text())
        return progress

    def _placed(self, state: State) -> State:
        """Return a state with each tensor spread as its parameter is."""
        parameters = [p for g in self._optimizer.param_groups for p in g["params"]]
        own = {
            index: {key: placed_like(x, parameters[index]) for key, x in values.items()}
            for index, values in state["state"].items()
        }
        return {**state, "state": own}

    def _weights(self) -> State:
        return {
            name: tensor.detach()
            for name, tensor in self._model.state_dict().items()
            if name not in self._left_out
        }

    def _gathered(self, state: State) -> State:
        """Return an optimizer's state with whole tensors."""
        own = {index: self._whole(values) for index, values in state["state"].items()}
        return {**state, "state": own}

    def _whole(self, tensors: State) -> State:
        """Return whole tensors; where they are not written, gather them and keep none.

        All of them would take the memory of a whole model from each process.
        """
        found = ((name, full_tensor(tensor)) for name, tensor in tensors.items())
        return {name: tensor for name, tensor in found if self._writes}


def load_weights(model: nn.Module, folder: Path) -> None:
    """Give a model the weights of a checkpoint, in place."""
    held = model.state_dict()
    with torch.no_grad():
        for name, tensor in _load(folder / _WEIGHTS).items():
            held[name].copy_(placed_like(tensor, held[name]))


def _load(file: Path) -> State:
    """Map a file: processes share what they read of it, and read a tensor at a time."""
    state: State = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    return state


def _random_states() -> list[torch.Tensor]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *cuda]


def _set_random_states(states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if torch.cuda.is_available():
        for number, state in enumerate(states[1 : 1 + torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, number)


def _checkpoints(work: Path) -> list[Path]:
    """Return the checkpoints that were written to their end, oldest first."""
    found = work.glob("checkpoint-*")
    named = [x for x in found if re.fullmatch(r"checkpoint-\d+", x.name)]
    return sorted(named, key=_step)


def _place(work: Path, step: int) -> Path:
    return work / f"checkpoint-{step}"


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
