"""A run folder as one file, for an appendix: whole, and without names of machines."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from harness import report
from harness.base import UsageError, sha256_file, write_atomic
from harness.results.loaded import Run
from harness.running import RunFolder, survey

SUMS = "SHA256SUMS"
KEPT = ("samples.jsonl", "training.jsonl")
"""What is kept of a unit's folder besides its record; its log names this machine."""
_PATH = re.compile(r"(?<![\w./:~-])(?:/[^\s/:'\",()]+){2,}|[A-Za-z]:\\[^\s'\",]+")


def export_run(root: Path, file: Path, *, models: bool = False) -> Path:
    """Write a run folder into a compressed archive, and return its path.

    It holds suites, records, samples and reports, with a file of checksums, and the
    frozen subjects where `models` are asked for. Absolute paths become names of files,
    and the host's name is left out; the hashes of suites, which records state, are
    those of the files in the archive. Plugin files that the suite names go along.
    Raises UsageError where `root` is no run folder or holds no record.
    """
    found = survey(root, trust=False)
    if not any(unit.state.record for unit in found.units):
        raise UsageError(f"{root} holds no record to export")
    with tempfile.TemporaryDirectory() as place:
        staged = Path(place) / PurePath(file.name).name.split(".")[0]
        staged.mkdir()
        _copy(found.folder, staged, models=models)
        made = replace(Run(staged).report, title=f"Report of {staged.name}")
        report.write_reports(made, RunFolder(staged).report_dir)
        _write_sums(staged)
        _pack(staged, file)
    return file


def import_run(file: Path, folder: Path) -> Path:
    """Unpack an archive into a new folder, check it, and return the run folder.

    Raises UsageError where it is no such archive, or differs from its checksums.
    """
    if folder.exists():
        raise UsageError(f"{folder} is there already: name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        try:
            with tarfile.open(file) as archive:
                archive.extractall(place, filter="data")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise UsageError(f"{file} is no archive of a run: {error}") from error
        inside = [path for path in Path(place).iterdir() if (path / SUMS).is_file()]
        if len(inside) != 1:
            raise UsageError(f"{file} is no archive of a run: it has no {SUMS}")
        for fault in _faults(inside[0]):
            raise UsageError(f"{file}: {fault}")
        inside[0].rename(folder)
    return folder


# --- what goes along ----------------------------------------------------------------


def _copy(folder: RunFolder, staged: Path, *, models: bool) -> None:
    hashes: dict[str, str] = {}
    for suite in [*sorted(folder.suites_dir.glob("*.yaml")), folder.suite_file]:
        text = _suite_text(suite, staged)
        digest = hashlib.sha256(text.encode()).hexdigest()
        hashes[sha256_file(suite)] = digest
        if suite == folder.suite_file:
            write_atomic(staged / suite.name, text)
        write_atomic(RunFolder(staged).suites_dir / f"{digest}.yaml", text)
    replay = folder.root / "replay.json"
    if replay.is_file():
        shutil.copyfile(replay, staged / replay.name)
    for path in [*folder.records("variant"), *folder.records("cell")]:
        target = staged / path.relative_to(folder.root)
        document = _cleaned(json.loads(path.read_text(encoding="utf-8")))
        known = document["suite"]["sha256"]
        document["suite"]["sha256"] = hashes.get(known, known)
        document["provenance"]["hardware"]["host"] = ""
        write_atomic(target, json.dumps(document, allow_nan=False, indent=1) + "\n")
        for name in KEPT:
            if (path.parent / name).is_file():
                shutil.copyfile(path.parent / name, target.parent / name)
        if models and (path.parent / "model").is_dir():
            shutil.copytree(path.parent / "model", target.parent / "model")


def _suite_text(suite: Path, staged: Path) -> str:
    """Return a resolved suite without absolute paths; its plugin files are copied."""

    def relative(match: re.Match[str]) -> str:
        path = Path(match[0])
        if path.suffix == ".py" and path.is_file():
            for place in (staged, RunFolder(staged).suites_dir):
                write_atomic(place / "plugins" / path.name, path.read_bytes())
            return f"plugins/{path.name}"
        return path.name

    return _PATH.sub(relative, suite.read_text(encoding="utf-8"))


def _cleaned(value: Any) -> Any:
    """Return JSON values with the names of files in place of their paths."""
    if isinstance(value, str):
        return _PATH.sub(lambda match: PurePath(match[0]).name, value)
    if isinstance(value, list):
        return [_cleaned(part) for part in value]
    if isinstance(value, Mapping):
        return {key: _cleaned(part) for key, part in value.items()}
    return value


# --- the file -----------------------------------------------------------------------


def _write_sums(staged: Path) -> None:
    lines = (f"{sha256_file(staged / name)}  {name}\n" for name in _names(staged))
    write_atomic(staged / SUMS, "".join(lines))


def _names(folder: Path) -> list[str]:
    """Return the files in a folder but the checksums, relative to it."""
    files = (
        Path(parent, name).relative_to(folder)
        for parent, _, names in os.walk(folder)
        for name in names
    )
    return sorted(path.as_posix() for path in files if path.name != SUMS)


def _faults(folder: Path) -> Iterator[str]:
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    stated = {name: digest for digest, _, name in (x.partition("  ") for x in lines)}
    for name in sorted(stated.keys() ^ {*_names(folder)}):
        yield f"{name} is {'missing' if name in stated else 'not in ' + SUMS}"
    for name, digest in stated.items():
        if sha256_file(folder / name) != digest:
            yield f"{name} differs from its checksum"


def _pack(staged: Path, file: Path) -> None:
    """Write a folder as an archive that depends on its files alone."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        return info

    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.part")
    try:
        with (
            temporary.open("wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            archive.add(staged, staged.name, filter=plain)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
