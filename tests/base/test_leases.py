"""Names that one process holds, whatever becomes of it."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager

import pytest

from harness.base import LeaseLost, leases, time_limit, write_atomic
from harness.base.leases import Lease, hold, sweep, take


@contextmanager
def another(place, then):
    """Start a process that takes a name, says so, and does what is given."""
    program = f"""
import os, signal, sys
from pathlib import Path
from harness.base import LeaseLost
from harness.base.leases import take

lease = take(Path({str(place)!r}))
(lease.folder / "made").write_text("by another")
print(os.getpid(), flush=True)
{then}
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def taken(place):
    """Look at a name until it can be taken."""
    while (lease := take(place)) is None:
        pass
    return lease


def test_a_name_is_of_one_until_it_is_given_back(tmp_path):
    place = tmp_path / "deep" / "name"
    lease = take(place)
    assert lease.held()
    assert lease.after is None
    assert take(place) is None
    lease.confirm()
    assert take(place) is None
    lease.release()
    assert not lease.held()
    with hold(place, "a test") as again:
        assert again.after is None
    assert [*place.parent.iterdir()] == []


def test_what_was_made_is_put_where_it_belongs(tmp_path):
    lease = take(tmp_path / "name")
    for text in ("first", "second"):
        (lease.folder / "made").write_text(text)
        lease.put("made", tmp_path / "place")
        assert (tmp_path / "place").read_text() == text
    with pytest.raises(FileNotFoundError):
        lease.put("nothing", tmp_path / "place")
    lease.release()


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_the_dead_of_this_machine_are_known_at_once(tmp_path, monkeypatch, end):
    monkeypatch.setattr(leases, "LEASE_S", 1e9)
    place = tmp_path / "name"
    with another(place, end) as process:
        process.wait()
        lease = take(place)
        assert str(lease.after).startswith(f"process {process.pid} on ")
    assert [path.name for path in lease.folder.iterdir()] == [f"beat.{lease.owner}"]
    lease.release()


def test_who_lost_a_name_cannot_make_its_folder_again(tmp_path, monkeypatch):
    place = tmp_path / "name"
    first = take(place)
    monkeypatch.setattr(leases, "_is_dead", lambda *_: True)
    second = take(place)
    monkeypatch.undo()
    for act in (first.check, first.confirm, lambda: first.put("made", tmp_path / "x")):
        write_atomic(first.folder / "made", "late")
        with pytest.raises(LeaseLost):
            act()
        assert second.held()
        assert take(place) is None
    second.confirm()
    first.release()
    assert take(place) is None
    second.release()
    assert not place.exists()
    assert not (tmp_path / "x").exists()


def test_a_number_that_went_to_another_process_is_no_owner(tmp_path, monkeypatch):
    """Process numbers are given again, as after a start of the machine's container."""
    place = tmp_path / "name"
    owner = take(place)
    assert take(place) is None
    monkeypatch.setattr(leases, "_birth", lambda pid: "another time")
    assert take(place).after is not None
    with pytest.raises(LeaseLost, match="another process took name over"):
        owner.confirm()


def test_who_was_suspended_too_long_notices_before_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_S", 0.3)
    place, target = tmp_path / "name", tmp_path / "record"
    then = f"""
sys.stdin.readline()
try:
    lease.put("made", Path({str(target)!r}))
except LeaseLost as lost:
    print(lost, lease.held(), flush=True)
lease.release()
"""
    with another(place, then) as process:
        process.send_signal(signal.SIGSTOP)
        lease = taken(place)
        process.send_signal(signal.SIGCONT)
        said = process.communicate("go on\n")[0]
        assert said == "another process took name over False\n"
        assert not target.exists()
        assert lease.held()
    lease.release()


@pytest.mark.parametrize(
    ("sign", "dead"),
    [
        ("none", True),
        ("a beat", False),
        ("a confirmed name", False),
        ("no file of its own yet", True),
    ],
)
def test_others_machines_are_judged_by_what_is_seen_of_them(
    tmp_path, monkeypatch, sign, dead
):
    """By the watcher's clock alone; theirs may say anything."""
    clock = [0.0]
    monkeypatch.setattr(leases, "LEASE_S", 60.0)
    monkeypatch.setattr(leases.time, "monotonic", lambda: clock[0])
    place = tmp_path / "name"
    beat = place / "owner.0" / "beat.owner"
    beat.parent.mkdir(parents=True)
    beat.write_text("1 elsewhere 1 7 - far\n")
    if sign == "no file of its own yet":
        beat.unlink()
    assert take(place) is None
    clock[0] = 59.0
    assert take(place) is None
    if sign == "a beat":
        beat.write_text("2 elsewhere 1 7 - far\n")
    if sign == "a confirmed name":
        beat.parent.rename(place / "owner.1")
    clock[0] = 61.0
    lease = take(place)
    assert (lease is not None) == dead
    if lease:
        lease.release()
    else:
        clock[0] = 122.0  # a whole lease after it was seen
        assert take(place) is not None


