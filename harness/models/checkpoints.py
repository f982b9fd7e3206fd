"""Checkpoints: plain Hugging Face folders, local or of the hub's cache.

Loading never touches the network: `fetch` does, on a machine that has one. Weights are
read from safetensors files alone, and code that comes with a checkpoint is never run;
no option reaches either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness import models
from harness.api import Anatomy, LocalPath, ModelAdapter, ModelShape, Options
from harness.base import CellError, MissingResource, UsageError, fingerprint_files
from harness.models.families import Family, find_anatomy, swap_activation
from harness.models.shapes import published_config, shape_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_TOKENIZER = "tokenizer.json"
_TOKENIZERS = ((_TOKENIZER,), ("vocab.json", "merges.txt"), ("tokenizer.model",))
_WANTED = ("*.json", "*.safetensors", "merges.txt", "tokenizer.model")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


class CheckpointOptions(Options):
    """Which checkpoint, and the precision that attacks search in."""

    path: LocalPath
    """A folder as `save_pretrained` writes it, or an id of the Hugging Face hub."""
    revision: str | None = None
    """The branch, tag or commit of a hub id; its main branch by default."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision in which attacks search; reported losses are always float32."""


class CheckpointAdapter(ModelAdapter[CheckpointOptions]):
    """Loads checkpoints of the families it lists."""

    Options = CheckpointOptions
    families: ClassVar[Mapping[str, Family]]
    """The families it can load, by the configuration's `model_type`."""

    def missing(self) -> list[str]:
        try:
            folder = self._folder()
        except MissingResource as error:
            return [str(error)]
        return [f"{self._label()}: {fault}" for fault in _faults(folder)]

    def fingerprint(self, store_root: Path) -> str:
        folder = self._complete_folder()
        self._family(folder)
        if self._is_local:
            return fingerprint_files(_files(folder), store_root / "fingerprints.json")
        # The hub's cache names a snapshot's folder by its commit.
        return f"hub:{self.options.path}@{folder.name}"

    def load(self, store_root: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        folder = self._complete_folder()
        model = load_model(folder, self._family(folder).dropouts)
        return model, load_tokenizer(folder)

    def anatomy(self, model: PreTrainedModel) -> Anatomy:
        return find_anatomy(model, self._family_of(model.config.model_type))

    def set_activation(self, model: PreTrainedModel, name: str) -> None:
        swap_activation(model, self._family_of(model.config.model_type), name)

    def shape(self) -> ModelShape | None:
        try:
            folder = self._folder()
        except MissingResource:
            return shape_of(published_config(self.options.path) or {})
        tokenizer = folder / _TOKENIZER
        config = _read_json(folder / _CONFIG) if (folder / _CONFIG).is_file() else {}
        return shape_of(config, tokenizer if tokenizer.is_file() else None)

    def fetch(self) -> None:
        if self._is_local:
            return
        self._check_hub_id()
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        try:
            snapshot_download(
                self.options.path,
                revision=self.options.revision,
                allow_patterns=list(_WANTED),
            )
        except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
            reason = str(error).strip().split("\n")[0]
            raise MissingResource(f"cannot fetch {self._label()}: {reason}") from error
        self._complete_folder()

    @property
    def _is_local(self) -> bool:
        return Path(self.options.path).is_dir()

    def _label(self) -> str:
        revision = self.options.revision
        return f"{self.options.path}@{revision}" if revision else self.options.path

    def _folder(self) -> Path:
        """Return the folder that holds the checkpoint, as far as it is there."""
        path = self.options.path
        if self._is_local:
            if self.options.revision:
                raise UsageError(f"{path} is a local folder: it has no revision")
            return Path(path)
        self._check_hub_id()
        return self._snapshot()

    def _check_hub_id(self) -> None:
        path = self.options.path
        if not _HUB_ID.fullmatch(path) or path.startswith("."):
            raise MissingResource(f"there is no folder {path}")

    def _snapshot(self) -> Path:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(
            self.options.path, _CONFIG, revision=self.options.revision
        )
        if isinstance(found, str):
            return Path(found).parent
        raise MissingResource(
            f"{self._label()}: no such folder, and no {_CONFIG} of that hub id in the "
            f"local cache; fetch it with `harness prefetch`"
        )

    def _complete_folder(self) -> Path:
        folder = self._folder()
        faults = _faults(folder)
        if faults:
            raise MissingResource(f"{self._label()}: {'; '.join(faults)}")
        return folder

    def _family(self, folder: Path) -> Family:
        return self._family_of(_read_json(folder / _CONFIG).get("model_type"))

    def _family_of(self, model_type: Any) -> Family:
        if model_type in self.families:
            return self.families[model_type]
        known = ", ".join(sorted(self.families))
        raise UsageError(
            f"{self._label()} is of the family {model_type!r}; "
            f"the model adapter {self.name!r} knows {known}"
        )


def load_model(folder: Path, dropouts: tuple[str, ...] = ()) -> PreTrainedModel:
    """Load a language model in float32, on the CPU, in evaluation mode.

    Its configuration says whether it is causal or an encoder-decoder. The dropout
    probabilities that `dropouts` names are set to 0: arms must differ by nothing but
    their constraint, and the gauge start needs a model without dropout.
    """
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
    )
    from transformers.utils.logging import disable_progress_bar

    models.register_activations()
    disable_progress_bar()
    config = AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    for key in dropouts:
        if hasattr(config, key):
            setattr(config, key, 0.0)
    classes = AutoModelForCausalLM
    if config.is_encoder_decoder:
        classes = AutoModelForSeq2SeqLM
    model, report = classes.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    _check_complete(folder, report)
    loaded: PreTrainedModel = model.eval()
    return loaded


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a fast tokenizer, without running code that came with it."""
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_fast=True
    )
    if not tokenizer.is_fast:
        raise UsageError(f"{folder} has no fast tokenizer (tokenizer.json)")
    return tokenizer


def _check_complete(folder: Path, report: Mapping[str, Any]) -> None:
    # transformers would fill in missing weights with random numbers and go on.
    lacking = sorted(map(str, report["missing_keys"]))
    if lacking:
        raise CellError(
            f"{folder} lacks {len(lacking)} weights of its model, as {lacking[0]}"
        )


def _faults(folder: Path) -> list[str]:
    """Return what is missing from a checkpoint's folder, one clause each."""
    lacking = [] if (folder / _CONFIG).is_file() else [_CONFIG]
    weights = folder / _WEIGHTS
    if (folder / _INDEX).is_file() and not weights.is_file():
        lacking += [shard.name for shard in _shards(folder) if not shard.is_file()]
    elif not weights.is_file():
        lacking.append(_WEIGHTS)
    if not any(all((folder / n).is_file() for n in names) for names in _TOKENIZERS):
        lacking.append("tokenizer.json")
    return [_lacks(name, folder) for name in lacking]


def _lacks(name: str, folder: Path) -> str:
    fault = f"no {name} in {folder}"
    if folder.parent.name == "snapshots":
        fault += "; fetch it with `harness prefetch`"
    if name == _WEIGHTS and any(folder.glob("*.bin")):
        fault += " (weights are read from safetensors files alone)"
    return fault


def _shards(folder: Path) -> list[Path]:
    weight_map = _read_json(folder / _INDEX).get("weight_map", {})
    return [folder / name for name in sorted(set(weight_map.values()))]


def _files(folder: Path) -> list[Path]:
    """Return the files that determine the model: config, weights, tokenizer."""
    weights = [folder / _WEIGHTS]
    if not weights[0].is_file():
        weights = [folder / _INDEX, *_shards(folder)]
    text = sorted(
        path
        for pattern in ("*token*", "vocab.*", "merges.txt")
        for path in folder.glob(pattern)
        if path.is_file() and path not in weights
    )
    return [folder / _CONFIG, *weights, *text]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from error
    return content if isinstance(content, dict) else {}
