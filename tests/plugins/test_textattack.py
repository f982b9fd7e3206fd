"""TextAttack: what we give it and take from it; with the extra, the thing itself."""

import importlib.util
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydantic
import pytest

from harness import testing
from harness.data import Example
from harness.records import rouge
from harness.subject import Subject, TokenRules
from harness.testing import tiny_model, tiny_tokenizer
from harness_plugins.attacks.textattack import TextAttack
from harness_plugins.attacks.textattack.options import TextAttackOptions
from harness_plugins.attacks.textattack.victim import Victim
from tests.plugins.letters import plain_losses, run

INSTALLED = importlib.util.find_spec("textattack") is not None
needs_textattack = pytest.mark.skipif(
    not INSTALLED, reason="needs the extra: pip install 'harness[textattack]'"
)
without_textattack = pytest.mark.skipif(INSTALLED, reason="TextAttack is installed")
SUITE = Path(__file__).parents[2] / "suites" / "quickstart.yaml"
TEXT = "the cat sat on the mat; the dog ate that mat"


@pytest.fixture(scope="module")
def subject():
    return testing.tiny_subject()


@pytest.fixture(scope="module")
def example(subject):
    return Example("e", "d", subject.encode(TEXT), subject.encode(" the other cat"))


def victim(subject, example, **options):
    return Victim(subject, example, TextAttackOptions(**options))


def attack(subject, examples, **options):
    found = run(TextAttack(TextAttackOptions(**options)), subject, examples)
    return [found[x.id] for x in examples]


# --- without the library ------------------------------------------------------------


def test_a_gain_is_dl_of_the_encoded_text(subject, example):
    texts = [TEXT, "the cat sat on a mat", "dog", TEXT + " and then the cat"]
    prompts = [subject.encode(text) for text in texts]
    losses = [plain_losses(subject, [ids], example.reference_ids)[0] for ids in prompts]
    assert len({len(ids) for ids in prompts}) > 2

    gains = victim(subject, example).gains(texts)

    assert gains == pytest.approx(np.array(losses) - losses[0], abs=1e-4)
    assert gains[0] == 0


def test_each_prompt_is_scored_once_and_counted(subject, example):
    scored = victim(subject, example)
    with subject.metered() as meter:
        scored.gains(["the cat", "the dog", "the cat"])
        scored.gains(["the dog", "the mat"])

    assert scored.queries == meter.sequences_forward == 4  # with the clean prompt


def test_the_budget_pays_for_new_prompts_alone(subject, example):
    scored = victim(subject, example, query_budget=4)
    texts = ["cat", "cat", "dog", TEXT, "mat", "sat"]

    assert scored.affordable(texts) == 5  # cat, dog and mat, besides the clean prompt
    scored.gains(texts[:5])
    assert (scored.left, scored.affordable(["dog", "cat", "on"])) == (0, 2)
    assert scored.affordable(["on"]) == 0


def test_what_stays_first_and_last_is_around_the_text(subject):
    ids = subject.encode(TEXT)
    prompt = np.concatenate([[0], ids, [0]])
    example = Example("e", "d", prompt, ids[:3], protected=1, protected_end=1)

    scored = victim(subject, example)

    assert scored.clean_text == TEXT
    assert scored.ids("the cat").tolist() == [0, *subject.encode("the cat"), 0]
    assert scored.ids(TEXT).tolist() == prompt.tolist()


def test_texts_that_may_not_be_prompts_are_not_scored():
    subject = Subject(tiny_model(), tiny_tokenizer(), rules=TokenRules(ascii_only=True))
    clean = subject.encode(TEXT)
    example = Example("e", "d", clean, clean[:3])
    too_long = "x" * 126
    assert len(subject.encode(too_long)) + 2 == subject.max_positions

    with subject.metered() as meter:
        gains = victim(subject, example).gains(
            [too_long, too_long + "x", "<|endoftext|>", "café", "", "cafe"]
        )

    assert [gain > -100 for gain in gains] == [True, False, False, False, False, True]
    assert meter.sequences_forward == 3


