"""What a model adapter implements: loading a family, and finding its parts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.api.costs import ModelShape
from harness.api.plugin import OptionsT, Plugin
from harness.records import Cost

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Projection:
    """One weight matrix of a feed-forward network."""

    name: str
    """The module's qualified name, as ``gpt_neox.layers.0.mlp.dense_h_to_4h``."""
    module: torch.nn.Module
    layer: int
    role: str
    """``in``, ``gate`` or ``out``."""
    transposed: bool = False
    """True where the weight is stored [in, out], as GPT-2's Conv1D does."""

    @property
    def weight(self) -> torch.Tensor:
        """The effective weight [out, in], whatever parametrization computes it."""
        weight = cast("torch.Tensor", self.module.weight)
        return weight.T if self.transposed else weight


@dataclass(frozen=True)
class FFN:
    """One feed-forward network: ``F(z) = W2 s(W1 z + b1) + b2``, or a gated one."""

    layer: int
    inputs: tuple[Projection, ...]
    """The in-projection; for a gated network the gate and then the in-projection."""
    output: Projection
    activation: Callable[[torch.Tensor], torch.Tensor]
    norm: torch.nn.Module | None
    """The normalisation whose output is `z`, if it feeds this network alone."""
    gauge_free: bool
    """True where `norm` is a LayerNorm, and every reader of the residual stream
    subtracts the mean, so that the gauge of constraints (rows of W1, columns of W2)
    leaves the model's function unchanged."""

    @property
    def gated(self) -> bool:
        """True where the activation multiplies a second projection."""
        return len(self.inputs) > 1

    @property
    def projections(self) -> tuple[Projection, ...]:
        """All matrices, inputs first."""
        return (*self.inputs, self.output)

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """Compute F on hidden vectors [..., d_model], dropout left out."""
        hidden = self.activation(self.inputs[0].module(z))
        if self.gated:
            hidden = hidden * self.inputs[1].module(z)
        result: torch.Tensor = self.output.module(hidden)
        return result


@dataclass(frozen=True)
class Anatomy:
    """A model and where its parts are."""

    model: PreTrainedModel
    ffns: tuple[FFN, ...]
    activation_name: str
    """The name of the activation in the model's configuration, as ``gelu``."""


class ModelAdapter(Plugin[OptionsT]):
    """Loads one family of models and knows its feed-forward networks."""

    @abstractmethod
    def missing(self) -> list[str]:
        """Return a sentence for each thing that `load` needs and this machine lacks."""

    @abstractmethod
    def fingerprint(self, store_root: Path) -> str:
        """Identify the weights: ``sha256:...`` of files, or ``hub:ID@REVISION``."""

    @abstractmethod
    def load(self, store_root: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return the model (float32, CPU, evaluation mode) and its fast tokenizer."""

    @abstractmethod
    def anatomy(self, model: PreTrainedModel) -> Anatomy:
        """Find the feed-forward networks of a model of this family."""

    @abstractmethod
    def set_activation(self, model: PreTrainedModel, name: str) -> None:
        """Swap the activation of every feed-forward network, config included."""

    @classmethod
    def loads(cls, config: Mapping[str, Any]) -> bool:
        """Say whether it loads checkpoints with such a ``config.json``.

        `harness attack` and `harness new suite` choose the adapter by it.
        """
        return False

    def fetch(self) -> None:
        """Download what `load` needs, on a machine with a network."""

    def shape(self) -> ModelShape | None:
        """Return the sizes of the model, without reading its weights.

        None where they are not known: then nothing is said of what its passes cost.
        """
        return None

    def preparation(self, store_root: Path) -> Cost:
        """Return what the first `load` costs besides reading weights.

        That is nothing, unless the model is made here and the store lacks it.
        """
        return Cost()

    @property
    def dtype(self) -> str:
        """The precision that attacks search in: ``float32`` or ``bfloat16``."""
        return str(getattr(self.options, "dtype", "float32"))
