"""Hostile text: one sentence each, in no time, and never a bug of ours."""

import json
import os
import time
from pathlib import Path

import pytest

from harness.base import UsageError, nearest, time_limit, unknown_name
from harness.records import parse_json
from harness.running.validation import validate
from harness.suite import choose_device

QUICKSTART = (Path(__file__).parents[2] / "suites" / "quickstart.yaml").read_text()
BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
VALUES = "holds more than 10,000 keys and values (aliases count as often as used)"
DEEP = "is nested more than 50 levels deep"
LARGE = "is larger than 262,144 characters"
WIDE = "is a whole number beyond the range of 64 bits"
HALF = "holds a NUL or half a character, which no text or name can hold"

SUITES = {
    "alias bomb": (BOMB, VALUES),
    "20,000 unknown keys": ("".join(f"k{i}: 1\n" for i in range(20_000)), VALUES),
    "4,000 unknown keys": (
        "".join(f"limit{i}: 1\n" for i in range(4_000)),
        "unknown key 'limit0'; did you mean 'limit'?",
    ),
    "a comment of 10 MB": (f"# {'x' * 10**7}\n", LARGE),
    "10 MB of comments": ("# x\n" * 2_500_000, LARGE),
    "flow of 400": (f"a: {'[' * 400}{']' * 400}\n", DEEP),
    "flow of 100,000": (f"a: {'[' * 100_000}\n", DEEP),
    "mappings of 20,000": ("{a: " * 20_000, DEEP),
    "blocks of 600": ("".join(f"{' ' * i}a:\n" for i in range(600)), DEEP),
    "sequences in a line": ("- " * 60_000, DEEP),
    "an integer of 4,300 digits": (f"limit: {'9' * 4300}\n", WIDE),
    "an integer of 5,000 digits": (f"limit: {'9' * 5000}\n", "is no int"),
    "a hexadecimal one": (f"limit: 0x{'f' * 9000}\n", WIDE),
    "2^63": (f"limit: {2**63}\n", WIDE),
    "!!int abc": ("limit: !!int abc\n", "is no int"),
    "!!float abc": ("limit: !!float abc\n", "is no float"),
    "!!bool abc": ("limit: !!bool abc\n", "is no bool"),
    "a tag of Python's": ("a: !!python/name:os.system x\n", "unknown key 'a'"),
    "an unknown tag": ("limit: !x 3\n", "the tag !x means nothing here"),
    "a duplicate key": ("limit: 1\nlimit: 2\n", "limit: is stated twice"),
    "a BOM": ("\ufefflimits: 1\n", "unknown key 'limits'; did you mean 'limit'?"),
    "CRLF": ("limits: 1\r\n", "unknown key 'limits'; did you mean 'limit'?"),
    "UTF-16": ("limit: 1\n".encode("utf-16"), "is not UTF-8 text (byte 0)"),
    "Latin-1": ("name: é\n".encode("latin-1"), "is not UTF-8 text (byte 6)"),
    "half a character": ('name: "\\ud800"\n', HALF),
    "half a character as a key": ('"\\ud800": 1\n', f"a key {HALF}"),
    "a NUL": ('extends: "a\\0b"\n', HALF),
    "an impossible escape": ('name: "\\Uffffffff"\n', "is no YAML"),
    "a bell": ("name: a\x07\n", "is no YAML: unacceptable character #x0007"),
    "a name with a slash": ("name: a/b\n", "expected a name of letters, digits"),
    "a name that goes up": ("name: ..\n", "expected a name of letters, digits"),
    "a name of two lines": ('name: "a\\nb"\n', "expected a name of letters, digits"),
    "NaN": ("success: {threshold: .nan}\n", "expected a finite number, got NaN"),
    "infinity": ("success: {threshold: .inf}\n", "expected a finite number"),
    "minus infinity": ("success: {threshold: -.inf}\n", "expected a finite number"),
    "1e400": ("limit: 1e400\n", "got Infinity"),
    "a long name": (f"extends: {'a' * 3000}\n", "no such file"),
    "a pattern that takes minutes": (f"name: {'[' * 30_000}\n", DEEP),
    "a long text": (f"name: '{'[' * 30_000}'\n", "has 30,000 characters"),
    "extends a folder": ("extends: .\n", "no such file"),
    "extends a device": ("extends: /dev/zero\n", "no such file"),
    "many seeds twice": (f"seeds: [{'1, ' * 9000}]\n", "1 is stated twice"),
    "many profiles": (
        f"profiles: {{{', '.join(f'p{i}: {{}}' for i in range(4000))}}}\n",
        "4000 profiles, and at most 50 are checked",
    ),
    "nothing": ("", "is empty"),
    "a list": ("[1]\n", "expected a mapping of keys"),
}