def test_success_is_a_rise_of_perplexity_by_more_than_tau(subject, example):
    scored = victim(subject, example, tau=0.15)

    assert not scored.succeeded(math.log(1.15))
    assert scored.succeeded(math.log(1.15) + 1e-9)
    assert not victim(subject, example).succeeded(10.0)


def test_the_best_text_is_that_of_highest_loss(subject, example):
    texts = ["cat", "the dog", "mat that", "on the", "not scored"]
    scored = victim(subject, example)
    gains = scored.gains(texts[:4])

    assert scored.best(texts) == texts[int(np.argmax(gains))]


def test_the_goal_rouge_is_how_far_rouge_l_falls(shared):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = shared / "models/t5-dialogue-standin"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    subject = Subject(AutoModelForSeq2SeqLM.from_pretrained(folder), tokenizer)
    texts = ["Tom, the bus is late", "rain", "rain today"]
    prompts = [np.array(tokenizer(text)["input_ids"]) for text in texts]
    closing = len(subject.vocabulary.closing)
    reference = subject.encode("Tom says that he will be late.")
    example = Example("e", "d", prompts[0], reference, protected_end=closing)
    goal = tokenizer.decode(reference, skip_special_tokens=True)
    scores = [
        rouge(goal, tokenizer.decode(ids, skip_special_tokens=True))["rougeL"]
        for ids in subject.generate(prompts, len(reference))
    ]
    assert scores[0] > min(scores)

    scored = victim(subject, example, goal="rouge", tau=0.1)

    gains = scored.gains(texts)
    assert gains == pytest.approx(scores[0] - np.array(scores))
    assert scored.succeeded(0.11 * scores[0])
    assert not scored.succeeded(0.09 * scores[0])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"recipe": "pruthi", "transformations": ["word-swap-qwerty"]},
            "a recipe or transformations, not both",
        ),
        ({"constraints": ["repeat"]}, "go with transformations"),
        ({"transformations": [{"a": {}, "b": {}}]}, "a mapping of one name"),
        ({"query_budget": 1}, "greater than 1"),
    ],
)
def test_wrong_options_are_refused(options, sentence):
    with pytest.raises(pydantic.ValidationError, match=sentence):
        TextAttackOptions(**options)


def test_listing_plugins_does_not_load_textattack(cli, imported):
    assert "textattack" in cli("list", "attack").out
    assert "deepwordbug" in cli("describe", "textattack").out
    modules = imported("from harness.api import load_registry; load_registry()")
    assert not modules & {"textattack", "flair", "nltk", "torch"}


@without_textattack
def test_a_suite_that_uses_it_without_the_extra_says_what_to_install(cli, tmp_path):
    outcome = cli(
        "run", SUITE, "--set", "attacks={textattack: {}}", "--out", tmp_path / "run"
    )

    assert outcome.code == 2
    assert "attacks.textattack: TextAttack is not installed: " in outcome.err
    assert "pip install 'harness[textattack]'" in outcome.err
    assert "Traceback" not in outcome.err


# --- with the library ---------------------------------------------------------------

OFFLINE = [
    {"recipe": "deepwordbug-gao-2018"},
    {"recipe": "Pruthi2019"},
    {"recipe": "input-reduction"},
    {"recipe": {"bad-characters": {"perturbation_type": "invisible"}}},
    {
        "transformations": [
            "word-swap-qwerty",
            {"WordSwapRandomCharacterDeletion": {"random_one": False}},
        ],
        "constraints": [
            "repeat",
            "stopword",
            {"max-words-perturbed": {"max_percent": 0.3}},
        ],
        "search": {"beam-search": {"beam_width": 2}},
    },
]


