"""What constraints may read beside the test examples."""

from types import SimpleNamespace

from harness.base.store import Store
from harness.data.corpora import Corpora
from harness.data.sections import CorpusSection, ExampleSet, ExamplesSection
from harness.running.arm_context import _apart
from harness.testing import tiny_tokenizer

WORDS = "the cat sat on the mat and ate {0} dogs, {0} cats and {0} mats; "


def test_texts_apart_give_all_they_hold_and_the_test_documents_nothing(tmp_path):
    texts = [(f"{i}: " + WORDS.format(i)) * (1 + i % 3) for i in range(6)]
    (tmp_path / "texts.txt").write_text("\n\n".join(texts))
    sections = {
        "all": CorpusSection(path=str(tmp_path / "texts.txt")),
        "late": CorpusSection(path=str(tmp_path / "texts.txt"), slice="4:"),
    }
    section = ExamplesSection(
        test=ExampleSet(corpus="all", count=2), prompt_tokens=6, reference_tokens=4
    )
    run = SimpleNamespace(
        suite=SimpleNamespace(examples=section, unseen_corpora=lambda: ["all", "late"]),
        corpora=Corpora(sections, Store(tmp_path / "store")),
    )

    found = _apart(run, tiny_tokenizer(), False)

    blocks = {}
    for i, text in enumerate(texts[2:], 2):
        ids = tiny_tokenizer().encode(text, add_special_tokens=False)
        blocks[i] = [ids[a : a + 10] for a in range(0, len(ids) - 9, 10)]
    every = [tuple(block) for own in blocks.values() for block in own]
    got = [(*x.prompt_ids.tolist(), *x.reference_ids.tolist()) for x in found]
    assert got[:4] == [tuple(own[0]) for own in blocks.values()]
    assert len(got) > 12
    assert sorted(got) == sorted(set(every))  # none twice, of "late" or of a text
    assert {x.document_id for x in found} == {f"all/{i}" for i in range(2, 6)}
