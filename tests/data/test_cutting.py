"""Examples from pairs and tasks: what is read, what is scored, what is protected."""

from typing import Any

import pytest

from harness.base.errors import UsageError
from harness.base.store import Store
from harness.data.corpora import Corpora
from harness.data.examples import build_examples
from harness.data.sections import CorpusSection, ExampleSet, ExamplesSection
from harness.testing import tiny_tokenizer
from tests.data.rows import write_rows

pytestmark = pytest.mark.transformers5
PAIR = {"prompt": "dialogue", "reference": "summary"}
TASK = {"prompt": "query", "choices": "endings", "gold": "label"}


def cut(tmp_path, rows, tokenizer, fields=None, *, count=None, **section) -> list[Any]:
    """Return the examples of rows; `encoder_decoder` is for `build_examples`."""
    encoder_decoder = section.pop("encoder_decoder", False)
    path = write_rows(tmp_path / "rows.jsonl", rows)
    corpora = {"c": CorpusSection(path=str(path), **(fields or {}))}
    test = ExampleSet(corpus="c", count=count or len(rows))
    sets = build_examples(
        ExamplesSection(test=test, **section),
        Corpora(corpora, Store(tmp_path / "store")),
        tokenizer,
        None,
        encoder_decoder=encoder_decoder,
    )
    return list(sets.test)


def ids_of(tokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    ("encoder_decoder", "closed"), [(False, False), (True, True), (True, False)]
)
def test_a_causal_model_reads_a_summary_after_a_space_and_encoders_close_texts(
    tmp_path, encoder_decoder, closed
):
    """T5's tokenizer adds the end itself, others do not."""
    tokenizer = tiny_tokenizer(closed=closed)
    end = [tokenizer.eos_token_id] if encoder_decoder else []
    dialogue, summary = "the cat sat on it", "the cat sat"
    rows = [{"dialogue": dialogue, "summary": summary}]
    (example,) = cut(tmp_path, rows, tokenizer, PAIR, encoder_decoder=encoder_decoder)
    assert example.prompt_ids.tolist() == ids_of(tokenizer, dialogue) + end
    read = summary if encoder_decoder else f" {summary}"
    assert example.reference_ids.tolist() == ids_of(tokenizer, read) + end
    assert (example.protected, example.protected_end) == (0, len(end))
    assert example.reference_text == summary


def test_pairs_are_cut_at_the_end_and_may_be_short(tmp_path):
    tokenizer = tiny_tokenizer(closed=True)
    long, short = "the cat sat on the mat and ate it", "it"
    rows = [{"dialogue": x, "summary": x} for x in (long, short)]
    lengths = {"prompt_tokens": 6, "reference_tokens": 4}
    examples = cut(tmp_path, rows, tokenizer, PAIR, encoder_decoder=True, **lengths)
    whole = ids_of(tokenizer, long)
    assert examples[0].prompt_ids.tolist() == [*whole[:5], tokenizer.eos_token_id]
    assert examples[0].reference_ids.tolist() == whole[:4]
    assert examples[1].prompt_ids.tolist() == tokenizer(short)["input_ids"]
    assert examples[1].reference_ids.tolist() == tokenizer(short)["input_ids"]


def test_plain_texts_are_cut_for_encoders_too(tmp_path):
    tokenizer = tiny_tokenizer(closed=True)
    rows = [{"text": "the cat sat on the mat and ate the dog"}]
    lengths = {"prompt_tokens": 5, "reference_tokens": 3}
    (example,) = cut(tmp_path, rows, tokenizer, encoder_decoder=True, **lengths)
    ids = ids_of(tokenizer, rows[0]["text"])
    assert example.prompt_ids.tolist() == [*ids[:4], tokenizer.eos_token_id]
    assert example.reference_ids.tolist() == ids[4:7]


def test_the_prefix_is_protected_and_stays_when_an_answer_cuts_the_prompt(tmp_path):
    prefix = "the dog ate: "
    fields = {**PAIR, "prefix": prefix}
    rows = [{"dialogue": "cat sat on the mat", "summary": "cat"}]
    own = ids_of(tiny_tokenizer(), prefix.rstrip())
    whole = ids_of(tiny_tokenizer(), prefix + rows[0]["dialogue"])
    (pair,) = cut(tmp_path, rows, tiny_tokenizer(), fields)
    assert pair.prompt_ids.tolist() == whole
    assert (pair.protected, whole[: pair.protected]) == (len(own), own)
    lengths = {"prompt_tokens": len(own) + 3}
    (pair,) = cut(tmp_path, rows, tiny_tokenizer(), fields, **lengths)
    assert pair.prompt_ids.tolist() == whole[: len(own) + 3]
    (answer,) = cut(
        tmp_path, rows, tiny_tokenizer(), fields, objective="answer", **lengths
    )
    assert answer.prompt_ids.tolist() == own + whole[-3:]
    assert answer.protected == len(own)


