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
    sha256_file,
    sha256_once,
    write_json,
)
from harness.base.manifest import read_manifest
from harness.base.store import DamagedEntry

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


def test_a_store_with_the_lock_files_of_another_version_is_used(tmp_path):
    lock = tmp_path / ".locks" / "things" / "key"
    lock.parent.mkdir(parents=True)
    lock.touch()
    folder = Store(tmp_path).folder("things", "key", write_text("new"))
    assert (folder / "file.txt").read_text() == "new"


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
    assert names_below(folder) == {"file.txt", "manifest.json"}
    assert "half.txt" not in names_below(tmp_path)


def test_what_a_killed_builder_left_is_removed_by_the_next_of_any_key(tmp_path):
    program = """
import os, sys
from pathlib import Path
from harness.base import Store

Store(Path(sys.argv[1])).folder("kind", "other", lambda folder: os.abort())
"""
    died = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert died.returncode == -signal.SIGABRT
    claims = tmp_path / ".claims" / "kind"
    assert [path.name for path in claims.iterdir()] == ["other"]
    Store(tmp_path).folder("kind", "key", write_text("whole"))
    assert [*claims.iterdir()] == []


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
    monkeypatch.setattr("harness.base.leases._PATIENCE_S", 0.05)
    store, held, release = Store(tmp_path), threading.Event(), threading.Event()

    def hold() -> None:
        with store.lock("kind", "key"):
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    saying = Saying(release)
    logging.getLogger("harness.base.leases").addHandler(saying)
    try:
        with store.lock("kind", "key"):  # which is released when it is said
            pass
    finally:
        logging.getLogger("harness.base.leases").removeHandler(saying)
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


# --- damage -------------------------------------------------------------------------


def build_model(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "weights").write_bytes(bytes(range(256)) * 40)
    write_json(folder / "made.json", {"parameters": 10})


def flip_a_bit(entry: Path) -> None:
    weights = entry / "model" / "weights"
    content = bytearray(weights.read_bytes())
    content[5000] ^= 1
    weights.write_bytes(content)


def swap(entry: Path) -> None:
    (entry / "model" / "weights").unlink()
    (entry / "model" / "weights").mkdir()


HARMS = {
    "flipped": (flip_a_bit, "the contents of model/weights are not what was written"),
    "half": (
        lambda entry: os.truncate(entry / "model" / "weights", 5120),
        "model/weights has 5,120 bytes instead of 10,240",
    ),
    "missing": (
        lambda entry: (entry / "model" / "weights").unlink(),
        "model/weights is missing",
    ),
    "a folder": (swap, "model/weights is missing"),
    "added": (
        lambda entry: (entry / "model" / "adapter.json").write_text("{}"),
        "model/adapter.json is not a part of it",
    ),
    "broken": (
        lambda entry: (entry / "made.json").write_text('{"parameters": 1'),
        "made.json has ",
    ),
    "no manifest": (
        lambda entry: (entry / "manifest.json").unlink(),
        "it has no manifest: an older version made it, or a copy of it broke off",
    ),
    "broken manifest": (
        lambda entry: (entry / "manifest.json").write_text('{"files": {"made'),
        "manifest.json cannot be read",
    ),
    "strange manifest": (
        lambda entry: (entry / "manifest.json").write_text('[{"files": 3}]'),
        "manifest.json cannot be read",
    ),
    "manifest with strange sizes": (
        lambda entry: write_json(entry / "manifest.json", {"files": {"made.json": 1}}),
        "manifest.json cannot be read",
    ),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_folder_is_moved_aside_and_built_again(tmp_path, harm):
    do, said = HARMS[harm]
    entry = Store(tmp_path).folder("subjects", "key", build_model)
    whole = {p.name: p.read_bytes() for p in entry.rglob("*") if p.is_file()}
    do(entry)
    aside = tmp_path / ".damaged" / "subjects" / "key"
    with pytest.warns(DamagedEntry) as warned:
        again = Store(tmp_path).folder("subjects", "key", build_model)
    (message,) = (str(each.message) for each in warned)
    assert message.startswith(f"{entry} is damaged: {said}")
    assert message.endswith(
        f"; it was moved to {aside}, and is made again where it is needed"
    )
    assert {p.name: p.read_bytes() for p in again.rglob("*") if p.is_file()} == whole
    assert aside.is_dir()
    assert Store(tmp_path).find("subjects", "key") == again  # without another word


def test_what_cannot_be_built_here_is_absent_when_it_is_damaged(tmp_path):
    entry = Store(tmp_path).folder("kind", "key", write_text("fetched"))
    (entry / "file.txt").write_text("fetchee")
    assert Store(tmp_path).has("kind", "key")
    with pytest.warns(DamagedEntry, match="contents of file.txt"):
        assert Store(tmp_path).find("kind", "key") is None
    assert not Store(tmp_path).has("kind", "key")


def test_hidden_files_are_nobodys_matter(tmp_path):
    entry = Store(tmp_path).folder("kind", "key", write_text("whole"))
    (entry / ".DS_Store").write_text("left by a desktop")
    assert Store(tmp_path).find("kind", "key") == entry


def test_files_are_hashed_once_a_process_unless_they_change(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.base.manifest._RACY_NS", -(10**18))  # time stands
    hashed = []

    def counted(path):
        hashed.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr("harness.base.manifest.sha256_file", counted)
    entry = Store(tmp_path).folder("kind", "key", build_model)
    assert sorted(hashed) == ["made.json", "weights"]
    for _ in range(3):
        assert Store(tmp_path).find("kind", "key") == entry
    assert Store(tmp_path).has("kind", "key")
    assert len(hashed) == 2
    flip_a_bit(entry)
    with pytest.warns(DamagedEntry):
        assert Store(tmp_path).find("kind", "key") is None


def test_a_manifest_has_sizes_and_hashes(tmp_path):
    entry = Store(tmp_path).folder("kind", "key", build_model)
    weights = (entry / "model" / "weights").read_bytes()
    assert read_manifest(entry)["model/weights"] == {
        "bytes": 10_240,
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    assert read_manifest(entry).keys() == {"model/weights", "made.json"}


def test_a_file_is_hashed_once_until_it_is_changed(tmp_path, monkeypatch):
    read = []

    def reading(path):
        read.append(path)
        return sha256_file(path)

    monkeypatch.setattr("harness.base.manifest.sha256_file", reading)
    monkeypatch.setattr("harness.base.manifest._RACY_NS", 0)
    file = tmp_path / "weights"
    for content in (b"first", b"of another size"):
        file.write_bytes(content)
        expected = hashlib.sha256(content).hexdigest()
        assert [sha256_once(file), sha256_once(file)] == [expected] * 2
    moved = file.rename(tmp_path / "moved")
    assert sha256_once(moved) == expected
    assert len(read) <= 3  # a move may count as a change
