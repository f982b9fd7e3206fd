"""Files that are written whole or not at all, and what their dead writers left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.base import flushed_meanwhile, write_atomic, write_json


def test_kill_while_writing_a_file_leaves_the_old_contents(tmp_path):
    program = """
import os, sys
from pathlib import Path
from harness.base import write_atomic

os.fsync = lambda descriptor: os.kill(os.getpid(), 9)
write_atomic(Path(sys.argv[1]), "new")
"""
    path = tmp_path / "file.json"
    write_atomic(path, "old")
    killed = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    (left,) = tmp_path.glob(".*.tmp")

    write_atomic(tmp_path / "another.json", "")  # the next writer, of any file
    assert not left.exists()


def test_write_atomic_replaces_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "new" / "file.bin"
    write_atomic(path, b"\x00old")
    write_atomic(path, "né")
    assert path.read_bytes() == "né".encode()
    assert list(path.parent.iterdir()) == [path]


def test_write_atomic_takes_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    write_atomic(tmp_path / "atomic", "")
    plain, atomic = ((tmp_path / n).stat().st_mode for n in ("plain", "atomic"))
    assert plain == atomic


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_write_json_refuses_what_is_not_json(tmp_path, number):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": [number]})
    assert list(tmp_path.iterdir()) == []


def test_write_json_keeps_order_and_lone_surrogates(tmp_path):
    write_json(tmp_path / "x.json", {"b": 1, "a": "\udc80"})
    text = (tmp_path / "x.json").read_text()
    assert text.endswith("}\n")
    assert list(json.loads(text).items()) == [("b", 1), ("a", "\udc80")]


@pytest.mark.parametrize("minutes", [-600, 0, 50])
def test_files_that_others_write_are_left_alone(tmp_path, minutes):
    """Those of a living process here, and of any machine unless they are old."""
    writing = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (tmp_path / "file.json").touch()
    write_atomic(tmp_path / "file.json", "")
    machine = writing_machine()
    names = [
        f".{machine}-{writing.pid}-{'0' * 16}.tmp",
        f".{'f' * 12}-7-{'0' * 16}.tmp",
    ]
    with writing:
        for name in names:
            (tmp_path / name).write_text("half")
            then = time.time() - 60 * minutes  # the clock may go back, too
            os.utime(tmp_path / name, (then, then))
        write_atomic(tmp_path / "file.json", "")
        assert {path.name for path in tmp_path.glob(".*.tmp")} == {*names}
        writing.communicate(b"\n")
    write_atomic(tmp_path / "file.json", "")
    assert {path.name for path in tmp_path.glob(".*.tmp")} == {names[1]}


def test_what_another_machine_left_long_ago_is_removed(tmp_path):
    for name in (f".{'f' * 12}-7-{'0' * 16}.tmp", f".{'0' * 16}.tmp"):
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (10**9, 10**9))
    write_json(tmp_path / "file.json", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def writing_machine() -> str:
    """Return what temporary files say of the machine, as another process does."""
    code = "import harness.base.writing as w; print(w._machine())"
    return subprocess.check_output([sys.executable, "-c", code], text=True).strip()


def test_a_folder_is_on_disk_when_the_block_has_ended(tmp_path, monkeypatch):
    flushed, fsync = set(), os.fsync

    def watched(descriptor):
        fsync(descriptor)
        flushed.add(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", watched)
    (tmp_path / "part").mkdir()
    files = [tmp_path / "one", tmp_path / "part" / "two"]
    for file in files:
        file.write_text("some")
    with flushed_meanwhile(tmp_path):
        pass
    assert flushed >= set(files)


def test_what_cannot_be_flushed_is_an_error(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "one").write_text("some")
    with pytest.raises(OSError, match="no space left"), flushed_meanwhile(tmp_path):
        pass
