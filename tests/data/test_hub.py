"""Datasets of the hub: fetched once, then read without a network.

The real client talks to a small server of the hub's protocol on this machine.
"""

import http.server
import io
import json
import os
import random
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from harness.base.errors import UsageError
from harness.data.hub import HubSplit, split_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "README.md": b"# A dataset for the train\n",
    "data/test.jsonl": b'{"text": "one"}\n{"text": "two"}\n',
    "data/train.jsonl": b'{"text": "other"}\n',
}
PROGRAM = """
import json, sys
from pathlib import Path
from harness.data.corpora import Corpora
from harness.base.errors import HarnessError
from harness.base.store import Store
from harness.data.sections import CorpusSection

section = CorpusSection(**json.loads(sys.argv[3]))
corpora = Corpora({"c": section}, Store(Path(sys.argv[1])))
try:
    if sys.argv[2] == "fetch":
        corpora.fetch("c")
    documents = {d.id: d.text for d in corpora.documents("c")}
    print(json.dumps(documents), corpora.fingerprint("c"))
except HarnessError as error:
    print(type(error).__name__, error)
"""


SPLIT = {"dataset": "org/name", "split": "test"}


class Hub(http.server.BaseHTTPRequestHandler):
    files = FILES
    sent: Counter[str] = Counter()
    """How many bytes of each file were sent."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        name = self.path.removeprefix(f"/datasets/org/name/resolve/{COMMIT}/")
        if self.path.startswith(f"/api/datasets/org/name/tree/{COMMIT}"):
            self._send(json.dumps(self._tree()).encode(), body=body)
        elif self.path.startswith("/api/datasets/org/name"):
            siblings = [{"rfilename": name} for name in self.files]
            info = {"id": "org/name", "sha": COMMIT, "siblings": siblings}
            self._send(json.dumps(info).encode(), body=body)
        elif name in self.files:
            part = self._send(self.files[name], body=body, ranged=True)
            self.sent[name] += part * body
        else:
            self.send_error(404)

    def _tree(self) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": name, "size": len(content), "oid": name}
            for name, content in self.files.items()
        ]

    def _send(self, content: bytes, *, body: bool, ranged: bool = False) -> int:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        first, last = map(int, wanted.groups()) if wanted else (0, len(content))
        part = content[first : last + 1]
        self.send_response(206 if wanted else 200)
        kind = "application/octet-stream" if ranged else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", '"etag"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(part)
        return len(part)


@pytest.fixture
def hub():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run(
    folder: Path, task: str, section: dict[str, str] = SPLIT, **environment: str
) -> str:
    arguments = str(folder / "store"), task, json.dumps(section)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, "HF_HOME": str(folder / "home"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def test_what_was_fetched_is_read_without_a_network(tmp_path, hub):
    expected = f'{{"0": "one", "1": "two"}} hub:org/name@{COMMIT}'
    assert run(tmp_path, "fetch", HF_ENDPOINT=hub, HF_HUB_OFFLINE="0") == expected
    assert run(tmp_path, "read", HF_HUB_OFFLINE="1") == expected
    # Whole files serve every slice; and nothing calls out although it might.
    section, nowhere = {**SPLIT, "slice": "1:9"}, "http://127.0.0.1:9"
    part = run(tmp_path, "read", section, HF_ENDPOINT=nowhere, HF_HUB_OFFLINE="0")
    assert part == f'{{"1": "two"}} hub:org/name@{COMMIT}'
    assert not list((tmp_path / "home").rglob("train.jsonl"))


def large(ending: str) -> tuple[list[str], bytes]:
    """Return 8,000 documents, and a file of 32 or 64 MB that holds them."""
    rng = random.Random(0)
    texts = [rng.randbytes(4000).hex() for _ in range(8000)]
    lines = "".join(json.dumps({"n": i, "text": t}) + "\n" for i, t in enumerate(texts))
    if ending == "parquet":
        file = io.BytesIO()
        rows = pyarrow.table({"n": range(len(texts)), "text": texts})
        parquet.write_table(rows, file, row_group_size=500)
        return texts, file.getvalue()
    plain = lines.encode()
    return texts, zstandard.compress(plain) if ending.endswith("zst") else plain


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.zst", "parquet"])
def test_of_a_slice_with_an_end_no_more_is_fetched(tmp_path, hub, monkeypatch, ending):
    texts, content = large(ending)
    name = f"data/test.{ending}"
    monkeypatch.setattr(Hub, "files", {"README.md": b"", name: content})
    monkeypatch.setattr(Hub, "sent", Counter())
    section = {**SPLIT, "slice": "100:300"}
    documents = {str(i): texts[i] for i in range(100, 300)}
    expected = f"{json.dumps(documents)} hub:org/name@{COMMIT}"
    fetched = run(tmp_path, "fetch", section, HF_ENDPOINT=hub, HF_HUB_OFFLINE="0")
    assert fetched == expected
    assert 0 < Hub.sent[name] < 0.6 * len(content)
    # Neither the hub nor its cache is needed any more.
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": os.devnull}
    assert run(tmp_path, "read", section, HF_HUB_OFFLINE="0", **nowhere) == expected


def test_a_faulty_row_is_said_when_it_is_fetched(tmp_path, hub):
    section = {**SPLIT, "slice": ":2", "text": "txt"}
    answer = run(tmp_path, "fetch", section, HF_ENDPOINT=hub, HF_HUB_OFFLINE="0")
    assert answer.startswith("UsageError hf://datasets/org/name@")
    assert "data/test.jsonl:1: unknown field 'txt'; did you mean 'text'" in answer


def test_a_cache_that_was_emptied_is_noticed(tmp_path, hub):
    answer = run(tmp_path, "fetch", HF_ENDPOINT=hub, HF_HUB_OFFLINE="0")
    assert "one" in answer
    for file in (tmp_path / "home").rglob("test.jsonl"):
        file.unlink()
    assert run(tmp_path, "read").startswith("MissingResource dataset org/name")


def test_fetching_without_a_network_says_what_and_why(tmp_path, hub):
    def fetch(slice_: str, **environment: str) -> str:
        return run(tmp_path, "fetch", {**SPLIT, "slice": slice_}, **environment)

    refused = [fetch(":", HF_HUB_OFFLINE="1")]
    fetch(":2", HF_ENDPOINT=hub, HF_HUB_OFFLINE="0")
    refused.append(fetch(":1", HF_HUB_OFFLINE="1"))  # the commit is known by now
    for answer in refused:
        assert answer.startswith("MissingResource dataset org/name (split test, ")
        assert "cannot be fetched" in answer
        assert "\n" not in answer


NAMES = [
    "README.md",
    "train.txt.md",
    "test.jsonl.zst",
    "train/00.jsonl.zst",
    "train/01.jsonl.zst",
    "latest/latest.csv",
]


@pytest.mark.parametrize(
    ("split", "files", "expected"),
    [
        ("test", None, ("test.jsonl.zst",)),
        ("train", None, ("train/00.jsonl.zst", "train/01.jsonl.zst")),
        ("train", "train/01*", ("train/01.jsonl.zst",)),
    ],
)
def test_split_is_a_word_of_the_path(split, files, expected):
    assert split_files(NAMES, HubSplit("o/n", None, split, files)) == expected


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["data/training.csv"], "no file of the dataset"),
        (["en/test.csv", "de/test.csv"], r"several places.*de/\*\.csv, en/\*\.csv"),
    ],
)
def test_unclear_splits_are_a_users_mistake(names, complaint):
    with pytest.raises(UsageError, match=complaint):
        split_files(names, HubSplit("o/n", None, "test", None))
