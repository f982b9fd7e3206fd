"""Checkpoints: plain Hugging Face folders, local or of the hub's cache.

Loading never touches the network: `fetch` does, on a machine that has one. Models are
read from safetensors files alone; pickled weights are converted once, into the store,
and nothing but tensors is taken out of them. Code that comes with a checkpoint is never
run. No option reaches any of that.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness import models
from harness.api import Anatomy, LocalPath, ModelAdapter, ModelShape, Options
from harness.base import (
    CellError,
    HarnessError,
    MissingResource,
    Store,
    UsageError,
    content_hash,
    fingerprint_files,
)
from harness.models.families import Family, find_anatomy, swap_activation
from harness.models.files import (
    CONFIG,
    INDEX,
    PICKLED_INDEX,
    convert,
    damaged,
    elements,
    is_pickled,
    leaving,
    read_json,
    weight_files,
)
from harness.models.shapes import published_config, shape_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TOKENIZER = "tokenizer.json"
_TOKENIZERS = ((_TOKENIZER,), ("vocab.json", "merges.txt"), ("tokenizer.model",))
_WANTED = ("*.json", "*.safetensors", "merges.txt", "tokenizer.model")
_PICKLED = ("pytorch_model*.bin",)
_TIMES_TOO_LARGE = 2
"""How many times as large as its weights a model may be by its configuration: what is
left out of a file, as a tied head, is less than the whole once more."""


class CheckpointWarning(UserWarning):
    """Something about a checkpoint that is probably wrong."""


class CheckpointOptions(Options):
    """Which checkpoint, and the precision that attacks search in."""

    path: LocalPath
    """A folder as `save_pretrained` writes it, or an id of the Hugging Face hub."""
    revision: str | None = None
    """The branch, tag or commit of a hub id; its main branch by default."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision in which attacks search; what they find is always scored in float32."""


