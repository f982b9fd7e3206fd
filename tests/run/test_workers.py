"""Workers side by side: what they say, how they end, and that results are the same."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.base import HarnessError, Stopped, leases, stop_on_signals
from harness.records import Cost
from harness.running import freeze, prepare, workers
from harness.running.workers import environments, make_models, run_side_by_side
from harness.suite import load_experiment
from tests.run.same import differences


@pytest.fixture
def side_by_side(monkeypatch, tmp_path):
    """Return a function that runs Python programs as workers; it returns their lines.

    Each program is told its number. `heard` is called with every line.
    """

    def run(program, count=2, heard=lambda line: None, fail_fast=False):
        monkeypatch.setattr(workers._Team, "_command", None, raising=False)
        made = workers._Team.__init__

        def init(team, *told):
            made(team, *told)
            team._command = [sys.executable, "-c", program]

        monkeypatch.setattr(workers._Team, "__init__", init)
        lines = []

        def say(line):
            lines.append(line)
            heard(line)

        frozen = SimpleNamespace(suite=tmp_path / "frozen.yaml", units=["a", "b", "c"])
        shares = [{"NUMBER": str(number)} for number in range(count)]
        try:
            run_side_by_side(frozen, shares, fail_fast=fail_fast, say=say)
        except (Exception, KeyboardInterrupt, Stopped) as error:  # noqa: BLE001
            return lines, error
        return lines, None

    return run


def test_lines_are_merged_and_say_of_which_unit_they_are(side_by_side):
    program = """
import sys
print("loading", file=sys.stderr)
print("[1/3] a", flush=True)
print("  dL 0.3 nats/token (2 s)")
print("a: 3/5 examples")
print("1 of 3 complete")
"""
    lines, error = side_by_side(program, count=1)
    assert error is None
    assert lines == [
        "worker 1: loading",
        "[1/3] a",
        "a: dL 0.3 nats/token (2 s)",
        "a: 3/5 examples",
    ]


def test_units_are_counted_over_all_workers_once(side_by_side):
    lines, _ = side_by_side("print('[1/3] a')\nprint('[2/3] b')")
    assert sorted(lines) == ["[1/3] a", "[1/3] a", "[2/3] b", "[2/3] b"]


def test_a_worker_that_dies_at_a_unit_is_replaced(side_by_side, tmp_path):
    program = f"""
import os
from pathlib import Path
print("[1/3] a", flush=True)
died = Path({str(tmp_path / "died")!r})
if not died.exists():
    died.touch()
    os.kill(os.getpid(), 9)
print("  done")
"""
    lines, error = side_by_side(program, count=1)
    assert error is None
    assert lines == ["[1/3] a", "a: its process died (SIGKILL)", "[1/3] a", "a: done"]


def test_workers_that_never_begin_are_given_up(side_by_side):
    lines, error = side_by_side("import os; os._exit(9)")
    assert error is None
    starts = 2 + workers.FALSE_STARTS
    assert lines.count("worker 1: its process died (exit code 9)") >= 1
    assert len(lines) == starts
    lines, error = side_by_side("raise SystemExit(2)")  # had its say
    assert (lines, error) == ([], None)


def test_what_a_worker_leaves_ends_with_it(side_by_side, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = """
import os, subprocess
if os.environ["NUMBER"] == "0":
    subprocess.Popen(["sh", "-c", "sleep 20; touch left"])
"""
    assert side_by_side(program) == ([], None)
    assert not (tmp_path / "left").exists()


WAITING = """
import signal, sys, time
def end(number, frame):
    print("[1/3] " + signal.Signals(number).name, flush=True)
    if {deaf}:
        time.sleep(600)
    sys.exit({code})
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, end)
print("[1/3] ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGTERM, Stopped), (signal.SIGINT, KeyboardInterrupt)],
)
def test_signals_are_passed_on_and_waited_for(side_by_side, number, raised):
    ready = []

    def heard(line):
        ready.append(line)
        if len(ready) == 2:
            os.kill(os.getpid(), number)

    with stop_on_signals():
        lines, error = side_by_side(WAITING.format(deaf=False, code=75), heard=heard)
    assert isinstance(error, raised)
    assert lines == ["[1/3] ready"] * 2


def test_a_second_signal_kills(side_by_side):
    began = []

    def heard(line):
        if line == "[1/3] ready":
            began.append(line)
            os.kill(os.getpid(), signal.SIGINT)

    def again():
        while not began:
            time.sleep(0.01)
        # Until it is heeded: the first may still be under way.
        while not over.wait(0.3):
            os.kill(os.getpid(), signal.SIGINT)

    over = threading.Event()
    thread = threading.Thread(target=again)
    thread.start()
    with stop_on_signals():
        try:
            error = side_by_side(WAITING.format(deaf=True, code=75), 1, heard)[1]
        finally:
            over.set()
        thread.join()
    assert isinstance(error, KeyboardInterrupt)


