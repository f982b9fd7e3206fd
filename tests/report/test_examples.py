"""One example for people: pieces that join to the prompts, changes that are changes."""

import pytest

from harness.report import show_example, token_splitter
from harness.testing import tiny_tokenizer
from tests.run_fixtures import sample_row

TEXTS = ["the cat sat", "naïve Grüße 漢字 🙂 end", "", " two  spaces\n"]


@pytest.fixture
def split(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return token_splitter(tmp_path)


@pytest.mark.parametrize("text", TEXTS)
def test_the_texts_of_tokens_join_to_the_text(split, text):
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    parts = split(ids)
    assert len(parts) == len(ids)
    assert "".join(parts) == tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("before", "after", "gone", "new"),
    [
        ([5, 6, 7], [5, 9, 7], [1], [1]),
        ([5, 6, 7], [8, 8, 5, 6, 7], [], [0, 1]),  # a trigger in front
        ([5, 6, 7], [5, 6, 7], [], []),
        ([5, 5, 5], [5, 5], [2], []),
    ],
)
def test_what_is_in_one_prompt_alone_is_marked(before, after, gone, new):
    row = sample_row(0, 2.0, 1.0).model_copy(
        update={"clean_prompt_ids": before, "adversarial_prompt_ids": after}
    )
    shown = show_example(row, lambda ids: [f"{token} " for token in ids])
    for pieces, ids, marked in (
        (shown.clean, before, gone),
        (shown.attacked, after, new),
    ):
        assert "".join(piece.text for piece in pieces) == "".join(f"{x} " for x in ids)
        flags = [p.changed for p in pieces for _ in p.text.split()]
        assert [i for i, flag in enumerate(flags) if flag] == marked


def test_without_a_tokenizer_words_are_marked(tmp_path):
    assert token_splitter(tmp_path) is None
    row = sample_row(0, 2.0, 1.0).model_copy(
        update={"clean_text": " a big dog ran", "adversarial_text": " a tiny dog ran"}
    )
    shown = show_example(row)
    marked = [
        [p.text for p in side if p.changed] for side in (shown.clean, shown.attacked)
    ]
    assert marked == [["big "], ["tiny "]]
    assert "".join(p.text for p in shown.clean) == " a big dog ran"


def test_reference_tokens_have_their_losses():
    losses = {
        "clean_token_losses": [1, 2, 3, 4],
        "adversarial_token_losses": [2, 2, 3, 9],
    }
    row = sample_row(0, 2.5, 1.5).model_copy(update=losses)
    shown = show_example(row, lambda ids: [chr(97 + x) for x in ids])
    assert [(t.text, t.clean, t.attacked) for t in shown.reference] == [
        ("a", 1, 2),
        ("b", 2, 2),
        ("c", 3, 3),
        ("d", 4, 9),
    ]