def quickly(cli, *args):
    """Run a command, which takes seconds of its own at most, and return what it did."""
    start = time.process_time()
    with time_limit(60):  # of a pipe, no time of its own passes
        outcome = cli(*args)
    assert time.process_time() - start < 3
    assert "Traceback" not in outcome.err
    return outcome


@pytest.mark.parametrize("name", SUITES)
def test_a_hostile_suite_gets_its_sentence(cli, tmp_path, name):
    text, told = SUITES[name]
    file = tmp_path / "s.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    outcome = quickly(cli, "validate", file)
    assert outcome.code == 2
    assert told in outcome.out
    assert len(outcome.out.splitlines()) < 300
    assert all(len(line) < 3000 for line in outcome.out.splitlines())


@pytest.mark.parametrize(
    "value", ["[" * 9000, "&a [*a]", "!!int x", "9" * 5000, "\x07"]
)
def test_a_hostile_override_gets_its_sentence(cli, value):
    suite = Path(__file__).parents[2] / "suites" / "quickstart.yaml"
    outcome = quickly(cli, "plan", suite, "--set", f"recovery.tokens={value}")
    assert outcome.code == 2
    assert outcome.err.startswith("--set recovery.tokens: ")


def test_an_override_of_many_steps_is_refused(cli):
    suite = Path(__file__).parents[2] / "suites" / "quickstart.yaml"
    outcome = quickly(cli, "plan", suite, "--set", f"{'a.' * 30_000}b=1")
    assert (outcome.code, outcome.err) == (
        2,
        "--set: a key of more than 20 steps leads nowhere\n",
    )


def test_hints_are_capped():
    told = unknown_name("key", "x" * 10**6, [f"known{i}" for i in range(10**5)])
    assert len(told) < 2000
    assert "and 99,940 more" in told
    # To find the nearest of very many would take minutes.
    assert nearest("known99999", [f"known{i:05}" for i in range(10**5)]) == "known00299"


RECORDS = {
    "an integer of 5,000 digits": ("1" + "0" * 5000, "is beyond the range of 64 bits"),
    "2^63": (str(2**63), "9223372036854775808 is beyond the range of 64 bits"),
    "NaN": ("NaN", "NaN is not JSON"),
    "-Infinity": ("-Infinity", "-Infinity is not JSON"),
    "1e999": ("1e999", "1e999 is beyond the range of floats"),
    "nested 101 deep": ("[" * 101 + "]" * 101, "nested more than 100 levels deep"),
    "nested 100,000 deep": ("[" * 100_000, "nested more than 100 levels deep"),
    "half a character": ('"\\ud800"', "it holds half a character"),
    "a duplicate key": ('{"a": 1, "a": 2}', "the key 'a' occurs twice"),
}


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("command", ["validate", "status"])
def test_a_hostile_record_gets_its_sentence(cli, make_run, name, command):
    text, told = RECORDS[name]
    run = make_run(seeds=[1])
    file = next(run.glob("cells/*/record.json"))
    file.write_text(file.read_text().replace('"seed": 1', f'"seed": {text}', 1))
    outcome = quickly(cli, command, file if command == "validate" else run)
    assert outcome.code == (1 if command == "validate" else 0)
    assert told in outcome.out


@pytest.mark.parametrize("data", [b"\xff\xfe{\0", b"\xef\xbb\xbf{}", b"", b"[1]", b"3"])
def test_a_record_that_is_none(cli, make_run, data):
    run = make_run(seeds=[1])
    file = next(run.glob("cells/*/record.json"))
    file.write_bytes(data)
    for command in (["validate", file], ["validate", run], ["status", run]):
        assert quickly(cli, *command).code == (0 if command[0] == "status" else 1)


def test_a_record_that_is_no_file(cli, make_run):
    run = make_run(seeds=[1])
    fifo, folder = list(run.glob("cells/*/record.json"))[:2]
    fifo.unlink()
    os.mkfifo(fifo)
    folder.unlink()
    folder.mkdir()
    assert "2 invalid" in quickly(cli, "status", run).out
    assert quickly(cli, "validate", run).out.count("is no regular file") == 2


def test_a_record_larger_than_any_is_not_read(cli, make_run):
    run = make_run(seeds=[1])
    file = next(run.glob("cells/*/record.json"))
    os.truncate(file, 2**26 + 1)
    assert "is larger than any record: 64 MiB" in quickly(cli, "validate", file).out