@pytest.mark.parametrize(
    ("code", "fail_fast", "raised"),
    [
        (75, False, Stopped),
        (130, False, KeyboardInterrupt),
        (1, True, HarnessError),
        (1, False, None),
    ],
)
def test_the_end_of_one_worker_may_be_that_of_all(
    side_by_side, code, fail_fast, raised
):
    program = f"""
import os, sys, time
if os.environ["NUMBER"] == "0":
    sys.exit({code})
time.sleep({600 if raised else 0})
"""
    _, error = side_by_side(program, fail_fast=fail_fast)
    assert raised is None if error is None else isinstance(error, raised)


@pytest.mark.parametrize(
    ("device", "gpus", "visible", "count", "each", "expected"),
    [
        ("cpu", 0, None, None, 1, [("4", None)] * 2),
        ("cpu", 0, None, 3, 1, [("2", None)] * 3),
        ("cpu", 0, None, 20, 1, [("1", None)] * 20),
        ("cuda", 3, None, None, 1, [("2", "0"), ("2", "1"), ("2", "2")]),
        ("cuda", 2, "5,7", None, 1, [("4", "5"), ("4", "7")]),
        ("cuda", 4, None, None, 2, [("4", "0,1"), ("4", "2,3")]),
        ("cuda", 5, None, 3, 2, [("2", "0,1"), ("2", "2,3"), ("2", "0,1")]),
        ("cuda", 1, None, 1, 4, [("8", "0")]),
        ("cuda:1", 4, None, None, 1, [("8", None)]),
    ],
)
def test_devices_and_cores_are_dealt_out(
    monkeypatch, device, gpus, visible, count, each, expected
):
    monkeypatch.setattr(workers, "available_cores", lambda: 8)
    monkeypatch.setattr(workers, "choose_device", lambda device: device)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = environments(count, device, each)
    assert [
        (x["OMP_NUM_THREADS"], x.get("CUDA_VISIBLE_DEVICES")) for x in found
    ] == expected


MADE_HERE = """
name: made
models:
  small: {adapter: scratch, vocabulary: 300, width: 16, layers: 1, heads: 2,
    context: 16, steps: 2, batch: 2}
arms:
  baseline: {}
corpora:
  test: {builtin: python-topics, slice: "90%:"}
examples:
  test: {corpus: test, count: 2}
  prompt_tokens: 8
  reference_tokens: 4
attacks:
  hotflip: {controls: none}
seeds: [1]
diagnostics: none
"""


def test_models_that_are_made_here_are_there_before_workers_begin(
    tmp_path, monkeypatch
):
    (tmp_path / "made.yaml").write_text(MADE_HERE)
    experiment = load_experiment(tmp_path / "made.yaml")
    planned, folder, store = prepare(experiment, tmp_path / "run")
    frozen, said = freeze(planned, folder, tmp_path / "run" / ".workers"), []
    adapter = frozen.plan.experiment.models["small"]
    assert adapter.preparation(store.root).flops > 0

    def load(root):
        raise RuntimeError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(adapter, "load", load)
        make_models(frozen, store, said.append)
        assert said == ["small: no room"]  # and a unit says so again
    make_models(frozen, store, said.append)
    assert adapter.preparation(store.root) == Cost()
    monkeypatch.setattr(adapter, "load", load)
    make_models(frozen, store, said.append)
    assert len(said) == 1


@pytest.mark.parametrize("number", ["0", "-1", "many", "1.5", "9999"])
def test_a_number_of_workers_is_one(cli, number):
    found = cli("run", "no.yaml", "--workers", number)
    assert found.code == 2
    assert f"expected a number of processes, or auto: {number!r}" in found.err


DEADLY = '''
"""HotFlip, whose process dies once or always, unless a file says otherwise."""

import os
from pathlib import Path

from harness import hookimpl
from harness_plugins.attacks.hotflip import HotFlip


class Deadly(HotFlip):
    """Flip the tokens of highest gain, and die once, or always with a single flip."""

    name = "deadly"

    def run(self, subject, examples, context):
        here = Path(__file__).parent
        died, peace = here / "died", (here / "peace").exists()
        if self.options.flips == 1 and not peace:
            os.kill(os.getpid(), 9)
        for found in super().run(subject, examples, context):
            yield found
            if not peace and not died.exists():
                died.touch()
                os.kill(os.getpid(), 9)


@hookimpl
def register_attacks():
    return [Deadly]
'''


