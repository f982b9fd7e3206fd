"""What makes it quick to validate thousands of records, and stays as thorough."""

import json
from collections import Counter
from pathlib import Path

from harness.records import violations
from harness.running import validate
from tests.run_fixtures import edit, read_all


def test_what_models_write_is_what_the_schema_asks_for(make_run):
    """So records that their model writes again need no second look."""
    run = make_run(failed=("random",))
    documents = [json.loads(path.read_text()) for path in run.glob("*/*/record.json")]
    written = {x.id: x.model_dump(mode="json") for x in read_all(run)}
    assert len(written) == len(documents) == 12
    for document in documents:
        assert written[document["id"]] == document
        assert [*violations("record", document, run)] == []


def test_a_sound_run_is_read_once(make_run, monkeypatch):
    opened = Counter()
    plain = Path.open

    def counted(path, *arguments, **options):
        opened[path] += 1
        return plain(path, *arguments, **options)

    run = make_run(full=True)
    monkeypatch.setattr(Path, "open", counted)
    assert validate([run]).problems == ()
    files = [*run.glob("*/*/record.json"), *run.glob("*/*/samples.jsonl")]
    assert {path: opened[path] for path in files} == dict.fromkeys(files, 1)


def test_several_processes_find_what_one_does(make_run):
    run = make_run(full=True)
    cell = next(run.glob("cells/*monotone.s2.hotflip-*"))
    samples = cell / "samples.jsonl"
    samples.write_text(
        samples.read_text().replace('"reference_ids": [0,', '"reference_ids": [1,')
    )
    edit(next(run.glob("variants/*s1-*")) / "record.json", "seed", value=7)
    alone, together = (validate([run], processes=n).problems for n in (1, 3))
    assert any("reference_ids differ from those" in x.message for x in alone)
    assert any("hash in the record" in x.message for x in alone)
    assert alone == together
