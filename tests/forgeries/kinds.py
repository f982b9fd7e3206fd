"""The kinds of forgery, each a short script, and what finds it.

``plain`` stands for `harness validate RUN`, ``replay`` for `--replay`, ``suite`` for
`--suite FILE`, which compares with the suite that was published, and ``rerun`` for what
nothing finds but doing the work again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from harness.base import sha256_file
from harness.records import read_record
from tests.forgeries.forger import Forger, Row, rescored, stepped

ATTACK, CONTROL, REPLAY = ".hotflip-", ".random-", ".transfer-"
BASELINE, ARM = "tiny.baseline.s7-", "tiny.monotone.s7-"
OTHER = "tiny.monotone.s8-"


@dataclass(frozen=True)
class Kind:
    """One kind of forgery."""

    name: str
    forge: Callable[[Forger], object]
    found_by: str
    told: str
    """A part of the sentence that gives it away."""


KINDS: list[Kind] = []
MORE: list[Kind] = []
"""What came to mind when these checks were there."""


def kind(
    found_by: str, told: str = "", *, into: list[Kind] = KINDS
) -> Callable[[Callable[[Forger], object]], Callable[[Forger], object]]:
    def known(forge: Callable[[Forger], object]) -> Callable[[Forger], object]:
        into.append(Kind(forge.__name__, forge, found_by, told))
        return forge

    return known


# --- rows ---------------------------------------------------------------------------


@kind("plain", "differs from its hash")
def loss_of_one_row(forger: Forger) -> None:
    samples = forger.path("monotone.s7" + ATTACK).with_name("samples.jsonl")
    text = samples.read_text()
    samples.write_text(
        text.replace('"adversarial_loss": 6', '"adversarial_loss": 5', 1)
    )


def _lower(row: Row, *, trace: bool) -> None:
    """Let an attack do a tenth of the harm."""
    clean = row["clean_loss"]
    for one in (row, *row["checkpoints"]):
        one["adversarial_loss"] = clean + 0.1 * one["delta_loss"]
        one["delta_loss"] = one["adversarial_loss"] - clean
    row["adversarial_token_losses"] = [row["adversarial_loss"]] * len(
        row["reference_ids"]
    )
    for step in row["trace"] if trace else ():
        step["loss"] = clean + 0.1 * (step["loss"] - clean)


@kind("plain", "but its trace ends at")
def attacked_losses_lowered(forger: Forger) -> None:
    for path in forger.cells("monotone.s7.") + forger.cells("monotone.s8."):
        forger.rewrite(path, lambda row: _lower(row, trace=False))


@kind("replay", "off the record")
def attacked_losses_lowered_with_traces(forger: Forger) -> None:
    for path in forger.cells("monotone."):
        forger.rewrite(path, lambda row: _lower(row, trace=True))
        forger.rewrite(path, _deltas_of_sources)


def _deltas_of_sources(row: Row) -> None:
    for step in row["trace"]:
        if "source" in step:
            step["delta_loss"] = step["loss"] - row["clean_loss"]


def _shift(row: Row, by: float) -> None:
    for one in (row, *row["checkpoints"]):
        one["adversarial_loss"] += by
    row["clean_loss"] += by
    for when in ("clean", "adversarial"):
        row[f"{when}_token_losses"] = [x + by for x in row[f"{when}_token_losses"]]
    for one in (row, *row["checkpoints"]):
        one["delta_loss"] = one["adversarial_loss"] - row["clean_loss"]
    for step in row["trace"]:
        step["loss"] += by


@kind("plain", "in the cell")
def clean_losses_of_one_cell(forger: Forger) -> None:
    path = forger.path("monotone.s7" + ATTACK)
    forger.rewrite(path, lambda row: _shift(row, 0.2))


@kind("plain", "the record says")
def rows_dropped(forger: Forger) -> None:
    samples = forger.path("monotone.s7" + ATTACK).with_name("samples.jsonl")
    samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:-2]))
    digest = sha256_file(samples)
    record = samples.with_name("record.json")
    forger.edit(record, lambda x: x["samples"].update(sha256=digest))


@kind("plain", "but the suite asks for")
def rows_dropped_with_their_count(forger: Forger) -> None:
    path = forger.path("monotone.s7" + ATTACK)
    forger.write(path, forger.rows(path)[:-2])


@kind("rerun")
def successes_as_unchanged(forger: Forger) -> None:
    def unchanged(row: Row) -> None:
        clean = row["clean_loss"]
        for one in (row, *row["checkpoints"]):
            one["adversarial_prompt_ids"] = row["clean_prompt_ids"]
            one |= {"adversarial_loss": clean, "delta_loss": 0.0}
        row["adversarial_token_losses"] = row["clean_token_losses"]
        row |= {"status": "unchanged", "adversarial_text": row["clean_text"]}
        row["trace"] = []

    for path in forger.cells("monotone"):
        if REPLAY not in str(path):
            forger.rewrite(path, unchanged)
    for path in forger.cells(REPLAY):
        forger.rewrite(path, _replay_of_nothing)


def _replay_of_nothing(row: Row) -> None:
    """Let a replay from the forged arm bring nothing; the other way round it stays."""
    if row["trace"][0]["source"] == "monotone":
        row["adversarial_prompt_ids"] = row["clean_prompt_ids"]
        row |= {"adversarial_loss": row["clean_loss"], "delta_loss": 0.0}
        row |= {"status": "unchanged", "adversarial_text": row["clean_text"]}
        row["adversarial_token_losses"] = row["clean_token_losses"]
        row["trace"][0] |= {"loss": row["clean_loss"], "delta_loss": 0.0}


@kind("rerun")
def successes_as_errors(forger: Forger) -> None:
    gone = ("adversarial_prompt_ids", "adversarial_loss", "delta_loss")
    gone += ("text_reachable", "adversarial_text", "adversarial_token_losses")

    def failed(row: Row) -> None:
        row |= dict.fromkeys(gone)
        row |= {"status": "error", "trace": [], "checkpoints": []}
        row["error"] = "a loss is not finite"

    for path in forger.cells("monotone.s7" + CONTROL):
        forger.rewrite(path, failed)


@kind("replay", "clean_prompt_ids")
def easier_examples(forger: Forger) -> None:
    """Use the words of each prompt in another order: a text that no corpus has."""

    def easier(row: Row) -> None:
        clean = row["clean_prompt_ids"]
        before, after = clean, clean[::-1]
        for one in (row, *row["checkpoints"]):
            ids = one["adversarial_prompt_ids"]
            one["adversarial_prompt_ids"] = [
                b if a == c else a for a, c, b in zip(ids, before, after, strict=True)
            ]
        row["clean_prompt_ids"] = after

    _all_examples(forger, easier)


def _all_examples(forger: Forger, change: Callable[[Row], object]) -> None:
    """Change the examples of all cells alike, and score them on their subjects."""
    for path in forger.cells():
        rows = forger.rows(path)
        for row in rows:
            change(row)
            rescored(forger, path, row)
            row["text_reachable"] = True
            row["clean_text"] = row["adversarial_text"] = "?"
            loss = row["adversarial_loss"]
            if REPLAY in str(path):
                delta = row["delta_loss"]
                row["trace"] = [{**row["trace"][0], "loss": loss, "delta_loss": delta}]
            else:
                clean, ids = row["clean_prompt_ids"], row["adversarial_prompt_ids"]
                row["trace"] = stepped(clean, ids, loss) if clean != ids else []
            _decode(forger, path, row)
        forger.write(path, rows)


def _decode(forger: Forger, path: object, row: Row) -> None:
    from transformers import AutoTokenizer

    place = forger.path(BASELINE).with_name("model")
    tokenizer = forger.models.setdefault(
        place / "tokenizer", AutoTokenizer.from_pretrained(place)
    )
    known = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    row["clean_text"] = tokenizer.decode(row["clean_prompt_ids"], **known)
    text = tokenizer.decode(row["adversarial_prompt_ids"], **known)
    again = tokenizer(text, add_special_tokens=False)["input_ids"]
    row["adversarial_text"] = text
    row["text_reachable"] = again == row["adversarial_prompt_ids"]


@kind("replay", "document_id")
def invented_documents(forger: Forger) -> None:
    def invented(row: Row) -> None:
        row["document_id"] = f"test/{int(row['document_id'].split('/')[1]) + 1000}"

    for path in forger.cells():
        forger.rewrite(path, invented)


@kind("plain", "has the id 99999")
def ids_beyond_the_vocabulary(forger: Forger) -> None:
    def beyond(row: Row) -> None:
        if row["status"] == "attacked":
            row["adversarial_prompt_ids"][3] = 99999
            row["checkpoints"] = []
            clean, ids = row["clean_prompt_ids"], row["adversarial_prompt_ids"]
            row["trace"] = stepped(clean, ids, row["adversarial_loss"])

    forger.rewrite(forger.path("monotone.s7" + CONTROL), beyond)


@kind("replay", "reference_ids")
def references_changed(forger: Forger) -> None:
    def common(row: Row) -> None:
        row["reference_ids"] = [260] * len(row["reference_ids"])

    _all_examples(forger, common)


@kind("plain", "and the attack may change 2")
def more_flips_than_allowed(forger: Forger) -> None:
    path = forger.path("baseline.s7" + ATTACK)

    def more(row: Row) -> None:
        clean = row["clean_prompt_ids"]
        row["adversarial_prompt_ids"] = [70 + i for i in range(6)] + clean[6:]
        rescored(forger, path, row)
        ids = row["adversarial_prompt_ids"]
        row["trace"] = stepped(clean, ids, row["adversarial_loss"])
        _decode(forger, path, row)

    forger.rewrite(path, more)


@kind("replay", "text_reachable")
def text_reachable_turned(forger: Forger) -> None:
    path = forger.path("monotone.s7" + ATTACK)
    forger.rewrite(path, lambda row: row.update(text_reachable=False))


@kind("plain", "in the cell")
def samples_of_two_arms_exchanged(forger: Forger) -> None:
    one, other = (forger.path(x + ".s7" + ATTACK) for x in ("monotone", "baseline"))
    first, second = forger.rows(one), forger.rows(other)
    forger.write(one, second)
    forger.write(other, first)


@kind("plain", "lies in the folder")
def folders_of_two_arms_exchanged(forger: Forger) -> None:
    one, other = (
        forger.path(x + ".s7" + ATTACK).parent for x in ("monotone", "baseline")
    )
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


@kind("replay", "nats is")
def metric_rows(forger: Forger) -> None:
    forger.rewrite(forger.path(ARM), lambda row: row.update(nats=0.8 * row["nats"]))


# --- the suite ----------------------------------------------------------------------


@kind("plain", "but its suite says 0.5")
def threshold_of_the_suite(forger: Forger) -> None:
    forger.resuite(lambda text: text.replace("threshold: 0.15", "threshold: 0.5"))


@kind("plain", "5.0, but its suite says 0.15")
def threshold_of_a_record(forger: Forger) -> None:
    path = forger.path("monotone.s7" + ATTACK)
    forger.edit(path, lambda x: x["results"]["attack"]["threshold"].update(value=5.0))
    forger.seal(path)


def _without_the_replay(text: str) -> str:
    before, _, after = text.partition("  transfer:\n    attack: transfer\n")
    return before + after.partition("    of: hotflip\n")[2]


@kind("plain", "this suite does not plan it")
def cell_taken_out_of_the_suite(forger: Forger) -> None:
    forger.resuite(_without_the_replay)


@kind("suite", "is planned by")
def cell_taken_out_of_suite_and_folder(forger: Forger) -> None:
    forger.resuite(_without_the_replay)
    for path in forger.cells(REPLAY):
        shutil.rmtree(path.parent)
    forger.forget(REPLAY)


@kind("plain", "is missing")
def cell_deleted(forger: Forger) -> None:
    shutil.rmtree(forger.path("monotone.s7" + REPLAY).parent)


@kind("plain", "the cell failed")
def cell_marked_failed(forger: Forger) -> None:
    path = forger.path("monotone.s7" + REPLAY)
    error = {"type": "CellError", "message": "out of luck", "traceback": None}
    forger.edit(
        path,
        lambda x: x.update(status="failed", error=error, samples=None, results={}),
    )
    path.with_name("samples.jsonl").unlink()


@kind("plain", "seed 7 once more")
def seed_once_more(forger: Forger) -> None:
    """Copy all of seed 7 to seed 8, whose ids it then has."""
    for path in forger.paths(".s8"):
        first = path.parent.name.rpartition("-")[0].replace(".s8", ".s7") + "-"
        source = forger.path(first)
        record = read_record(path)
        mine = {"id": record.id, "variant": record.variant, "seed": record.seed}
        mine["identity"] = record.identity
        document = read_record(source).model_dump(mode="json")
        if record.kind == "variant":
            shutil.rmtree(forger.made(path))
            shutil.copytree(forger.made(source), forger.made(path))
            shutil.copy(source.with_name("training.jsonl"), path.parent)
        shutil.copy(source.with_name("samples.jsonl"), path.parent)
        forger.edit(path, lambda x, y=document | mine: x.update(y))
        forger.seal(path)


# --- what is said of a unit ---------------------------------------------------------


@kind("replay", "certificate")
def certificate(forger: Forger) -> None:
    """Call the networks of an arm monotone."""

    def monotone(record: Row) -> None:
        after = record["certificate"]["after"]
        after.update(ffn_monotone=True, reason=None, activation="relu")

    forger.remake(forger.path(ARM), monotone)


@kind("replay", "gradient_health")
def diagnostics(forger: Forger) -> None:
    def healthier(record: Row) -> None:
        for one in record["diagnostics"]:
            if one["id"] == "gradient_health":
                one["measured"]["values"] = [
                    {**value, "value": 0.5} for value in one["measured"]["values"]
                ]
                one.update(value=0.5, status="fail", reason="50 % are exactly zero")

    forger.edit(forger.path(ARM), healthier)


@kind("plain", "but it takes no gradients")
def ledger(forger: Forger) -> None:
    """Let a control have spent what its attack did."""
    attack = read_record(forger.path("monotone.s7" + ATTACK)).ledger
    cost = attack.kept["attack"].model_dump(mode="json")
    path = forger.path("monotone.s7" + CONTROL)

    def same(record: Row) -> None:
        for costs in (record["ledger"]["kept"], record["ledger"]["spent"]):
            costs["attack"] = cost
        seconds = record["ledger"]["spent"]["attack"]["seconds"]
        record["provenance"]["seconds"]["attack"] = round(seconds, 3)

    forger.edit(path, same)


@kind("replay", "loss_after")
def recovery(forger: Forger) -> None:
    path = forger.path(ARM)
    after = read_record(path).recovery
    assert after is not None
    assert after.loss_after is not None
    before = after.loss_after.value
    forged = {"value": 3.0, "interval": [2.9, 3.1]}
    forger.log(
        path,
        lambda line: (
            line.update(loss=3.0, loss_low=2.9, loss_high=3.1)
            if line["loss"] == before
            else None
        ),
    )
    forger.remake(path, lambda x: x["recovery"]["loss_after"].update(forged))


@kind("plain", "but its suite takes")
def provenance(forger: Forger) -> None:
    """Let a cell have been made by another plugin."""

    def other(record: Row) -> None:
        record["provenance"]["plugins"][-1]["name"] = "multiflip"

    forger.edit(forger.path("monotone.s7" + ATTACK), other)


@kind("plain", "no suite with this hash")
def hash_of_the_suite(forger: Forger) -> None:
    for path in forger.paths("monotone"):
        forger.edit(path, lambda x: x["suite"].update(sha256="0" * 64))


@kind("replay", "in its trace")
def trace(forger: Forger) -> None:
    """Let a search have climbed steadily."""

    def steadily(row: Row) -> None:
        for step in row["trace"][:-1]:
            step["loss"] = row["clean_loss"] + 0.01 * step["step"]

    forger.rewrite(forger.path("monotone.s7" + ATTACK), steadily)


@kind("replay", "off the record")
def frozen_model_replaced(forger: Forger) -> None:
    path = forger.path(ARM)
    model = forger.made(path) / "model"
    source = forger.made(forger.path(BASELINE)) / "model"
    shutil.rmtree(model)
    shutil.copytree(source, model)
    forger.rehash(path)


@kind("plain", "which is not there")
def dangling_model(forger: Forger) -> None:
    shutil.rmtree(forger.made(forger.path(ARM)))


@kind("plain", "no cell that it replays found this prompt")
def replay_without_a_source(forger: Forger) -> None:
    path = forger.path("monotone.s7" + REPLAY)

    def weaker(row: Row) -> None:
        ids = row["clean_prompt_ids"]
        row["adversarial_prompt_ids"] = [*ids[:-1], 70]
        rescored(forger, path, row)
        _decode(forger, path, row)
        loss, delta = row["adversarial_loss"], row["delta_loss"]
        row["trace"] = [{**row["trace"][0], "loss": loss, "delta_loss": delta}]

    forger.rewrite(path, weaker)


@kind("report", "is not what the records give")
def report_files(forger: Forger) -> None:
    report = forger.folder.report_dir / "report.md"
    report.write_text(report.read_text() + "\nThis arm is harder to attack.\n")


@kind("plain", "but the model's files give")
def fingerprint_of_another_model(forger: Forger) -> None:
    before = read_record(forger.path(ARM)).model.fingerprint
    after = f"sha256:{'f' * 64}"
    forger.resuite(lambda text: text.replace(before, after))

    def other(record: Row) -> None:
        record["model"]["fingerprint"] = after
        record["identity"]["model"]["fingerprint"] = after

    forger.rename(other)


# --- a second thought ---------------------------------------------------------------


@kind("plain", "the model's files in", into=MORE)
def model_in_the_place_of_its_link(forger: Forger) -> None:
    link = forger.path(ARM).with_name("model")
    link.unlink()
    shutil.copytree(forger.made(forger.path(BASELINE)) / "model", link)


@kind("plain", "made.json in ", into=MORE)
def making_changed_after_it_was_recorded(forger: Forger) -> None:
    path = forger.path(ARM)
    stated = json.loads(path.read_text())["frozen"]
    forger.remake(path, lambda x: x["recovery"].update(tokens=10**6))
    forger.edit(path, lambda x: x.update(frozen=stated))


@kind("plain", "it is not that of", into=MORE)
def certificate_in_the_record_alone(forger: Forger) -> None:
    def monotone(record: Row) -> None:
        record["certificate"]["after"].update(ffn_monotone=True, reason=None)

    forger.edit(forger.path(ARM), monotone)


@kind("plain", "but training.jsonl says", into=MORE)
def recovery_without_its_log(forger: Forger) -> None:
    forged = {"value": 3.0, "interval": [2.9, 3.1]}
    forger.remake(
        forger.path(ARM), lambda x: x["recovery"]["loss_after"].update(forged)
    )


@kind("plain", "no suite with this hash", into=MORE)
def suites_forgotten(forger: Forger) -> None:
    shutil.rmtree(forger.folder.suites_dir)
    hash_of_the_suite(forger)


@kind("plain", "but its examples give", into=MORE)
def value_of_a_diagnostic(forger: Forger) -> None:
    def better(record: Row) -> None:
        for one in record["diagnostics"]:
            if one["id"] == "first_order_fidelity":
                one.update(value=0.99, interval=[0.98, 1.0])

    forger.edit(forger.path(ARM), better)


@kind("replay", "the suite asks for", into=MORE)
def diagnostics_dropped(forger: Forger) -> None:
    forger.edit(forger.path(OTHER), lambda x: x.update(diagnostics=[]))


@kind("replay", "checkpoints.0.adversarial_loss is", into=MORE)
def losses_of_checkpoints(forger: Forger) -> None:
    """Let an attack do less harm with a quarter of its budget."""

    def lower(row: Row) -> None:
        first = row["checkpoints"][0]
        if (
            first["adversarial_prompt_ids"]
            != row["checkpoints"][1]["adversarial_prompt_ids"]
        ):
            first["adversarial_loss"] = row["clean_loss"] + 0.5 * first["delta_loss"]
            first["delta_loss"] = first["adversarial_loss"] - row["clean_loss"]

    forger.rewrite(forger.path("baseline.s7" + ATTACK), lower)


@kind("rerun", into=MORE)
def weaker_prompts(forger: Forger) -> None:
    """Let the prompt of a quarter of the budget be that of all of it, truly scored."""

    def weaker(row: Row) -> None:
        first = row["checkpoints"][0]
        for one in (row, *row["checkpoints"]):
            one["adversarial_prompt_ids"] = first["adversarial_prompt_ids"]
        rescored(forger, path, row)
        _decode(forger, path, row)
        clean, ids = row["clean_prompt_ids"], row["adversarial_prompt_ids"]
        row["trace"] = (
            stepped(clean, ids, row["adversarial_loss"]) if ids != clean else []
        )

    path = forger.path("monotone.s8" + CONTROL)
    forger.rewrite(path, weaker)
