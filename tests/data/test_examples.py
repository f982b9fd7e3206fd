"""Examples: one from each document, the first tokens of it, sets disjoint."""

import pytest

from harness.base.errors import UsageError
from harness.base.store import Store
from harness.data.corpora import Corpora
from harness.data.cutting import Cutter
from harness.data.examples import build_examples, cut_examples, cut_further
from harness.data.sections import CorpusSection, ExampleSet, ExamplesSection
from harness.testing import tiny_tokenizer

TEXTS = [f"{i}: the cat sat on the mat and ate {i} dogs" for i in range(8)]
LONG = [text * (1 + i % 4) for i, text in enumerate(TEXTS)]


@pytest.fixture
def corpora(tmp_path):
    def section(name: str, texts: list[str]) -> CorpusSection:
        (tmp_path / name).write_text("\n\n".join(texts))
        return CorpusSection(path=str(tmp_path / name))

    sections = {
        "mixed": section("mixed.txt", ["cat", *TEXTS[:4], "dog", *TEXTS[4:]]),
        "other": section("other.txt", [text.upper() for text in TEXTS]),
        "long": section("long.txt", LONG),
        "copy": section("copy.txt", ["the start of another", TEXTS[1]]),
    }
    return Corpora(sections, Store(tmp_path / "store"), limit=1)


def section(count: int = 3, **sets: ExampleSet) -> ExamplesSection:
    return ExamplesSection(
        test=ExampleSet(corpus="mixed", count=count),
        prompt_tokens=6,
        reference_tokens=4,
        **sets,
    )


def test_prompt_and_reference_are_the_first_tokens(corpora):
    sets = build_examples(section(), corpora, tiny_tokenizer(), None)
    for example, text in zip(sets.test, TEXTS, strict=False):
        ids = tiny_tokenizer().encode(text, add_special_tokens=False)
        assert example.prompt_ids.tolist() == ids[:6]
        assert example.reference_ids.tolist() == ids[6:10]
        assert example.protected == 0
    assert (sets.search, sets.validation) == ((), ())


def test_short_documents_are_passed_over_and_ids_say_where_from(corpora):
    sets = build_examples(section(5), corpora, tiny_tokenizer(), None)
    expected = ["mixed/1", "mixed/2", "mixed/3", "mixed/4", "mixed/6"]
    assert [example.id for example in sets.test] == expected
    assert [example.document_id for example in sets.test] == expected


def test_start_token_precedes_the_prompt_and_is_protected(corpora, opened):
    tokenizer = opened(tiny_tokenizer(), "{0} $A {0}")
    plain = build_examples(section(), corpora, tiny_tokenizer(), None)
    started = build_examples(section(), corpora, tokenizer, None)
    for a, b in zip(plain.test, started.test, strict=True):
        assert b.protected == 1
        assert b.prompt_ids.tolist() == [tokenizer.eos_token_id, *a.prompt_ids]
        assert b.reference_ids.tolist() == a.reference_ids.tolist()


def test_limit_cuts_every_set_and_too_few_documents_are_counted(corpora):
    search = ExampleSet(corpus="other", count=4)
    sets = build_examples(section(search=search), corpora, tiny_tokenizer(), 2)
    assert (len(sets.test), len(sets.search)) == (2, 2)
    with pytest.raises(UsageError, match=r"mixed gives 8 examples \(2 left out: short"):
        build_examples(section(9), corpora, tiny_tokenizer(), None)


@pytest.mark.parametrize(
    ("search", "validation", "told"),
    [
        ("copy", None, r"examples\.search: document copy/1 has the text of mixed/2"),
        ("other", "other", r"examples\.validation: document other/0"),
    ],
)
def test_sets_that_share_a_text_are_refused(corpora, search, validation, told):
    named = {"search": search, "validation": validation}
    sets = {k: ExampleSet(corpus=v, count=2) for k, v in named.items() if v}
    with pytest.raises(UsageError, match=told):
        build_examples(section(**sets), corpora, tiny_tokenizer(), None)


@pytest.mark.parametrize("closing", [False, True])
def test_what_follows_in_a_text_gives_further_examples(corpora, opened, closing):
    tokenizer = opened(tiny_tokenizer(), "$A {0}") if closing else tiny_tokenizer()
    cutter = Cutter.of(section(), tokenizer, encoder_decoder=closing)
    first, further = (
        [*cut(cutter, "long", corpora)] for cut in (cut_examples, cut_further)
    )

    read = 10 - closing  # what ends every text is a part of the prompt
    ends = [tokenizer.eos_token_id] * closing
    expected, names = [], []
    for part in range(1, 9):  # the second of each text, then the third of each
        for text, one in zip(LONG, first, strict=True):
            ids = tiny_tokenizer().encode(text, add_special_tokens=False)
            own = ids[part * read : (part + 1) * read]
            if len(own) == read:
                expected.append(([*own[: read - 4], *ends], own[read - 4 :]))
                names.append((f"{one.id}#{part + 1}", one.document_id))
    assert len(expected) >= 8
    assert [
        (x.prompt_ids.tolist(), x.reference_ids.tolist()) for x in further
    ] == expected
    assert [(x.id, x.document_id) for x in further] == names
    assert {x.protected_end for x in further} == {int(closing)}
