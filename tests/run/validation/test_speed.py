"""What makes it quick to validate thousands of records, and stays as thorough."""

import json

from harness.records import violations
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