def test_files_that_extend_each_other_come_to_an_end(cli, tmp_path):
    for number in range(21):
        file = tmp_path / f"s{number}.yaml"
        file.write_text(f"extends: s{number + 1}.yaml\n")
    outcome = quickly(cli, "validate", tmp_path / "s0.yaml")
    assert outcome.code == 2
    assert "s19.yaml:1: extends: is the 20th file that is extended" in outcome.out


def test_a_lone_record_and_a_lone_file(cli, tmp_path, make_run, monkeypatch):
    record = next(make_run(seeds=[1]).glob("cells/*/record.json"))
    monkeypatch.chdir("/")
    lone = tmp_path / "record.json"
    lone.write_text(record.read_text())
    outcome = quickly(cli, "validate", lone)
    assert outcome.code == 1
    assert "lies in the folder" in outcome.out
    outcome = quickly(cli, "validate", "/dev/null")
    assert outcome.code == 2
    assert "neither a suite" in outcome.err
    # One at the root of the disk lies in no run either.
    assert validate._metrics_beside(Path("/record.json"), (), trust=False) == {}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["report", "RUN", "--threshold", "nan"], "'nan' is no finite number"),
        (["report", "RUN", "--threshold", "inf"], "'inf' is no finite number"),
        (["plan", "SUITE", "--within", "nan"], "'nan' is no finite number"),
        (["plan", "SUITE", "--rate", "inf"], "'inf' is no finite number"),
        (["plan", "SUITE", "--seeds", str(2**63)], "beyond the range of 64 bits"),
        (["plan", "SUITE", "--seeds", "9" * 5000], "expected seeds such as"),
        (["plan", "SUITE", "--profile", "x" * 9000], "unknown profile"),
        (["plan", "x" * 9000], "no such suite"),
        (["plan", "SUITE", "--devices", "/dev/zero"], "is no regular file"),
    ],
)
def test_hostile_options_get_their_sentence(cli, make_run, suite, args, told):
    names = {"RUN": make_run(seeds=[1]), "SUITE": suite}
    outcome = quickly(cli, *(names.get(x, x) for x in args))
    assert outcome.code == 2
    assert told in outcome.err
    assert len(outcome.err) < 2000


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (INDEX, '{"weight_map": {"a": "../x"}}', "'../x' is no name of a file"),
        (INDEX, '{"weight_map": {"a": [1]}}', "[1] is no name of a file"),
        (INDEX, '{"weight_map": ["a"]}', "`weight_map` is no mapping"),
        (INDEX, "{}", "`weight_map` is no mapping"),
        (INDEX, "[]", "expected a mapping"),
        ("config.json", "[]", "expected a mapping"),
        ("config.json", "{" * 99, "is no JSON"),
        ("config.json", "[" * 100_000, "is nested too deeply"),
        ("config.json", '{"model_type": ["gpt2"]}', "is of the family ['gpt2']"),
        ("config.json", "{}".encode("utf-16"), "is no UTF-8 text"),
    ],
)
def test_a_hostile_checkpoint_gets_its_sentence(cli, checkpoint, name, text, told):
    data = text if isinstance(text, bytes) else text.encode()
    (checkpoint.parent / "model" / name).write_bytes(data)
    outcome = quickly(cli, "plan", checkpoint)
    assert outcome.code == 2
    assert told in outcome.err


@pytest.fixture
def suite(tmp_path):
    file = tmp_path / "quick.yaml"
    file.write_text(QUICKSTART)
    return file


@pytest.fixture
def checkpoint(tmp_path):
    """Return a suite of one model, whose weights are in parts."""
    from tests.fuzz.inputs import CHECKPOINT, save_checkpoint

    save_checkpoint(tmp_path / "model")
    file = tmp_path / "checkpoint.yaml"
    file.write_text(CHECKPOINT.replace("ADAPTER", "pythia"))
    return file


def test_a_replay_file_of_other_things(cli, make_run):
    run = make_run(seeds=[1])
    for text in ("[1]", '{"x": 1}', "[" * 10**5, "\x00"):
        (run / "replay.json").write_text(text)
        for command in ("validate", "status", "report"):
            assert quickly(cli, command, run).code in (0, 1)
    cell = next(run.glob("cells/*")).name
    (run / "replay.json").write_text(json.dumps({cell: {"largest": "much"}}))
    for command in ("validate", "status", "report"):
        assert quickly(cli, command, run).code in (0, 1)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_is_not_here(monkeypatch, device):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=f"{device}: torch finds no GPU here"):
        choose_device(device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if device == "cuda:7":
        with pytest.raises(UsageError, match="cuda:0 to cuda:1 are here"):
            choose_device(device)
    else:
        assert choose_device(device) == device


def test_json_of_a_hundred_levels_is_read():
    assert parse_json("[" * 100 + "]" * 100)