def test_a_prefix_that_fills_the_prompt_is_refused(tmp_path):
    rows = [{"dialogue": "the cat", "summary": "cat"}]
    fields = {**PAIR, "prefix": "the dog ate: "}
    with pytest.raises(UsageError, match=r"the prefix of corpus c has \d+ tokens"):
        cut(tmp_path, rows, tiny_tokenizer(), fields, prompt_tokens=3)


def test_the_last_word_is_the_answer_and_the_text_is_read_as_it_is(tmp_path):
    text = "the dog ate the other cat, and then that mat\n"
    (example,) = cut(tmp_path, [{"text": text}], tiny_tokenizer(), objective="answer")
    joined = [*example.prompt_ids, *example.reference_ids]
    assert joined == ids_of(tiny_tokenizer(), text.rstrip())
    assert tiny_tokenizer().decode(example.reference_ids) == " mat"
    assert example.answer
    assert (example.choices, example.gold) == ((), None)


def test_texts_without_a_last_word_or_with_too_long_a_one_are_counted(tmp_path):
    rows = [{"text": "word"}, {"text": "the wxyzwxyz"}, {"text": "the cat sat"}]
    options = {"objective": "answer", "reference_tokens": 2}
    (example,) = cut(tmp_path, rows, tiny_tokenizer(), count=1, **options)
    assert example.id == "c/2"
    with pytest.raises(UsageError) as caught:
        cut(tmp_path, rows, tiny_tokenizer(), **options)
    assert "gives 1 examples (1 left out: there is no space" in str(caught.value)
    assert "1 left out: an answer has more than 2 tokens" in str(caught.value)


def test_tokens_across_the_boundary_leave_a_text_out(tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"a": 0, " ": 1, "b": 2, "a b": 3, "a ": 4}
    merges = [("a", " "), ("a ", "b")]
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    with pytest.raises(UsageError, match="the answer shares a token with what prec"):
        cut(tmp_path, [{"text": "a b"}], tokenizer, objective="answer")


def test_choices_are_whole_and_the_reference_is_the_right_one(tmp_path):
    rows = [{"query": "the cat", "endings": ["sat on it", "ate"], "label": "1"}]
    (example,) = cut(tmp_path, rows, tiny_tokenizer(), TASK, objective="answer")
    assert example.gold == 1
    for choice, text in zip(example.choices, rows[0]["endings"], strict=True):
        assert choice.answer_ids.tolist() == ids_of(tiny_tokenizer(), f" {text}")
        assert (choice.tail_ids.tolist(), choice.characters) == ([], len(text))
    assert example.reference_ids.tolist() == ids_of(tiny_tokenizer(), " ate")
    assert example.protected_end == 0


@pytest.mark.parametrize("encoder_decoder", [False, True])
def test_where_prompts_differ_their_ends_are_no_part_of_the_attack(
    tmp_path, encoder_decoder
):
    tokenizer = tiny_tokenizer(closed=encoder_decoder)
    end = [tokenizer.eos_token_id] if encoder_decoder else []
    contexts = ["the cat sat so the cat", "the cat sat so the dog"]
    rows = [{"contexts": contexts, "ending": "ate", "gold": 1}]
    fields = {"prompt": "contexts", "reference": "ending", "gold": "gold"}
    options = {"objective": "answer", "encoder_decoder": encoder_decoder}
    (example,) = cut(tmp_path, rows, tokenizer, fields, **options)
    whole = [[*ids_of(tokenizer, text), *end] for text in contexts]
    free = example.prompt_ids[: len(example.prompt_ids) - example.protected_end]
    assert example.prompt_ids.tolist() == whole[1]
    for choice, ids in zip(example.choices, whole, strict=True):
        assert [*free, *choice.tail_ids] == ids
    assert not example.free[-example.protected_end :].any()
    assert example.free[: -example.protected_end].all()


def test_real_tasks_fit_the_real_tokenizer(shared, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / "pythia-14m-standin")
    folder = shared / "data"
    tasks = {
        "lambada_openai": {},
        "hellaswag": {"prompt": "query", "choices": "choices", "gold": "gold"},
        "winogrande": {"prompt": "context_options", "reference": "continuation"},
    }
    tasks["winogrande"]["gold"] = "gold"
    corpora = {
        name: CorpusSection(path=str(folder / f"{name}.jsonl"), **fields)
        for name, fields in tasks.items()
    }
    for name in corpora:
        section = ExamplesSection(
            test=ExampleSet(corpus=name, count=200),
            objective="answer",
            prompt_tokens=512,
            reference_tokens=128,
        )
        reader = Corpora(corpora, Store(tmp_path))
        sets = build_examples(section, reader, tokenizer, None)
        documents = {f"{name}/{d.id}": d for d in reader.all_documents(name)}
        assert sum(int(e.id.split("/")[1]) >= 200 for e in sets.test) <= 2
        for example in sets.test:
            document = documents[example.id]
            joined = [*example.prompt_ids, *example.reference_ids]
            reference = document.reference
            whole = document.text + (" " + reference if reference else "")
            assert tokenizer.decode(joined) == whole
