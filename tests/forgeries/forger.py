"""Tools of a forger: change a finished run, then make all that can be made fit again.

Whoever has a run folder can compute its hashes, counts, results and reports anew; so
these tools do, and a forgery is only what they cannot know.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import report
from harness.base import content_hash
from harness.records import (
    Record,
    SampleRow,
    read_record,
    read_samples,
    summarise_attack,
    write_record,
)
from harness.running import RunFolder, survey
from harness.running.diagnostics.rows import OF_SUBJECTS, examine_rows
from harness.running.folder import MADE, TRAINING, frozen_of, write_samples
from harness.running.validation.cells import subject_key

Row = dict[str, Any]
Json = dict[str, Any]


class Forger:
    """A copy of a finished run, and of the store beside it, to be forged."""

    def __init__(self, original: Path, place: Path) -> None:
        shutil.copytree(original.parent, place, symlinks=True)
        self.run = place / original.name
        self.folder = RunFolder(self.run)

    # --- what there is ------------------------------------------------------------

    def paths(self, part: str = "") -> list[Path]:
        """Return the records whose ids have a part, variants first."""
        found = [*self.folder.records("variant"), *self.folder.records("cell")]
        return [path for path in found if part in path.parent.name]

    def path(self, part: str) -> Path:
        (found,) = self.paths(part)
        return found

    def records(self, part: str = "") -> Iterator[tuple[Path, Record]]:
        for path in self.paths(part):
            yield path, read_record(path)

    def cells(self, part: str = "") -> list[Path]:
        return [path for path in self.paths(part) if path.parts[-3] == "cells"]

    def rows(self, path: Path) -> list[Row]:
        samples = path.with_name("samples.jsonl").read_text().splitlines()
        return [json.loads(line) for line in samples]

    def made(self, path: Path) -> Path:
        """Return the folder of a variant's subject in the store."""
        return (path.parent / "model").resolve().parent

    @cached_property
    def models(self) -> dict[Path, Any]:
        return {}

    def loss(self, path: Path, prompt: list[int], reference: list[int]) -> list[float]:
        """Return the losses of a reference's tokens on the subject of a cell."""
        import torch
        from transformers import AutoModelForCausalLM

        variant = self.folder.unit_dir("variant", read_record(path).variant)
        place = variant / "model"
        if place not in self.models:
            self.models[place] = AutoModelForCausalLM.from_pretrained(place).eval()
        with torch.no_grad():
            logits = self.models[place](torch.tensor([prompt + reference])).logits[0]
        scored = logits[len(prompt) - 1 : -1]
        kwargs = {"reduction": "none"}
        losses = torch.nn.functional.cross_entropy(
            scored, torch.tensor(reference), **kwargs
        )
        return [float(x) for x in losses]

    # --- changes ------------------------------------------------------------------

    def edit(self, path: Path, change: Callable[[Json], object]) -> None:
        """Change a JSON file as it stands."""
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document, indent=1) + "\n")

    def rewrite(self, path: Path, change: Callable[[Row], object]) -> None:
        """Change every row of a unit, and make its record fit."""
        rows = self.rows(path)
        for row in rows:
            change(row)
        self.write(path, rows)

    def write(self, path: Path, rows: list[Row]) -> None:
        """Give a unit other rows, and make its record and the replay fit."""
        samples = write_samples(path.parent, rows)
        self.edit(path, lambda x: x.update(samples=samples.model_dump(mode="json")))
        self.seal(path)

    def seal(self, path: Path) -> None:
        """Compute again what a record says of its rows."""
        record = read_record(path)
        assert record.samples is not None
        if record.kind == "variant":
            self._seal_variant(path, record)
        else:
            self._seal_cell(path, record, read_samples(path.with_name("samples.jsonl")))

    def _seal_variant(self, path: Path, record: Record) -> None:
        metrics = survey(self.run).plan.experiment.metrics
        rows: dict[str, list[Row]] = {}
        for row in self.rows(path):
            rows.setdefault(row.pop("metric"), []).append(row)
        results = {k: metrics[k].summarise(rows[k]) for k in record.results}
        write_record(path, record.model_copy(update={"results": results}))

    def _seal_cell(self, path: Path, record: Record, rows: list[SampleRow]) -> None:
        threshold = record.results["attack"]["threshold"].value
        assert threshold is not None
        kept = [x for x in record.diagnostics if x.id in OF_SUBJECTS]
        ledger = record.ledger.model_copy(deep=True)
        for costs in (ledger.kept, ledger.spent):
            costs["rescore"] = costs["rescore"].model_copy(
                update={"sequences_forward": sum(map(_prompts, rows))}
            )
        write_record(
            path,
            record.model_copy(
                update={
                    "results": {"attack": summarise_attack(rows, threshold)},
                    "diagnostics": [*examine_rows(rows), *kept],
                    "ledger": ledger,
                }
            ),
        )
        assert record.samples is not None
        digest = record.samples.sha256
        replay = self.run / "replay.json"
        self.edit(replay, lambda x: x[record.id].update(samples_sha256=digest))

    def remake(self, path: Path, change: Callable[[Json], object]) -> None:
        """Change a variant's record and how its subject was made, hashes and all."""
        self.edit(path, change)
        made = self.made(path)
        record = json.loads(path.read_text())
        names = ("certificate", "recovery", "derivation")
        self.edit(made / MADE, lambda x: x.update({k: record[k] for k in names}))
        self.rehash(path)

    def rehash(self, path: Path) -> None:
        """Hash the subject of a variant anew, as it is now."""
        frozen = frozen_of(self.made(path)).model_dump(mode="json")
        self.edit(path, lambda x: x.update(frozen=frozen))

    def log(self, path: Path, change: Callable[[Json], object]) -> None:
        """Change every line of a variant's training log, here and in the store."""
        for log in (path.with_name(TRAINING), self.made(path) / TRAINING):
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            for line in lines:
                change(line)
            log.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def resuite(self, change: Callable[[str], str]) -> None:
        """Change the resolved suite, as if all had been made under it."""
        before = self.folder.suite_file.read_text()
        after = change(before)
        assert after != before
        shutil.rmtree(self.folder.suites_dir)
        digest = self.folder.keep_suite(after)
        for path in self.paths():
            self.edit(path, lambda x: x["suite"].update(sha256=digest))

    def rename(self, changed: Callable[[Json], object]) -> None:
        """Change the identities of all units, and all that is named by them."""
        names: dict[str, str] = {}
        keys: dict[str, str] = {}
        for path in self.paths():
            record = read_record(path)
            before = subject_key(record)
            document = json.loads(path.read_text())
            changed(document)
            stem = document["id"].rpartition("-")[0]
            digest = content_hash(document["identity"])[:8]
            names[document["id"]] = f"{stem}-{digest}"
            document["id"] = names[document["id"]]
            path.write_text(json.dumps(document, indent=1) + "\n")
            identity = {"identity": document["identity"]}
            keys[before] = subject_key(record.model_copy(update=identity))
        self._move(names, keys)

    def _move(self, names: dict[str, str], keys: dict[str, str]) -> None:
        for path in self.paths():
            self.edit(path, lambda x: x.update(variant=names[x["variant"]]))
            path.parent.rename(path.parent.with_name(names[path.parent.name]))
        store = self.run.parent / ".store" / "subjects"
        for before, after in keys.items():
            if (store / before).exists():
                (store / before).rename(store / after)
        for path in self.folder.records("variant"):
            link = path.with_name("model")
            target = str(link.readlink())
            for before, after in keys.items():
                target = target.replace(before, after)
            link.unlink()
            link.symlink_to(target)
        replay = self.run / "replay.json"
        known = json.loads(replay.read_text())
        replay.write_text(json.dumps({names.get(k, k): v for k, v in known.items()}))

    def forget(self, part: str) -> None:
        """Leave cells out of what the run's own replay has seen."""

        def without(replay: Json) -> None:
            for name in [x for x in replay if part in x]:
                del replay[name]

        self.edit(self.run / "replay.json", without)

    def publish(self) -> None:
        """Write the reports that go with the forged records."""
        found = survey(self.run)
        report.write_reports(report.build(found), self.folder.report_dir)


