"""Processes find each other, end together, and say what went wrong."""

import multiprocessing
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import start_processes

from harness.base import CellError
from harness.models import processes
from harness.models.devices import accelerator_for
from harness.models.processes import in_processes

pytestmark = pytest.mark.slow


def until(true):
    """Wait until something is true, a minute at most."""
    end = time.monotonic() + 60
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    assert true()


def is_first():
    """Say whether this is the first of several processes."""
    return os.environ["RANK"] == "0"


def started(run, folder, should_stop=bool):
    """Do something in two processes; return what the first of them returns."""
    return in_processes(
        run,
        folder,
        2,
        device="cpu",
        file=folder / "job.pt",
        hear=lambda about, thing: None,
        should_stop=should_stop,
    )


def place(folder, say, should_stop):
    """Return what a process knows of the others."""
    with socket.socket() as other:  # before any of them could have taken the port
        taken = other.connect_ex(("127.0.0.1", int(os.environ["MASTER_PORT"]))) == 0
    accelerator_for(torch.device("cpu"), bf16=False)
    group = distributed.group.WORLD
    options = group._get_backend(torch.device("cpu")).options
    return group.size(), taken, options._timeout.total_seconds()


def one_knows_why(folder, say, should_stop):
    """Die, but say why in the second process alone."""
    if is_first():
        os._exit(3)
    raise CellError("why")


def keep_busy(folder, say, should_stop):
    """Leave behind a thread that works on, as torch's compiler does."""
    ThreadPoolExecutor(1).submit(time.sleep, 600)


def wait(folder, say, should_stop):
    """Leave one's number, and wait for what does not come."""
    (folder / f"{os.environ['RANK']}.tmp").write_text(str(os.getpid()))
    (folder / f"{os.environ['RANK']}.tmp").rename(folder / os.environ["RANK"])
    time.sleep(600)


def lives(number):
    """Say whether a process runs still."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_processes_find_each_other_whatever_a_cluster_says(tmp_path, monkeypatch):
    for name in ("NODE_RANK", "NPROC"):
        monkeypatch.setenv(name, "3")
    size, taken, patience_s = started(place, tmp_path)
    assert (size, taken) == (2, True)
    assert patience_s > 3600  # the first may have to write a large checkpoint


def test_what_one_process_says_comes_before_the_death_of_another(tmp_path):
    def all_ended():
        until(lambda: not multiprocessing.active_children())

    with pytest.raises(CellError, match=r"^why$"):
        started(one_knows_why, tmp_path, all_ended)


def test_a_process_that_said_all_waits_for_no_thread(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(
        processes,
        "start_processes",
        lambda *a, **k: begun.append(start_processes(*a, **k)) or begun[0],
    )
    started(keep_busy, tmp_path)
    assert [process.exitcode for process in begun[0].processes] == [0, 0]


def test_nothing_is_left_of_processes_that_cannot_be_started(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("too many processes")

    monkeypatch.setattr(processes, "start_processes", refuse)
    with pytest.raises(OSError, match="too many"):
        started(wait, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_processes_do_not_outlive_the_one_that_started_them(tmp_path):
    parent = multiprocessing.get_context("spawn").Process(
        target=started, args=(wait, tmp_path)
    )
    parent.start()
    until(lambda: all((tmp_path / name).exists() for name in "01"))
    numbers = [int((tmp_path / name).read_text()) for name in "01"]
    assert all(map(lives, numbers))
    parent.kill()
    parent.join()
    until(lambda: not any(map(lives, numbers)))
