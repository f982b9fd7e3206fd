"""Datasets of the hub: fetched once, then read without a network.

The real client talks to a small server of the hub's protocol on this machine.
"""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.base.errors import UsageError
from harness.data.hub import HubSplit, split_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "README.md": b"# A dataset for the train\n",
    "data/test.jsonl": b'{"text": "one"}\n{"text": "two"}\n',
    "data/train.jsonl": b'{"text": "other"}\n',
}
PROGRAM = """
import sys, time
from pathlib import Path
from harness.data.corpora import Corpora
from harness.base.errors import HarnessError
from harness.base.store import Store
from harness.data.sections import CorpusSection

section = CorpusSection(dataset="org/name", split="test")
corpora = Corpora({"c": section}, Store(Path(sys.argv[1])))
try:
    if sys.argv[2] == "fetch":
        corpora.fetch("c")
    print([d.text for d in corpora.documents("c")], corpora.fingerprint("c"))
except HarnessError as error:
    print(type(error).__name__, error)
"""


class Hub(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        prefix = f"/datasets/org/name/resolve/{COMMIT}/"
        if self.path.startswith("/api/datasets/org/name"):
            siblings = [{"rfilename": name} for name in FILES]
            info = {"id": "org/name", "sha": COMMIT, "siblings": siblings}
            content, kind = json.dumps(info).encode(), "application/json"
        elif self.path.startswith(prefix):
            content, kind = FILES[self.path.removeprefix(prefix)], "text/plain"
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"etag"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run(folder: Path, task: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder / "store"), task],
        env={**os.environ, "HF_HOME": str(folder / "home"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def test_what_was_fetched_is_read_without_a_network(tmp_path, hub):
    expected = f"['one', 'two'] hub:org/name@{COMMIT}"
    assert run(tmp_path, "fetch", HF_ENDPOINT=hub, HF_HUB_OFFLINE="0") == expected
    assert run(tmp_path, "read", HF_HUB_OFFLINE="1") == expected
    nowhere = "http://127.0.0.1:9"
    assert run(tmp_path, "read", HF_ENDPOINT=nowhere, HF_HUB_OFFLINE="0") == expected
    assert not list((tmp_path / "home").rglob("train.jsonl"))


def test_a_cache_that_was_emptied_is_noticed(tmp_path, hub):
    answer = run(tmp_path, "fetch", HF_ENDPOINT=hub, HF_HUB_OFFLINE="0")
    assert "one" in answer
    for file in (tmp_path / "home").rglob("test.jsonl"):
        file.unlink()
    assert run(tmp_path, "read").startswith("MissingResource dataset org/name")


def test_fetching_without_a_network_says_what_and_why(tmp_path):
    answer = run(tmp_path, "fetch", HF_HUB_OFFLINE="1")
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
