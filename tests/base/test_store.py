"""The store: whole or absent, built once, whatever the names and the crashes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.base import (
    Store,
    default_store_root,
    fingerprint_files,
    flushed_meanwhile,
    sha256_file,
    write_atomic,
    write_json,
)

NASTY = ["with space", "qu'ote\"s", "new\nline", "unié☃", "-rf", "a%20b", "$HOME", "*"]


def names_below(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*") if p.is_file()}


def write_text(text: str):
    return lambda folder: (folder / "file.txt").write_text(text)


def test_folder_is_built_once_and_found(tmp_path):
    store = Store(tmp_path)
    assert store.find("kind", "key") is None
    built = store.folder("kind", "key", write_text("first"))
    again = store.folder("kind", "key", write_text("second"))
    assert built == again == store.find("kind", "key") == tmp_path / "kind" / "key"
    assert (built / "file.txt").read_text() == "first"


def test_failed_build_leaves_nothing_and_can_be_repeated(tmp_path):
    store = Store(tmp_path)

    def fail(folder: Path) -> None:
        write_text("half")(folder)
        raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        store.folder("kind", "key", fail)
    assert store.find("kind", "key") is None
    assert "file.txt" not in names_below(tmp_path)
    assert store.folder("kind", "key", write_text("whole")).is_dir()


def test_kill_in_the_middle_of_a_build_leaves_nothing_half_done(tmp_path, caplog):
    program = """
import sys, time
from pathlib import Path
from harness.base import Store

def build(folder):
    (folder / "half.txt").write_text("half")
    print("building", flush=True)
    time.sleep(600)

Store(Path(sys.argv[1])).folder("kind", "key", build)
"""
    builder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "building\n"
        builder.send_signal(signal.SIGKILL)
    store = Store(tmp_path)
    assert store.find("kind", "key") is None
    folder = store.folder("kind", "key", write_text("whole"))
    assert "busy" not in caplog.text, "the dead builder still holds the lock"
    assert names_below(folder) == {"file.txt"}
    assert "half.txt" not in names_below(tmp_path)


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


def test_of_concurrent_processes_one_builds_and_all_see_it(tmp_path):
    program = """
import os, sys, time
from pathlib import Path
from harness.base import Store

root = Path(sys.argv[1])

def build(folder):
    with (root / "builders.txt").open("a") as log:
        log.write(f"{os.getpid()}\\n")
    time.sleep(0.3)
    (folder / "file.txt").write_text("whole")

print((Store(root).folder("kind", "key", build) / "file.txt").read_text())
"""
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    answers = [builder.communicate(timeout=60)[0] for builder in builders]
    assert answers == ["whole\n"] * 4
    assert len((tmp_path / "builders.txt").read_text().splitlines()) == 1


def test_of_concurrent_threads_one_builds(tmp_path):
    store, builds = Store(tmp_path), []

    def build(folder: Path) -> None:
        builds.append(folder)
        time.sleep(0.1)

    threads = [
        threading.Thread(target=store.folder, args=("kind", "key", build))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1


class Saying(logging.Handler):
    """Sets an event when something is logged."""

    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self.event = event

    def emit(self, record: logging.LogRecord) -> None:
        self.event.set()


def test_waiting_for_a_lock_is_not_silent(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("harness.base.store._PATIENCE_S", 0.05)
    store, held, release = Store(tmp_path), threading.Event(), threading.Event()

    def hold() -> None:
        with store.lock("kind", "key"):
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    saying = Saying(release)
    logging.getLogger(Store.__module__).addHandler(saying)
    try:
        with store.lock("kind", "key"):  # which is released when it is said
            pass
    finally:
        logging.getLogger(Store.__module__).removeHandler(saying)
    thread.join()
    assert "busy with kind key" in caplog.text


@pytest.mark.parametrize("name", NASTY)
def test_roots_and_files_may_have_any_name(tmp_path, name):
    root = tmp_path / name / "store"
    folder = Store(root).folder(
        "kind", "key", lambda folder: write_json(folder / f"{name}.json", {name: 1})
    )
    assert json.loads((folder / f"{name}.json").read_text()) == {name: 1}
    assert fingerprint_files([folder / f"{name}.json"], root / name).startswith("sha")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "/abs", ".hidden", "nul\0", "x" * 201]
)
def test_kinds_and_keys_cannot_leave_the_store(tmp_path, name):
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="no name for a folder"):
        store.find("kind", name)
    with pytest.raises(ValueError, match="no name for a folder"):
        store.work(name, "key")


def test_work_outlives_its_maker_and_is_discarded(tmp_path):
    scratch = Store(tmp_path).work("subjects", "key")
    (scratch / "checkpoint").write_text("1")
    assert (Store(tmp_path).work("subjects", "key") / "checkpoint").exists()
    assert Store(tmp_path).find("subjects", "key") is None
    Store(tmp_path).discard_work("subjects", "key")
    Store(tmp_path).discard_work("subjects", "key")
    assert not scratch.exists()


def test_store_root_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("HARNESS_STORE", raising=False)
    assert default_store_root(tmp_path / "runs" / "x") == tmp_path / "runs" / ".store"
    monkeypatch.setenv("HARNESS_STORE", str(tmp_path / "elsewhere"))
    assert default_store_root(tmp_path / "runs" / "x") == tmp_path / "elsewhere"


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


def test_hashes_are_those_of_sha256sum(tmp_path):
    for name, content in (("b.txt", b"two"), ("a.txt", b"one"), ("sub/c", b"")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    files, cache = [p for p in tmp_path.rglob("*") if p.is_file()], tmp_path / "cache"
    printed = subprocess.run(
        ["sha256sum", "a.txt", "b.txt", "sub/c"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    ).stdout
    assert sha256_file(tmp_path / "a.txt") == printed.split()[0].decode()
    assert fingerprint_files(files[:1], cache) == f"sha256:{sha256_file(files[0])}"
    expected = hashlib.sha256(printed).hexdigest()
    assert fingerprint_files(files, cache) == f"sha256:{expected}"


def test_fingerprint_reads_a_file_again_only_when_it_changed(tmp_path):
    file, cache = tmp_path / "file", tmp_path / "cache.json"
    file.write_text("one")
    os.utime(file, ns=(10**18, 10**18))
    first = fingerprint_files([file], cache)
    state = json.loads(cache.read_text())
    state[str(file)][2] = "remembered"
    cache.write_text(json.dumps(state))
    assert fingerprint_files([file], cache) == "sha256:remembered"
    os.utime(file, ns=(10**18, 10**18 + 1))
    assert fingerprint_files([file], cache) == first


def test_fingerprint_does_not_trust_a_file_that_changed_just_now(tmp_path):
    file, cache = tmp_path / "file", tmp_path / "cache.json"
    file.write_text("one")
    stamp = file.stat().st_mtime_ns
    first = fingerprint_files([file], cache)
    file.write_text("two")
    os.utime(file, ns=(stamp, stamp))
    assert fingerprint_files([file], cache) != first


def test_fingerprint_survives_a_broken_cache(tmp_path):
    file, cache = tmp_path / "file", tmp_path / "cache.json"
    file.write_text("one")
    os.utime(file, ns=(10**18, 10**18))
    cache.write_text('{"torn')
    expected = hashlib.sha256(b"one").hexdigest()
    assert fingerprint_files([file], cache) == f"sha256:{expected}"


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