@needs_textattack
@pytest.mark.parametrize("options", OFFLINE, ids=str)
def test_recipes_run_offline_on_our_ledger(subject, example, options):
    plugin = TextAttack(TextAttackOptions(**options))
    assert plugin.missing() == []

    with subject.metered() as meter:
        (found,) = attack(subject, [example], tau=1e6, query_budget=60, **options)

    clean, attacked = subject.exact_losses(
        [example.prompt_ids, found.prompt_ids], example.reference_ids
    )
    assert plugin.budget(1).forward == 500
    assert attacked >= clean
    assert meter.sequences_forward <= 60
    if found.trace:
        assert found.trace[0]["queries"] == meter.sequences_forward
        assert found.trace[0]["loss"] == pytest.approx(attacked, abs=1e-4)
        assert found.prompt_ids.tolist() != example.prompt_ids.tolist()
    assert subject.reachable([found.prompt_ids]) == [True]


@needs_textattack
def test_deepwordbug_raises_the_loss_the_same_way_every_time(subject, example):
    other = Example(
        "o",
        "p",
        subject.encode("that dog and then the mat sat"),
        subject.encode(" on the cat"),
    )
    both = attack(subject, [example, other], query_budget=150)
    alone = attack(subject, [other], query_budget=150)

    for one, found in zip([example, other], both, strict=True):
        clean, attacked = subject.exact_losses(
            [one.prompt_ids, found.prompt_ids], one.reference_ids
        )
        assert attacked > clean + 0.1
    assert both[1].prompt_ids.tolist() == alone[0].prompt_ids.tolist()
    assert both[1].trace == alone[0].trace


@needs_textattack
def test_the_search_stops_once_tau_is_reached(subject, example):
    (whole,) = attack(subject, [example])
    (early,) = attack(subject, [example], tau=0.01)

    assert math.expm1(early.trace[0]["gain"]) > 0.01
    assert early.trace[0]["gain"] <= whole.trace[0]["gain"]
    assert early.trace[0]["queries"] < whole.trace[0]["queries"]


@needs_textattack
def test_a_trained_model_loses_on_misspelt_text(shared):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shared / "models/pythia-14m-standin"
    subject = Subject(
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    text = (shared / "data/wikitext2_valid.txt").read_text(encoding="utf-8")
    ids = subject.encode(text)[200:264]
    example = Example("e", "d", ids[:40], ids[40:])

    (found,) = attack(subject, [example], recipe="deepwordbug")

    clean, attacked = subject.exact_losses(
        [ids[:40], found.prompt_ids], example.reference_ids
    )
    assert attacked - clean == pytest.approx(found.trace[0]["gain"], abs=1e-4)
    assert attacked - clean > math.log(1.15)


@needs_textattack
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"recipe": "textfooler-jin-2019"}, "paragramcf, which TextAttack downloads"),
        ({"recipe": "pwws"}, "NLTK's wordnet: python -m nltk.downloader wordnet"),
        ({"recipe": "bae-garg-2019"}, "of the Hugging Face hub, which is in no cache"),
        ({"recipe": "hotflip"}, "on language models, `hotflip` and `gcg`"),
        ({"recipe": "a2t"}, "needs the package sentence_transformers"),
        ({"recipe": "deepwordbag"}, "did you mean 'deepwordbug'?"),
        ({"recipe": {"pruthi": {"swaps": 2}}}, "unexpected keyword argument 'swaps'"),
        ({"transformations": ["word-swap-querty"]}, "mean 'word-swap-qwerty'?"),
    ],
    ids=str,
)
def test_what_a_recipe_lacks_is_said_in_a_sentence(options, sentence):
    (found,) = TextAttack(TextAttackOptions(**options)).missing()

    assert sentence in found
    assert "\n" not in found


@needs_textattack
def test_loading_textattack_leaves_the_process_as_it_was(tmp_path):
    code = """
import logging, os
mine = logging.getLogger("mine")
before = dict(os.environ)
from harness_plugins.attacks.textattack import TextAttack
assert TextAttack().missing() == []
assert dict(os.environ) == before
assert not mine.disabled and logging.root.manager.disable == 0
assert not os.path.exists(os.path.expanduser("~/.cache/textattack"))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    assert logging.root.manager.disable == 0
