"""The files of a checkpoint's folder: which there are, and whether they can be trusted.

A checkpoint may come from anybody. What is read of it is JSON and safetensors, never a
pickle that could hold more than tensors; links that leave the folder are not followed,
and files are looked at before anything is allocated for what they claim to hold.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base import UsageError, write_json

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"
_HEADER_BYTES = 100_000_000
"""The longest header that safetensors takes."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file; raise UsageError where there is none."""
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no UTF-8 text: {error.reason}") from error
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{path} is nested too deeply") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UsageError(f"{path} holds a {kind}; expected a mapping")
    return content


def is_pickled(folder: Path) -> bool:
    """Say whether the weights of a folder are pickled ones alone."""
    own = (folder / name for name in (WEIGHTS, INDEX))
    pickled = (folder / name for name in (PICKLED, PICKLED_INDEX))
    return any(x.is_file() for x in pickled) and not any(x.is_file() for x in own)


def weight_files(folder: Path) -> list[Path]:
    """Return the files of the weights, there or not, and the index where there is one.

    Raises UsageError where the index names no files of the folder.
    """
    if is_pickled(folder):
        whole, index = PICKLED, PICKLED_INDEX
    else:
        whole, index = WEIGHTS, INDEX
    if (folder / whole).is_file() or not (folder / index).is_file():
        return [folder / whole]
    return [folder / index, *_shards(folder / index)]


def _shards(index: Path) -> list[Path]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict):
        raise UsageError(f"{index}: `weight_map` is no mapping of weights to files")
    for name in names.values():
        plain = isinstance(name, str) and name == Path(name).name and name != ".."
        if not plain:
            raise UsageError(
                f"{index}: {name!r} is no name of a file in the same folder"
            )
    return [index.parent / name for name in sorted(set(names.values()))]


def leaving(folder: Path, files: Iterable[Path]) -> list[str]:
    """Say which files are links to outside of their folder; the hub's cache may link.

    There, a snapshot links to the blobs of the same repository.
    """
    root = folder.resolve()
    inside = root.parent.parent if root.parent.name == "snapshots" else root
    return [
        f"{path} is a link that leaves its folder, to {path.resolve()}: put the file "
        "itself there"
        for path in files
        if path.is_symlink() and not path.resolve().is_relative_to(inside)
    ]


def damaged(path: Path) -> str | None:
    """Say what is wrong with a safetensors file by its header; None if nothing is."""
    try:
        header, starts = _header(path)
        ends = max((x["data_offsets"][1] for x in header.values()), default=0)
        size, stated = path.stat().st_size, starts + ends
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        return f"{path} is no whole safetensors file: {error or type(error).__name__}"
    if size < stated:
        return f"{path} is cut short: it has {size} of {stated} bytes"
    return None


def elements(files: Iterable[Path]) -> int:
    """Return how many numbers safetensors files hold, by their headers."""
    found = 0
    for path in files:
        header, _ = _header(path)
        found += sum(math.prod(x["shape"]) for x in header.values())
    return found


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return what a safetensors file says of its tensors, and where they begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_HEADER_BYTES, path.stat().st_size - 8):
            raise ValueError("its header is not all there")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no mapping")
    header.pop("__metadata__", None)
    return header, 8 + length


# --- pickled weights ----------------------------------------------------------------


def convert(folder: Path, into: Path) -> None:
    """Write a checkpoint with pickled weights anew, with the same in safetensors.

    Only tensors are taken out of the pickles (`weights_only`); UsageError where there
    is anything else in them.
    """
    files = [path for path in weight_files(folder) if path.suffix == ".bin"]
    shards = {path: f"model-{i:05}.safetensors" for i, path in enumerate(files, 1)}
    if len(files) == 1:
        shards = {files[0]: WEIGHTS}
    placed: dict[str, str] = {}
    for path, name in shards.items():
        tensors = _tensors(path)
        _save(tensors, into / name)
        placed |= dict.fromkeys(tensors, name)
    if len(files) > 1:
        write_json(into / INDEX, {"metadata": {}, "weight_map": placed})
    for path in folder.iterdir():
        beside = path.is_file() and path.suffix in {".json", ".txt", ".model"}
        if beside and path.name != PICKLED_INDEX:
            shutil.copyfile(path, into / path.name)


def _tensors(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickles fail in many ways
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise UsageError(
            f"{path} is not opened, for it is damaged or holds more than tensors; save "
            f"the model with `save_pretrained`, which writes {WEIGHTS} ({reason})"
        ) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor)
        for name, value in state.items()
    ):
        raise UsageError(f"{path} holds something else than tensors by name")
    return dict(state)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    # Weights that are tied lie in the same memory, which safetensors refuses.
    apart = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    save_file(apart, path, metadata={"format": "pt"})
