"""Inputs of the command line, made from real files: each by a seed and a number."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from harness.cli import COMMANDS
from tests.fuzz.mutations import HIDDEN, ODD, changed_bytes, changed_value, written
from tests.run_fixtures import Story, write_run

SUITES = Path(__file__).parents[2] / "suites"
CHECKPOINT = """
models: {m: {adapter: ADAPTER, path: ./model}}
arms: {baseline: {}, softplus: {constraint: softplus, start: abs}}
seeds: [1]
corpora: {train: {builtin: python-topics, slice: ":50%"}}
recovery: {corpus: train, tokens: 1000, context: 64}
"""


@dataclass
class Place:
    """A folder with real files, of which each input changes some."""

    root: Path

    @property
    def run(self) -> Path:
        """A finished run: two variants, four cells."""
        return self.root / "run"

    def file(self, rng: random.Random, pattern: str) -> Path:
        """Return one of the files that a pattern names."""
        return rng.choice(sorted(self.root.glob(pattern)))


def furnish(root: Path) -> Place:
    """Put real files into a folder: suites, a run, a checkpoint."""
    shutil.copytree(SUITES, root / "suites")
    (root / "story").mkdir()
    write_run(Story(seeds=[1], more="limit: 8"), root / "story").rename(root / "run")
    save_checkpoint(root / "model")
    return Place(root)


def save_checkpoint(folder: Path) -> None:
    """Save a tiny model whose weights are in parts."""
    from harness.testing import tiny_model, tiny_tokenizer

    tiny_model("gpt_neox").save_pretrained(folder, max_shard_size="20KB")
    tiny_tokenizer().save_pretrained(folder)


@dataclass
class Input:
    """What one attempt runs."""

    args: list[str]
    changed: dict[Path, bytes]
    """The files that are others than they were, with what is in them."""


def make(place: Place, seed: int, number: int) -> Input:
    """Return an input; the same seed and number always give the same."""
    rng = random.Random(f"{seed}.{number}")
    kinds, weights = zip(*_KINDS.items(), strict=True)
    kind: Callable[[Place, random.Random], Input] = rng.choices(kinds, weights)[0]
    return kind(place, rng)


def _changed(rng: random.Random, path: Path) -> bytes:
    data = path.read_bytes()
    if rng.random() < 0.4:
        return changed_bytes(rng, data)
    if path.suffix == ".yaml":
        value = YAML(typ="safe", pure=True).load(data)
    else:
        value = json.loads(data)
    return written(rng, changed_value(rng, value))


def _suite(place: Place, rng: random.Random) -> Input:
    file = place.file(rng, "suites/**/*.yaml")
    command = rng.choice(
        (
            ["validate", str(file)],
            ["validate", str(file), "--format", "github"],
            ["validate", str(file), "--json"],
            ["plan", str(file), "--device", "H100"],
            ["power", str(file), "--from", str(place.run)],
        )
    )
    return Input(command, {file: _changed(rng, file)})


def _resolved(place: Place, rng: random.Random) -> Input:
    file = place.run / "suite.resolved.yaml"
    return Input(_reader(place, rng), {file: _changed(rng, file)})


def _record(place: Place, rng: random.Random) -> Input:
    file = place.file(rng, "run/*/*/record.json")
    command = ["validate", str(file)]
    if rng.random() < 0.3:
        command = _reader(place, rng)
    return Input(command, {file: _changed(rng, file)})


def _samples(place: Place, rng: random.Random) -> Input:
    file = place.file(rng, "run/*/*/samples.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    at = rng.randrange(len(lines))
    if rng.random() < 0.6:
        lines[at] = written(rng, changed_value(rng, json.loads(lines[at])))
        lines[at] = lines[at].replace(b"\n", b"") + b"\n"
    else:
        lines[at] = changed_bytes(rng, lines[at])
    data = b"".join(lines)
    record = file.with_name("record.json")
    document = json.loads(record.read_text())
    if rng.random() < 0.8:  # or else only the hash is looked at
        document["samples"]["sha256"] = hashlib.sha256(data).hexdigest()
        document["samples"]["rows"] = data.count(b"\n")
    changed = {file: data, record: json.dumps(document).encode()}
    command = ["validate", str(record)]
    return Input(command if rng.random() < 0.8 else _reader(place, rng), changed)


def _replay(place: Place, rng: random.Random) -> Input:
    file = place.run / "replay.json"
    return Input(_reader(place, rng), {file: _changed(rng, file)})


def _checkpoint(place: Place, rng: random.Random) -> Input:
    suite = place.root / "checkpoint.yaml"
    adapter = rng.choice(("pythia", "causal_lm", "t5"))
    file = place.file(rng, "model/*.json")
    changed = {file: _changed(rng, file)}
    changed[suite] = CHECKPOINT.replace("ADAPTER", adapter).encode()
    return Input(["plan", str(suite), "--device", "H100"], changed)


def _reader(place: Place, rng: random.Random) -> list[str]:
    command = rng.choice(
        ("status", "status", "status --json", "report", "validate", "report --json")
    )
    first, *rest = command.split()
    return [first, str(place.run), *rest]


_VALUES = [
    *(str(x) for x in ODD if "\0" not in str(x) and "\ud800" not in str(x)),
    *("hotflip", "attack", "model", "suite", "record", "seeds=[1]", "arm=baseline"),
    *("attack=hotflip,seed=1", "arm=", "=", "a.b.c=1", "models.m.path=x", "limit=3"),
    *("recovery.tokens=3e6", "seeds=[[[[[[[[", "x=&a [*a]", "x=!!int y", "1,2", "1,,2"),
    *("9" * 400, "9" * 5000, "0.15", "1e-400", "١٢", "H100", "cuda:99", "markdown"),
]
_OPTIONS = [
    *("--json", "--help", "--version", "--profile", "--set", "--seeds", "--only"),
    *("--limit", "--device", "--batch-size", "--format", "--threshold", "--from"),
    *("--kind", "--rate", "--within", "--devices", "--jsn", "-h", "--", "-"),
    *HIDDEN,
]
"""None that says where to write: that is the user's to say."""


def _command_line(place: Place, rng: random.Random) -> Input:
    words = [x for x in COMMANDS if x not in ("run", "prefetch", "doctor")]
    args = [rng.choice((*words, rng.choice(_VALUES)))]
    names = ("run", "run/suite.resolved.yaml", "suites/quickstart.yaml", "model", ".")
    for _ in range(rng.randrange(5)):
        things = (
            [str(place.root / rng.choice(names))],
            [rng.choice(_VALUES)],
            [rng.choice(_OPTIONS)],
            [rng.choice(_OPTIONS), rng.choice(_VALUES)],
        )
        args += rng.choice(things)
    devices = place.root / "devices.json"
    if args[0] == "plan" and rng.random() < 0.3:
        args += ["--devices", str(devices)]
        value = [{"name": "x", "tflops": {"float32": 1.0}, "memory_gib": 1.0}]
        data = written(rng, changed_value(rng, value))
        return Input(args, {devices: data})
    return Input(args, {})


_KINDS = {
    _suite: 25,
    _record: 20,
    _samples: 20,
    _command_line: 20,
    _resolved: 5,
    _checkpoint: 8,
    _replay: 2,
}
"""The kinds of input, and how often each is made."""
