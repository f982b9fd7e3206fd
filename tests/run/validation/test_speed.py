"""What makes it quick to validate thousands of records, and stays as thorough."""

import json
from collections import Counter
from pathlib import Path

from harness.records import violations
from harness.running import validate
from tests.run_fixtures import read_all


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