def rescored(forger: Forger, path: Path, row: Row) -> None:
    """Score a row's prompts again, after they or the reference were changed."""
    known: dict[tuple[int, ...], list[float]] = {}

    def of(prompt: list[int]) -> float:
        losses = known.setdefault(
            tuple(prompt), forger.loss(path, prompt, row["reference_ids"])
        )
        return sum(losses) / len(losses)

    row["clean_loss"] = of(row["clean_prompt_ids"])
    for one in (row, *row["checkpoints"]):
        one["adversarial_loss"] = of(one["adversarial_prompt_ids"])
        one["delta_loss"] = one["adversarial_loss"] - row["clean_loss"]
    for when in ("clean", "adversarial"):
        row[f"{when}_token_losses"] = known[tuple(row[f"{when}_prompt_ids"])]
    same = row["adversarial_prompt_ids"] == row["clean_prompt_ids"]
    row["status"] = "unchanged" if same else "attacked"


def stepped(clean: list[int], prompt: list[int], loss: float) -> list[Row]:
    """Return the trace of a search that found a prompt at once."""
    places = [i for i, (a, b) in enumerate(zip(clean, prompt, strict=True)) if a != b]
    step = {"step": 1, "positions": places, "tokens": [prompt[i] for i in places]}
    return [{**step, "loss": loss, "verified": 1, "passes": 2, "gradients": 0}]


def _prompts(row: SampleRow) -> int:
    others = (x.adversarial_prompt_ids for x in (*row.checkpoints, *row.replicates))
    known = [row.clean_prompt_ids, row.adversarial_prompt_ids, *others]
    return len({tuple(ids) for ids in known if ids is not None})
