"""Journals: what survives an interruption, and what its results are said to cost."""

import json
import resource

import numpy as np
import pytest

from harness.data import Example
from harness.records import Cost
from harness.running.journal import Journal, spent_so_far
from harness.running.scored import failed_row


def row(name):
    example = Example(name, name, np.array([1, 2]), np.array([3]))
    return failed_row(example, clean_loss=None, error="nothing came back")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def journal(path, unit="cell"):
    return Journal(path, unit, "cpu")


def attack(flops, **more):
    return {"attack": Cost(flops=flops, flops_whole=flops, **more)}


def test_rows_and_what_they_cost_survive_a_restart(path):
    first = journal(path)
    first.note(attack(1.5, sequences_forward=3, seconds=0.5), row("a"), 1.5)
    first.note(attack(2.0, sequences_forward=4, seconds=0.25), row("b"), 2.0)

    again = journal(path)

    assert list(again.rows) == ["a", "b"]
    total = Cost(sequences_forward=7, flops=3.5, flops_whole=3.5, seconds=0.75)
    assert again.ledger().kept == again.ledger().spent == {"attack": total}
    assert (first.restarts, again.restarts) == (0, 1)
    assert journal(path).restarts == 2


def test_work_that_was_done_again_is_spent_but_not_kept(path):
    first = journal(path)
    # A search on 32 examples at once, cut after the first of them.
    first.note(attack(32.0, sequences_forward=320, peak_memory_bytes=9), row("a"), 1.0)
    first.note(attack(3.0, sequences_forward=30))
    second = journal(path)
    for number in range(31):
        second.note(attack(1.0, sequences_forward=10), row(f"b{number}"), 1.0)

    ledger = journal(path).ledger()

    assert ledger.spent["attack"].flops == 66.0
    assert ledger.kept["attack"].flops_whole == pytest.approx(32.0)
    assert ledger.kept["attack"].sequences_forward == 320
    assert ledger.kept["attack"].peak_memory_bytes == 9


def test_a_search_that_examples_share_is_kept_once(path):
    journal(path).note(attack(100.0), row("a"), 0.0)  # all of it was for the trigger
    journal(path).note(attack(100.0), row("b"), 0.0)
    ledger = journal(path).ledger()
    assert ledger.spent["attack"].flops == 200.0
    assert ledger.kept["attack"].flops == 100.0


def test_each_row_keeps_what_its_scoring_cost(path):
    for name in "ab":
        journal(path).note({"rescore": Cost(flops=2.0), "load": Cost()}, row(name))
    ledger = journal(path).ledger()
    assert ledger.kept["rescore"].flops == ledger.spent["rescore"].flops == 4.0


def test_without_examples_the_last_attempt_is_kept(path):
    for flops in (1.0, 2.0):
        made = journal(path)
        made.note({"train": Cost(flops=flops)})
    assert made.ledger().kept["train"].flops == 2.0
    assert made.ledger().spent["train"].flops == 3.0
    assert spent_so_far(path, "cell").spent == made.ledger().spent


def test_a_stage_is_noted_though_it_fails(path):
    with pytest.raises(ZeroDivisionError), journal(path).stage("divide", "train"):
        _ = 1 / 0
    assert spent_so_far(path, "cell").spent["train"].seconds > 0


def test_asking_for_what_was_spent_changes_nothing(path):
    """Another process may be in the middle of a line."""
    journal(path).note(attack(1.0))
    with path.open("a") as file:
        file.write('{"attempt": 1, ')
    before = path.read_text()
    assert spent_so_far(path, "cell").spent["attack"].flops == 1.0
    assert path.read_text() == before