class CheckpointAdapter(ModelAdapter[CheckpointOptions]):
    """Loads checkpoints of the families it lists."""

    Options = CheckpointOptions
    families: ClassVar[Mapping[str, Family]]
    """The families it can load, by the configuration's `model_type`."""

    @classmethod
    def loads(cls, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") in cls.families

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
        dropouts = self._family(folder).dropouts
        if is_pickled(folder):
            key = content_hash([self.fingerprint(store_root), "safetensors"])
            build = partial(convert, folder)
            folder = Store(store_root).folder("converted", key, build)
        model, tokenizer = load_model(folder, dropouts), load_tokenizer(folder)
        check_numbers(folder, model)
        check_tokenizer(folder, model, tokenizer)
        return model, tokenizer

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
        config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        return shape_of(config, tokenizer if tokenizer.is_file() else None)

    def fetch(self) -> None:
        if self._is_local:
            return
        self._check_hub_id()
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        fetch = partial(
            snapshot_download, self.options.path, revision=self.options.revision
        )
        try:
            folder = Path(fetch(allow_patterns=list(_WANTED)))
            if not any(folder.glob("*.safetensors")):
                fetch(allow_patterns=list(_PICKLED))
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
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        try:
            validate_repo_id(self.options.path)
        except HFValidationError:  # it can only be meant as a folder
            message = f"there is no folder {self.options.path}"
            raise MissingResource(message) from None

    def _snapshot(self) -> Path:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(
            self.options.path, CONFIG, revision=self.options.revision
        )
        if isinstance(found, str):
            return Path(found).parent
        raise MissingResource(
            f"{self._label()}: no such folder, and no {CONFIG} of that hub id in the "
            f"local cache; fetch it with `harness prefetch`"
        )

    def _complete_folder(self) -> Path:
        folder = self._folder()
        faults = _faults(folder)
        if faults:
            raise MissingResource(f"{self._label()}: {'; '.join(faults)}")
        return folder

    def _family(self, folder: Path) -> Family:
        return self._family_of(read_json(folder / CONFIG).get("model_type"))

    def _family_of(self, model_type: Any) -> Family:
        if isinstance(model_type, str) and model_type in self.families:
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
    with _said_of(folder, "the model"):
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

    with _said_of(folder, "the tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_fast=True
        )
    if not tokenizer.is_fast:
        raise UsageError(f"{folder} has no fast tokenizer (tokenizer.json)")
    return tokenizer


def check_numbers(folder: Path, model: PreTrainedModel) -> None:
    """Raise CellError where a weight is NaN or infinite."""
    for name, weight in model.named_parameters():
        # A sum is finite only if all of it is, and takes a tenth of the time; but large
        # numbers can have one that is not.
        if not (weight.sum().isfinite() or weight.isfinite().all()):
            raise CellError(f"{folder}: the weight {name} is not finite everywhere")


def check_tokenizer(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise CellError where a tokenizer has ids that a model has no embedding for.

    Warns where none of its tokens has the id 0: then all of its ids are probably
    shifted.
    """
    ids = tokenizer.get_vocab().values()
    rows = model.get_input_embeddings().weight.shape[0]
    if max(ids, default=0) >= rows:
        raise CellError(
            f"{folder}: the tokenizer has ids up to {max(ids)}, and the model has "
            f"embeddings for 0 to {rows - 1}; they do not belong together"
        )
    if min(ids, default=0) > 0:
        message = (
            f"{folder}: the first id of the tokenizer is {min(ids)} and not 0; if its "
            "ids are shifted, the model reads other tokens than were written"
        )
        warnings.warn(CheckpointWarning(message), stacklevel=2)


@contextmanager
def _said_of(folder: Path, what: str) -> Iterator[None]:
    """Turn whatever a library raises over files that are not right into a sentence."""
    try:
        yield
    except (HarnessError, MemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
        raise CellError(f"{folder}: {what} cannot be loaded ({reason})") from error


def _check_complete(folder: Path, report: Mapping[str, Any]) -> None:
    # transformers would fill in missing weights with random numbers and go on.
    lacking = sorted(map(str, report["missing_keys"]))
    if lacking:
        raise CellError(
            f"{folder} lacks {len(lacking)} weights of its model, as {lacking[0]}"
        )


def _faults(folder: Path) -> list[str]:
    """Return what is missing from a checkpoint's folder or wrong in it, as clauses."""
    try:
        weights = weight_files(folder)
        lacking = [path.name for path in _needed(folder, weights) if not path.is_file()]
        if not any(all((folder / n).is_file() for n in names) for names in _TOKENIZERS):
            lacking.append(_TOKENIZER)
        if lacking:
            return [_lacks(name, folder) for name in lacking]
        return leaving(folder, _files(folder)) or _unsound(folder, weights)
    except UsageError as error:
        return [str(error)]


def _needed(folder: Path, weights: list[Path]) -> list[Path]:
    """Return what has to be there, the index aside."""
    indices = (INDEX, PICKLED_INDEX)
    return [folder / CONFIG, *(path for path in weights if path.name not in indices)]


def _unsound(folder: Path, weights: list[Path]) -> list[str]:
    """Say what cannot be loaded, by what files state of themselves."""
    config = read_json(folder / CONFIG)
    own = [path for path in weights if path.suffix == ".safetensors"]
    faults = [fault for path in own if (fault := damaged(path))]
    if faults or not own:
        return faults
    shape, found = shape_of(config), elements(own)
    if shape is not None and shape.parameters > _TIMES_TOO_LARGE * found:
        return [
            f"{folder / CONFIG} describes a model of {shape.parameters:,} parameters, "
            f"and the files of its weights hold {found:,}"
        ]
    return []


def _lacks(name: str, folder: Path) -> str:
    fault = f"no {name} in {folder}"
    if folder.parent.name == "snapshots":
        fault += "; fetch it with `harness prefetch`"
    return fault


def _files(folder: Path) -> list[Path]:
    """Return the files that determine the model: config, weights, tokenizer."""
    weights = weight_files(folder)
    text = sorted(
        path
        for pattern in ("*token*", "vocab.*", "merges.txt")
        for path in folder.glob(pattern)
        if path.is_file() and path not in weights
    )
    return [folder / CONFIG, *weights, *text]
