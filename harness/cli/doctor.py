"""``harness doctor``: libraries, devices, room, caches, and what a suite needs."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import click
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from harness import suite as suites
from harness.api import PluginWarning, load_registry
from harness.base import (
    GIB,
    UsageError,
    available_cores,
    default_store_root,
    spell_size,
)
from harness.cli import options
from harness.cli.printing import answer

NOT_READY = 2
LITTLE_DISK_BYTES = 5 * GIB
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Literal["ok", "note", "warn", "fail"]
    """`fail` where a run would not start, `note` of what it would do otherwise."""
    detail: str


@click.command()
@click.argument(
    "suite", required=False, type=click.Path(dir_okay=False, path_type=Path)
)
@click.option("--profile", metavar="NAME", help="A profile of the suite.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one value, as recovery.tokens=3e6; may be given again.",
)
@options.plugins
@options.json_output
def command(
    suite: Path | None,
    profile: str | None,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
    as_json: bool,
) -> int:
    """Check this machine, and whether it has what a suite names.

    Exits with 2, as a run would, if something that a run needs is not there.
    """
    if suite is None and (profile or overrides):
        raise UsageError("--profile and --set say how to read a suite: name one")
    store_root = default_store_root(Path("runs", "any-suite"))
    findings = [*_machine(store_root)]
    if suite is not None:
        experiment = suites.load_experiment(
            suite, profile=profile, overrides=overrides, plugins=plugins
        )
        findings += _suite(experiment, store_root)
    answer(_json(findings) if as_json else _text(findings))
    return NOT_READY if any(x.status == "fail" for x in findings) else 0


def _json(findings: Sequence[Finding]) -> str:
    return json.dumps([asdict(finding) for finding in findings], indent=1)


def _text(findings: Sequence[Finding]) -> str:
    width = max(len(finding.name) for finding in findings)
    return "\n".join(f"{f.status:4}  {f.name:{width}}  {f.detail}" for f in findings)


def _machine(store_root: Path) -> Iterator[Finding]:
    """Look at what every run needs; `store_root` is where checkpoints will go."""
    yield Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")
    yield from _libraries()
    yield from _devices()
    yield _memory()
    yield _disk(store_root)
    yield from _caches()
    yield from _plugins()


def _suite(experiment: suites.Experiment, store_root: Path) -> Iterator[Finding]:
    """Say whether what the suite names and asks for can be had on this machine."""
    lacking = suites.missing(experiment, store_root)
    lacking += suites.missing_device(experiment)
    if not lacking:
        yield Finding("suite", "ok", f"all that {experiment.source} names is here")
    for problem in [*lacking, *suites.misfits(experiment, store_root)]:
        graded: Literal["note", "fail"] = (
            "fail" if problem.severity == "error" else "note"
        )
        yield Finding("suite", graded, str(problem))


def _libraries() -> Iterator[Finding]:
    """Compare what is installed with what this version requires."""
    for text in metadata.requires("harness") or ():
        requirement = Requirement(text)
        if requirement.marker is None:  # the others belong to extras
            yield _library(requirement.name, str(requirement.specifier))


def _library(name: str, wanted: str) -> Finding:
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, "fail", f"not installed; needs {wanted}")
    fits = SpecifierSet(wanted).contains(found, prereleases=True)
    return Finding(name, "ok" if fits else "fail", f"{found} (needs {wanted})")


def _devices() -> Iterator[Finding]:
    import torch

    cores, threads = available_cores(), torch.get_num_threads()
    yield Finding("cpu", "ok", f"cores: {cores}; threads of torch: {threads}")
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        size = spell_size(device.total_memory)
        yield Finding(f"cuda:{index}", "ok", f"{device.name}, {size}")
    if not torch.cuda.is_available():
        yield Finding("cuda", "ok", "none; suites with device: auto run on the CPU")


def _memory() -> Finding:
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = (
        spell_size(page * os.sysconf(pages))
        for pages in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES")
    )
    return Finding("memory", "ok", f"{total}, {free} of it unused")


def _disk(store_root: Path) -> Finding:
    root = store_root.absolute()
    there = next(folder for folder in (root, *root.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    detail = f"{spell_size(free)} free for {root}"
    if not _is_writable(there):
        return Finding("disk", "fail", f"{there} cannot be written to")
    return Finding("disk", "ok" if free >= LITTLE_DISK_BYTES else "warn", detail)


def _is_writable(folder: Path) -> bool:
    """Try it: permissions alone do not tell of read-only file systems."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _caches() -> Iterator[Finding]:
    from huggingface_hub import constants

    there = "" if Path(constants.HF_HUB_CACHE).is_dir() else " (not there yet)"
    yield Finding("hub cache", "ok", f"{constants.HF_HUB_CACHE}{there}")
    stated = [name for name in OFFLINE_VARIABLES if os.environ.get(name)]
    offline = f"offline ({', '.join(stated)}): nothing is downloaded"
    online = "allowed: `harness prefetch` can download"
    yield Finding("network", "ok", offline if constants.HF_HUB_OFFLINE else online)


def _plugins() -> Iterator[Finding]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PluginWarning)
        count = len(load_registry().all())
    yield Finding("plugins", "ok", f"{count} found; `harness list` names them")
    for warning in caught:
        if issubclass(warning.category, PluginWarning):
            yield Finding("plugins", "warn", str(warning.message))
