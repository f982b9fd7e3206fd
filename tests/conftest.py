"""What all tests share: one thread, no network, and the data beside the project."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Before any library reads them. Two threads in each of two workers on two cores would
# be slower than one, and a test that reaches for the network must fail at once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.pop("HARNESS_PLUGINS", None)
os.environ.pop("HARNESS_STORE", None)

import pytest

from harness.cli import main

HERE = Path(__file__).parent
pytest_plugins = ["tests.run_fixtures"]
SHARED = HERE.parents[1] / "shared"
# A shell's background jobs ignore Ctrl-C, and so would all that tests start and stop.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Begin with modules of slow tests: one at the end would leave workers idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """Spare the fresh process at the end of every run, unless a test is about it.

    Also of those runs that a module's fixture makes for the first of its tests.
    """
    with pytest.MonkeyPatch.context() as patch:
        if "replays" not in item.keywords:
            run = "harness.running.suite_run"
            patch.setattr(f"{run}.replay_run", lambda *told: None)
            patch.setattr(f"{run}.PlainProcess.begin", lambda self: None)
        yield


@pytest.fixture(scope="session")
def shared():
    """Return the folder with real texts and models; skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data: {SHARED} is absent")
    return SHARED


@dataclass(frozen=True)
class Outcome:
    """What a command line did."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys):
    """Return a function that runs ``harness`` with arguments, in this process."""

    def run(*args):
        with pytest.raises(SystemExit) as exited:
            main([*map(str, args)])
        captured = capsys.readouterr()
        return Outcome(exited.value.code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def example_plugin():
    """Return the file of a real plugin with an attack, ``rotate``."""
    return HERE / "example_plugin" / "harness_example.py"


@pytest.fixture(params=["gpt2", "gpt_neo", "gpt_neox", "llama", "opt", "qwen2"])
def family(request):
    """Run the test for every family of models: the name is its `model_type`."""
    return str(request.param)


@pytest.fixture
def subject():
    """Return the subject of a tiny GPT-NeoX."""
    from harness.subject import Subject
    from harness.testing import tiny_model, tiny_tokenizer

    return Subject(tiny_model(), tiny_tokenizer())


@pytest.fixture
def family_subject(family):
    """Return a subject of every family."""
    from harness.subject import Subject
    from harness.testing import tiny_model, tiny_tokenizer

    return Subject(tiny_model(family), tiny_tokenizer())


@pytest.fixture(scope="session")
def imported():
    """Return a function that gives what code imports, in a process of its own."""

    def imported(*lines):
        code = ["import sys; before = set(sys.modules)", *lines]
        code.append("print(*(set(sys.modules) - before))")
        command = [sys.executable, "-c", "\n".join(code)]
        printed = subprocess.check_output(command, text=True)
        return set(printed.splitlines()[-1].split())

    return imported


@pytest.fixture(scope="session")
def merging_tokenizer():
    """Return one of four letters, their pairs and spaces: few ids are texts' ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pairs = [(first, second) for first in "\u0120abcd" for second in "abcd"]
    pieces = ["<|endoftext|>", *"\u0120abcd", *("".join(pair) for pair in pairs)]
    known = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(known, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>"
    )


@pytest.fixture(scope="session")
def opened():
    """Return a function that lets a copy of a tokenizer put token 0 before a text.

    As OPT's does. The template says where, and may have it at the end too.
    """
    import copy

    from tokenizers.processors import TemplateProcessing

    def opened(tokenizer, template="{0} $A"):
        tokenizer, token = copy.deepcopy(tokenizer), tokenizer.eos_token
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=template.format(token), special_tokens=[(token, 0)]
        )
        return tokenizer

    return opened


@pytest.fixture(scope="session")
def float32_error():
    """Return what bounds float32's error of a model's mean loss, in nats/token.

    A sum of n products is off by n units of rounding at most, relatively, and a token's
    loss by those of all sums on its way; the errors of tokens have no common sign.
    """

    def bound(model, loss, tokens):
        matrices = (p for p in model.parameters() if p.ndim == 2)
        products = sum(matrix.shape[1] for matrix in matrices)  # [out, in]
        return loss * products * 2.0**-24 / tokens**0.5

    return bound


@pytest.fixture
def no_network(monkeypatch):
    """Fail the test if it looks for a host or opens a connection."""
    asked = []

    def refuse(*arguments, **_):
        asked.append(arguments)
        raise OSError("there is no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    assert not asked


@pytest.fixture
def toy_suite(tmp_path, monkeypatch):
    """Go to a folder with the suite ``base.yaml`` and its plugins; return the suite."""
    folder = tmp_path / "toys"
    shutil.copytree(HERE / "toy_suite", folder)
    monkeypatch.chdir(folder)
    return Path("base.yaml")