def test_of_two_that_take_over_one_does(tmp_path, monkeypatch):
    """Both have seen that the owner is dead before either acts."""
    place = tmp_path / "name"
    with another(place, "os._exit(0)") as process:
        process.wait()
    barrier, found = threading.Barrier(2), []
    look = leases._is_dead

    def together(*seen):
        dead = look(*seen)
        barrier.wait()
        return dead

    monkeypatch.setattr(leases, "_is_dead", together)
    threads = [
        threading.Thread(target=lambda: found.append(take(place))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [lease is None for lease in found].count(True) == 1


def test_an_answer_that_was_lost_does_not_lose_the_name(tmp_path, monkeypatch):
    """A server did what it was asked, and is asked again: the source is gone then."""
    rename = type(tmp_path).rename

    def twice(self, target):
        rename(self, target)
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", twice)
    lease = take(tmp_path / "name")
    lease.confirm()
    assert lease.held()
    lease.release()
    assert take(tmp_path / "name") is not None


def test_signs_of_life_come_without_being_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_S", 0.12)
    lease = Lease(tmp_path / "name")
    monkeypatch.setattr(leases, "_heart", leases._Heart())
    leases._created(lease)
    leases._heart.keep(lease)
    path = lease.beat
    first = path.read_text()
    with time_limit(60):
        while path.read_text() == first:
            pass
    assert path.read_text().split()[1:] == first.split()[1:]
    lease.release()


@pytest.mark.parametrize(
    "left",
    [
        "",
        "os.rename(lease.place, lease.place.with_name('.x.new'))",
        "os.rename(lease.folder, lease.place.with_name('.x.gone'))\n"
        "lease.place.rmdir()",
    ],
)
def test_what_the_dead_left_is_swept_and_nothing_of_the_living(tmp_path, left):
    """Whether they died while they held a name, took it, or gave it back."""
    own = take(tmp_path / "mine")
    alive = another(tmp_path / "theirs", "sys.stdin.readline()")
    with alive, another(tmp_path / "name", f"{left}\nos.kill(os.getpid(), 9)") as dead:
        dead.wait()
        assert len([*tmp_path.iterdir()]) == 3
        sweep(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"mine", "theirs"}
        assert take(tmp_path / "theirs") is None
    own.confirm()
    own.release()


@pytest.mark.parametrize(("hours", "left"), [(23, True), (25, False), (-99, True)])
def test_what_other_machines_left_is_swept_a_day_later(tmp_path, hours, left):
    beat = tmp_path / "name" / "owner.0" / "beat.owner"
    beat.parent.mkdir(parents=True)
    beat.write_text("1 elsewhere 1 7 - far\n")
    then = time.time() - 3600 * hours
    os.utime(beat, (then, then))
    sweep(tmp_path)
    assert (tmp_path / "name").exists() == left


MANY = """
import os, random, sys
from pathlib import Path
from harness.base.leases import _birth, hold

root, seed = Path(sys.argv[1]), int(sys.argv[2])
draw = random.Random(seed)
for turn in range(12):
    name = f"name{draw.randrange(2)}"
    with hold(root / "names" / name, name) as lease:
        inside = root / name
        if inside.exists():
            pid, born = inside.read_text().split()
            if _birth(int(pid)) == born:
                (root / "violations").open("a").write(f"{pid} {os.getpid()}\\n")
        new = root / f"{os.getpid()}.new"
        new.write_text(f"{os.getpid()} {_birth(os.getpid())}")
        new.replace(inside)
        if draw.random() < 0.3:
            lease.confirm()
        if seed % 2 and turn == seed:
            os.kill(os.getpid(), 9)
        count = root / f"{name}.count"
        text = count.read_text() if count.exists() else "0"
        (lease.folder / "count").write_text(str(int(text) + 1))
        lease.put("count", count)
        inside.unlink()
"""


def test_many_processes_that_die_never_hold_a_name_together(tmp_path):
    seeds = range(10)
    processes = [
        subprocess.Popen([sys.executable, "-c", MANY, str(tmp_path), str(seed)])
        for seed in seeds
    ]
    codes = [process.wait() for process in processes]
    assert codes == [-9 if seed % 2 else 0 for seed in seeds]
    assert not (tmp_path / "violations").exists()
    counts = [int(path.read_text()) for path in tmp_path.glob("name*.count")]
    # Each adds one a turn, up to the turn in which it dies.
    assert sum(counts) == sum(seed if seed % 2 else 12 for seed in seeds)


def test_a_forked_process_does_not_live_for_its_parent(tmp_path):
    lease = take(tmp_path / "name")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads
        pid = os.fork()
    if pid == 0:
        os._exit(len(leases._heart._leases))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    lease.release()


def test_sweeping_minds_no_name_that_comes_and_goes_meanwhile(tmp_path):
    over = threading.Event()

    def take_and_give_back() -> None:
        while not over.is_set():
            take(tmp_path / "name").release()

    other = threading.Thread(target=take_and_give_back)
    other.start()
    try:
        for _ in range(500):
            sweep(tmp_path)
    finally:
        over.set()
        other.join()
    assert [*tmp_path.iterdir()] == []
