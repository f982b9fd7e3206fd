"""Texts out of files: every format gives the same rows; faults name file and line."""

import json
import os
import random
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from harness.base.errors import UsageError
from harness.data import files as text_files
from harness.data.fields import Fields
from harness.data.files import read_rows, readable
from tests.data.rows import write_rows

TEXTS = ["first", "", 'quo"ted, with\ncomma', "née ☃", "x" * 200_000, " "]
TEXTS += ["2020-01-01", "1", "NA", "null", "true", "a\r\nb"]  # texts all the same
BLANK_LINE = r"\n\s*\n"


def write(path: Path, texts: list[str]) -> Path:
    return write_rows(path, [{"n": i, "text": text} for i, text in enumerate(texts)])


def read(path: Path, field: str = "text", separator: str = BLANK_LINE) -> list[str]:
    fields = Fields(text=field)
    rows = read_rows(path, fields, separator)
    return [fields.document("0", row, where).text for row, where in rows]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.zst", "parquet", "csv"])
def test_every_format_gives_the_rows_as_written_and_names_its_fields(tmp_path, ending):
    path = write(tmp_path / f"a.b.{ending}", TEXTS)
    assert read(path) == TEXTS
    with pytest.raises(UsageError) as caught:
        read(path, "texts")
    assert str(path) in str(caught.value)
    assert "did you mean 'text'? (known: n, text)" in str(caught.value)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.zst", "parquet"])
def test_field_that_holds_no_text_is_an_error(tmp_path, ending):
    with pytest.raises(UsageError, match="'n' holds int, not text"):
        read(write(tmp_path / f"data.{ending}", TEXTS), "n")


@pytest.mark.parametrize(
    ("line", "complaint"), [('{"text": "torn', "not JSON"), ("[1]", "found list")]
)
def test_faulty_line_is_named(tmp_path, line, complaint):
    path = tmp_path / "data.jsonl"
    path.write_text(f'{{"text": "a"}}\n\n{line}\n')
    with pytest.raises(UsageError, match=rf"data\.jsonl:3: .*{complaint}"):
        read(path)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "txt"])
def test_other_encodings_are_refused(tmp_path, ending):
    path = tmp_path / f"data.{ending}"
    path.write_bytes('text\n{"text": "née"}'.encode("latin-1")[5 * (ending != "csv") :])
    with pytest.raises(UsageError, match="not UTF-8"):
        read(path)


@pytest.mark.parametrize("ending", ["jsonl.zst", "parquet"])
def test_broken_archives_are_refused(tmp_path, ending):
    path = write(tmp_path / f"data.{ending}", TEXTS)
    path.write_bytes(path.read_bytes()[3:])
    with pytest.raises(UsageError, match=r"not a|cannot be read") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_unknown_ending_says_which_are_known(tmp_path):
    with pytest.raises(UsageError, match=r"\.parquet"):
        read(tmp_path / "data.pdf")
    assert readable("train-00.parquet")
    assert not readable("README.md")


def test_separator_must_be_a_regular_expression(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("text")
    with pytest.raises(UsageError, match="separator '\\(' is no regular expression"):
        read(path, separator="(")


def test_text_is_split_like_re_does_wherever_chunks_end(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_CHUNK", 7)
    monkeypatch.setattr(text_files, "_LONGEST_SEPARATOR", 12)
    rng = random.Random(0)
    for round_ in range(30):
        text = "".join(rng.choice("ab\n\n -") for _ in range(300))
        path = tmp_path / f"{round_}.txt"
        path.write_text(text)
        for separator in (BLANK_LINE, "-+", "a(?:b -)?"):
            pieces = re.split(separator, text)
            expected = [piece.strip("\n") for piece in pieces if piece.strip()]
            assert read(path, separator=separator) == expected


def test_windows_line_ends_separate_documents_too(tmp_path):
    path = tmp_path / "data.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\r\nthree\r\n")
    assert read(path) == ["one\ntwo", "three"]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.zst", "parquet", "csv", "txt"])
def test_large_files_are_streamed(tmp_path, ending):
    texts = [f"{i} " + "lorem ipsum " * 2000 for i in range(1500)]
    path = tmp_path / f"large.{ending}"
    if ending == "txt":
        path.write_text("\n\n".join(texts))
    else:
        write(path, texts)
    total = sum(map(len, texts))
    read(write(tmp_path / "small.jsonl", ["a"]))  # what is imported is not counted
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_rows(path, Fields(), BLANK_LINE))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == len(texts)
    assert peak < total / 3


def test_other_columns_are_no_matter(tmp_path):
    kind = pyarrow.map_(pyarrow.string(), pyarrow.int64())
    text = pyarrow.array(["a", "b", "a"]).dictionary_encode()
    unknown = pyarrow.array([[("key", 1)]] * 3, type=kind)
    table = pyarrow.table({"text": text, "unknown": unknown})
    parquet.write_table(table, tmp_path / "data.parquet")
    assert read(tmp_path / "data.parquet") == ["a", "b", "a"]


def test_a_faulty_row_of_a_csv_is_named_by_its_line(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text('q,c,g\n"two\nlines",a;b,0\n\nthree,a;b,7\n')
    fields = Fields(prompt="q", choices="c", gold="g")
    _, (row, where) = read_rows(path, fields, BLANK_LINE)
    with pytest.raises(UsageError, match=r"data\.csv:5: field 'g' holds 7"):
        fields.document("1", row, where)


def test_frames_and_windows_of_any_size_are_unpacked(tmp_path):
    settings = zstandard.ZstdCompressionParameters.from_level(19, window_log=28)
    packer = zstandard.ZstdCompressor(compression_params=settings)
    texts = [f"{i} " + "lorem ipsum " * 2000 for i in range(200)]
    lines = [json.dumps({"text": text}).encode() + b"\n" for text in texts]
    path = tmp_path / "data.jsonl.zst"
    halves = b"".join(lines[:150]), b"".join(lines[150:])
    path.write_bytes(b"".join(map(packer.compress, halves)))
    assert read(path) == texts


def test_reading_writes_no_cache_and_calls_nobody(tmp_path):
    path = write(tmp_path / "data.jsonl", ["a"])
    program = (
        "import socket, sys\n"
        "from pathlib import Path\n"
        "from harness.data.fields import Fields\n"
        "from harness.data.files import read_rows\n"
        "def refuse(*args): raise SystemExit('called out')\n"
        "socket.getaddrinfo = socket.socket.connect = refuse\n"
        "rows = list(read_rows(Path(sys.argv[1]), Fields(), ''))\n"
        "print(len(rows), 'torch' in sys.modules)"
    )
    home = {"HF_HOME": str(tmp_path / "home"), "HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env={**os.environ, **home, "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1 False"
    assert not (tmp_path / "home").exists()