def test_mending_a_torn_file_never_leaves_less_of_it(path, monkeypatch):
    journal(path).note({}, row("a"))
    with path.open("a") as file:
        file.write('{"row": ')

    def killed(self, *given, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.fsync", killed)  # the machine goes away while it is written
        journal(path)
    assert list(journal(path).rows) == ["a"]


def test_rows_that_are_void_are_forgotten_but_not_what_they_cost(path):
    journal(path).note(attack(1.0), row("a"), 1.0)
    second = journal(path)
    second.note(attack(2.0), row("b"), 2.0)
    second.void()
    for made in (second, journal(path)):
        assert made.rows == {}
        assert made.ledger().spent["attack"].flops == 3.0


def test_a_torn_last_line_is_dropped_and_the_file_goes_on(path):
    journal(path).note({}, row("a"))
    with path.open("a") as file:
        file.write('{"row": {"example_id": "b"')  # the machine went away here

    again = journal(path)
    again.note({}, row("c"))

    assert list(again.rows) == ["a", "c"]
    assert list(journal(path).rows) == ["a", "c"]


@pytest.mark.parametrize(
    "text", ['{"row": {"exam', json.dumps({"row": {}, "ledger": {}}) + "\n"]
)
def test_a_file_that_cannot_be_read_starts_afresh(path, text):
    path.write_text(text)
    again = journal(path)
    assert again.rows == {}
    assert again.restarts == 0
    assert journal(path).restarts == 1


def written(path, *names, unit="cell"):
    """Return the lines of a journal with these rows: that it began, then theirs."""
    made = journal(path, unit)
    for name in names:
        made.note({}, row(name))
    lines = path.read_bytes().splitlines(keepends=True)
    path.unlink()
    return lines


def flipped(line):
    """Turn the lowest bit of a digit of the row: it is JSON as before."""
    place = line.index(b'"clean_prompt_ids": [1') + len(b'"clean_prompt_ids": [')
    return line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]


@pytest.mark.parametrize(
    ("harm", "left"),
    [
        (lambda b, other: [*b[:2], flipped(b[2]), *b[3:]], "a"),
        (lambda b, other: [*b[:2], b"\xff\xfe\x00\n", *b[2:]], "a"),
        (lambda b, other: [*b[:2], b[2][:-9] + b"\n", *b[3:]], "a"),
        (lambda b, other: [*b[:2], *b[3:]], "a"),  # a line is lost
        (lambda b, other: [b[0], b[2], b[1], b[3]], ""),  # two are exchanged
        (lambda b, other: [*b, b[3]], "abc"),  # one comes again
        (lambda b, other: [*b, other[1]], "abc"),  # one is another unit's
        (lambda b, other: other, ""),  # all are
        (lambda b, other: [*b, b'{"attempt": 1, "row": null}\n'], "abc"),
        (lambda b, other: [*b, bytes(4096)], "abc"),
        (lambda b, other: [*b, bytes(4096), b"\n"], "abc"),
        (lambda b, other: [bytes(len(b"".join(b)))], ""),
    ],
)
def test_a_file_ends_at_its_first_bad_line(path, harm, left):
    lines = written(path, *"abc")
    other = written(path, *"def", unit="another cell")
    path.write_bytes(b"".join(harm(lines, other)))

    again = journal(path)
    assert "".join(again.rows) == left
    again.note({}, row("z"))
    assert "".join(journal(path).rows) == left + "z"


def test_a_journal_that_is_a_link_is_replaced_and_its_target_left_alone(path):
    target = path.with_name("elsewhere")
    target.write_bytes(b"".join(written(path, "a")))
    before = target.read_bytes()
    path.symlink_to(target)
    assert journal(path).rows == {}
    assert target.read_bytes() == before
    assert not path.is_symlink()


def test_lines_are_on_disk_soon_but_not_each_alone(path, monkeypatch):
    flushed, now = [], [100.0]
    monkeypatch.setattr("harness.running.journal.time.monotonic", lambda: now[0])
    monkeypatch.setattr(
        "harness.running.journal.os.fsync",
        lambda file: flushed.append(path.read_bytes().count(b"\n")),
    )
    made = journal(path)
    for name in "abcde":
        now[0] += 0.1
        made.note({}, row(name))
    assert flushed == [1, 4]  # 0.3 s after the first: 0.1 and 0.2 are too soon


def test_a_line_that_a_full_disk_cuts_off_leaves_nothing(path):
    """What follows it, once there is room again, is not lost with it."""
    made = journal(path)
    made.note({}, row("a"))
    before = path.read_bytes()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            made.note({}, row("b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert path.read_bytes() == before
    made.note({}, row("c"))
    assert list(journal(path).rows) == ["a", "c"]