@pytest.fixture
def start():
    """Return a function that runs a suite in a process, which ends with the test."""
    started = []

    def begin(*arguments, **environment):
        started.append(_process(arguments, environment))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def _process(arguments, environment):
    return subprocess.Popen(
        [sys.executable, "-m", "harness", "run", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.slow
def test_workers_give_the_records_of_one_process_whoever_dies(
    suite, cli, tmp_path, start
):
    plugin, peace = tmp_path / "deadly.py", tmp_path / "peace"
    plugin.write_text(DEADLY)
    options = ["--plugins", plugin, "--set", "attacks.uat=null"]
    options += ["--set", "attacks.once={attack: deadly, flips: 2, candidates: 12}"]
    options += ["--set", "attacks.always={attack: deadly, flips: 1, candidates: 12}"]
    options += ["--only", "arm=baseline", "--set", "diagnostics=none"]
    one, two = tmp_path / "runs" / "one", tmp_path / "runs" / "two"
    peace.touch()
    assert cli("run", suite, *options, "--out", one).code == 0
    peace.unlink()
    process = start(suite, *options, "--out", two, "--workers", "2")
    said = process.communicate()[1]
    assert process.returncode == 1, said
    assert "4 of 5 complete; failed: tiny.baseline.s7.always-" in said
    assert differences(one, two, but="always") == []
    (path,) = two.glob("cells/*.always-*/record.json")
    message = json.loads(path.read_text())["error"]["message"]
    assert re.match(r"its process died \(process \d+ on .*\), and so did the", message)
    assert (tmp_path / "died").exists()
    assert len([*two.glob("*/*/deaths.jsonl")]) == 0
    assert (two / "report" / "report.md").exists()


PAUSING = '''
"""HotFlip, waiting after its first result for as long as a file is there."""

import time
from pathlib import Path

from harness import hookimpl
from harness_plugins.attacks.hotflip import HotFlip


class Pausing(HotFlip):
    """Flip the tokens of highest gain, and wait."""

    name = "pausing"

    def run(self, subject, examples, context):
        for found in super().run(subject, examples, context):
            yield found
            while Path(__file__).with_name("pause").exists():
                time.sleep(0.01)


@hookimpl
def register_attacks():
    return [Pausing]
'''


def owner(out, part, processes):
    """Wait for the claim of a unit; return the process that holds it."""
    while True:
        assert any(process.poll() is None for process in processes)
        for place in (out / ".claims").glob(f"*/*{part}*"):
            holder = leases._holder(place)
            beat = leases._beat(place / holder) if holder else place
            if pid := leases._seen(beat, "").pid:
                return pid
        time.sleep(0.02)


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"


@pytest.mark.slow
def test_of_three_processes_one_dies_and_one_sleeps_and_nothing_differs(
    suite, cli, tmp_path, start
):
    plugin, pause = tmp_path / "pausing.py", tmp_path / "pause"
    plugin.write_text(PAUSING)
    options = ["--plugins", plugin, "--only", "arm=baseline"]
    for label, flips in (("first", 1), ("second", 2)):
        stated = f"attacks.{label}={{attack: pausing, flips: {flips}}}"
        options += ["--set", stated]
    options += ["--set", "attacks.uat=null", "--set", "diagnostics=none"]
    one, out = tmp_path / "runs" / "one", tmp_path / "runs" / "three"
    assert cli("run", suite, *options, "--out", one).code == 0
    pause.touch()
    lease = {"HARNESS_LEASE_S": "3"}
    processes = [start(suite, *options, "--out", out, **lease) for _ in range(3)]
    sleeper = owner(out, ".first-", processes)
    os.kill(sleeper, signal.SIGSTOP)
    while not is_stopped(sleeper):
        time.sleep(0.01)
    victim = owner(out, ".second-", processes)
    os.kill(victim, signal.SIGKILL)
    pause.unlink()
    while len([*out.glob("cells/*/record.json")]) < 4:
        assert any(process.poll() is None for process in processes)
        time.sleep(0.05)
    taken = (next(out.glob("cells/*.first-*")) / "record.json").read_bytes()
    os.kill(sleeper, signal.SIGCONT)
    said = [process.communicate()[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert [code for code in codes if code == 0], (codes, said)
    assert differences(one, out) == []
    assert (next(out.glob("cells/*.first-*")) / "record.json").read_bytes() == taken
    found = cli("validate", out, "--plugins", plugin).out.splitlines()
    # One arm of two was run.
    assert [line for line in found[1:-1] if not line.endswith(" is missing")] == []
